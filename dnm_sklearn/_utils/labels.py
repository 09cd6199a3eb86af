"""One reading of ``y`` and of where class names come from, for fit, splitters and scorers.

Class names come, in this order, from the ``classes`` parameter; from ``y`` if it holds strings;
from ``X`` if it is a one-dimensional sequence of strings and neither of the others gave names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.names import (
    check_is_list,
    check_not_image_paths,
    distinct,
    is_string_sequence,
    raise_why_no_names,
    strip_names,
    unique_names,
)
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn._utils.y_column import read_y


@dataclass(frozen=True)
class ResolvedLabels:
    """What ``fit`` learned from ``X``, ``y`` and ``classes``."""

    class_names: list[str]  # the K unique ID class names, in order
    # For each class the texts that stand for it (the name itself, its synonyms, or templates with
    # ``{}``).
    prompts: list[list[str]]
    images: Any  # ``X``, unless it held the names
    is_ood: np.ndarray | None  # rows known to be OOD; None if ``y`` said nothing of it
    # Index into ``class_names`` for each row (-1 for OOD rows); None if unknown.
    class_index: np.ndarray | None
    # Whether `y` was numbers in {0, 1}: read as ID and OOD, but perhaps meant as class indices.
    is_zero_or_one: bool = False

    def take(self, rows: np.ndarray) -> ResolvedLabels:
        """Keep what is known of the rows of a bool mask (the images themselves are dropped)."""
        is_ood = None if self.is_ood is None else self.is_ood[rows]
        class_index = None if self.class_index is None else self.class_index[rows]
        return replace(self, images=None, is_ood=is_ood, class_index=class_index)

    def merge(self, first: np.ndarray) -> ResolvedLabels:
        """Make one class of several: `first` (K,) has the index of each class's first double."""
        kept, position = np.unique(first, return_inverse=True)
        class_index = self.class_index
        if class_index is not None:
            class_index = np.where(class_index < 0, -1, position[class_index])
        return replace(
            self,
            class_names=[self.class_names[i] for i in kept],
            prompts=[self.prompts[i] for i in kept],
            class_index=class_index,
        )


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
    labels = read_y(y)
    images = X

    # Position of each entry of `classes`, where names may repeat, among the distinct names.
    position = None
    if classes is not None:
        names, prompts, position = _names_from_classes(classes)
    elif isinstance(labels, list):
        names = [name for name in unique_names(labels, "y") if name != ood_label]
        prompts = [[name] for name in names]
        if X is None:
            check_not_image_paths(names)
            labels = None
    elif is_string_sequence(X):
        check_not_image_paths(list(X))
        names = unique_names(X, "X")
        prompts = [[name] for name in names]
        images = None
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
    if images is None and labels is not None:
        raise ValueError(
            "y labels the rows of X, and there are no images in X: leave y out, or give the images "
            "as X and the class names as `classes=[...]` in the constructor."
        )

    if images is None or labels is None:
        return ResolvedLabels(names, prompts, images, None, None)

    n_rows = _length(images)
    if n_rows != len(labels):
        raise ValueError(
            f"X has {n_rows} rows and y has {len(labels)} entries; y labels the rows of X. To give "
            "class names beside unlabelled images use `classes=[...]` in the constructor."
        )
    if isinstance(labels, list):
        index = _index_of(labels, names, ood_label)
        return ResolvedLabels(names, prompts, images, index < 0, index)

    # Only the parameter fixes which class an index means; names out of y depend on its rows.
    assert position is not None
    is_ood = _is_ood_of_numbers(labels, n_classes=len(position))
    if is_ood is None and len(labels):
        _warn_without_reading(labels, len(position))

    class_index = None
    if is_ood is not None and _are_class_indices(labels):
        class_index = np.where(is_ood, -1, position[labels.astype(int)])
    is_zero_or_one = is_ood is not None and class_index is None and labels.dtype.kind != "b"
    return ResolvedLabels(names, prompts, images, is_ood, class_index, is_zero_or_one)


def row_is_ood(y: Any, ood_label: str = "ood") -> np.ndarray | None:
    """Read which rows `y` marks as OOD: bool of shape (n,), or None if it says nothing of OOD.

    Strings are class names or `ood_label`; bool, and numbers in {0, 1}, mean 1 = OOD; of integers
    with -1 among them, the others not negative, -1 = OOD. A table of one column is that column.
    scikit-learn's outlier coding -1 / +1, of the opposite sign, other negative numbers and missing
    labels are errors.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import row_is_ood
    >>> row_is_ood(["cat", " ood "]).tolist(), row_is_ood([0, 1]).tolist()
    ([False, True], [False, True])
    """
    labels = read_y(y)
    if labels is None:
        return None
    if isinstance(labels, list):
        return np.array([label.strip() == ood_label for label in labels], dtype=bool)
    return _is_ood_of_numbers(labels)


def from_outlier_coding(y: Any) -> Any:
    """Read scikit-learn's outlier coding (-1 = OOD, +1 = ID) as bool, True = OOD; any other as is.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import from_outlier_coding
    >>> from_outlier_coding([1, -1]).tolist(), from_outlier_coding([0, 1])
    ([False, True], [0, 1])
    """
    labels = read_y(y)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind == "b" or not len(labels):
        return y
    return labels == -1 if np.isin(labels, (-1, 1)).all() else y


def turned_labels(y: Any, ood_label: str, *, greater: str) -> str:
    """Say why scikit-learn's scoring strings read a `y` the wrong way round; "" where they do not.

    They know no ``ood_label``: of two labels they take the greater for the one that scores higher.
    `greater` says which that must be, "ood" or "id". Of strings that name one class and no OOD row
    nothing is said, but a warning is given: the rows that are scored may hold both.

    Examples
    --------
    >>> from dnm_sklearn._utils.labels import turned_labels
    >>> turned_labels(["cat", "ood"], "ood", greater="ood")
    ''
    >>> turned_labels([0, 1], "ood", greater="id")[:35]
    'The greater label in y means OOD, a'
    """
    is_greater = _greater_is_ood(y, ood_label)
    if is_greater is None or is_greater == (greater == "ood"):
        return ""

    label, scored = ("OOD", "ID") if is_greater else ("ID", "OOD")
    reason = (
        f"The greater label in y means {label}, and this estimator scores {scored} images higher, "
        'so that scoring="roc_auc" and its like, which know no ood_label, would come out the wrong '
        "way round"
    )
    if isinstance(read_y(y), list) and not np.any(row_is_ood(y, ood_label)):
        warn(f"{reason} where scored rows are OOD: use dnm_sklearn.metrics.auroc_scorer.")
        return ""
    return reason


def _greater_is_ood(y: Any, ood_label: str) -> bool | None:
    """Of a `y` with at most one ID label, whether the OOD label is greater; None of any other."""
    labels = read_y(y)
    if labels is None or not len(labels):
        return None
    if isinstance(labels, list):
        names = {label.strip() for label in labels} - {ood_label}
        return ood_label > names.pop() if len(names) == 1 else None
    if labels.dtype.kind == "b" or np.isin(labels, (0, 1)).all():
        return True
    # Beside -1 = OOD one class index, which is greater.
    values = np.unique(labels)
    return False if values[0] == -1 and len(values) == 2 else None


def _is_ood_of_numbers(values: np.ndarray, n_classes: int | None = None) -> np.ndarray | None:
    """Rows that numbers mark as OOD, or None where they have no reading.

    `n_classes`: how many classes an index may mean; None where that is not known.
    """
    if values.dtype.kind == "b":
        return values
    if values.size == 0:
        return None

    unique = np.unique(values)
    if np.isin(unique, (0, 1)).all():
        return values == 1
    if np.isin(unique, (-1, 1)).all():
        raise ValueError(
            "y holds -1 and +1, scikit-learn's outlier coding (-1 = outlier), but y must be 0/1 "
            "here, with 1 = OOD: pass y == -1, or set y = (y == -1).astype(int). "
            "SklearnOutlierAdapter takes it as it is."
        )

    # -1 is OOD in the image lists of OpenOOD and in pytorch-ood. No other negative number has a
    # meaning, and neither -1 nor they come by accident.
    no_index = unique[(unique < -1) | (unique % 1 != 0)]
    if n_classes is not None:
        no_index = np.union1d(no_index, unique[unique >= n_classes])
    if unique[0] < 0 and len(no_index):
        raise ValueError(
            f"y holds {_shown(no_index)}: beside -1 = OOD only class indices may stand"
            f"{'' if n_classes is None else f', 0..{n_classes - 1}'}. Give class names and the "
            "ood_label, or bool (True = OOD)."
        )

    if unique[0] < 0:
        return values == -1
    if n_classes is None or len(no_index):
        return None
    return np.zeros(values.size, dtype=bool)


def _are_class_indices(values: np.ndarray) -> bool:
    """Whether numbers that have a reading are class indices: those in {0, 1} say ID or OOD."""
    if values.dtype.kind == "b":
        return False
    return bool(values.size and (values.max() > 1 or values.min() < 0))


def _warn_without_reading(values: np.ndarray, n_classes: int) -> None:
    """Say that y is not used. No error: scikit-learn's checks fit outlier detectors on any y."""
    unique = np.unique(values)
    no_index = unique[(unique % 1 != 0) | (unique >= n_classes)]
    warn(
        f"y is not used: it holds {_shown(no_index)}, and numbers must be 0 = ID and 1 = OOD, or "
        f"indices of the {n_classes} classes, 0..{n_classes - 1} (-1 = OOD). Give class names and "
        "the ood_label, or bool (True = OOD)."
    )


def _shown(values: np.ndarray) -> str:
    """The first few numbers for a message."""
    listed = ", ".join(f"{value:g}" for value in values[:5].tolist())
    return listed + (", ..." if len(values) > 5 else "")


def _names_from_classes(classes: Any) -> tuple[list[str], list[list[str]], np.ndarray]:
    """Class names of the parameter, for each the texts that stand for it, and where entries went.

    The last is the index of each entry of `classes` among the names: an index in y counts entries,
    also those that repeat a name, as two of open_clip's thousand names of ImageNet do.
    """
    check_is_list("classes", classes)
    if len(classes) == 0:
        raise ValueError(
            "No class names: classes is empty. Give at least one name, or None to take them from "
            "y or X."
        )
    if not isinstance(classes, Mapping):
        names, index = distinct(strip_names(classes, "classes"))
        return names, [[name] for name in names], index

    prompts_of: dict[str, list[str]] = {}
    for raw, variants in classes.items():
        (name,) = unique_names([raw], "The names in classes")
        if name in prompts_of:
            raise ValueError(
                f"classes has two entries for {name!r} (names are stripped); join them into one."
            )
        texts = [variants] if isinstance(variants, str) else list(variants)
        prompts_of[name] = unique_names(texts, f"classes[{name!r}]") if texts else [name]

    return list(prompts_of), list(prompts_of.values()), np.arange(len(prompts_of))


def _index_of(labels: Sequence[str], names: Sequence[str], ood_label: str) -> np.ndarray:
    """Position of each label among the names, -1 for the ood_label."""
    position = {name: i for i, name in enumerate(names)}
    position[ood_label] = -1
    labels = [label.strip() for label in labels]
    for label in labels:
        if label not in position:
            hint = did_you_mean(label, position, n=1, cutoff=0.6)
            raise ValueError(
                f"y holds {label!r}, which is neither one of the {len(names)} classes nor the "
                f"ood_label {ood_label!r}.{hint} Add it to `classes`, or mark such rows with the "
                "ood_label."
            )

    return np.array([position[label] for label in labels], dtype=int)


def _length(values: Any) -> int:
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) > 0:
        return int(shape[0])
    return len(values if hasattr(values, "__len__") else np.asarray(values))
