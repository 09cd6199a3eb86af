"""Activated negative labels (TANL): the activation-aware score and Otsu's threshold.

**Higher = more in-distribution (ID).** Pure functions: unit rows in, numpy float64 out. The module
`streams.tanl` holds the queues that say which labels are activated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import check_integer, check_matrices, check_temperature
from dnm_sklearn.scoring._chunks import Chunks, Device

if TYPE_CHECKING:
    import torch

__all__ = ["activation_log_odds", "otsu_threshold"]

# Exponentials are taken relative to the row's largest and kept above exp(-700), the end of float64:
# a log-odds beyond +-700 saturates, which takes a temperature below 0.003.
_LOG_FLOOR = -700.0
# The paper's grid of thresholds: 0.00, 0.01, ..., 0.99.
_N_THRESHOLDS = 100
# The score takes some five float64 arrays as large as the logits of its chunks: 16 MB each.
_RANKED_NUMBERS = 2**21


def activation_log_odds(
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    step: int = 1,
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-odds of TANL's activation-aware score; of the negative labels the most activated first.

    With :math:`a` the log-sum-exp of the class names and :math:`c_m` that of the first m negatives,
    the confidence is the mean of ``sigmoid(a - c_m)`` over m = k, 2k, ... (the last one M), for k =
    `step`; with ``step=0`` it is ``sigmoid(a - c_M)``. Float64 (n,), higher = more ID; ``expit`` of
    it is the paper's score. It saturates at about +-700.
    """
    X, class_embeddings, negative_embeddings = check_matrices(
        X=X, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    scale = 1 / check_temperature(temperature)
    step = check_integer("step", step, 0)

    with Chunks(device, class_embeddings, negative_embeddings) as chunks:
        classes, ranked = chunks.matrix(class_embeddings), chunks.matrix(negative_embeddings)
        positions = _score_positions(len(ranked), step, chunks.device)

        log_sums = chunks.logsumexp(X, classes, scale)
        return _ranked_log_odds(chunks, X, scale, log_sums, ranked, positions).cpu().numpy()


def otsu_threshold(scores: torch.Tensor) -> torch.Tensor:
    """Otsu's threshold of float64 scores in [0, 1] on the grid 0.00, 0.01, ..., 0.99.

    It minimises the variance within ``score >= t`` and ``score < t``, each weighted by its size; of
    n exact minimisers the one with index ``n // 2`` is taken (all, if no threshold splits the
    scores).
    """
    import torch

    ordered = scores.sort().values
    grid = torch.arange(_N_THRESHOLDS, dtype=torch.float64, device=scores.device) / _N_THRESHOLDS
    n_below = torch.searchsorted(ordered, grid)
    n_above = len(ordered) - n_below

    # The variance within is smallest where that between is largest. Scores are centred, so that
    # the sums of squares do not cancel. Thresholds that split alike get exactly the same number.
    sums = torch.nn.functional.pad((ordered - ordered.mean()).cumsum(dim=0), (1, 0))
    below, total = sums[n_below], sums[-1]
    between = below**2 / n_below + (total - below) ** 2 / n_above
    between = torch.where((n_below == 0) | (n_above == 0), -torch.inf, between)

    best = torch.nonzero(between == between.max()).squeeze(1)
    return grid[best[len(best) // 2]]


def _score_positions(n_labels: int, step: int, device: Any) -> torch.Tensor | None:
    """Return which m count in the score, 0-based; None for all."""
    import torch

    if step == 1:
        return None
    if step == 0:
        return torch.tensor([n_labels - 1], device=device)
    n_runs = -(-n_labels // step)
    return torch.arange(1, n_runs + 1, device=device).mul_(step).clamp_(max=n_labels).sub_(1)


def _ranked_log_odds(
    chunks: Chunks,
    X: Any,
    scale: float,
    class_logsumexp: torch.Tensor,
    ranked: Any,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    """Log-odds of the mean over positions of ``sigmoid(a - c_m)``, float64 (n,).

    Logits are `scale` times the cosines of X, `class_logsumexp` is a of shape (n, 1), and `ranked`
    are the embeddings of the negatives, most activated first.
    """
    import torch

    def log_odds(part: slice, logits: torch.Tensor) -> torch.Tensor:
        # Exponentials relative to the largest of the row: of a, and of c_m for every m.
        a, logits = class_logsumexp[part], logits.double()
        largest = torch.maximum(a, logits.amax(dim=1, keepdim=True))
        id_sum = (a - largest).clamp_(min=_LOG_FLOOR).exp_()
        sums = logits.sub_(largest).clamp_(min=_LOG_FLOOR).exp_().cumsum(dim=1)
        if positions is not None:
            sums = sums.index_select(1, positions)

        # sigmoid(a - c_m) = id_sum / (id_sum + sum_m). Both sides of the odds are sums, and no
        # difference loses digits where the confidence is near 0 or 1.
        weight = (id_sum + sums).reciprocal_()
        inside = id_sum.squeeze(1) * weight.sum(dim=1)
        return inside.log_() - sums.mul_(weight).sum(dim=1).log_()

    return chunks.products(log_odds, X, ranked, scale, most_numbers=_RANKED_NUMBERS)
