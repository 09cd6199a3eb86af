"""Checks of arrays and numbers that many functions take, and unit rows."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

# Temperatures that scores can be computed with; papers use 0.01 to 1. At smaller ones MCM's
# probabilities are 1 to the last digit for nearly all images, at larger ones all logits are equal.
TEMPERATURES = (1e-4, 1e4)
# A row shorter than this has no direction: it stays (almost) zero when rows are normalised.
_SHORTEST = 1e-12


def check_matrix(name: str, matrix: Any, *, allow_empty: bool = False) -> Any:
    """Return `matrix` as a 2-D numpy array of real numbers; a torch tensor is left as it is."""
    if not hasattr(matrix, "index_select"):  # only torch tensors have it
        matrix = np.asarray(matrix)
        if matrix.dtype.kind not in "fiub":
            raise ValueError(
                f"{name} must hold real numbers, got dtype {matrix.dtype}: "
                "pass embeddings (n, width)."
            )

    shape = tuple(matrix.shape)
    if len(shape) != 2:
        hint = " Write it as x[None, :] for one row." if len(shape) == 1 else ""
        raise ValueError(f"{name} must be 2-D (rows, width), got shape {shape}.{hint}")

    if shape[1] == 0 or (shape[0] == 0 and not allow_empty):
        raise ValueError(
            f"{name} is empty: shape {shape}. At least one row and one column are needed."
        )

    return matrix


def check_matrices(**matrices: Any) -> tuple[Any, ...]:
    """Return matrices of one width, each checked; only the first may have no rows."""
    checked: dict[str, Any] = {}
    for name, matrix in matrices.items():
        checked[name] = check_matrix(name, matrix, allow_empty=not checked)

    (first, reference), *others = checked.items()
    for name, matrix in others:
        if matrix.shape[1] != reference.shape[1]:
            raise ValueError(
                f"{first} is {reference.shape[1]} wide but {name} is {matrix.shape[1]} wide: "
                "embed both with the same model."
            )
    return tuple(checked.values())


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float, or raise a ValueError unless it is a finite number above zero."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 < float(value) < np.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}.")
    return float(value)


def check_temperature(value: Any) -> float:
    """Return a temperature as a float, or raise a ValueError where scores would overflow."""
    low, high = TEMPERATURES
    temperature = check_positive("temperature", value)
    if not low <= temperature <= high:
        raise ValueError(
            f"temperature must lie in [{low:g}, {high:g}], got {value!r}: beyond, many images get "
            "one score, and numbers overflow."
        )
    return temperature


def check_scores(scores: np.ndarray) -> np.ndarray:
    """Return scores of readable images, or raise a ValueError where one is NaN."""
    missing = np.isnan(scores)
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} of {len(scores)} scores are NaN: a parameter is so large or so "
            "small that numbers overflow. Give temperature and weights of a usual size."
        )
    return scores


def check_integer(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """Return `value` as an int, or raise a ValueError unless it is an integer in low..high."""
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or value < low or (high is not None and value > high):
        span = f">= {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be an integer {span}{why}, got {value!r}.")
    return int(value)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return rows divided by their length; a row of zeros stays zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, _SHORTEST)
