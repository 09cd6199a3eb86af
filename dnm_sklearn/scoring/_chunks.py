"""Products of embeddings, worked through in chunks: in threads on a CPU, through torch on a GPU.

Everything in `scoring` and `streams` that multiplies embeddings does so through :class:`Chunks`.

**Precision**, said once. A bank of at most 2**18 numbers is multiplied in float64: it costs nothing
there, and the score of an image then depends on the images beside it by less than 1e-9. A larger
bank is multiplied in float32, and so is each bank of a stream that keeps numbers per label (TANL,
ENL), since they are its state. Exponentials have the precision of their product. All that follows
(logarithms of sums, their differences, means over groups or images) is float64, and so are results.

**Chunks.** The product of 10,000 images with 70,000 labels has 2.8 GB. It is made in chunks that
stay in the processor's caches until they are reduced: memory is bounded, and a log-sum-exp costs
little beside its product.

**Threads** share the chunks of large work on a CPU: :mod:`dnm_sklearn._utils.threads`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.device import resolve_device
from dnm_sklearn._utils.threads import Threads

if TYPE_CHECKING:
    import torch

Device = Any

# The largest bank, in numbers, that is multiplied in float64.
FLOAT64_NUMBERS = 2**18
# Logits of a chunk whose columns may be cut: 8 MB on a CPU, where half as many cost 4 % more; a GPU
# wants more work per call.
CHUNK_NUMBERS = {"cpu": 2**21, "gpu": 2**24}
# Logits of the chunks of whole rows that all threads hold (64 MB on a CPU).
ROW_NUMBERS = {"cpu": 2**24, "gpu": 2**26}
# Rows of a chunk. With fewer BLAS is slower, with more a chunk has few columns.
MOST_ROWS = {"cpu": 1024, "gpu": 8192}
# Embeddings, or sums over groups, held at once (32 MB of float32).
BLOCK_NUMBERS = 2**23
# What the last float64 steps cost per sum, in multiplications.
_FINISH = 2**10
# A sum of exponentials below this has lost digits: float32 ends at 1e-38.
_SMALLEST_SUM = 1e-30
# At least this is subtracted from logits, so that -inf - (-inf) = NaN cannot occur.
_LEAST = -1e30
_LOG2_E = math.log2(math.e)


class Chunks(Threads):
    """How one call computes: the device, the precision of its products, and its threads.

    `banks` are all label embeddings of the call: their size decides the precision (up to
    `float64_numbers`, it is float64). Products are taken inside the context, which can be entered
    again later, by one thread at a time.
    """

    def __init__(self, device: Device, *banks: Any, float64_numbers: int | None = None) -> None:
        import torch

        n_numbers = sum(bank.shape[0] * bank.shape[1] for bank in banks)
        small = n_numbers <= (FLOAT64_NUMBERS if float64_numbers is None else float64_numbers)

        self.device = resolve_device(device)
        self.dtype = torch.float64 if small else torch.float32
        self._numpy_dtype = np.dtype(np.float64 if small else np.float32)
        self._kind = "cpu" if self.device.type == "cpu" else "gpu"
        super().__init__(used=self._kind == "cpu")

    def matrix(self, array: Any) -> Any:
        """Return a matrix as it is multiplied: numpy's on a CPU, torch's on a GPU.

        On a CPU there is no copy where the precision is right, read-only arrays included.
        """
        import torch

        if isinstance(array, torch.Tensor):
            tensor = array.detach().to(self.device, self.dtype)
            return tensor.numpy() if self._kind == "cpu" else tensor

        array = np.asarray(array, dtype=self._numpy_dtype)
        return array if self._kind == "cpu" else torch.tensor(array, device=self.device)

    def tensor(self, array: Any, *, double: bool = False) -> torch.Tensor:
        """Return a copy of an array as a tensor on the device."""
        import torch

        # numpy makes the copy: torch would use threads, for which a forked process waits for ever.
        dtype = np.float64 if double else self._numpy_dtype
        return torch.from_numpy(np.array(array, dtype=dtype)).to(self.device)

    def empty(self, *shape: int, double: bool = False) -> torch.Tensor:
        """Return a new tensor on the device, to be written to.

        Results are written into one that was made before: small ones, made between the large
        arrays of each chunk, would keep the allocator from using that memory again.
        """
        import torch

        return torch.empty(shape, dtype=torch.float64 if double else self.dtype, device=self.device)

    def take(self, bank: Any, index: torch.Tensor) -> Any:
        """Return rows of a matrix from :meth:`matrix`, by number."""
        return bank[index.numpy() if self._kind == "cpu" else index]

    def by_rows(
        self,
        function: Callable[..., torch.Tensor],
        *arrays: torch.Tensor,
        shape: tuple[int, ...] = (),
    ) -> torch.Tensor:
        """Return what a function makes of the rows of arrays, computed for some rows at a time.

        Of each row it makes numbers of `shape`; float64.
        """
        n_rows = len(arrays[0])
        widest = max(array.shape[1] for array in arrays)
        n_multiplications = _FINISH * n_rows * widest
        # An eighth, since the function holds several float64 arrays of this size.
        step = min(BLOCK_NUMBERS // 8 // widest, self._fair(n_rows, n_multiplications))
        out = self.empty(n_rows, *shape, double=True)

        def chunk(part: slice) -> None:
            out[part] = function(*(array[part] for array in arrays))

        self.map(chunk, _batches(n_rows, step), n_multiplications)
        return out

    def product(self, rows: Any, bank: Any) -> torch.Tensor:
        """Return ``rows @ bank.T``, new and whole, computed in this thread."""
        return multiply(rows, bank, self.empty(rows.shape[0], bank.shape[0]))

    def products(
        self,
        function: Callable[[slice, torch.Tensor], torch.Tensor],
        X: Any,
        bank: Any,
        scale: float = 1.0,
        *,
        shape: tuple[int, ...] = (),
        most_numbers: int | None = None,
    ) -> torch.Tensor:
        """Return what ``function(part, logits)`` makes of ``logits = scale * X[part] @ bank.T``.

        Of each row it makes numbers of `shape`; float64. It may overwrite the logits, which are
        gone once it has returned. If it makes many arrays of their size, it asks for at most
        `most_numbers` logits, over all threads.
        """
        n_rows, n_columns = X.shape[0], bank.shape[0]
        parts = self.row_slices(n_rows, bank, most_numbers)
        buffer = _Buffer(self, (parts[0].stop - parts[0].start) * n_columns)
        out = self.empty(n_rows, *shape, double=True)

        def chunk(part: slice) -> None:
            rows = self.matrix(X[part])
            if scale != 1:
                rows = rows * scale
            logits = buffer.view(part.stop - part.start, n_columns)
            out[part] = function(part, multiply(rows, bank, logits))

        self.map(chunk, parts, n_rows * n_columns * bank.shape[1])
        return out

    def logsumexp(
        self,
        X: Any,
        bank: Any,
        scale: float = 1.0,
        *,
        n_groups: int = 1,
        offset: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return ``log sum exp(scale * X @ bank.T + offset)`` over groups of labels, (n, n_groups).

        Each group is a run of ``len(bank) / n_groups`` labels. `offset` has one number per label.
        """
        out = self.empty(X.shape[0], n_groups, double=True)
        for block in self.blocks(X):
            rows = self.matrix(X[block]) * scale
            out[block] = self._logsumexp(rows, bank, n_groups, offset)
        return out

    def _logsumexp(
        self, rows: Any, bank: Any, n_groups: int, offset: torch.Tensor | None
    ) -> torch.Tensor:
        n_rows, n_labels = rows.shape[0], bank.shape[0]
        n_multiplications = n_rows * n_labels * bank.shape[1]
        most_rows = max(1, min(n_rows, MOST_ROWS[self._kind]))
        most_labels = self._most_labels(most_rows, n_labels, n_multiplications)
        columns, n_parts = _column_chunks(n_groups, n_labels // n_groups, most_labels)
        tasks = [(part, *chosen) for part in _batches(n_rows, most_rows) for chosen in columns]

        buffer = _Buffer(self, most_rows * min(most_labels, n_labels))
        sums = self.empty(n_rows, n_groups * n_parts, double=True)

        def chunk(task: tuple[slice, slice, slice]) -> None:
            part, labels, groups = task
            logits = buffer.view(part.stop - part.start, labels.stop - labels.start)
            grouped = logits.unflatten(1, (groups.stop - groups.start, -1))

            def product() -> None:
                multiply(rows[part], bank[labels], logits)
                if offset is not None:
                    logits.add_(offset[labels])

            # On a CPU the largest of a row is found faster than the largest of each short group.
            product()
            shared = self._kind == "cpu"
            largest = exponentiate(logits) if shared else exponentiate(grouped).squeeze(2)
            totals = grouped.sum(dim=2)

            # A group may lie so far below the largest of its row that its exponentials are lost.
            if shared and grouped.shape[1] > 1 and bool((totals < _SMALLEST_SUM).any()):
                product()
                largest = exponentiate(grouped).squeeze(2)
                totals = grouped.sum(dim=2)

            sums[part, groups] = totals.double().log_().add_(largest)

        self.map(chunk, tasks, n_multiplications)
        return sums if n_parts == 1 else sums.unflatten(1, (n_groups, n_parts)).logsumexp(dim=2)

    def blocks(self, X: Any, n_sums: int = 1) -> list[slice]:
        """Cut rows, so many at a time that they and `n_sums` numbers of each fit in memory."""
        return _batches(X.shape[0], BLOCK_NUMBERS // max(X.shape[1], n_sums))

    def row_slices(self, n_rows: int, bank: Any, most_numbers: int | None = None) -> list[slice]:
        """Cut rows whose whole products are held, at most `most_numbers` over all threads."""
        n_columns, width = bank.shape
        n_numbers = (most_numbers or ROW_NUMBERS[self._kind]) // self.n_threads
        fair = self._fair(n_rows, n_rows * n_columns * width)
        return _batches(n_rows, min(n_numbers // n_columns, MOST_ROWS[self._kind], fair))

    def label_slices(self, n_rows: int, n_labels: int, n_multiplications: int) -> list[slice]:
        """Cut labels into chunks for `n_rows` images, at least one for each thread."""
        return _batches(n_labels, self._most_labels(n_rows, n_labels, n_multiplications))

    def _most_labels(self, n_rows: int, n_labels: int, n_multiplications: int) -> int:
        fitting = CHUNK_NUMBERS[self._kind] // max(n_rows, 1)
        return max(1, min(fitting, self._fair(n_labels, n_multiplications)))

    def _fair(self, n: int, n_multiplications: int) -> int:
        """Return the share of each thread in `n` rows or labels, at least 1."""
        return max(1, -(-n // self.wanted(n_multiplications)))


def multiply(rows: Any, columns: Any, out: torch.Tensor) -> torch.Tensor:
    """Write ``rows @ columns.T`` into `out` and return it.

    On a CPU the product is numpy's: its BLAS is up to 1.8 times as fast as torch's on processors of
    AMD, and a tenth to a quarter slower on those of Intel.
    """
    import torch

    if out.device.type == "cpu":
        np.matmul(np.asarray(rows), np.asarray(columns).T, out=out.numpy())
        return out
    return torch.mm(rows, columns.T, out=out)


def exponentiate(logits: torch.Tensor) -> torch.Tensor:
    """Replace logits by ``exp(logits - largest)`` and return the largest along the last axis."""
    largest = logits.amax(dim=-1, keepdim=True).clamp_(min=_LEAST)
    # On a CPU, a power of 2 takes torch a third of the time of one of e.
    logits.sub_(largest).mul_(_LOG2_E).exp2_()
    return largest


def reduce_products(
    function: Callable[[slice, torch.Tensor], torch.Tensor],
    X: Any,
    bank: Any,
    *,
    scale: float = 1.0,
    shape: tuple[int, ...] = (),
    most_numbers: int | None = None,
    device: Device,
) -> np.ndarray:
    """Reduce each row of ``scale * X @ bank.T`` with :meth:`Chunks.products`; float64."""
    with Chunks(device, bank) as chunks:
        resident = chunks.matrix(bank)
        # A corpus with itself goes to a GPU once.
        rows = resident if X is bank else X
        found = chunks.products(
            function, rows, resident, scale, shape=shape, most_numbers=most_numbers
        )
        return found.cpu().numpy()


def whole_product(X: Any, bank: Any, *, scale: float = 1.0, device: Device) -> np.ndarray:
    """Return ``scale * X @ bank.T``, float64, for those who need every number of it."""
    shape = (bank.shape[0],)
    return reduce_products(lambda _, x: x, X, bank, scale=scale, shape=shape, device=device)


def _batches(n: int, size: int) -> list[slice]:
    """Return slices of 0..n, at least one: what is made of no rows still has its shape."""
    size = max(1, size)
    starts = range(0, n, size) or [0]
    return [slice(start, min(start + size, n)) for start in starts]


def _column_chunks(
    n_groups: int, group_size: int, most_labels: int
) -> tuple[list[tuple[slice, slice]], int]:
    """Return (labels, sums) of each chunk of columns, and the number of sums per group.

    A chunk holds several whole groups, or a part of one that has more than `most_labels` labels.
    """
    chunks = []
    if group_size <= most_labels:
        for groups in _batches(n_groups, most_labels // group_size):
            labels = slice(groups.start * group_size, groups.stop * group_size)
            chunks.append((labels, groups))
        return chunks, 1

    n_parts = -(-group_size // most_labels)
    for first in range(0, n_groups * group_size, group_size):
        for part in _batches(group_size, most_labels):
            labels = slice(first + part.start, first + part.stop)
            chunks.append((labels, slice(len(chunks), len(chunks) + 1)))
    return chunks, n_parts


class _Buffer(threading.local):
    """Memory for one chunk, made once in each thread: fresh pages cost much of the work in them."""

    def __init__(self, chunks: Chunks, n_numbers: int) -> None:
        self._numbers = chunks.empty(n_numbers)

    def view(self, n_rows: int, n_columns: int) -> torch.Tensor:
        return self._numbers[: n_rows * n_columns].view(n_rows, n_columns)
