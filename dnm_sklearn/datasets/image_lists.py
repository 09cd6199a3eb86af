"""Image lists in OpenOOD's layout: a text file with a path and a label on each line."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from dnm_sklearn.datasets.benchmark import Group, ImageSet

_SHOWN = 3
_FEW = 50  # files of a folder up to which each is asked for


def read_image_list(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    check: bool = True,
    per_class: int = 0,
) -> tuple[list[str], np.ndarray]:
    """Read an image list.

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
    >>> from dnm_sklearn.datasets import read_image_list
    >>> read_image_list("benchmark_imglist/cifar10/test_cifar10.txt", "images_classic")  # doctest: +SKIP
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
    taken: Counter[int] = Counter()
    text = Path(path).read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        try:
            index = int(label)
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: not 'path label' with an integer label: {line!r}."
            ) from None
        name = name.strip()
        if not name or os.path.isabs(name) or (".." in name and ".." in Path(name).parts):
            raise ValueError(
                f"{path}, line {number}: {name!r} is not a path below the folder of images."
            )
        taken[index] += 1
        if per_class and taken[index] > per_class:
            continue
        paths.append(str(root / name))
        labels.append(index)
    if not paths:
        raise ValueError(f"{path} lists no image.")
    if check:
        missing = _missing(paths)
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(paths)} images in {path} are not on disk (first: "
                f"{', '.join(missing[:_SHOWN])}); download the rest, or check the folder {root}."
            )
    return paths, np.asarray(labels, dtype=np.int64)


def _missing(paths: list[str]) -> list[str]:
    """Which of the files are not there; a folder that holds many of them is read once instead of asked for each."""
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        wanted[os.path.dirname(path)].append(path)
    absent: set[str] = set()
    for folder, files in wanted.items():
        there: set[str] = set()
        if len(files) > _FEW and os.path.isdir(folder):
            with os.scandir(folder) as entries:
                there = {os.path.join(folder, entry.name) for entry in entries if entry.is_file()}
        absent.update(path for path in files if path not in there and not os.path.isfile(path))
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
    >>> from dnm_sklearn.datasets import load_image_list
    >>> load_image_list("benchmark_imglist/imagenet/test_ninco.txt", "images_largescale")  # doctest: +SKIP
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
    """Class names of a list whose images lie in one folder a class.

    Parameters
    ----------
    paths : list of str
        Image files.
    labels : ndarray of shape (n,), int
        Class index of each, 0 to K - 1.

    Returns
    -------
    list of str
        Name of the folder of each label's images, underscores read as spaces.

    Raises
    ------
    ValueError
        If the images of a label lie in several folders, or a label has no image.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.datasets.image_lists import names_from_paths
    >>> names_from_paths(["c/sea_lion/1.png", "c/cat/2.png"], np.array([1, 0]))
    ['cat', 'sea lion']
    """
    found: dict[int, str] = {}
    for path, label in zip(paths, labels.tolist(), strict=True):
        folder = Path(path).parent.name
        if found.setdefault(label, folder) != folder:
            raise ValueError(
                f"The images of label {label} lie in several folders ({found[label]!r}, "
                f"{folder!r}), so that their class has no name; give the class names in a file."
            )
    missing = [label for label in range(max(found) + 1) if label not in found]
    if missing or min(found) < 0:
        raise ValueError(
            "Labels must be 0 to K - 1, each with an image; missing or negative: "
            f"{missing or min(found)}."
        )
    return [found[label].replace("_", " ").strip() for label in sorted(found)]
