"""What ``y`` may be held in: a list, an array, a tensor, a column of any library."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from dnm_sklearn._utils.names import check_is_list, raise_why_no_names


def read_y(y: Any) -> list[str] | np.ndarray | None:
    """Read `y` of any container: strings as a list, numbers as an array (n,), bool if all are bool.

    Anything else is an error: a `y` that is not understood is never passed over.

    Examples
    --------
    >>> from dnm_sklearn._utils.y_column import read_y
    >>> read_y(("cat", "ood")), read_y([[0], [1]]).tolist()
    (['cat', 'ood'], [0.0, 1.0])
    """
    if y is None:
        return None
    check_is_list("y", y)
    if isinstance(y, Mapping):
        raise_why_no_names("y", y)

    values = _as_array(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # a table of one column
    if values.ndim != 1:
        raise ValueError(f"y must be 1-D, one entry per row, got shape {values.shape}.")
    if values.dtype.kind in "biuf":
        return _without_missing(values)
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported: y holds complex numbers.")
    if values.dtype.kind not in "OUT":
        raise_why_no_names("y", values)
        raise _unknown_kind(f"has dtype {values.dtype}")

    # Scalars of numpy and torch as those of Python.
    entries = [entry.item() if getattr(entry, "ndim", -1) == 0 else entry for entry in values]
    if not entries:
        return np.empty(0)
    kinds = {type(entry) for entry in entries}
    if all(issubclass(kind, str) for kind in kinds):
        return [str(entry) for entry in entries]
    for row, entry in enumerate(entries):
        if is_missing(entry):
            raise _missing_label(row, entry)

    if kinds == {bool}:
        return np.array(entries, dtype=bool)
    if all(issubclass(kind, (int, float)) for kind in kinds):
        return _without_missing(np.array(entries, dtype=float))
    raise_why_no_names("y", entries)  # of strings among others, and of bytes
    odd = next(i for i, entry in enumerate(entries) if not isinstance(entry, (int, float)))
    raise _unknown_kind(f"[{odd}] is {entries[odd]!r} of type {type(entries[odd]).__name__}")


def _as_array(y: Any) -> np.ndarray:
    """Array of the entries of `y`, of dtype object unless it is an array or a column of numbers."""
    if hasattr(y, "detach"):  # a torch tensor, of any device
        return np.asarray(y.detach().cpu().tolist())
    if isinstance(y, np.ndarray):
        return y
    if hasattr(y, "__array__"):
        return np.asarray(y)
    # Of a mixed list numpy would make strings of everything in it.
    return np.asarray(list(y) if hasattr(y, "__iter__") else y, dtype=object)


def _without_missing(values: np.ndarray) -> np.ndarray:
    """Numbers, all of them finite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise _missing_label(row, float(values[row]))
    return values


def is_missing(x: Any) -> bool:
    """Tell what stands for nothing in a column: None, NaN, and pandas's NA and NaT."""
    if x is None or type(x).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(x, numbers.Real) and bool(x != x)


def _missing_label(row: int, value: Any) -> ValueError:
    return ValueError(
        f"y[{row}] is {value!r}, but y must say of every row what it is: a class name or the "
        "ood_label, or 0 (ID) or 1 (OOD). Leave rows without a label out of X and y."
    )


def _unknown_kind(what: str) -> ValueError:
    separator = "" if what.startswith("[") else " "
    return ValueError(
        f"y{separator}{what}: it must hold class names and the ood_label, bool (True = OOD), or "
        "numbers (0 = ID, 1 = OOD; class indices with -1 = OOD)."
    )
