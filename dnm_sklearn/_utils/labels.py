"""Where class names come from, and what ``y`` says about each row (pure functions).

The rule, in this order: the ``classes`` parameter; ``y`` if it holds strings; ``X`` if it is a
one-dimensional sequence of strings and neither of the others gave names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

_IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
)


@dataclass(frozen=True)
class ResolvedLabels:
    """What ``fit`` learned from ``X``, ``y`` and ``classes``.

    Attributes
    ----------
    class_names : list of str
        The K unique ID class names, in order.
    prompts : list of list of str
        For each class the texts that stand for it (the name itself, its synonyms, or templates with
        ``{}``).
    images : object or None
        ``X``, unless it held the names.
    is_ood : ndarray of bool of shape (n,), or None
        Rows known to be OOD; None if ``y`` said nothing of it.
    class_index : ndarray of int of shape (n,), or None
        Index into ``class_names`` for each row (-1 for OOD rows); None if unknown.
    """

    class_names: list[str]
    prompts: list[list[str]]
    images: Any
    is_ood: np.ndarray | None
    class_index: np.ndarray | None

    def take(self, rows: np.ndarray) -> ResolvedLabels:
        """Keep what is known of some rows (the images themselves are dropped).

        Parameters
        ----------
        rows : ndarray of bool of shape (n,)
            Rows to keep.

        Returns
        -------
        ResolvedLabels
        """
        is_ood = None if self.is_ood is None else self.is_ood[rows]
        class_index = None if self.class_index is None else self.class_index[rows]
        return ResolvedLabels(self.class_names, self.prompts, None, is_ood, class_index)


def is_string_sequence(values: Any) -> bool:
    """Whether `values` is a one-dimensional, non-empty sequence of strings.

    Parameters
    ----------
    values : object
        A list, tuple, array or Series.

    Returns
    -------
    bool

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import is_string_sequence
    >>> is_string_sequence(["cat", "dog"]), is_string_sequence([0, 1]), is_string_sequence("cat")
    (True, False, False)
    """
    if values is None or isinstance(values, (str, bytes, Mapping)):
        return False
    if isinstance(values, (list, tuple)):
        return len(values) > 0 and all(isinstance(v, str) for v in values)
    dtype, shape = getattr(values, "dtype", None), getattr(values, "shape", None)
    if dtype is None or shape is None or len(shape) != 1 or shape[0] == 0:
        return False
    if getattr(dtype, "kind", None) == "U":
        return True
    if getattr(dtype, "kind", "O") != "O" and dtype.__class__.__module__.startswith("numpy"):
        return False
    return all(isinstance(v, str) for v in np.asarray(values, dtype=object))


def unique_names(names: Iterable[str]) -> list[str]:
    """Strip names and drop repeated ones, keeping the first of each.

    Parameters
    ----------
    names : iterable of str
        Class names.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a name is not a string or is empty.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import unique_names
    >>> unique_names(["cat", " dog ", "cat"])
    ['cat', 'dog']
    """
    seen: dict[str, None] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(
                f"Class name {i} is {name!r} ({type(name).__name__}); class names must be strings."
            )
        stripped = name.strip()
        if not stripped:
            raise ValueError(f"Class name {i} is empty; remove it or give the class a name.")
        seen.setdefault(str(stripped), None)
    return list(seen)


def _from_classes(classes: Any) -> tuple[list[str], list[list[str]]]:
    _refuse_no_list("classes", classes)
    if len(classes) == 0:
        raise ValueError(
            "No class names: classes is empty. Give at least one name, or None to take them from y "
            "or X."
        )
    if not isinstance(classes, Mapping):
        names = unique_names(classes)
        return names, [[name] for name in names]
    names, prompts = [], []
    for name, variants in classes.items():
        (key,) = unique_names([name])
        if key in names:
            raise ValueError(
                f"classes has two entries for {key!r} (names are stripped); join them into one."
            )
        texts = [variants] if isinstance(variants, str) else list(variants)
        names.append(key)
        prompts.append(unique_names(texts) if texts else [key])
    return names, prompts


def _refuse_no_list(what: str, value: Any) -> None:
    """Raise for what holds one string, or has no order, or can be read once only."""
    if isinstance(value, (str, bytes, os.PathLike)):
        text = os.fsdecode(value)
        if os.path.isdir(text):
            raise ValueError(
                f"{what} is the folder {text!r}; list its images: "
                f"sorted(Path({text!r}).glob('*.jpg'))."
            )
        if not os.path.isfile(text):
            raise ValueError(
                f"{what} is the single string {text!r}; a list of class names is wanted: "
                f"[{text!r}]."
            )
        if text.lower().endswith(_IMAGE_SUFFIXES):
            raise ValueError(
                f"{what} is the path of one image, {text!r}; give images as a list, [{text!r}], "
                "and the class names as `classes=[...]` in the constructor."
            )
        raise ValueError(
            f"{what} is the path of a file, {text!r}; a list of class names is wanted. If it has "
            f"one name a line: Path({text!r}).read_text(encoding='utf-8').splitlines()."
        )
    if isinstance(value, (set, frozenset)):
        raise ValueError(
            f"{what} is a set, whose order differs from run to run: give sorted(...) of it."
        )
    if isinstance(value, Iterator):
        raise ValueError(
            f"{what} is a {type(value).__name__}, which can be read only once: give list(...) of "
            "it."
        )


def _why_no_names(what: str, value: Any) -> None:
    """Raise what can be said of a value that holds no names though it was perhaps meant to."""
    _refuse_no_list(what, value)
    if isinstance(value, Mapping):
        raise ValueError(
            f"{what} is a dict; give it in the constructor: classes={{name: [synonyms], ...}}."
        )
    if isinstance(value, (list, tuple)) and any(isinstance(v, str) for v in value):
        unique_names(value)
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "kind", "") == "S" or (
        isinstance(value, (list, tuple)) and value and type(value[0]) is bytes
    ):
        raise ValueError(
            f"{what} holds bytes; decode them to strings: [name.decode() for name in names]."
        )
    if len(getattr(value, "shape", ())) == 2 and all(
        isinstance(v, str) for v in np.asarray(value, object).ravel()[:9]
    ):
        raise ValueError(
            f"{what} is a table of strings of shape {value.shape}; give the one column that holds "
            "names."
        )


def _refuse_image_paths(names: Sequence[str]) -> None:
    paths = [name for name in names if name.strip().lower().endswith(_IMAGE_SUFFIXES)]
    if paths:
        raise ValueError(
            f"{paths[0]!r} looks like the path of an image, not a class name ({len(paths)} such of "
            f"{len(names)}). Give the class names as `classes=[...]` in the constructor, or as y: "
            "fit(X=paths, y=names_of_rows)."
        )


def _index_of(values: Sequence[str], names: Sequence[str], ood_label: str) -> np.ndarray:
    position = {name: i for i, name in enumerate(names)}
    position[ood_label] = -1
    try:
        return np.array([position[v] for v in values], dtype=int)
    except KeyError as error:
        name = error.args[0]
        close = get_close_matches(name, list(position), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(
            f"y holds {name!r}, which is neither one of the {len(names)} classes nor the ood_label "
            f"{ood_label!r}{hint} Add it to `classes`, or mark such rows with the ood_label."
        ) from None


def row_is_ood(y: Any, ood_label: str = "ood", n_classes: int | None = None) -> np.ndarray | None:
    """Read which rows `y` marks as OOD.

    Parameters
    ----------
    y : array-like of shape (n,)
        Strings (class names or `ood_label`), bool or numbers in {0, 1} (1 = OOD), or, with
        `n_classes` given, class indices in ``0..n_classes - 1`` (all ID).
    ood_label : str, default="ood"
        The string that marks OOD rows.
    n_classes : int, optional
        Number of known classes; allows class indices.

    Returns
    -------
    ndarray of bool of shape (n,), or None
        None for numeric values that say nothing of OOD (they are ignored).

    Raises
    ------
    ValueError
        If `y` holds -1 and +1, scikit-learn's outlier coding, which has the opposite sign.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import row_is_ood
    >>> row_is_ood(["cat", "ood"]).tolist(), row_is_ood([0, 1]).tolist()
    ([False, True], [False, True])
    """
    y = _column(y)
    if is_string_sequence(y):
        return np.array([v.strip() == ood_label for v in y], dtype=bool)
    values = _numbers(y)
    if values.dtype.kind == "b":
        return values.ravel()
    if values.dtype.kind not in "iuf" or values.size == 0:
        return None
    unique = set(np.unique(values).tolist())
    if np.isnan(values).any() and {v for v in unique if v == v} <= {0, 1}:
        raise _missing(int(np.flatnonzero(np.isnan(values))[0]), np.nan)
    if unique <= {0, 1}:
        return values.ravel() == 1
    if unique <= {-1, 1}:
        raise ValueError(
            "y holds -1 and +1, scikit-learn's outlier coding (-1 = outlier); here 0 = ID and 1 = "
            "OOD. Map it with y = (y == -1).astype(int)."
        )
    if n_classes is not None and all(float(v).is_integer() and 0 <= v < n_classes for v in unique):
        return np.zeros(values.size, dtype=bool)
    return None


def _numbers(y: Any) -> np.ndarray:
    """Array of `y`, with objects that are numbers (pandas's nullable columns) as numbers.

    Strings among other things are an error: a missing label would else make all the others be
    ignored.
    """
    values = np.asarray(y)
    if values.dtype.kind == "U":  # of a list, numpy makes strings of everything in it
        values = np.asarray(y, dtype=object)
    if values.dtype.kind != "O":
        return values
    flat = values.ravel()
    kinds = {type(value) for value in flat}
    if any(issubclass(kind, str) for kind in kinds):
        row = next((i for i, value in enumerate(flat) if not isinstance(value, str)), None)
        if row is not None:
            raise _missing(row, flat[row])
    elif all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return values.astype(bool)
    elif all(issubclass(kind, (int, float, np.number, np.bool_)) for kind in kinds):
        return values.astype(float)
    return values


def _missing(row: int, value: Any) -> ValueError:
    return ValueError(
        f"y[{row}] is {value!r}, but y must say of every row what it is: a class name or the "
        "ood_label, or 0 (ID) or 1 (OOD). Leave rows without a label out of X and y."
    )


def _column(y: Any) -> Any:
    """A table of one column (a data frame's) as that column."""
    shape: tuple[int, ...] = getattr(y, "shape", ())
    return np.asarray(y).ravel() if len(shape) == 2 and shape[1] == 1 else y


def resolve_labels(X: Any, y: Any, classes: Any, ood_label: str = "ood") -> ResolvedLabels:
    """Find the class names and what is known of each row.

    Parameters
    ----------
    X : images, embeddings, sequence of str, or None
        Images or embeddings; or the class names when neither `classes` nor `y` gives them.
    y : array-like or None
        See :func:`row_is_ood`; strings name classes.
    classes : list of str, dict or None
        The class names; a dict maps a name to synonyms (put through the detector's prompt) or
        templates (strings with ``{}``), whose embeddings are averaged.
    ood_label : str, default="ood"
        The string in `y` that marks OOD rows; never a class name.

    Returns
    -------
    ResolvedLabels

    Raises
    ------
    ValueError
        If there are no names, if names look like image paths, or if `y` does not fit.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import resolve_labels
    >>> resolve_labels(["cat", "dog", "cat"], None, None).class_names
    ['cat', 'dog']
    """
    y = _column(y)
    images, values = X, y
    strings = [v.strip() for v in y] if is_string_sequence(y) else None
    if classes is not None:
        names, prompts = _from_classes(classes)
    else:
        if strings is not None:
            names = [name for name in unique_names(strings) if name != ood_label]
            if images is None:
                _refuse_image_paths(names)
        elif is_string_sequence(X):
            _refuse_image_paths(list(X))
            names, images, values = unique_names(X), None, None
        else:
            _why_no_names("y", y)
            _why_no_names("X", X)
            raise ValueError(
                "No class names: give them as `classes=[...]` in the constructor, as strings in y, "
                "or fit on the names alone: fit(['cat', 'dog'])."
            )
        prompts = [[name] for name in names]
    if ood_label in names:
        raise ValueError(
            f"{ood_label!r} is a class name and the ood_label; choose another ood_label=, e.g. "
            "'out-of-distribution'."
        )
    if not names:
        raise ValueError(
            f"No class names: y holds only the ood_label {ood_label!r}. Give `classes=[...]`."
        )
    if images is None or values is None:
        return ResolvedLabels(names, prompts, images, None, None)
    n_rows, n_labels = _length(images), _length(values)
    if n_rows != n_labels:
        raise ValueError(
            f"X has {n_rows} rows and y has {n_labels} entries; y labels the rows of X. "
            "To give class names beside unlabelled images use `classes=[...]` in the constructor."
        )
    is_ood = row_is_ood(values, ood_label, len(names) if classes is not None else None)
    class_index = None
    if strings is not None:
        class_index = _index_of(strings, names, ood_label)
    elif is_ood is not None:
        numbers = _numbers(values).ravel()
        if numbers.dtype.kind != "b" and numbers.max(initial=0) > 1:
            class_index = numbers.astype(int)
    return ResolvedLabels(names, prompts, images, is_ood, class_index)


def _length(values: Any) -> int:
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) > 0:
        return int(shape[0])
    return len(values if hasattr(values, "__len__") else np.asarray(values))
