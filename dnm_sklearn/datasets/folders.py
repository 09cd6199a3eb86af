"""Folders of images: what lies there, in order, each folder once; classes as folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dnm_sklearn._utils.image_formats import IMAGE_SUFFIXES, readable_suffixes
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.warnings import warn

# How data sets number the folders of their classes.
_NUMBER = re.compile(r"^\d{3}\.")
# Files that systems put into folders by themselves.
_OF_SYSTEMS = ("desktop.ini", "thumbs.db")


def list_images(
    folder: str | os.PathLike[str], *, extensions: Sequence[str] | None = None
) -> list[str]:
    """Image files below a folder.

    Parameters
    ----------
    folder : str or path-like
        Searched with all its subfolders, linked ones too, each once; hidden files and folders are
        left out.
    extensions : sequence of str, optional
        Endings that count, in lower case with the dot. By default those of all formats that are
        read; a warning then says how many other files are left out.

    Returns
    -------
    list of str
        Paths, sorted by their path below `folder`, the same on every machine.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no image.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn.datasets import list_images
    >>> Path("photos/trip").mkdir(parents=True)
    >>> for name in ("a.jpg", "trip/b.png", "notes.txt"):
    ...     Path("photos", name).touch()
    >>> [Path(image).as_posix() for image in list_images("photos")]
    ['photos/a.jpg', 'photos/trip/b.png']
    """
    root = existing_folder(folder)
    left_out = LeftOut()
    if extensions is not None:
        return _some_images(root, tuple(e.lower() for e in extensions), 0, left_out)

    images = _some_images(root, readable_suffixes(), 0, left_out)
    left_out.warn(root)
    return images


def list_class_folders(
    folder: str | os.PathLike[str], *, subfolders: Sequence[str] | None = None, per_class: int = 0
) -> tuple[list[str], np.ndarray, list[str]]:
    """Images in one subfolder per class: paths, labels, and the subfolders that these index.

    `subfolders` are those to read, in the order of the labels; by default all, sorted. Of each
    class the first `per_class` images in the order of their paths are taken; 0 = all.
    """
    root = existing_folder(folder)
    left_out = LeftOut()
    if subfolders is None:
        subfolders = subfolder_names(root)
        # Files beside the folders of the classes are of no class.
        for name, is_folder in entries_of(root):
            if not is_folder:
                left_out.add(name)

    if not subfolders:
        raise ValueError(
            f"{root} holds no subfolder: put the images of each class into a folder of its own."
        )

    paths: list[str] = []
    labels: list[int] = []
    for i, name in enumerate(subfolders):
        where = existing_folder(root / name)
        images = _some_images(where, readable_suffixes(), per_class, left_out)
        paths += images
        labels += [i] * len(images)
    left_out.warn(root)

    return paths, np.asarray(labels), list(subfolders)


def subfolder_names(folder: Path) -> list[str]:
    """Names of a folder's subfolders, sorted; hidden ones are left out."""
    return [name for name, is_folder in entries_of(folder) if is_folder]


def words_of(folder_name: str) -> str:
    """The class name that a folder's name stands for: underscores are spaces.

    Three digits and a dot before it, with which CUB-200 and Caltech-256 number folders, are none of
    it.
    """
    return _NUMBER.sub("", folder_name).replace("_", " ").strip()


def existing_folder(folder: str | os.PathLike[str]) -> Path:
    """Path of a folder of images that is there."""
    path = user_path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of images; check the path.")
    return path


def _some_images(root: Path, endings: tuple[str, ...], limit: int, left_out: LeftOut) -> list[str]:
    """List the images below a folder by their path, up to `limit` of them (0 = all)."""
    prefix = "" if root == Path() else os.path.join(root, "")
    images = list(islice(files_below(prefix, endings, left_out), limit or None))
    if not images:
        more = f" ({left_out})" if str(left_out) else ""
        raise ValueError(
            f"{root} holds no image: looked for {', '.join(endings)} in it and its "
            f"subfolders{more}."
        )

    return images


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
