"""Image lists in OpenOOD's layout: a text file with a path and a label on each line."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from dnm_sklearn.datasets.benchmark import Group, ImageSet
from dnm_sklearn.datasets.folders import words_of

__all__ = ["load_image_list", "names_from_paths", "read_image_list"]

_SHOWN = 3  # missing images that an error names
_FEW = 50  # files of a folder up to which each is asked for


def read_image_list(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    check: bool = True,
    per_class: int = 0,
) -> tuple[list[str], np.ndarray]:
    r"""Read an image list.

    Parameters
    ----------
    path : str or path-like
        Text file; each line is a path below `images`, a space and an integer label (-1: no label).
        Blank lines are left out.
    images : str or path-like
        Folder that the paths are relative to.
    check : bool, default=True
        Whether every image must be there.
    per_class : int, default=0
        Take only so many images of each label, the first in the order of the list; 0 = all. The
        others need not be there.

    Returns
    -------
    paths : list of str
        Image files, in the order of the list.
    labels : ndarray of shape (n,), int
        Labels.

    Raises
    ------
    FileNotFoundError
        If the list, the folder or an image is not there.
    ValueError
        If a line is not "path label", a path is absolute or leaves `images`, or the list is empty.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn.datasets.image_lists import read_image_list
    >>> for name in ("cat.png", "dog.png"):
    ...     Path(name).touch()
    >>> _ = Path("list.txt").write_text("cat.png 0\ndog.png 1\n")
    >>> paths, labels = read_image_list("list.txt", ".")
    >>> paths, labels.tolist()
    (['cat.png', 'dog.png'], [0, 1])
    """
    root = Path(images)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such image list; check the path.")
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder, which the paths in {path} are relative to."
        )

    paths: list[str] = []
    labels: list[int] = []
    n_of_label: Counter[int] = Counter()
    text = Path(path).read_text(encoding="utf-8-sig")  # also of a file with a byte order mark

    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, label = _split_line(f"{path}, line {number}", line)
        n_of_label[label] += 1
        if per_class and n_of_label[label] > per_class:
            continue
        paths.append(str(root / name))
        labels.append(label)

    if not paths:
        raise ValueError(f"{path} lists no image.")

    missing = _missing(paths) if check else []
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images in {path} are not on disk (first: "
            f"{', '.join(missing[:_SHOWN])}); download the rest, or check the folder {root}."
        )

    return paths, np.asarray(labels, dtype=np.int64)


def _split_line(place: str, line: str) -> tuple[str, int]:
    """Path and label of a line; `place` names it in errors."""
    name, _, label = line.strip().rpartition(" ")  # the path may hold spaces, the label none
    try:
        index = int(label)
    except ValueError:
        raise ValueError(f"{place}: not 'path label' with an integer label: {line!r}.") from None

    name = name.strip()
    # Path() is slow for a million lines; few names hold "..".
    leaves_folder = ".." in name and ".." in Path(name).parts
    if not name or os.path.isabs(name) or leaves_folder:
        raise ValueError(f"{place}: {name!r} is not a path below the folder of images.")

    return name, index


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


def load_image_list(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    name: str | None = None,
    group: Group = "far",
) -> ImageSet:
    """Make an image set from a list.

    Parameters
    ----------
    path : str or path-like
        See :func:`read_image_list`.
    images : str or path-like
        Folder that the paths are relative to.
    name : str, optional
        Name of the set; default: the list's file name without "test" and ending.
    group : {"id", "near", "far", "sanity"}, default="far"
        Role in the benchmark; an "id" set keeps its labels.

    Returns
    -------
    ImageSet
        Of paths.

    Raises
    ------
    FileNotFoundError, ValueError
        See :func:`read_image_list`; also if an "id" set has a negative label.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn.datasets.image_lists import load_image_list
    >>> Path("owl.png").touch()
    >>> _ = Path("test_birds.txt").write_text("owl.png -1")
    >>> load_image_list("test_birds.txt", ".")
    ImageSet('birds', far, 1 images)
    """
    paths, labels = read_image_list(path, images)
    if group == "id" and labels.min() < 0:
        raise ValueError(
            f"{path}: an ID image has a negative label ({labels.min()}); ID labels are class "
            "indices."
        )

    stem = name or Path(path).stem.removeprefix("test_")
    return ImageSet(stem, paths, group, labels=labels if group == "id" else None)


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

    missing = [label for label in range(max(folder_of) + 1) if label not in folder_of]
    if missing or min(folder_of) < 0:
        raise ValueError(
            "Labels must be 0 to K - 1, each with an image; missing or negative: "
            f"{missing or min(folder_of)}."
        )

    return [words_of(folder_of[label]) for label in sorted(folder_of)]
