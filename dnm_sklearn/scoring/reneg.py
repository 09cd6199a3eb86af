"""ReNeg's rules as functions of numbers: Otsu's threshold of log-odds, and weights of names."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

__all__ = ["PRIOR_WEIGHT", "name_weights", "otsu_of_log_odds"]

# Weight of a name that has caught too little to say anything of it, and how much is enough.
PRIOR_WEIGHT = 0.2
_LEAST_CAUGHT = 2
# The gate: strength of a cluster's mean in a name's, width of its lower bound, and where and how
# steeply the bound becomes a weight. The authors'.
_SHRINKAGE = 2.0
_BOUND = 0.5
_CENTRE = 1.0
_STEEPNESS = 0.5
_VOTE_STEEPNESS = 0.1
# Otsu's threshold: candidates between these quantiles, and the fewest scores that have one.
_QUANTILES = np.linspace(0.01, 0.99, 200)
_LEAST_SCORES = 10


def otsu_of_log_odds(scores: np.ndarray, *, least_gap: float = 0.0) -> float:
    """Otsu's threshold among 200 quantiles: where the variance between the two sides is largest.

    Scores below it are the lower side. It is -inf for fewer than ten scores, for equal scores, and
    for sides whose means are not `least_gap` apart.
    """
    n = len(scores)
    if n < _LEAST_SCORES:
        return -np.inf

    ordered = np.sort(scores)
    candidates = np.quantile(ordered, _QUANTILES)
    n_below = np.searchsorted(ordered, candidates)
    n_above = n - n_below

    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    splits = (n_below > 0) & (n_above > 0)
    gap = np.zeros(len(candidates))
    below, above = sums[n_below[splits]], sums[-1] - sums[n_below[splits]]
    gap[splits] = above / n_above[splits] - below / n_below[splits]

    between = n_below * n_above * gap**2
    best = int(np.argmax(between))
    # Without a split all gaps are 0.
    if gap[best] <= least_gap:
        return -np.inf
    return float(candidates[best])


def name_weights(
    caught: np.ndarray,
    margin_sums: np.ndarray,
    margin_square_sum: float,
    votes: np.ndarray | None,
    cluster: np.ndarray,
    *,
    least_deviation: float,
) -> np.ndarray:
    """How far each name of the pool is believed to be in the stream, from the images it has caught.

    A name's mean margin (cosine to the name less that to the nearest class) is drawn to that of its
    cluster (0..G-1); a lower bound of it, in standard deviations of all margins, `least_deviation`
    at least, becomes a weight, times what the base detector's `votes` say of its images (None =
    votes play no part). In [0, 1]; 0.2 for names that caught fewer than two images.
    """
    n_caught = caught.sum()
    if not n_caught:
        return np.full(len(caught), PRIOR_WEIGHT)

    mean = margin_sums.sum() / n_caught
    variance = margin_square_sum / n_caught - mean**2
    deviation = max(np.sqrt(max(variance, 0.0)), least_deviation)

    # Mean margin of a name's cluster. Where it has caught nothing, no name of it has enough.
    per_cluster = np.bincount(cluster, caught)
    cluster_means = np.bincount(cluster, margin_sums) / np.maximum(per_cluster, 1)

    total = caught + _SHRINKAGE
    shrunk = (margin_sums + _SHRINKAGE * cluster_means[cluster]) / total
    bound = shrunk / deviation - _BOUND / np.sqrt(total)
    weights = expit((bound - _CENTRE) / _STEEPNESS)
    if votes is not None:
        proportion = (votes + _SHRINKAGE / 2) / total
        weights *= expit((proportion - 0.5) / _VOTE_STEEPNESS)
    return np.where(caught >= _LEAST_CAUGHT, weights, PRIOR_WEIGHT)
