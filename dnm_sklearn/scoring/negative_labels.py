"""Scores that compare the class names with groups of negative labels: NegLabel, CSP and DNM.

In all of them S is the sum of ``exp(h)`` over the class names and N_j that over the negative labels
of group j, with ``h = cos / temperature``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import (
    check_integer,
    check_matrices,
    check_positive,
    check_temperature,
)
from dnm_sklearn.scoring._chunks import Chunks, Device

if TYPE_CHECKING:
    import torch

__all__ = ["clamped_log_odds", "debiased_id_scale", "dnm_log_confidence", "negative_label_log_odds"]


def negative_label_log_odds(
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    n_groups: int = 1,
    id_scale: float = 1.0,
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-odds that an image is ID, from class names against groups of negative labels.

    The confidence is :math:`p = \frac 1G \sum_j \frac{cS}{cS + N_j}`, with :math:`S` the sum of
    ``exp(h)`` over the class names and :math:`N_j` that over group j, and the result is ``log(p /
    (1 - p))``. c = 1 is the grouped NegLabel score. DNM's debiased score is ``negative_prior /
    (K * c) * expit(result)`` with c of :func:`debiased_id_scale`. With one group the result is
    ``log S - log N + log c``.

    Parameters
    ----------
    X : array-like of shape (n, width)
        Unit image embeddings.
    class_embeddings : array-like of shape (K, width)
        Unit text embeddings of the class names.
    negative_embeddings : array-like of shape (M, width)
        Unit text embeddings of the negative labels, group by group.
    temperature : float, default=0.01
        Divides the cosines.
    n_groups : int, default=1
        G, in 1..M. Each group holds ``Q = M // G`` labels; the ``M mod G`` last ones are dropped.
    id_scale : float, default=1.0
        c, above 0.
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
    .. [1] Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language
       Models", ICLR 2024.
    .. [2] "Debiased Negative Mining", arXiv 2605.23797, KDD 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import negative_label_log_odds
    >>> labels = np.eye(3)
    >>> negative_label_log_odds(labels, labels[:1], labels[1:], temperature=0.1).round(2)
    array([  9.31, -10.  , -10.  ])
    """
    X, class_embeddings, negative_embeddings = check_matrices(
        X=X, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    temperature = check_temperature(temperature)
    group_size = _check_groups(negative_embeddings.shape[0], n_groups)
    log_c = math.log(check_positive("id_scale", id_scale))

    def finish(log_id: torch.Tensor, log_negative: torch.Tensor) -> torch.Tensor:
        # cS / (cS + N_j) = sigmoid(-delta_j)
        return _mean_log_odds(log_negative - log_id - log_c)

    groups = negative_embeddings[: group_size * n_groups]
    return _score(finish, X, [(class_embeddings, 1), (groups, n_groups)], temperature, device)


def dnm_log_confidence(
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    positives: Any,
    *,
    temperature: float = 0.01,
    n_groups: int = 1,
    negative_prior: float = 0.5,
    min_id_scale: float = 0.44,
    device: Device = "auto",
) -> tuple[np.ndarray, int]:
    r"""Log of DNM's debiased score with noisy positives, where the constant c depends on the image.

    ``log(tau / K) + log mean_j 1 / (c(x) + N_j / S)`` with ``tau = negative_prior`` and ``c(x) =
    tau - (1 - tau) * Q * mean_i exp(h(x, v_i)) / S(x)``, v_i the `positives`: unit embeddings that
    stand for the ID part of the corpus (the paper: noisy ID labels). A c(x) below `min_id_scale` is
    set to it: at c <= 0 the score would turn negative for the most confident ID images. Also
    returns how many images that happened to. The rest is as in :func:`negative_label_log_odds`.
    """
    X, class_embeddings, negative_embeddings, positives = check_matrices(
        X=X,
        class_embeddings=class_embeddings,
        negative_embeddings=negative_embeddings,
        positives=positives,
    )
    temperature = check_temperature(temperature)
    negative_prior = _check_prior(negative_prior)
    min_id_scale = check_positive("min_id_scale", min_id_scale)
    group_size = _check_groups(negative_embeddings.shape[0], n_groups)

    # c(x) = tau - exp(log_weight) * (sum over positives) / S
    weight = (1 - negative_prior) * group_size / positives.shape[0]
    log_weight = math.log(weight) if weight else -math.inf
    # tau / K, and 1 / G of the mean over groups.
    log_factor = math.log(negative_prior / class_embeddings.shape[0]) - math.log(n_groups)

    def finish(
        log_id: torch.Tensor, log_negative: torch.Tensor, log_positive: torch.Tensor
    ) -> torch.Tensor:
        import torch

        scale = negative_prior - torch.exp(log_weight + log_positive - log_id)
        floored = scale < min_id_scale
        log_scale = torch.log(torch.where(floored, min_id_scale, scale))

        log_inverse = -torch.logaddexp(log_scale, log_negative - log_id)
        score = log_factor + torch.logsumexp(log_inverse, dim=1)
        return torch.stack([score, floored.squeeze(1).double()], dim=1)

    groups = negative_embeddings[: group_size * n_groups]
    banks = [(class_embeddings, 1), (groups, n_groups), (positives, 1)]
    out = _score(finish, X, banks, temperature, device, shape=(2,))
    return np.ascontiguousarray(out[:, 0]), int(out[:, 1].sum())


def clamped_log_odds(
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    n_groups: int = 1,
    negative_prior: float = 0.5,
    clamp: float = -1.0,
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-odds of DNM's score with debiased contrastive learning's lower bound on the negatives.

    The debiased sum of group j is :math:`D_j = \max(N_j / \tau - \frac{1 - \tau}{\tau} \frac QK S,
    Q e^{b / T})`, with b the `clamp`, the smallest cosine a negative label may have, and the result
    is the log-odds of the mean over groups of ``S / (S + D_j)``. The bound ties the images it binds
    on. The rest is as in :func:`dnm_log_confidence`.
    """
    X, class_embeddings, negative_embeddings = check_matrices(
        X=X, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    temperature = check_temperature(temperature)
    negative_prior = _check_prior(negative_prior)
    group_size = _check_groups(negative_embeddings.shape[0], n_groups)

    # In units of S, the ID part of N_j is (1 - tau) * Q / K.
    id_part = (1 - negative_prior) * group_size / class_embeddings.shape[0]
    log_id_part = math.log(id_part) if id_part else -math.inf
    log_floor = math.log(group_size) + clamp / temperature

    def finish(log_id: torch.Tensor, log_negative: torch.Tensor) -> torch.Tensor:
        import torch

        # log(N_j / S - id_part), without N_j / S, which overflows at small temperatures. Nothing
        # is left (-inf) where the ID part is all of N_j or more.
        log_ratio = log_negative - log_id
        proportion = torch.exp(log_id_part - log_ratio).clamp_(max=1)
        log_debiased = log_ratio + torch.log1p(-proportion) - math.log(negative_prior)

        return _mean_log_odds(torch.maximum(log_debiased, log_floor - log_id))

    groups = negative_embeddings[: group_size * n_groups]
    return _score(finish, X, [(class_embeddings, 1), (groups, n_groups)], temperature, device)


def debiased_id_scale(n_classes: int, group_size: int, negative_prior: float) -> float:
    """DNM's constant ``c = tau - (1 - tau) * Q / K`` for K classes and groups of Q labels.

    tau is the `negative_prior`; tau = 1 gives c = 1 (NegLabel). At c <= 0 (``tau <= Q / (K + Q)``)
    the debiased score inverts; use a larger prior or smaller groups then.

    >>> from dnm_sklearn.scoring import debiased_id_scale
    >>> debiased_id_scale(1000, 120, 0.5)
    0.44
    """
    return float(negative_prior - (1 - negative_prior) * group_size / n_classes)


def _log_probability_sums(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log of the row sums of ``sigmoid(-delta)`` (ID) and of ``sigmoid(delta)`` (negative)."""
    import torch

    # log sigmoid(delta) = log sigmoid(-delta) + delta: neither rounds to 0 where the other is near
    # 1. The threshold keeps torch's softplus from turning linear at 20, where digits would be lost.
    log_id = -torch.nn.functional.softplus(delta, threshold=700)
    return torch.logsumexp(log_id, dim=1), torch.logsumexp(log_id + delta, dim=1)


def _mean_log_odds(delta: torch.Tensor) -> torch.Tensor:
    """Log-odds of the row mean of ``sigmoid(-delta)``."""
    log_id, log_negative = _log_probability_sums(delta)
    return log_id - log_negative


def _score(
    finish: Callable[..., torch.Tensor],
    X: Any,
    banks: Sequence[tuple[Any, int]],
    temperature: float,
    device: Device,
    shape: tuple[int, ...] = (),
) -> np.ndarray:
    """Return `finish` of the log-sum-exps of all banks, each with its number of groups."""
    with Chunks(device, *(bank for bank, _ in banks)) as chunks:
        resident = [(chunks.matrix(bank), n_groups) for bank, n_groups in banks]
        n_sums = max(n_groups for _, n_groups in banks)
        out = chunks.empty(X.shape[0], *shape, double=True)

        for block in chunks.blocks(X, n_sums):
            sums = []
            for bank, n_groups in resident:
                sums.append(chunks.logsumexp(X[block], bank, 1 / temperature, n_groups=n_groups))
            out[block] = chunks.by_rows(finish, *sums, shape=shape)
        return out.cpu().numpy()


def _check_groups(n_labels: int, n_groups: Any) -> int:
    """Return the labels per group."""
    why = " (the number of negative labels)"
    return n_labels // check_integer("n_groups", n_groups, 1, n_labels, why=why)


def _check_prior(negative_prior: Any) -> float:
    negative_prior = check_positive("negative_prior", negative_prior)
    if negative_prior > 1:
        raise ValueError(f"negative_prior is a probability in (0, 1], got {negative_prior}.")
    return negative_prior
