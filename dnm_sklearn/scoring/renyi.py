"""The class names against the worst case over a Rényi ball of label distributions.

**Higher = more in-distribution (ID).** The worst case is that of all labels, class names and
negative labels alike, with logits ``h = cos / T``: the dual of the Rényi ball of order r and radius
eta around the uniform distribution over the n labels is
``F(b) = b + eta * (mean max(h - b, 0)**q)**(1 / q)`` with ``q = r / (r - 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import check_integer, check_matrices, check_positive
from dnm_sklearn.scoring._chunks import Chunks, Device

if TYPE_CHECKING:
    import torch

__all__ = ["radius_of_tail", "renyi_log_ratio", "stepped_renyi_log_ratio", "tail_of_radius"]

# Three arrays as large as the logits of a chunk, 16 MB each: with fewer rows BLAS is slower.
_WORKED_NUMBERS = 2**22
# Bounds alone find a root in so many steps; Newton's takes two or three from a good start.
_MOST_STEPS = 60
# F is flat at its minimum: so much of a step in log(max h - b) moves it by less than 2e-6, where
# h is 30 as with CLIP.
_TOLERANCE = 3e-4
# The longest step of log(max h - b) while the root has a bound on one side only.
_LONGEST_STEP = 2.0
# So many labels place the start within a few percent, at a small part of the cost of all.
_SAMPLE = 4096
_SAMPLE_TOLERANCE = 0.02
# How far below the mean distance, in logs, a sample may place the start.
_FARTHEST_START = 5.0
# Stands for max h - b where it is 0 or less, and something is divided by it.
_NARROW = 1e-30
# Powers below this count as 0. They add nothing, and arithmetic below 1e-38 is slow.
_LEAST_POWER = 1e-34


def radius_of_tail(tail: float, order: float = 1.05) -> float:
    """Radius of the Rényi ball whose worst case is the mean of the top `tail` of equal labels.

    It is ``tail**(-(r - 1) / r)``, with tail in (0, 1) and the order r in (1, 2).

    >>> from dnm_sklearn.scoring.renyi import radius_of_tail
    >>> round(radius_of_tail(0.0217, order=1.05), 3)
    1.2
    """
    if not 0 < tail < 1:
        raise ValueError(f"tail must lie in (0, 1), got {tail!r}.")
    return float(tail ** (-1 / _dual_order(order)))


def tail_of_radius(radius: float, order: float = 1.05) -> float:
    """Proportion of equal labels that the worst case rests on; above 1 for a radius below 1.

    It is ``radius**(-r / (r - 1))``, with a radius above 0 and the order r in (1, 2).

    >>> from dnm_sklearn.scoring.renyi import tail_of_radius
    >>> round(tail_of_radius(1.2, order=1.05), 4)
    0.0217
    """
    return check_positive("radius", radius) ** -_dual_order(order)


def renyi_log_ratio(
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    order: float = 1.05,
    radius: float = 1.2,
    device: Device = "auto",
) -> np.ndarray:
    r"""Log-sum-exp of the class names minus the worst case of all labels, minimised exactly.

    The result is ``logsumexp_k h_k - min_b F(b)``, float64 (n,), higher = more ID. With m equal
    labels far above all others of n the minimum is at ``m = n * radius**(-q)``: the worst case is a
    soft mean of so many top labels. If that is below one label, it is the largest logit. With a
    radius of 1 or less F has no minimum.

    "A Closer Look at Negative-Label Guided OOD Detection", ICML 2026.
    """
    dual_order = _dual_order(order)
    radius = check_positive("radius", radius)
    if radius <= 1:
        raise ValueError(
            f"radius={radius:g} must be above 1: with less the worst case has no minimum, and the "
            "released code's result depends on its number of steps alone."
        )

    def worst_case(parts: list[torch.Tensor]) -> torch.Tensor:
        return _minimum(parts, dual_order, radius)

    return _log_ratio(worst_case, X, class_embeddings, negative_embeddings, temperature, device)


def stepped_renyi_log_ratio(
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    *,
    temperature: float = 0.01,
    order: float = 1.05,
    radius: float = 1.2,
    beta_start: float = -0.1,
    n_steps: int = 15,
    learning_rate: float = 0.01,
    device: Device = "auto",
) -> np.ndarray:
    r"""The same with the released code's few steps of gradient descent, far from the minimum.

    ``beta_start``, a cosine, takes `n_steps` steps ``beta - learning_rate * (1 - G(beta))``, where
    ``1 - G`` is the slope of F. The start and the number of steps act as two more parameters.
    Scores are finite where the released code divides 0 by 0: there the slope is 1.
    """
    dual_order = _dual_order(order)
    radius = check_positive("radius", radius)
    n_steps = check_integer("n_steps", n_steps, 0)
    scale = 1 / check_positive("temperature", temperature)
    start, step = beta_start * scale, check_positive("learning_rate", learning_rate) * scale

    def worst_case(parts: list[torch.Tensor]) -> torch.Tensor:
        return _descended(parts, dual_order, radius, start, step, n_steps)

    return _log_ratio(worst_case, X, class_embeddings, negative_embeddings, temperature, device)


def _dual_order(order: Any) -> float:
    """Return the dual order ``q = r / (r - 1)`` of a Rényi order r in (1, 2)."""
    order = check_positive("order", order)
    if not 1 < order < 2:
        raise ValueError(f"order must lie between 1 and 2, got {order:g}.")
    return order / (order - 1)


def _log_ratio(
    worst_case: Callable[[list[torch.Tensor]], torch.Tensor],
    X: Any,
    class_embeddings: Any,
    negative_embeddings: Any,
    temperature: float,
    device: Device,
) -> np.ndarray:
    """Log-sum-exp of the class names minus the worst case of the logits of both kinds of labels."""
    X, class_embeddings, negative_embeddings = check_matrices(
        X=X, class_embeddings=class_embeddings, negative_embeddings=negative_embeddings
    )
    scale = 1 / check_positive("temperature", temperature)

    with Chunks(device, class_embeddings, negative_embeddings) as chunks:
        classes, negatives = chunks.matrix(class_embeddings), chunks.matrix(negative_embeddings)

        # Two products, for one bank of both would be a copy of the whole corpus.
        def score(part: slice, logits: torch.Tensor) -> torch.Tensor:
            own = chunks.product(chunks.matrix(X[part]) * scale, classes)
            log_id = own.double().logsumexp(dim=1)
            return log_id - worst_case([own, logits])

        found = chunks.products(score, X, negatives, scale, most_numbers=_WORKED_NUMBERS)
        return found.cpu().numpy()


class _Gaps:
    """Distances of all logits below the largest of their row.

    Distances, since float32 has digits for them near the largest, where they count; and so a shift
    of all logits changes nothing. `largest` is (n, 1) float64; the logits are overwritten.
    """

    def __init__(self, parts: list[torch.Tensor], largest: torch.Tensor | None = None) -> None:
        import torch

        if largest is None:
            largest = torch.maximum(*(part.amax(dim=1, keepdim=True) for part in parts))
            for part in parts:
                part.sub_(largest).neg_()
        self.parts = parts
        self.largest = largest.double()
        self.n_labels = sum(part.shape[1] for part in parts)
        self._scratch = [(torch.empty_like(part), torch.empty_like(part)) for part in parts]

    def sample(self) -> _Gaps | None:
        """About `_SAMPLE` of the labels, evenly spread; None where there are few more."""
        stride = self.n_labels // _SAMPLE
        if stride < 2:
            return None
        return _Gaps([part[:, ::stride].contiguous() for part in self.parts], self.largest)

    def mean(self) -> torch.Tensor:
        """Mean distance, (n, 1) float64."""
        sums = [part.sum(dim=1, keepdim=True).double() for part in self.parts]
        return reduce(add, sums) / self.n_labels

    def tied(self) -> torch.Tensor:
        """Proportion of the labels that are as near as the nearest, (n, 1) float64."""
        counts = [(part == 0).sum(dim=1, keepdim=True) for part in self.parts]
        return reduce(add, counts).double() / self.n_labels

    def power_means(
        self, dual_order: float, width: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means over labels of u**(q - 2), u**(q - 1) and u**q, ``u = max(h - b, 0) / width``.

        ``width = max h - b > 0``, (n, 1) float64. Powers of ``h - b`` itself overflow: q is 21 at
        order 1.05.
        """
        import torch

        sums = [torch.zeros_like(width) for _ in range(3)]
        for part, (u, power) in zip(self.parts, self._scratch, strict=True):
            torch.mul(part, (-1 / width).to(part.dtype), out=u).add_(1)
            torch.threshold_(u, _LEAST_POWER ** (1 / dual_order), 0.0)

            # One power, for it costs as much as all the rest.
            torch.pow(u, dual_order - 2, out=power)
            sums[0] += power.sum(dim=1, keepdim=True)
            sums[1] += power.mul_(u).sum(dim=1, keepdim=True)
            sums[2] += power.mul_(u).sum(dim=1, keepdim=True)

        second, first, whole = (total / self.n_labels for total in sums)
        return second, first, whole


def _slope(first: torch.Tensor, whole: torch.Tensor, dual_order: float) -> torch.Tensor:
    """G / eta, where ``1 - G`` is the slope of F in b; in (0, 1], NaN where all u are 0."""
    return whole ** (1 / dual_order - 1) * first


def _minimum(logits: list[torch.Tensor], dual_order: float, radius: float) -> torch.Tensor:
    """The smallest F(b) of each row of logits, (n,) float64."""
    import torch

    gaps = _Gaps(logits)
    # Where G is 1 or more even at b = max h, F falls until there.
    at_largest = radius * gaps.tied() ** (1 / dual_order) >= 1

    # Some of the labels tell where to start.
    start = gaps.mean().clamp_(min=_NARROW).log_()
    sample = gaps.sample()
    if sample is not None:
        found, _ = _root(sample, start, at_largest, dual_order, radius, _SAMPLE_TOLERANCE)
        # A sample of few labels may have its minimum at the largest logit, endlessly far away.
        start = torch.maximum(found, start - _FARTHEST_START)

    w, whole = _root(gaps, start, at_largest, dual_order, radius, _TOLERANCE)
    width = w.exp()
    energy = gaps.largest - width + radius * width * whole ** (1 / dual_order)
    return torch.where(at_largest, gaps.largest, energy).squeeze(1)


def _root(
    gaps: _Gaps,
    w: torch.Tensor,
    settled: torch.Tensor,
    dual_order: float,
    radius: float,
    tolerance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Root of ``log G`` in ``w = log(max h - b)`` from a start, and the mean of u**q there.

    Newton's steps within the bounds that are known: log G only grows with w. Rows that are
    `settled` are left alone.
    """
    import torch

    low, high = torch.full_like(w, -math.inf), torch.full_like(w, math.inf)
    for _ in range(_MOST_STEPS):
        second, first, whole = gaps.power_means(dual_order, w.exp())
        # So near the largest logit that no label is in reach, G counts as 0.
        value = (radius * _slope(first, whole, dual_order)).log_().nan_to_num_(nan=-math.inf)
        low, high = torch.where(value < 0, w, low), torch.where(value > 0, w, high)

        # Far below all logits float32 may give it another sign.
        growth = ((dual_order - 1) * (second / first - first / whole)).clamp_(min=0)
        step = (-value / growth).nan_to_num_(nan=_LONGEST_STEP)
        after = w + step.clamp_(-_LONGEST_STEP, _LONGEST_STEP)
        # A step beyond what is known of the root is cut to half of the way there.
        after = torch.where(after <= low, (w + low) / 2, after)
        after = torch.where(after >= high, (w + high) / 2, after)

        # Each row by itself, so that it does not depend on the rows beside it.
        settled = settled | ((after - w).abs() < tolerance)
        if bool(settled.all()):
            break
        w = torch.where(settled, w, after)
    return w, whole


def _descended(
    logits: list[torch.Tensor],
    dual_order: float,
    radius: float,
    start: float,
    step: float,
    n_steps: int,
) -> torch.Tensor:
    """F(b) of each row after gradient descent, (n,) float64; `start` and `step` in logits."""
    import torch

    gaps = _Gaps(logits)
    beta = torch.full_like(gaps.largest, start)
    for _ in range(n_steps):
        width = gaps.largest - beta
        _, first, whole = gaps.power_means(dual_order, width.clamp(min=_NARROW))
        # Above all logits F is b itself, and its slope 1.
        gradient = 1 - torch.where(width > 0, radius * _slope(first, whole, dual_order), 0.0)
        beta = beta - step * gradient

    width = (gaps.largest - beta).clamp_(min=0)
    _, _, whole = gaps.power_means(dual_order, width.clamp(min=_NARROW))
    return (beta + radius * width * whole ** (1 / dual_order)).squeeze(1)
