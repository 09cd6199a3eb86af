"""Exponentials of a batch's logits with all labels, kept for sums over labels and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, exponentiate, multiply

if TYPE_CHECKING:
    import torch

# Streams with exponentials keep numbers per label. They are float32, and products with them, at any
# size: a state should be small.
FLOAT64_NUMBERS = 0
# Sums over groups of rows are products with 0 and 1. A few groups at a time: with all at once most
# factors are 0, which a GPU does not mind, but a CPU does.
_FEW_GROUPS = 4


class Exponentials:
    """``exp(h_ij + offset_j)`` of images i and labels j, relative to the largest of a chunk's row.

    :meth:`fill` multiplies once; then any number of sums can be taken. The labels are cut into
    chunks as in :meth:`Chunks.logsumexp`, and what was subtracted is kept per image and chunk.
    """

    def __init__(self, chunks: Chunks, bank: Any) -> None:
        self._chunks, self._bank = chunks, bank
        # Every batch uses them again: fresh memory costs as much as the work in it.
        self._buffer, self._sums = chunks.empty(0), chunks.empty(0, len(bank))

    def fill(self, rows: torch.Tensor, offset: torch.Tensor | None = None) -> torch.Tensor:
        """Take in images, divided by the temperature, in place of those before.

        Return the log of each image's sum, float64 (n,). `offset` (N,) may hold -inf.
        """
        n_rows, n_labels = len(rows), len(self._bank)
        self._n_multiplications = n_rows * n_labels * self._bank.shape[1]
        self._labels = self._chunks.label_slices(n_rows, n_labels, self._n_multiplications)
        if len(self._buffer) < n_rows * n_labels:
            self._buffer = self._chunks.empty(n_rows * n_labels)

        # Each chunk has its own run of the buffer, so that it is contiguous.
        self._parts = []
        for labels in self._labels:
            numbers = self._buffer[n_rows * labels.start : n_rows * labels.stop]
            self._parts.append(numbers.view(n_rows, labels.stop - labels.start))
        self._largest = self._chunks.empty(n_rows, len(self._labels), double=True)
        total = self._chunks.empty(n_rows, len(self._labels), double=True)

        def chunk(i: int) -> None:
            logits = multiply(rows, self._bank[self._labels[i]], self._parts[i])
            if offset is not None:
                logits += offset[self._labels[i]]
            self._largest[:, i] = exponentiate(logits).squeeze(1)
            total[:, i] = logits.sum(dim=1)

        self._map(chunk)
        return (self._largest + total.log_()).logsumexp(dim=1)

    def row_sums(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the log of each image's sum, labels weighted (N,) >= 0; float64 (n,)."""
        import torch

        total = torch.empty_like(self._largest)

        def chunk(i: int) -> None:
            total[:, i] = torch.mv(self._parts[i], weight[self._labels[i]])

        self._map(chunk)
        return (self._largest + total.log_()).logsumexp(dim=1)

    def column_sums(
        self, log_weight: torch.Tensor, sizes: Sequence[int] | np.ndarray
    ) -> torch.Tensor:
        """Return sums over groups of consecutive images, (n_groups, N), good until the next call.

        `log_weight` (n,), float64, is at most minus the log of the image's sum, so that nothing
        overflows; -inf leaves an image out. `sizes` are the images of each group, at least one.
        """
        n_groups, ends = len(sizes), np.cumsum(sizes, dtype=int)
        if len(self._sums) < n_groups:
            self._sums = self._chunks.empty(n_groups, len(self._bank))
        out = self._sums[:n_groups]
        if not n_groups:
            return out

        # A weight per image and chunk, which also undoes what was subtracted there.
        weight = (self._largest + log_weight[:, None]).exp_().to(out.dtype)
        starts = ends - sizes
        is_member = np.zeros((n_groups, len(weight)), dtype=bool)
        for group, (start, stop) in enumerate(zip(starts, ends, strict=True)):
            is_member[group, start:stop] = True
        member = self._chunks.tensor(is_member)

        few = _FEW_GROUPS if out.device.type == "cpu" else n_groups
        blocks = []
        for first in range(0, n_groups, few):
            last = min(first + few, n_groups) - 1
            blocks.append((slice(first, last + 1), slice(starts[first], ends[last])))

        def chunk(i: int) -> None:
            weighted = member * weight[:, i]
            for groups, rows in blocks:
                columns = self._parts[i][rows].T
                multiply(weighted[groups, rows], columns, out[groups, self._labels[i]])

        self._map(chunk)
        return out

    def _map(self, chunk: Any) -> None:
        self._chunks.map(chunk, range(len(self._labels)), self._n_multiplications)
