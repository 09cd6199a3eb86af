"""What scoring and mining share: checked matrices, devices, and products worked through in tiles."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dnm_sklearn.scoring._products import Workers, multiply, scratch

if TYPE_CHECKING:
    import torch

Device = Any
BatchSize = int | Literal["auto"]

# Banks of at most this many numbers are multiplied in float64: it costs nothing, and the score of a
# row then depends on the other rows of its batch by less than 1e-9.
FLOAT64_NUMBERS = 2**18
# Logits of a tile: on a CPU they stay in its caches between product and reductions, a GPU wants
# more.
TILE_NUMBERS = {"cpu": 2**20, "other": 2**24}
# Logits of the tiles of all threads.
_ALL_TILES_NUMBERS = 2**24
# Rows copied or held at once, in numbers (32 MB of float32).
BLOCK_NUMBERS = 2**23
# What finishing a number in float64 costs, in multiplications of a product.
_FINISH = 64
# Taken out of groups whose labels all have offset -inf, so that their mass is exp(-inf) and not
# NaN.
_LEAST = -1e30


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
            raise ValueError(
                f"{name} must hold real numbers, got dtype {matrix.dtype}: pass embeddings (n, "
                "width)."
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
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not 0 < float(value) < np.inf
    ):
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
        raise ValueError(
            f'device={str(device)!r} was asked for but torch finds no GPU: use device="auto" or "cpu".'
        )
    return resolved


def compute_dtype(n_numbers: int) -> torch.dtype:
    """Return the dtype in which a bank of `n_numbers` numbers is multiplied."""
    import torch

    return torch.float64 if n_numbers <= FLOAT64_NUMBERS else torch.float32


def take(
    matrix: Any,
    rows: slice | np.ndarray,
    dtype: torch.dtype,
    device: torch.device,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return rows of a matrix as a tensor, without a copy where numpy's memory can be used as it is.

    Rows that are gathered by number land in the memory `out` (numbers of that dtype and device)
    where that can be.
    """
    import torch

    if isinstance(matrix, np.ndarray):
        native = matrix.dtype in (np.float16, np.float32, np.float64) and matrix.dtype.isnative
        if not (native and matrix.flags.writeable and all(step >= 0 for step in matrix.strides)):
            exact = np.float64 if dtype == torch.float64 else np.float32
            return torch.from_numpy(np.array(matrix[rows], dtype=exact, order="C")).to(
                device=device
            )
        matrix = torch.from_numpy(matrix)
    if isinstance(rows, slice):
        return matrix[rows].detach().to(device=device, dtype=dtype)
    index = torch.from_numpy(rows).to(matrix.device)
    if out is None or (matrix.dtype, matrix.device) != (out.dtype, out.device):
        return matrix.detach().index_select(0, index).to(device=device, dtype=dtype)
    shape = (len(rows), matrix.shape[1])
    return torch.index_select(matrix.detach(), 0, index, out=out[: shape[0] * shape[1]].view(shape))


def tile_numbers(device: torch.device) -> int:
    """Return how many logits a tile holds on this device."""
    return TILE_NUMBERS["cpu" if device.type == "cpu" else "other"]


class LogitTiles:
    """Tiles of ``h = cos / temperature`` between image rows and label banks, reduced while they are in cache.

    Parameters
    ----------
    banks : tuple of matrices
        All label banks of the call; their size decides the dtype.
    temperature : float
    batch_size : int or "auto"
        Image rows of a tile.
    device : str or torch.device
    """

    def __init__(
        self, banks: tuple[Any, ...], temperature: float, batch_size: Any, device: Any
    ) -> None:
        self.device = resolve_device(device)
        self.workers = Workers(self.device)
        self.dtype = compute_dtype(sum(bank.shape[0] * bank.shape[1] for bank in banks))
        self.inverse_temperature = 1 / temperature
        self.width = banks[0].shape[1]
        self.tile_numbers = min(tile_numbers(self.device), _ALL_TILES_NUMBERS // self.workers.n)
        self.tile_rows = check_batch_size(batch_size) or 1024

    def __enter__(self) -> LogitTiles:
        self.workers.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.workers.__exit__(*error)

    def blocks(self, image: Any, numbers_a_row: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield blocks of image rows on the device; `numbers_a_row` results for each row fit too."""
        size = max(1, BLOCK_NUMBERS // max(self.width, numbers_a_row))
        for start in range(0, image.shape[0], size):
            rows = slice(start, start + size)
            yield rows, take(image, rows, self.dtype, self.device)

    def group_lse(
        self,
        image: torch.Tensor,
        bank: Any,
        order: slice | np.ndarray,
        n_groups: int,
        offset: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return ``log sum exp(h + offset)`` over the labels of each group, shape (rows, n_groups).

        `offset` is one number a label, in the bank's order; None = 0. Label tiles are the outer
        loop: each is gathered from the bank once for all row tiles. Threads share them.
        """
        import torch

        n_labels = order.stop if isinstance(order, slice) else len(order)
        n_rows = image.shape[0]
        n_multiplications = n_rows * n_labels * self.width
        fair = -(-n_labels // self.workers.wanted(n_multiplications))
        tile_rows = min(self.tile_rows, n_rows)
        widest = max(1, min(self.tile_numbers // tile_rows, BLOCK_NUMBERS // self.width, fair))
        size = n_labels // n_groups
        out = torch.full((n_rows, n_groups), -math.inf, dtype=self.dtype, device=self.device)
        scaled = image * self.inverse_temperature
        tiles = list(_label_tiles(n_groups, size, widest))
        parts: list[Any] = [None] * len(tiles)

        def reduce(left: Iterator[int]) -> None:
            size_of_tile = tile_rows * min(widest, n_labels)
            sizes = [size_of_tile, size_of_tile, min(widest, n_labels) * self.width]
            tile, spare, gathered = scratch(sum(sizes), self.dtype, self.device).split(sizes)
            for index in left:
                groups, labels = tiles[index]
                chosen = labels if isinstance(order, slice) else order[labels]
                text = take(bank, chosen, self.dtype, self.device, gathered).T
                added = None if offset is None else offset[chosen]
                whole = text.shape[1] == size * (groups.stop - groups.start)
                mass = out[:, groups] if whole else out.new_empty((n_rows, 1))
                for start in range(0, n_rows, tile_rows):
                    rows = slice(start, min(start + tile_rows, n_rows))
                    shape = (rows.stop - rows.start, text.shape[1])
                    logits = multiply(scaled[rows], text, tile[: shape[0] * shape[1]].view(shape))
                    if added is not None:
                        logits += added
                    mass[rows] = _log_mass(
                        logits.view(shape[0], mass.shape[1], -1), spare, added is None
                    )
                parts[index] = None if whole else (groups, mass)

        self.workers.share(reduce, range(len(tiles)), n_multiplications)
        for groups, mass in filter(None, parts):
            out[:, groups] = torch.logaddexp(out[:, groups], mass)
        return out

    def by_rows(self, finish: Any, *arrays: torch.Tensor) -> np.ndarray:
        """Apply `finish` to a few rows of all arrays at a time, which bounds its float64 temporaries."""
        import torch

        widest = max(array.shape[1] for array in arrays)
        n_multiplications = _FINISH * len(arrays[0]) * widest
        fair = -(-len(arrays[0]) // self.workers.wanted(n_multiplications))
        step = max(1, min(BLOCK_NUMBERS // 4 // widest, fair))
        pieces = list(zip(*(array.split(step) for array in arrays), strict=True))
        finished: list[Any] = [None] * len(pieces)

        def work(left: Iterator[int]) -> None:
            for index in left:
                finished[index] = finish(*pieces[index])

        self.workers.share(work, range(len(pieces)), n_multiplications)
        return torch.cat(finished).cpu().numpy()


def _log_mass(grouped: torch.Tensor, spare: torch.Tensor, finite: bool) -> torch.Tensor:
    """``log sum exp`` over the last axis of logits, which it may overwrite; `finite` = none of them is -inf."""
    import torch

    if finite:
        # h - log_softmax(h) is the same at every label. The kernel for the softmax goes over the
        # logits once, where amax, exp and sum go over them five times.
        below = torch.log_softmax(grouped, 2, out=spare[: grouped.numel()].view(grouped.shape))
        return grouped[..., 0] - below[..., 0]
    largest = grouped.amax(dim=2, keepdim=True).clamp_(min=_LEAST)
    return grouped.sub_(largest).exp_().sum(dim=2).log_().add_(largest.squeeze(2))


def _label_tiles(n_groups: int, size: int, widest: int) -> Iterator[tuple[slice, slice]]:
    """Yield (groups, labels): several whole groups, or a part of one that is wider than a tile."""
    if size <= widest:
        step = widest // size
        for first in range(0, n_groups, step):
            last = min(first + step, n_groups)
            yield slice(first, last), slice(first * size, last * size)
    else:
        for group in range(n_groups):
            for start in range(group * size, (group + 1) * size, widest):
                yield slice(group, group + 1), slice(start, min(start + widest, (group + 1) * size))


def by_parts(
    workers: Workers,
    rows: torch.Tensor,
    bank: torch.Tensor,
    reduce: Callable[[slice, torch.Tensor], torch.Tensor],
    most_rows: int = 1024,
) -> torch.Tensor:
    """Reduce products of rows with a bank to one float64 number a row, in tiles of rows that threads share.

    Parameters
    ----------
    workers : Workers
    rows : tensor of shape (n, D)
        Already divided by the temperature.
    bank : tensor of shape (D, N)
    reduce : callable
        Slice of rows and their logits, which it may overwrite, to tensor (rows,).
    most_rows : int, default=1024
        Of a tile.

    Returns
    -------
    tensor of shape (n,), float64
    """
    import torch

    out = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    size = len(rows) * bank.numel()
    fair = -(-len(rows) // workers.wanted(size))
    step = max(1, min(most_rows, tile_numbers(rows.device) // bank.shape[1], fair))
    parts = [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]

    def work(left: Iterator[slice]) -> None:
        for part in left:
            shape = (part.stop - part.start, bank.shape[1])
            logits = scratch(shape[0] * shape[1], rows.dtype, rows.device).view(shape)
            out[part] = reduce(part, multiply(rows[part], bank, logits))

    workers.share(work, parts, size)
    return out


def log_masses(workers: Workers, rows: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """Log of the sum of ``exp(logit)`` over a bank, float64 (n,); `rows` are divided by the temperature."""

    def reduce(_: slice, logits: torch.Tensor) -> torch.Tensor:
        largest = logits.amax(dim=1, keepdim=True)
        return logits.sub_(largest).exp_().sum(dim=1).double().log_().add_(largest.squeeze(1))

    return by_parts(workers, rows, bank, reduce)


def reduce_products(
    reduce: Callable[[torch.Tensor], torch.Tensor],
    rows: Any,
    columns: Any,
    *,
    names: tuple[str, str],
    temperature: float = 1.0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    """Reduce each row of ``rows @ columns.T / temperature`` to one number, a tile of rows at a time.

    Parameters
    ----------
    reduce : callable
        Tensor (n, n_columns), which it may overwrite, to tensor (n,).
    rows, columns : matrices of shape (n, width), (n_columns, width)
        `columns` must not be empty.
    names : tuple of str
        What to call the two in an error.
    temperature : float, default=1.0
    batch_size : int or "auto", default="auto"
    device : str or torch.device, default="auto"

    Returns
    -------
    numpy.ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        Shapes or widths that do not fit.
    """
    rows = check_matrix(names[0], rows, allow_empty=True)
    columns = check_matrix(names[1], columns)
    check_same_width(**{names[0]: rows, names[1]: columns})
    out = np.empty(rows.shape[0])
    with LogitTiles((columns,), temperature, batch_size, device) as tiles:
        bank = take(columns, slice(None), tiles.dtype, tiles.device).T
        for inside, block in tiles.blocks(rows, 1):
            reduced = by_parts(
                tiles.workers,
                block * tiles.inverse_temperature,
                bank,
                lambda _, part: reduce(part),
                tiles.tile_rows,
            )
            out[inside] = reduced.cpu().numpy()
    return out


def log_shares(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log of the row sums of ``sigmoid(-delta)`` and of ``sigmoid(delta)``: ID and negative shares of every group.

    ``log sigmoid(delta) = log sigmoid(-delta) + delta``, so that neither rounds to 0 where the
    other is near 1.
    """
    import torch

    log_sigmoid = -torch.nn.functional.softplus(delta, threshold=700)
    return torch.logsumexp(log_sigmoid, dim=1), torch.logsumexp(log_sigmoid + delta, dim=1)
