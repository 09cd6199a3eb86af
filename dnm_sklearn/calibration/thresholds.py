"""From scores to decisions: thresholds, probabilities and confidences (pure functions).

Every score here is higher = more OOD; a row is flagged when its score is *above* the threshold.
Thresholds with a guarantee are in :mod:`dnm_sklearn.calibration.conformal`.
"""

from __future__ import annotations

from copy import deepcopy
from math import ceil
from typing import Any

import numpy as np

from dnm_sklearn._utils.tensors import as_floats

# -- thresholds -----------------------------------------------------------------------------------


def contamination_threshold(scores: Any, contamination: float) -> float:
    """Threshold that flags a proportion `contamination` of the rows, as PyOD does."""
    return float(np.percentile(as_floats(scores), 100 * (1 - contamination)))


def quantile_threshold(scores_id: Any, keep: float = 0.95) -> float:
    """Smallest score that keeps at least a proportion `keep` of rows known to be ID."""
    ordered = np.sort(as_floats(scores_id))

    # 20 * 0.95 may be a float just above 19, and must stay 19.
    n_kept = ceil(keep * len(ordered) - 1e-9)
    return float(ordered[max(n_kept, 1) - 1])


def expected_threshold(scores_id: Any, flagged: float = 0.05) -> float:
    """Threshold that flags a proportion `flagged` of *new* ID rows on average.

    The scores must be those of rows that did not enter the method, or leave-one-out ones. Between
    n of them, the r-th smallest has ``(n + 1 - r) / (n + 1)`` of new scores above it on average, so
    the threshold stands at rank ``(n + 1) (1 - flagged)``, interpolated. With fewer than ``1 /
    flagged - 1`` scores it is the largest one, which ``1 / (n + 1)`` of new scores exceed.
    """
    return float(np.quantile(as_floats(scores_id), 1 - flagged, method="weibull"))


def midpoint_above(threshold: float, scores: Any) -> float:
    """Move a threshold, one of the scores, half-way to the next larger score.

    So rounding cannot flip the row that it was taken from: a score may differ in its last digits
    with the other rows of a batch. The rows above and below stay the same. Where no score is
    larger, it moves by ``1e-5 * max(1, |threshold|)``.
    """
    values = as_floats(scores)
    larger = values[values > threshold]
    if not len(larger):
        return float(threshold + 1e-5 * max(1.0, abs(threshold)))
    return float(threshold + (larger.min() - threshold) / 2)


def threshold_from_labels(scores: Any, labels: Any) -> float:
    """Threshold that reproduces given labels: half-way between rows flagged and rows not flagged.

    Where no threshold gives the labels (a thresholder may cluster), the one that disagrees with the
    fewest rows.
    """
    values, flagged = as_floats(scores), np.asarray(labels)
    if flagged.shape != values.shape or not np.isin(flagged, (0, 1)).all():
        raise ValueError(
            f"The thresholder in contamination= gave labels of shape {flagged.shape} for "
            f"{len(values)} scores; it must give one 0 (inlier) or 1 (outlier) per score, as "
            "PyThresh's thresholders do."
        )
    order = np.argsort(values, kind="stable")
    ordered, flags = values[order], flagged[order].astype(int)

    # Wrong rows when the first k are kept and the others flagged, for k = 0..n: flagged ones among
    # the first k, and unflagged ones among the rest.
    flagged_before = np.concatenate([[0], np.cumsum(flags)])
    unflagged_after = np.concatenate([np.cumsum(1 - flags[::-1])[::-1], [0]])
    wrong = flagged_before + unflagged_after

    # A threshold cannot stand between equal scores.
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    n_kept = int(np.argmin(np.where(possible, wrong, len(values) + 1)))

    if n_kept == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if n_kept == len(ordered):
        return float(ordered[-1])
    below, above = ordered[n_kept - 1], ordered[n_kept]
    middle = below + (above - below) / 2
    # Between neighbouring floats the middle is rounded, perhaps up to the row to be flagged.
    return float(middle if middle < above else below)


def threshold_from_pythresh(thresholder: Any, scores: Any) -> float:
    """Threshold of a PyThresh-style object, a copy of which is used, on the scale of the scores.

    It has ``eval(scores)`` that returns labels (PyThresh), or ``fit(scores)`` that sets ``labels_``
    (what PyOD calls). The labels decide; its own ``thresh_`` is ignored, because PyThresh states it
    on scores rescaled to [0, 1].
    """
    own, values = deepcopy(thresholder), as_floats(scores)
    if hasattr(own, "fit"):
        own.fit(values)
        return threshold_from_labels(values, own.labels_)
    return threshold_from_labels(values, own.eval(values))


# -- maps to (0, 1) -------------------------------------------------------------------------------


def logistic_probability(scores: Any, threshold: float, unit: float = 1.0) -> np.ndarray:
    """``expit((score - threshold) / unit)``: a monotone map to (0, 1) that is 0.5 at the threshold.

    `unit` is the difference of scores that counts as one unit of log-odds.
    """
    from scipy.special import expit

    return expit((as_floats(scores) - threshold) / unit)


def linear_probability(scores: Any, fit_scores: Any) -> np.ndarray:
    """PyOD's ``method="linear"``: min-max scaling by the scores of the rows of fit, clipped."""
    low, high = np.nanmin(fit_scores), np.nanmax(fit_scores)
    span = (high - low) or 1.0
    return np.clip((as_floats(scores) - low) / span, 0, 1)


def unify_probability(scores: Any, fit_scores: Any) -> np.ndarray:
    """PyOD's ``method="unify"``: Gaussian scaling (Kriegel et al., 2011), clipped at 0."""
    from scipy.special import erf

    spread = np.nanstd(fit_scores) or 1.0
    standardised = (as_floats(scores) - np.nanmean(fit_scores)) / spread
    return np.clip(erf(standardised / np.sqrt(2)), 0, 1)


def prediction_confidence(
    scores: Any, fit_scores: Any, flagged: Any, contamination: float
) -> np.ndarray:
    """How surely a row would get the same label had fit seen other rows (PyOD's confidence).

    `flagged` is 1 where the row is flagged, and `contamination` the proportion of the rows given to
    fit that is. Perini et al., "Quantifying the confidence of anomaly detectors in their
    example-wise predictions", ECML PKDD 2020.
    """
    from scipy.stats import binom

    values = as_floats(scores)
    ordered = np.sort(as_floats(fit_scores))
    n = len(ordered)

    # Bayesian estimate, under a flat prior, of the probability that another row scores no higher.
    n_below = np.searchsorted(ordered, values, side="right")
    outlier_probability = (1 + n_below) / (2 + n)
    # A row is flagged if at least n - int(n * contamination) + 1 of n other rows have such a score.
    flag_probability = 1 - binom.cdf(n - int(n * contamination), n, outlier_probability)

    confidence = np.where(np.asarray(flagged) == 0, 1 - flag_probability, flag_probability)
    return np.where(np.isnan(values), np.nan, confidence)
