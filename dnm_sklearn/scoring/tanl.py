"""Activated negative labels (TANL) as pure functions: the activation-aware score and Otsu's threshold.

**Higher = more in-distribution (ID).** Unit rows in, numpy float64 out, torch inside.
`activation_stream` holds the queues that say which labels are activated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._products import Workers
from dnm_sklearn.scoring._tiles import (
    BLOCK_NUMBERS,
    BatchSize,
    Device,
    by_parts,
    check_batch_size,
    check_integer,
    check_matrix,
    check_positive,
    check_same_width,
    compute_dtype,
    log_masses,
    resolve_device,
    take,
)

if TYPE_CHECKING:
    import torch

__all__ = ["activation_log_odds", "otsu_threshold"]

# Masses are scaled to the row's largest and kept above exp(-700): a log-odds beyond +-700
# saturates, which takes a temperature below 0.003.
_LOG_FLOOR = -700.0
_N_THRESHOLDS = 100


def activation_log_odds(
    image: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    step: int = 1,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-odds of TANL's activation-aware score, from ranked negative labels.

    With :math:`a` the log mass of the ID labels and :math:`c_m` that of the first m negatives, the
    confidence is the mean of ``sigmoid(a - c_m)`` over m = k, 2k, ... (the last one M), for k =
    `step`; with ``step=0`` it is ``sigmoid(a - c_M)``.

    Parameters
    ----------
    image : array-like of shape (n, width)
        Unit image embeddings.
    class_embeddings : array-like of shape (C, width)
        Unit text embeddings of the ID labels.
    negative_embeddings : array-like of shape (M, width)
        Unit text embeddings of the negative labels, most activated first.
    temperature : float, default=0.01
        Divides the cosines.
    step : int, default=1
        k; more than M counts as M.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product. It changes results by rounding only.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        Higher = more ID; ``expit`` of it is the paper's score. It saturates at about +-700.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a parameter outside its range.

    References
    ----------
    .. [1] Zhang et al., "Activation Matters: Test-time Activated Negative Labels for OOD Detection with
       Vision-Language Models", CVPR 2026, arXiv:2603.25250.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.tanl import activation_log_odds
    >>> labels = np.eye(3)
    >>> activation_log_odds(labels, labels[:1], labels[1:], temperature=0.1).round(2)
    array([  9.59, -10.  ,  -1.1 ])
    """
    image = check_matrix("image", image, allow_empty=True)
    class_embeddings, negative_embeddings = (
        check_matrix("class_embeddings", class_embeddings),
        check_matrix("negative_embeddings", negative_embeddings),
    )
    check_same_width(
        image=image, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    scale = 1 / check_positive("temperature", temperature)
    where = resolve_device(device)
    dtype = compute_dtype(
        (class_embeddings.shape[0] + negative_embeddings.shape[0]) * class_embeddings.shape[1]
    )
    positions = score_positions(negative_embeddings.shape[0], check_integer("step", step, 0), where)
    id_prototypes, bank = (
        take(text, slice(None), dtype, where).T for text in (class_embeddings, negative_embeddings)
    )
    tile_rows = min(check_batch_size(batch_size) or 1024, max(1, BLOCK_NUMBERS // image.shape[1]))
    parts = []
    with Workers(where) as workers:
        for start in range(0, image.shape[0], tile_rows):
            rows = take(image, slice(start, start + tile_rows), dtype, where) * scale
            log_id = log_masses(workers, rows, id_prototypes)
            parts.append(ranked_products(workers, rows, log_id, bank, positions).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty(0)


def otsu_threshold(scores: Any) -> float:
    """Otsu's threshold of scores in [0, 1] on the grid 0.00, 0.01, ..., 0.99.

    It minimises the share-weighted population variances of ``score >= t`` and ``score < t``; of n
    exact minimisers the one with index ``n // 2`` is taken (all, if no threshold splits the
    scores).

    Parameters
    ----------
    scores : array-like of shape (n,)
        Confidences; at least one.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        No score, or one that is not in [0, 1].

    Examples
    --------
    >>> from dnm_sklearn.scoring.tanl import otsu_threshold
    >>> otsu_threshold([0.1, 0.15, 0.8, 0.9])
    0.48
    """
    import torch

    values = np.array(scores, dtype=np.float64).ravel()
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("scores must be at least one number in [0, 1], and no NaN.")
    return float(otsu(torch.from_numpy(values)))


def ranked_products(
    workers: Workers,
    rows: torch.Tensor,
    log_id: torch.Tensor,
    bank: torch.Tensor,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    """:func:`ranked_log_odds` of rows, divided by the temperature, with a bank of ranked negatives (D, M)."""
    return by_parts(
        workers, rows, bank, lambda part, logits: ranked_log_odds(log_id[part], logits, positions)
    )


def otsu(scores: torch.Tensor) -> torch.Tensor:
    """Otsu's threshold of a float64 tensor, as a scalar tensor on its device; see `otsu_threshold`."""
    import torch

    ordered = scores.sort().values
    grid = torch.arange(_N_THRESHOLDS, dtype=torch.float64, device=scores.device) / _N_THRESHOLDS
    n_below = torch.searchsorted(ordered, grid)
    n_above = len(ordered) - n_below
    # Centred, so that the sums of squares do not cancel. Thresholds that split alike get the same
    # number exactly.
    sums = torch.nn.functional.pad((ordered - ordered.mean()).cumsum(dim=0), (1, 0))
    below, total = sums[n_below], sums[-1]
    between = below**2 / n_below + (total - below) ** 2 / n_above
    between = torch.where((n_below == 0) | (n_above == 0), -torch.inf, between)
    best = torch.nonzero(between == between.max()).squeeze(1)
    return grid[best[len(best) // 2]]


def score_positions(n_labels: int, step: int, device: Any) -> torch.Tensor | None:
    """Return the ends (0-based) of the runs of labels that are averaged over; None for all."""
    import torch

    if step == 1:
        return None
    if step == 0:
        return torch.tensor([n_labels - 1], device=device)
    n_runs = -(-n_labels // step)
    return torch.arange(1, n_runs + 1, device=device).mul_(step).clamp_(max=n_labels).sub_(1)


def ranked_log_odds(
    log_id: torch.Tensor, negative: torch.Tensor, positions: torch.Tensor | None
) -> torch.Tensor:
    """Log-odds of the mean over positions of ``sigmoid(a - c_m)``, float64 (n,).

    Parameters
    ----------
    log_id : tensor of shape (n,)
        a, log mass of the ID labels.
    negative : tensor of shape (n, M)
        Logits of the negatives, most activated first; may be overwritten.
    positions : tensor of int or None
        Which m count, 0-based.

    Returns
    -------
    tensor of shape (n,), float64
        Neither side of the odds is a difference: no digit is lost at confidences near 0 or 1.
    """
    import torch

    log_id, negative = log_id.double(), negative.double()
    largest = torch.maximum(log_id, negative.amax(dim=1))
    id_mass = (log_id - largest).clamp_(min=_LOG_FLOOR).exp_()[:, None]
    mass = negative.sub_(largest[:, None]).clamp_(min=_LOG_FLOOR).exp_().cumsum(dim=1)
    if positions is not None:
        mass = mass.index_select(1, positions)
    share = (id_mass + mass).reciprocal_()
    inside = id_mass.squeeze(1) * share.sum(dim=1)
    return inside.log_() - mass.mul_(share).sum(dim=1).log_()
