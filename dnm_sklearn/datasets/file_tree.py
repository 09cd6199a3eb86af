"""Walking through folders of images: what lies there, in order, each folder once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dnm_sklearn._utils.image_formats import IMAGE_SUFFIXES
from dnm_sklearn._utils.warnings import warn

# Files that systems put into folders by themselves.
_OF_SYSTEMS = ("desktop.ini", "thumbs.db")


class LeftOut:
    """What a search for images passed over."""

    def __init__(self) -> None:
        self.n_files: Counter[str] = Counter()  # by their endings
        self.unreadable: list[str] = []  # folders

    def add(self, name: str) -> None:
        """Count a file."""
        if name.lower() not in _OF_SYSTEMS:
            self.n_files[os.path.splitext(name)[1].lower() or "without an ending"] += 1

    def __str__(self) -> str:
        said = []
        if self.n_files:
            kinds = ", ".join(f"{n} {ending}" for ending, n in self.n_files.most_common(9))
            n = self.n_files.total()
            said.append(
                f"{n} {'file is' if n == 1 else 'files are'} left out ({kinds}), whose names are "
                "not those of images, or which are beside the folders of the classes"
            )
        if self.n_files.keys() & set(IMAGE_SUFFIXES):
            said.append("HEIC and HEIF are read where pillow-heif is installed")
        if self.unreadable:
            said.append(
                f"folders that cannot be read: {len(self.unreadable)}, first {self.unreadable[0]}"
            )
        return "; ".join(said)

    def warn(self, root: Path) -> None:
        """Say it, if there is anything to say."""
        if str(self):
            warn(f"{root}: {self}.")


def files_below(prefix: str, endings: tuple[str, ...], left_out: LeftOut) -> Iterator[str]:
    """Yield the images below a folder in the order of the parts of their paths.

    `prefix` is the folder's path with its separator, or "" for the current folder.
    """
    # By hand, not by recursion: folders may lie in each other more deeply than Python calls.
    seen: set[tuple[int, int]] = set()
    waiting = [(prefix, iter(_unseen_entries(prefix, seen)))]
    while waiting:
        folder, entries = waiting[-1]
        name, is_folder = next(entries, ("", False))
        if not name:
            waiting.pop()
        elif is_folder:
            below = os.path.join(folder + name, "")
            try:
                waiting.append((below, iter(_unseen_entries(below, seen))))
            except OSError:
                left_out.unreadable.append(below)
        elif name.lower().endswith(endings):
            yield folder + name
        else:
            left_out.add(name)


def _unseen_entries(prefix: str, seen: set[tuple[int, int]]) -> list[tuple[str, bool]]:
    """Entries of a folder met for the first time, else none: links may run in circles."""
    status = os.stat(prefix or ".")
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return []
    seen.add(identity)
    return entries_of(prefix or ".")


def entries_of(folder: str | os.PathLike[str]) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, hidden ones left out, and which of them are folders."""
    # scandir says of each name whether it is a folder, so that no file is asked for: a tree of a
    # million images takes seconds.
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link to itself, or into a place that may not be looked at.
    try:
        return entry.is_dir()
    except OSError:
        return False
