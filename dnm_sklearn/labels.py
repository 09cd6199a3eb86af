"""Where class names come from, and what ``y`` says about each row (pure functions).

The rule, in this order: the ``classes`` parameter; ``y`` if it holds strings; ``X`` if it is a
one-dimensional sequence of strings and neither of the others gave names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True)
class ResolvedLabels:
    """What ``fit`` learned from ``X``, ``y`` and ``classes``.

    Attributes
    ----------
    class_names : list of str
        The K unique ID class names, in order.
    prompts : list of list of str
        For each class the texts that stand for it (the name itself, its synonyms, or templates with ``{}``).
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
    >>> from dnm_sklearn.labels import is_string_sequence
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
    >>> from dnm_sklearn.labels import unique_names
    >>> unique_names(["cat", " dog ", "cat"])
    ['cat', 'dog']
    """
    seen: dict[str, None] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"Class name {i} is {name!r} ({type(name).__name__}); class names must be strings.")
        stripped = name.strip()
        if not stripped:
            raise ValueError(f"Class name {i} is empty; remove it or give the class a name.")
        seen.setdefault(str(stripped), None)
    return list(seen)


def _from_classes(classes: Any) -> tuple[list[str], list[list[str]]]:
    if isinstance(classes, str):
        raise ValueError(f"classes={classes!r} is one string; give a list of names, e.g. classes=[{classes!r}].")
    if not isinstance(classes, Mapping):
        names = unique_names(classes)
        return names, [[name] for name in names]
    names, prompts = [], []
    for name, variants in classes.items():
        (key,) = unique_names([name])
        if key in names:
            raise ValueError(f"classes has two entries for {key!r} (names are stripped); join them into one.")
        texts = [variants] if isinstance(variants, str) else list(variants)
        names.append(key)
        prompts.append(unique_names(texts) if texts else [key])
    return names, prompts


def _refuse_image_paths(names: Sequence[str]) -> None:
    paths = [name for name in names if name.strip().lower().endswith(_IMAGE_SUFFIXES)]
    if paths:
        raise ValueError(
            f"{paths[0]!r} looks like the path of an image, not a class name ({len(paths)} such of {len(names)}). "
            "Give the class names as `classes=[...]` in the constructor, or as y: fit(X=paths, y=names_of_rows)."
        )


def _index_of(values: Sequence[str], names: Sequence[str], ood_label: str) -> np.ndarray:
    position = {name: i for i, name in enumerate(names)}
    position[ood_label] = -1
    try:
        return np.array([position[v] for v in values], dtype=int)
    except KeyError as error:
        name = error.args[0]
        close = get_close_matches(name, list(position), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"y holds {name!r}, which is neither one of the {len(names)} classes nor the ood_label "
            f"{ood_label!r}{hint} Add it to `classes`, or mark such rows with the ood_label."
        ) from None


def row_is_ood(y: Any, ood_label: str = "ood", n_classes: int | None = None) -> np.ndarray | None:
    """Read which rows `y` marks as OOD.

    Parameters
    ----------
    y : array-like of shape (n,)
        Strings (class names or `ood_label`), bool or numbers in {0, 1} (1 = OOD), or, with `n_classes`
        given, class indices in ``0..n_classes - 1`` (all ID).
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
    >>> from dnm_sklearn.labels import row_is_ood
    >>> row_is_ood(["cat", "ood"]).tolist(), row_is_ood([0, 1]).tolist()
    ([False, True], [False, True])
    """
    if is_string_sequence(y):
        return np.array([v.strip() == ood_label for v in y], dtype=bool)
    values = np.asarray(y)
    if values.dtype.kind == "b":
        return values.ravel().astype(bool)
    if values.dtype.kind not in "iuf" or values.size == 0:
        return None
    unique = set(np.unique(values).tolist())
    if unique <= {0, 1}:
        return values.ravel() == 1
    if unique <= {-1, 1}:
        raise ValueError(
            "y holds -1 and +1, scikit-learn's outlier coding (-1 = outlier); here 0 = ID and 1 = OOD. "
            "Map it with y = (y == -1).astype(int)."
        )
    if n_classes is not None and all(float(v).is_integer() and 0 <= v < n_classes for v in unique):
        return np.zeros(values.size, dtype=bool)
    return None


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
    >>> from dnm_sklearn.labels import resolve_labels
    >>> resolve_labels(["cat", "dog", "cat"], None, None).class_names
    ['cat', 'dog']
    """
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
            raise ValueError(
                "No class names: give them as `classes=[...]` in the constructor, as strings in y, "
                "or fit on the names alone: fit(['cat', 'dog'])."
            )
        prompts = [[name] for name in names]
    if ood_label in names:
        raise ValueError(
            f"{ood_label!r} is a class name and the ood_label; choose another ood_label=, e.g. 'out-of-distribution'."
        )
    if not names:
        raise ValueError(f"No class names: y holds only the ood_label {ood_label!r}. Give `classes=[...]`.")
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
        numbers = np.asarray(values).ravel()
        if numbers.dtype.kind != "b" and numbers.max(initial=0) > 1:
            class_index = numbers.astype(int)
    return ResolvedLabels(names, prompts, images, is_ood, class_index)


def _length(values: Any) -> int:
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) > 0:
        return int(shape[0])
    return len(values if hasattr(values, "__len__") else np.asarray(values))
