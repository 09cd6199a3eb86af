"""One reading of ``y`` and of where class names come from, for fit, splitters and scorers.

Class names come, in this order, from the ``classes`` parameter; from ``y`` if it holds strings;
from ``X`` if it is a one-dimensional sequence of strings and neither of the others gave names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.names import (
    check_is_list,
    check_not_image_paths,
    is_string_sequence,
    raise_why_no_names,
    unique_names,
)

__all__ = ["ResolvedLabels", "resolve_labels", "row_is_ood"]


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
        """Keep what is known of the rows of a bool mask (the images themselves are dropped)."""
        is_ood = None if self.is_ood is None else self.is_ood[rows]
        class_index = None if self.class_index is None else self.class_index[rows]
        return ResolvedLabels(self.class_names, self.prompts, None, is_ood, class_index)


def resolve_labels(X: Any, y: Any, classes: Any, ood_label: str = "ood") -> ResolvedLabels:
    """Find the class names, and what is known of each row of X.

    `X`, `y` and `classes` are as in a detector's ``fit`` and constructor; `ood_label` is never a
    class name.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import resolve_labels
    >>> resolve_labels(["cat", "dog", "cat"], None, None).class_names
    ['cat', 'dog']
    """
    y = _column(y)
    images, labels = X, y

    if classes is not None:
        names, prompts = _names_from_classes(classes)
    elif is_string_sequence(y):
        names = [name for name in unique_names(y, "y") if name != ood_label]
        prompts = [[name] for name in names]
        if X is None:
            check_not_image_paths(names)
    elif is_string_sequence(X):
        check_not_image_paths(list(X))
        names = unique_names(X, "X")
        prompts = [[name] for name in names]
        images, labels = None, None
    else:
        raise_why_no_names("y", y)
        raise_why_no_names("X", X)
        raise ValueError(
            "No class names: give them as `classes=[...]` in the constructor, as strings in y, or "
            "fit on the names alone: fit(['cat', 'dog'])."
        )

    if ood_label in names:
        raise ValueError(
            f"{ood_label!r} is a class name and the ood_label; choose another ood_label=, e.g. "
            "'out-of-distribution'."
        )
    if not names:
        raise ValueError(
            f"No class names: y holds only the ood_label {ood_label!r}. Give `classes=[...]`."
        )

    if images is None or labels is None:
        return ResolvedLabels(names, prompts, images, None, None)

    n_rows, n_labels = _length(images), _length(labels)
    if n_rows != n_labels:
        raise ValueError(
            f"X has {n_rows} rows and y has {n_labels} entries; y labels the rows of X. To give "
            "class names beside unlabelled images use `classes=[...]` in the constructor."
        )

    # Only the parameter fixes which class an index means; names out of y depend on its rows.
    is_ood = row_is_ood(labels, ood_label, len(names) if classes is not None else None)
    class_index = _class_index(labels, names, ood_label, is_ood)
    return ResolvedLabels(names, prompts, images, is_ood, class_index)


def row_is_ood(y: Any, ood_label: str = "ood", n_classes: int | None = None) -> np.ndarray | None:
    """Read which rows `y` marks as OOD: bool of shape (n,), or None if it says nothing of OOD.

    Strings are class names or `ood_label`; bool, and numbers in {0, 1}, mean 1 = OOD; with
    `n_classes`, integers in ``0..n_classes - 1`` that include others are class indices, all ID. A
    table of one column is that column. scikit-learn's outlier coding -1 / +1, of the opposite sign,
    and missing labels are errors.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import row_is_ood
    >>> row_is_ood(["cat", " ood "]).tolist(), row_is_ood([0, 1]).tolist()
    ([False, True], [False, True])
    """
    y = _column(y)
    if is_string_sequence(y):
        return np.array([label.strip() == ood_label for label in y], dtype=bool)

    values = _numbers(y)
    if values.ndim != 1:
        raise ValueError(f"y must be 1-D, one entry per row, got shape {values.shape}.")
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind not in "iuf" or values.size == 0:
        return None

    missing = np.isnan(values)
    unique = set(np.unique(values[~missing]).tolist())
    if missing.any() and unique <= {0, 1}:
        raise _missing_label(int(np.flatnonzero(missing)[0]), np.nan)
    if missing.any():
        return None
    if unique <= {0, 1}:
        return values == 1
    if unique <= {-1, 1}:
        raise ValueError(
            "y holds -1 and +1, scikit-learn's outlier coding (-1 = outlier), but y must be 0/1 "
            "here, with 1 = OOD: pass y == -1, or set y = (y == -1).astype(int)."
        )

    integers = all(float(value).is_integer() for value in unique)
    if n_classes is not None and integers and min(unique) >= 0 and max(unique) < n_classes:
        return np.zeros(values.size, dtype=bool)

    return None


def _names_from_classes(classes: Any) -> tuple[list[str], list[list[str]]]:
    """Class names of the parameter, and for each the texts that stand for it."""
    check_is_list("classes", classes)
    if len(classes) == 0:
        raise ValueError(
            "No class names: classes is empty. Give at least one name, or None to take them from "
            "y or X."
        )
    if not isinstance(classes, Mapping):
        names = unique_names(classes, "classes")
        return names, [[name] for name in names]

    prompts_of: dict[str, list[str]] = {}
    for given, variants in classes.items():
        (name,) = unique_names([given], "The names in classes")
        if name in prompts_of:
            raise ValueError(
                f"classes has two entries for {name!r} (names are stripped); join them into one."
            )
        texts = [variants] if isinstance(variants, str) else list(variants)
        prompts_of[name] = unique_names(texts, f"classes[{name!r}]") if texts else [name]

    return list(prompts_of), list(prompts_of.values())


def _class_index(
    labels: Any, names: Sequence[str], ood_label: str, is_ood: np.ndarray | None
) -> np.ndarray | None:
    """Class of each row (-1 = OOD), or None where the labels do not tell it."""
    if is_string_sequence(labels):
        return _index_of([label.strip() for label in labels], names, ood_label)
    if is_ood is None:
        return None

    # Numbers in {0, 1} say ID or OOD; only a greater one shows that they are class indices.
    numbers = _numbers(labels)
    if numbers.dtype.kind == "b" or numbers.max(initial=0) <= 1:
        return None

    return numbers.astype(int)


def _index_of(labels: Sequence[str], names: Sequence[str], ood_label: str) -> np.ndarray:
    """Position of each label among the names, -1 for the ood_label."""
    position = {name: i for i, name in enumerate(names)}
    position[ood_label] = -1
    for label in labels:
        if label not in position:
            hint = did_you_mean(label, position, n=1, cutoff=0.6)
            raise ValueError(
                f"y holds {label!r}, which is neither one of the {len(names)} classes nor the "
                f"ood_label {ood_label!r}.{hint} Add it to `classes`, or mark such rows with the "
                "ood_label."
            )

    return np.array([position[label] for label in labels], dtype=int)


def _numbers(y: Any) -> np.ndarray:
    """Array of `y`, with objects that are numbers (pandas's nullable columns) as numbers.

    Strings among other things are an error: a missing label would else make all others be ignored.
    """
    values = np.asarray(y)
    if values.dtype.kind == "U":  # of a mixed list, numpy makes strings of everything in it
        values = np.asarray(y, dtype=object)

    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported: y holds complex numbers.")
    if values.dtype.kind != "O":
        return values

    entries = values.ravel()
    kinds = {type(entry) for entry in entries}
    if any(issubclass(kind, str) for kind in kinds):
        for row, entry in enumerate(entries):
            if not isinstance(entry, str):
                raise _missing_label(row, entry)
    elif all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return values.astype(bool)
    elif all(issubclass(kind, (int, float, np.number, np.bool_)) for kind in kinds):
        return values.astype(float)

    return values


def _missing_label(row: int, value: Any) -> ValueError:
    return ValueError(
        f"y[{row}] is {value!r}, but y must say of every row what it is: a class name or the "
        "ood_label, or 0 (ID) or 1 (OOD). Leave rows without a label out of X and y."
    )


def _column(y: Any) -> Any:
    """A table of one column (a data frame, an array of shape (n, 1)) as that column."""
    if isinstance(y, (list, tuple)) and len(y) > 0 and isinstance(y[0], (list, tuple)):
        y = np.asarray(y, dtype=object)
    shape: tuple[int, ...] = getattr(y, "shape", ())
    return np.asarray(y).ravel() if len(shape) == 2 and shape[1] == 1 else y


def _length(values: Any) -> int:
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) > 0:
        return int(shape[0])
    return len(values if hasattr(values, "__len__") else np.asarray(values))
