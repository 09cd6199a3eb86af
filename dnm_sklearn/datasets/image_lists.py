"""Image lists in OpenOOD's layout: a text file with a path and a label on each line."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.untrusted_files import read_text, split_lines, stays_below
from dnm_sklearn.datasets.folders import words_of
from dnm_sklearn.exceptions import FileContentError

_SHOWN = 3  # missing images that an error names
_FEW = 50  # files of a folder up to which each is asked for

# No data set has more classes than nine digits count.
_LABEL = re.compile("[+-]?[0-9]{1,9}")
# What `stays_below` may refuse: a step up, Windows's drives and folders, a NUL.
_SUSPECT = re.compile(r"\.\.|[\\:\0]")


def read_image_list(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    per_class: int = 0,
) -> tuple[list[str], np.ndarray]:
    """Read an image list: paths of the images, and their labels (n,).

    Each line is a path below the folder `images`, a space and an integer label (-1: no label).
    Every image must be there; of an absolute path, and of one that leaves the folder (by a link
    too), a FileContentError tells. Of each label the first `per_class` images are taken, 0 = all;
    the others need not be there.
    """
    path, root = user_path(path), user_path(images)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such image list; check the path.")
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder, which the paths in {path} are relative to."
        )

    paths: list[str] = []
    labels: list[int] = []
    n_of_label: Counter[int] = Counter()
    text = read_text(path)

    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        name, label = _split_line(f"{path}, line {number}", line)
        n_of_label[label] += 1
        if per_class and n_of_label[label] > per_class:
            continue
        paths.append(str(root / name))
        labels.append(label)

    if not paths:
        raise FileContentError(f"{path} lists no image.")

    _check_no_links_out(path, root, paths)
    missing = _missing(paths)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images in {path} are not on disk (first: "
            f"{', '.join(missing[:_SHOWN])}); download the rest, or check the folder {root}."
        )

    return paths, np.asarray(labels, dtype=np.int64)


def _split_line(place: str, line: str) -> tuple[str, int]:
    """Path and label of a line; `place` names it in errors."""
    name, _, label = line.strip().rpartition(" ")  # the path may hold spaces, the label none
    # int() would also read "1_000", and digits of other scripts.
    if not _LABEL.fullmatch(label):
        raise FileContentError(f"{place}: not 'path label' with an integer label: {line!r}.")

    name = name.strip()
    # The full check is slow for a million lines; few names hold what it looks for.
    is_suspect = not name or name.startswith(("/", "\\")) or _SUSPECT.search(name)
    if is_suspect and not stays_below(name):
        raise FileContentError(f"{place}: {name!r} is not a path below the folder of images.")

    return name, int(label)


def _check_no_links_out(path: str | os.PathLike[str], root: Path, paths: list[str]) -> None:
    """Refuse images that lie elsewhere, behind links of the folders or of the files."""
    real_root = os.path.join(os.path.realpath(root), "")
    inside: dict[str, bool] = {}
    for image in paths:
        # Of a million images only few folders are asked, and no link is most of them.
        folder = os.path.dirname(image)
        if folder not in inside:
            inside[folder] = os.path.join(os.path.realpath(folder), "").startswith(real_root)
        is_inside = inside[folder]
        if is_inside and os.path.islink(image):
            is_inside = os.path.realpath(image).startswith(real_root)
        if not is_inside:
            raise FileContentError(
                f"{path}: the image {image!r} lies outside of {root}, behind a link; put the image "
                "itself there."
            )


def _missing(paths: list[str]) -> list[str]:
    """Which of the files do not exist, in the same order."""
    paths_in: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        paths_in[os.path.dirname(path)].append(path)

    absent: set[str] = set()
    for folder, wanted in paths_in.items():
        # To read a folder once is faster than to ask for each of many files in it.
        listed: set[str] = set()
        if len(wanted) > _FEW and os.path.isdir(folder):
            with os.scandir(folder) as entries:
                listed = {os.path.join(folder, entry.name) for entry in entries if entry.is_file()}
        absent.update(path for path in wanted if path not in listed and not os.path.isfile(path))

    return [path for path in paths if path in absent]


def names_from_paths(paths: list[str], labels: np.ndarray) -> list[str]:
    """Class names of a list whose images lie in one folder per class: the folders' names.

    Labels are 0 to K - 1, each with an image.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.datasets.image_lists import names_from_paths
    >>> names_from_paths(["c/sea_lion/1.png", "c/cat/2.png"], np.array([1, 0]))
    ['cat', 'sea lion']
    """
    folder_of: dict[int, str] = {}
    for path, label in zip(paths, labels.tolist(), strict=True):
        folder = Path(path).parent.name
        if folder_of.setdefault(label, folder) != folder:
            raise ValueError(
                f"The images of label {label} lie in several folders ({folder_of[label]!r}, "
                f"{folder!r}), so that their class has no name; give the class names in a file."
            )

    # Up to the first gap only: a label of a damaged list may be a thousand million.
    missing = [label for label in range(len(folder_of)) if label not in folder_of]
    if missing or min(folder_of) < 0:
        raise ValueError(
            "Labels must be 0 to K - 1, each with an image; missing or negative: "
            f"{missing or min(folder_of)}."
        )

    return [words_of(folder_of[label]) for label in sorted(folder_of)]
