"""Exact nearest neighbours within a corpus, reduced to one number a label while a chunk of them is at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._products import Workers, multiply
from dnm_sklearn.scoring._tiles import compute_dtype, resolve_device, take, tile_numbers

if TYPE_CHECKING:
    import torch

# Neighbours are searched in runs of this many labels: first the best runs, then the best labels
# inside them.
_RUN = 32
# Similarities held at once by the neighbour search (256 MB of float32).
_SEARCH_NUMBERS = 2**26


def over_nearest(
    reduce: Callable[[slice, torch.Tensor], torch.Tensor],
    corpus_embeddings: Any,
    n_neighbors: int,
    penalty: torch.Tensor | None,
    skip_self: bool,
    device: Any,
) -> np.ndarray:
    """Reduce the `n_neighbors` largest ``cosine - penalty`` of each label, unordered, to one number a label.

    `reduce` takes a slice of labels and a tensor (labels, n_neighbors). `penalty` is on the device,
    one number a label.
    """
    import torch

    device = resolve_device(device)
    n_labels, width = corpus_embeddings.shape
    bank = take(corpus_embeddings, slice(None), compute_dtype(n_labels * width), device)
    discount = None if penalty is None else penalty.to(bank.dtype)
    n_columns = -(-n_labels // _RUN) * _RUN
    step = max(1, min(_SEARCH_NUMBERS // n_columns, 1024, n_labels))
    # The columns beyond the last label stay at -inf: every run is full.
    similar = torch.full((step, n_columns), -math.inf, dtype=bank.dtype, device=device)
    tile = max(1, tile_numbers(device) // step)
    columns = [slice(start, min(start + tile, n_labels)) for start in range(0, n_labels, tile)]
    out = torch.empty(n_labels, dtype=torch.float64, device=device)
    with Workers(device) as workers:
        for start in range(0, n_labels, step):
            rows = slice(start, min(start + step, n_labels))
            size = (rows.stop - start) * n_labels * width

            def compare(left: Iterator[slice], rows: slice = rows) -> None:
                for tile in left:
                    inside = multiply(
                        bank[rows], bank[tile].T, similar[: rows.stop - rows.start, tile]
                    )
                    if discount is not None:
                        inside.sub_(discount[tile])

            def search(left: Iterator[slice], start: int = start) -> None:
                for part in left:
                    largest = _largest(similar[part.start - start : part.stop - start], n_neighbors)
                    out[part] = reduce(part, largest)

            workers.share(compare, columns, size)
            if skip_self:
                similar[: rows.stop - start, rows].fill_diagonal_(-math.inf)
            fair = -(-(rows.stop - start) // workers.wanted(size))
            parts = [
                slice(first, min(first + fair, rows.stop))
                for first in range(start, rows.stop, fair)
            ]
            workers.share(search, parts, size)
    return out.cpu().numpy()


def _largest(similar: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k largest of each row: they all lie in the k runs of columns with the largest maxima."""
    import torch

    n_rows, n_columns = similar.shape
    n_runs = n_columns // _RUN
    if n_runs <= 2 * k:
        return similar.topk(k, dim=1, sorted=False).values
    runs = similar.view(n_rows * n_runs, _RUN)
    best = runs.amax(dim=1).view(n_rows, n_runs).topk(k, dim=1, sorted=False).indices
    best += torch.arange(n_rows, device=best.device)[:, None] * n_runs
    return (
        runs.index_select(0, best.view(-1))
        .view(n_rows, k * _RUN)
        .topk(k, dim=1, sorted=False)
        .values
    )
