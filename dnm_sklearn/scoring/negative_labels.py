"""Scores that compare the class names with groups of negative labels: NegLabel, CSP and DNM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._tiles import (
    BatchSize,
    Device,
    LogitTiles,
    check_integer,
    check_matrix,
    check_positive,
    check_same_width,
    log_shares,
)

if TYPE_CHECKING:
    import torch

__all__ = ["clamped_log_odds", "debiased_id_scale", "dnm_log_confidence", "negative_label_log_odds"]


def negative_label_log_odds(
    image: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    n_groups: int = 1,
    id_scale: float = 1.0,
    permutation: Any = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-odds that an image is ID, from ID labels against groups of negative labels (NegLabel, CSP, DNM).

    With :math:`S` the mass ``sum exp(h)`` of the ID labels and :math:`N_j` that of group j, the
    confidence is
    :math:`p = \frac 1G \sum_j \frac{cS}{cS + N_j}` and the result is ``log(p / (1 - p))``, in log space.
    c = 1 is the grouped NegLabel score. DNM's debiased score is ``negative_prior / (K * c) *
    expit(result)`` with c of :func:`debiased_id_scale`. With one group the result is ``log S - log
    N + log c``.

    Parameters
    ----------
    image : array-like of shape (n, width)
        Unit image embeddings.
    class_embeddings : array-like of shape (K, width)
        Unit text embeddings of the ID labels.
    negative_embeddings : array-like of shape (M, width)
        Unit text embeddings of the negative labels.
    temperature : float, default=0.01
        Divides the cosines.
    n_groups : int, default=1
        G, in 1..M. Each group holds ``Q = M // G`` labels; the ``M mod G`` last ones are dropped.
    id_scale : float, default=1.0
        c, above 0.
    permutation : array-like of shape (Q * G,), default=None
        Row numbers of `negative_embeddings` in the order in which they are dealt into groups, Q at
        a time. None takes the first Q * G rows as they come.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product. It changes results by rounding only.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        Confidence log-odds, higher = more ID.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a parameter outside its range.

    References
    ----------
    .. [1] Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models",
       ICLR 2024.
    .. [2] "Debiased Negative Mining", arXiv 2605.23797, KDD 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import negative_label_log_odds
    >>> labels = np.eye(3)
    >>> negative_label_log_odds(labels, labels[:1], labels[1:], temperature=0.1).round(2)
    array([  9.31, -10.  , -10.  ])
    """
    image, class_embeddings, negative_embeddings = _check_banks(
        image, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    temperature = check_positive("temperature", temperature)
    log_c = math.log(check_positive("id_scale", id_scale))
    order = _check_groups(negative_embeddings.shape[0], n_groups, permutation)

    def finish(log_negative: torch.Tensor, log_id: torch.Tensor) -> torch.Tensor:
        return _mean_log_odds(log_negative.double() - log_id.double() - log_c)

    banks = [(negative_embeddings, order, n_groups), _all(class_embeddings)]
    return _fill(np.empty(image.shape[0]), finish, image, banks, temperature, batch_size, device)


def dnm_log_confidence(
    image: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    positives: Any,
    *,
    temperature: float = 0.01,
    n_groups: int = 1,
    negative_prior: float = 0.5,
    min_id_scale: float = 0.44,
    permutation: Any = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> tuple[np.ndarray, int]:
    r"""Log of DNM's debiased score with noisy positives, where the constant c depends on the image.

    ``log(tau / K) + log mean_j 1 / (c(x) + N_j / S)`` with ``tau = negative_prior`` and ``c(x) =
    tau - (1 - tau) * Q * mean_i exp(h(x, v_i)) / S(x)``. A c(x) below `min_id_scale` is set to it:
    at c <= 0 the score would turn negative for the most confident ID images.

    Parameters
    ----------
    image, class_embeddings, negative_embeddings : array-like of shape (n, width), (K, width), (M, width)
        Unit rows, as in :func:`negative_label_log_odds`.
    positives : array-like of shape (P, width)
        Unit embeddings v_i that stand for the ID part of the corpus (the paper: noisy ID labels).
    temperature : float, default=0.01
        Divides the cosines.
    n_groups : int, default=1
        G, in 1..M; a group holds ``Q = M // G`` labels.
    negative_prior : float, default=0.5
        tau, in (0, 1]: probability that a corpus label is truly negative.
    min_id_scale : float, default=0.44
        Floor of c(x), above 0.
    permutation : array-like of shape (Q * G,), default=None
        As in :func:`negative_label_log_odds`.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    log_confidence : numpy.ndarray of shape (n,), float64
        Higher = more ID.
    n_floored : int
        Images whose c(x) was floored.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a parameter outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import dnm_log_confidence
    >>> labels = np.eye(3)
    >>> score, n_floored = dnm_log_confidence(labels, labels[:1], labels[1:], labels[:1], temperature=0.1,
    ...                                       negative_prior=0.9)
    >>> score.round(2), n_floored
    (array([  0.25, -10.11, -10.11]), 0)
    """
    image, class_embeddings, negative_embeddings, positives = _check_banks(
        image,
        class_embeddings=class_embeddings,
        negative_embeddings=negative_embeddings,
        positives=positives,
    )
    temperature = check_positive("temperature", temperature)
    negative_prior = _check_prior(negative_prior)
    min_id_scale = check_positive("min_id_scale", min_id_scale)
    order = _check_groups(negative_embeddings.shape[0], n_groups, permutation)

    # c(x) = negative_prior - exp(log_weight + LSE(positives) - LSE(ID))
    group_size = negative_embeddings.shape[0] // n_groups
    weight = (1 - negative_prior) * group_size / positives.shape[0]
    log_weight = math.log(weight) if weight else -math.inf
    log_prior = math.log(negative_prior / class_embeddings.shape[0]) - math.log(n_groups)

    def finish(
        log_negative: torch.Tensor, log_id: torch.Tensor, log_positive: torch.Tensor
    ) -> torch.Tensor:
        import torch

        log_id = log_id.double()
        scale = negative_prior - torch.exp(log_weight + log_positive.double() - log_id)
        floored = scale < min_id_scale
        log_scale = torch.log(torch.where(floored, min_id_scale, scale))
        log_inverse = -torch.logaddexp(log_scale, log_negative.double() - log_id)
        score = log_prior + torch.logsumexp(log_inverse, dim=1)
        return torch.stack([score, floored.squeeze(1).double()], dim=1)

    banks = [(negative_embeddings, order, n_groups), _all(class_embeddings), _all(positives)]
    out = _fill(
        np.empty((image.shape[0], 2)), finish, image, banks, temperature, batch_size, device
    )
    return np.ascontiguousarray(out[:, 0]), int(out[:, 1].sum())


def clamped_log_odds(
    image: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    n_groups: int = 1,
    negative_prior: float = 0.5,
    clamp: float = -1.0,
    permutation: Any = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-odds of DNM's score with the lower bound that debiased contrastive learning puts on the negatives.

    The debiased negative mass of group j is :math:`\max(N_j / \tau - \frac{1 - \tau}{\tau} \frac QK
    S, Q e^{b / T})`, and the result is the log-odds of the mean over groups of ``S / (S + mass)``.
    The bound ties the images it binds on.

    Parameters
    ----------
    image, class_embeddings, negative_embeddings : array-like of shape (n, width), (K, width), (M, width)
        Unit rows, as in :func:`negative_label_log_odds`.
    temperature : float, default=0.01
        Divides the cosines.
    n_groups : int, default=1
        G, in 1..M; a group holds ``Q = M // G`` labels.
    negative_prior : float, default=0.5
        tau, in (0, 1]: probability that a corpus label is truly negative.
    clamp : float, default=-1.0
        b, the smallest cosine a negative label may have.
    permutation : array-like of shape (Q * G,), default=None
        As in :func:`negative_label_log_odds`.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        Higher = more ID.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a parameter outside its range.

    References
    ----------
    .. [1] Chuang et al., "Debiased Contrastive Learning", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import clamped_log_odds
    >>> labels = np.eye(3)
    >>> clamped_log_odds(labels, labels[:1], labels[1:], temperature=0.5).round(2)
    array([ 3.31, -2.69, -2.69])
    """
    image, class_embeddings, negative_embeddings = _check_banks(
        image, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    temperature = check_positive("temperature", temperature)
    negative_prior = _check_prior(negative_prior)
    order = _check_groups(negative_embeddings.shape[0], n_groups, permutation)
    group_size = negative_embeddings.shape[0] // n_groups
    id_share = (1 - negative_prior) * group_size / class_embeddings.shape[0]
    log_floor = math.log(group_size) + clamp / temperature

    def finish(log_negative: torch.Tensor, log_id: torch.Tensor) -> torch.Tensor:
        import torch

        log_id = log_id.double()
        debiased = torch.exp(log_negative.double() - log_id) - id_share
        log_mass = torch.log(debiased.clamp(min=0) / negative_prior) + log_id
        return _mean_log_odds(
            torch.maximum(log_mass, torch.full_like(log_mass, log_floor)) - log_id
        )

    banks = [(negative_embeddings, order, n_groups), _all(class_embeddings)]
    return _fill(np.empty(image.shape[0]), finish, image, banks, temperature, batch_size, device)


def debiased_id_scale(n_classes: int, group_size: int, negative_prior: float) -> float:
    """DNM's constant ``c = tau - (1 - tau) * Q / K`` for K classes and groups of Q labels.

    At c <= 0 (``tau <= Q / (K + Q)``) the debiased score inverts; use a larger prior or smaller
    groups then.

    Parameters
    ----------
    n_classes : int
        K.
    group_size : int
        Q, negative labels a group.
    negative_prior : float
        tau, in (0, 1].

    Returns
    -------
    float
        c; 1 for ``negative_prior=1`` (NegLabel).

    Examples
    --------
    >>> from dnm_sklearn.scoring import debiased_id_scale
    >>> debiased_id_scale(1000, 120, 0.5)
    0.44
    """
    return float(negative_prior - (1 - negative_prior) * group_size / n_classes)


def _fill(
    out: np.ndarray,
    finish: Any,
    image: Any,
    banks: Sequence[tuple[Any, slice | np.ndarray, int]],
    temperature: float,
    batch_size: BatchSize,
    device: Device,
) -> np.ndarray:
    """Fill `out` with `finish` of each bank's log sums; a bank is labels, their order and number of groups."""
    with LogitTiles(
        tuple(labels for labels, _, _ in banks), temperature, batch_size, device
    ) as tiles:
        for rows, block in tiles.blocks(image, max(n_groups for _, _, n_groups in banks)):
            out[rows] = tiles.by_rows(finish, *(tiles.group_lse(block, *bank) for bank in banks))
    return out


def _all(labels: Any) -> tuple[Any, slice, int]:
    """Labels as one group, in their order."""
    return labels, slice(0, labels.shape[0]), 1


def _check_banks(image: Any, **banks: Any) -> tuple[Any, ...]:
    image = check_matrix("image", image, allow_empty=True)
    banks = {name: check_matrix(name, bank) for name, bank in banks.items()}
    check_same_width(image=image, **banks)
    return image, *banks.values()


def _check_prior(negative_prior: Any) -> float:
    negative_prior = check_positive("negative_prior", negative_prior)
    if negative_prior > 1:
        raise ValueError(f"negative_prior is a probability in (0, 1], got {negative_prior}.")
    return negative_prior


def _mean_log_odds(delta: torch.Tensor) -> torch.Tensor:
    """Log-odds of the row mean of ``sigmoid(-delta)``."""
    inside, outside = log_shares(delta)
    return inside - outside


def _check_groups(n_labels: int, n_groups: Any, permutation: Any) -> slice | np.ndarray:
    """Return the label order: the first Q * G rows as a slice, or a checked permutation."""
    n_groups = check_integer(
        "n_groups", n_groups, 1, n_labels, why=" (the number of negative labels)"
    )
    kept = n_labels // n_groups * n_groups
    if permutation is None:
        return slice(0, kept)
    order = np.asarray(permutation)
    if order.shape != (kept,) or order.dtype.kind not in "iu":
        raise ValueError(
            f"permutation must hold {kept} integers ({n_groups} groups of {n_labels // n_groups}, "
            f"out of {n_labels} negative labels), got shape {order.shape}, dtype {order.dtype}: "
            "see mining.group_permutation."
        )
    order = order.astype(np.int64)
    n_repeats = kept - len(np.unique(order))
    if order.min() < 0 or order.max() >= n_labels or n_repeats:
        raise ValueError(
            f"permutation must hold distinct row numbers in 0..{n_labels - 1}, got {order.min()}.."
            f"{order.max()} with {n_repeats} repeats: see mining.group_permutation."
        )
    return order
