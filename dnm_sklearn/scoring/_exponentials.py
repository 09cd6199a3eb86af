"""Exponentials of the logits of a batch with a whole corpus, kept in tiles for sums over rows and over labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._products import Workers, multiply
from dnm_sklearn.scoring._tiles import tile_numbers

if TYPE_CHECKING:
    import torch

# Groups of rows are summed by a product with 0 and 1, a few groups at a time: with all at once it
# would mostly add zeros, which is nothing to a GPU, but not to a CPU.
_FEW_GROUPS = 4
# Taken out of tiles whose labels all have offset -inf, so that their mass is exp(-inf) and not NaN.
_LEAST = -1e30


class Exponentials:
    """``exp(h_ij + offset_j)`` of rows i and labels j, held as ``exp(. - the row's largest in a tile of labels)``.

    Parameters
    ----------
    text : tensor of shape (N, D)
        The labels, on the device and in the dtype of the product.
    """

    def __init__(self, text: torch.Tensor) -> None:
        self._text = text
        # Every batch uses them again: fresh memory costs as much as the work in it.
        self._buffer, self._sums = text.new_empty(0), text.new_empty((0, len(text)))

    def fill(
        self, workers: Workers, rows: torch.Tensor, offset: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Take in a batch; what was held before is lost.

        Parameters
        ----------
        workers : Workers
        rows : tensor of shape (n, D)
            Divided by the temperature.
        offset : tensor of shape (N,), optional
            May be -inf.

        Returns
        -------
        tensor of shape (n,), float64
            Log of the rows' sums.
        """
        import torch

        n_rows, n_labels = len(rows), len(self._text)
        if self._buffer.numel() < n_rows * n_labels:
            self._buffer = self._text.new_empty(n_rows * n_labels)
        step = max(1, min(n_labels, tile_numbers(rows.device) // max(n_rows, 1)))
        self._tiles = [
            slice(start, min(start + step, n_labels)) for start in range(0, n_labels, step)
        ]
        spans = [slice(n_rows * tile.start, n_rows * tile.stop) for tile in self._tiles]
        self._parts = [self._buffer[span].view(n_rows, -1 if n_rows else 0) for span in spans]
        self._size = n_rows * self._text.numel()
        shape = (n_rows, len(self._tiles))
        self._largest, mass = torch.empty(2, *shape, dtype=torch.float64, device=rows.device)

        def work(left: Iterator[int]) -> None:
            for index in left:
                tile = self._tiles[index]
                logits = multiply(rows, self._text[tile].T, self._parts[index])
                if offset is not None:
                    logits += offset[tile]
                largest = logits.amax(dim=1, keepdim=True).clamp_(min=_LEAST)
                mass[:, index] = logits.sub_(largest).exp_().sum(dim=1)
                self._largest[:, index] = largest.squeeze(1)

        if n_rows:
            workers.share(work, range(len(self._tiles)), self._size)
        return (self._largest + mass.log_()).logsumexp(dim=1)

    def row_sums(self, workers: Workers, weight: torch.Tensor) -> torch.Tensor:
        """Return the log of the rows' sums with weights >= 0 for the labels, (N,) to float64 (n,)."""
        import torch

        mass = torch.empty_like(self._largest)

        def work(left: Iterator[int]) -> None:
            for index in left:
                mass[:, index] = torch.mv(self._parts[index], weight[self._tiles[index]])

        workers.share(work, range(len(self._tiles)), self._size)
        return (self._largest + mass.log_()).logsumexp(dim=1)

    def column_sums(self, workers: Workers, log_weight: torch.Tensor, sizes: Any) -> torch.Tensor:
        """Return sums over groups of consecutive rows.

        Parameters
        ----------
        workers : Workers
        log_weight : tensor of shape (n,), float64
            Log weights of the rows, at most minus the log of the row's sum; -inf leaves a row out.
        sizes : sequence of int
            Rows of each group, at least one.

        Returns
        -------
        tensor of shape (n_groups, N)
            Good until the next call.
        """
        import torch

        device, dtype = self._text.device, self._text.dtype
        n_groups, ends = len(sizes), np.cumsum(sizes)
        if len(self._sums) < n_groups:
            self._sums = self._text.new_empty((n_groups, len(self._text)))
        out = self._sums[:n_groups]
        if not n_groups:
            return out
        weight = (self._largest + log_weight[:, None]).exp_().to(dtype)
        firsts, lasts = torch.from_numpy(np.stack([ends - sizes, ends])[:, :, None]).to(device)
        row = torch.arange(len(weight), device=device)
        member = ((firsts <= row) & (row < lasts)).to(dtype)
        few = _FEW_GROUPS if device.type == "cpu" else n_groups
        blocks = [
            (
                slice(first, first + few),
                slice(ends[first] - sizes[first], ends[min(first + few, n_groups) - 1]),
            )
            for first in range(0, n_groups, few)
        ]

        def work(left: Iterator[int]) -> None:
            for index in left:
                weighted = member * weight[:, index]
                for groups, rows in blocks:
                    multiply(
                        weighted[groups, rows],
                        self._parts[index][rows],
                        out[groups, self._tiles[index]],
                    )

        workers.share(work, range(len(self._tiles)), self._size)
        return out
