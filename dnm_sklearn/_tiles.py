"""What scoring and mining share: checked matrices, devices, and rows of a matrix as tensors, a tile at a time."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Device = Any
BatchSize = int | Literal["auto"]

# Banks of at most this many numbers are multiplied in float64: it costs nothing, and the score of a row then
# depends on the other rows of its batch by less than 1e-9.
FLOAT64_NUMBERS = 2**18
# A tile of logits that stays in the CPU's caches between the product and the reductions; a GPU wants it larger.
TILE_NUMBERS = {"cpu": 5 * 2**18, "other": 2**24}
# Rows copied or held at once, in numbers (64 MB of float32).
BLOCK_NUMBERS = 2**24


def check_matrix(name: str, matrix: Any, *, allow_empty: bool = False) -> Any:
    """Return `matrix` as a 2-D real numpy array (a torch tensor is left as it is).

    Parameters
    ----------
    name : str
        What to call it in an error.
    matrix : array-like or tensor of shape (n, width)
    allow_empty : bool, default=False
        Whether zero rows are fine.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        No copy where none is needed.

    Raises
    ------
    ValueError
        Not two-dimensional, not real numbers, or empty.
    """
    if not hasattr(matrix, "index_select"):
        matrix = np.asarray(matrix)
        if matrix.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {matrix.dtype}: pass embeddings (n, width).")
    shape = tuple(matrix.shape)
    if len(shape) != 2:
        hint = " Write it as x[None, :] for one row." if len(shape) == 1 else ""
        raise ValueError(f"{name} must be 2-D (rows, width), got shape {shape}.{hint}")
    if shape[1] == 0 or (shape[0] == 0 and not allow_empty):
        raise ValueError(f"{name} is empty: shape {shape}. At least one row and one column are needed.")
    return matrix


def check_same_width(**matrices: Any) -> None:
    """Raise a ValueError that names both widths unless all matrices are equally wide."""
    (first, reference), *others = matrices.items()
    for name, matrix in others:
        if matrix.shape[1] != reference.shape[1]:
            raise ValueError(
                f"{first} is {reference.shape[1]} wide but {name} is {matrix.shape[1]} wide: "
                f"embed both with the same model."
            )


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float, or raise a ValueError unless it is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < np.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}.")
    return float(value)


def check_integer(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """Return `value` as an int, or raise a ValueError unless it is an integer in low..high."""
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or value < low or (high is not None and value > high):
        span = f">= {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be an integer {span}{why}, got {value!r}.")
    return int(value)


def check_batch_size(batch_size: Any) -> int | None:
    """Return the rows of a tile asked for, None for "auto"."""
    if isinstance(batch_size, str) and batch_size == "auto":
        return None
    if isinstance(batch_size, str):
        raise ValueError(f'batch_size must be "auto" or an integer >= 1, got {batch_size!r}.')
    return check_integer("batch_size", batch_size, 1)


def resolve_device(device: Any) -> torch.device:
    """Return the torch device meant: "auto" is the GPU if there is one, else the CPU."""
    import torch

    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device={str(device)!r} was asked for but torch finds no GPU: use device="auto" or "cpu".')
    return resolved


def compute_dtype(n_numbers: int) -> torch.dtype:
    """Return the dtype in which a bank of `n_numbers` numbers is multiplied."""
    import torch

    return torch.float64 if n_numbers <= FLOAT64_NUMBERS else torch.float32


def tile_numbers(device: torch.device) -> int:
    """Return how many logits a tile holds on this device."""
    return TILE_NUMBERS["cpu" if device.type == "cpu" else "other"]


def take(matrix: Any, rows: slice | np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return rows of a matrix as a tensor, without a copy where numpy's memory can be used as it is."""
    import torch

    if isinstance(matrix, np.ndarray):
        native = matrix.dtype in (np.float16, np.float32, np.float64) and matrix.dtype.isnative
        if not (native and matrix.flags.writeable and all(step >= 0 for step in matrix.strides)):
            exact = np.float64 if dtype == torch.float64 else np.float32
            return torch.from_numpy(np.array(matrix[rows], dtype=exact, order="C")).to(device=device)
        matrix = torch.from_numpy(matrix)
    if not isinstance(rows, slice):
        return matrix.index_select(0, torch.from_numpy(rows).to(matrix.device)).to(device=device, dtype=dtype)
    return matrix[rows].detach().to(device=device, dtype=dtype)
