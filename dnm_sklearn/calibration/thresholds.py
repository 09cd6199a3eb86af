"""From scores to decisions: thresholds and conformal p-values (pure functions).

Every score here is higher = more OOD; a row is flagged when its score is *above* the threshold.
"""

from __future__ import annotations

from copy import deepcopy
from math import ceil
from typing import Any

import numpy as np


def contamination_threshold(scores: Any, contamination: float) -> float:
    """Threshold that flags a given share of the rows, as PyOD does.

    Parameters
    ----------
    scores : array-like of shape (n,)
        OOD scores (higher = more OOD).
    contamination : float
        Share in (0, 0.5] of the rows to flag.

    Returns
    -------
    float

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import contamination_threshold
    >>> float(contamination_threshold([0.0, 1.0, 2.0, 3.0], 0.25))
    2.25
    """
    return float(np.percentile(np.asarray(scores, dtype=float), 100 * (1 - contamination)))


def keep_threshold(scores_id: Any, keep: float = 0.95) -> float:
    """Smallest score that keeps at least a given share of ID rows.

    Parameters
    ----------
    scores_id : array-like of shape (n,)
        OOD scores of rows known to be ID.
    keep : float, default=0.95
        Share in (0, 1] that must not be flagged.

    Returns
    -------
    float

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import keep_threshold
    >>> keep_threshold([3.0, 1.0, 2.0, 4.0], keep=0.75)
    3.0
    """
    ordered = np.sort(np.asarray(scores_id, dtype=float))
    return float(ordered[max(ceil(keep * len(ordered) - 1e-9), 1) - 1])


def halfway_up(threshold: float, scores: Any) -> float:
    """Move a threshold half-way to the next larger score, so that rounding cannot flip the row it was taken from.

    The score of a row may differ in its last digits with the other rows of a batch; the rows above
    and below stay the same.

    Parameters
    ----------
    threshold : float
        One of the scores.
    scores : array-like of shape (n,)
        OOD scores.

    Returns
    -------
    float
        Where no score is larger, ``threshold + 1e-5 * max(1, |threshold|)``.

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import halfway_up
    >>> halfway_up(2.0, [1.0, 2.0, 3.0])
    2.5
    """
    values = np.asarray(scores, dtype=float)
    larger = values[values > threshold]
    step = (larger.min() - threshold) / 2 if len(larger) else 1e-5 * max(1.0, abs(threshold))
    return float(threshold + step)


def calibration_threshold(scores_id: Any, id_tpr: float = 0.95) -> float:
    """Split-conformal threshold: a new ID row is flagged with probability at most ``1 - id_tpr``.

    The ``ceil((n + 1) * id_tpr)``-th smallest of n calibration scores. The guarantee is marginal
    over the calibration rows and the new row, and needs them exchangeable (Vovk et al., 2005).

    Parameters
    ----------
    scores_id : array-like of shape (n,)
        OOD scores of ID rows that were used for nothing else.
    id_tpr : float, default=0.95
        Share of ID rows to keep, in (0, 1).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If n is too small for `id_tpr`, or a score is NaN.

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import calibration_threshold
    >>> calibration_threshold(range(19), id_tpr=0.95)
    18.0
    """
    ordered = np.sort(_finite_scores(scores_id))
    rank = ceil((len(ordered) + 1) * id_tpr - 1e-9)
    if rank > len(ordered):
        needed = ceil(id_tpr / (1 - id_tpr) - 1e-9)
        raise ValueError(
            f"{len(ordered)} calibration images cannot hold id_tpr={id_tpr:g}: at least {needed} "
            "are needed. Give more ID images or a smaller id_tpr."
        )
    return float(ordered[rank - 1])


def conformal_p_values(scores: Any, calibration_scores: Any) -> np.ndarray:
    """Split-conformal p-values ``(1 + #{calibration >= score}) / (n + 1)``.

    Under exchangeability ``P(p <= alpha) <= alpha`` for an ID row, marginally over the calibration
    rows and the row itself (Bates et al., "Testing for outliers with conformal p-values", 2023).

    Parameters
    ----------
    scores : array-like of shape (m,)
        OOD scores (higher = more OOD); NaN gives NaN.
    calibration_scores : array-like of shape (n,)
        OOD scores of ID rows used for nothing else.

    Returns
    -------
    ndarray of shape (m,)
        Small = not like ID.

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import conformal_p_values
    >>> conformal_p_values([5.0, 1.0], [0.0, 1.0, 2.0]).tolist()
    [0.25, 0.75]
    """
    ordered = np.sort(_finite_scores(calibration_scores))
    values = np.asarray(scores, dtype=float)
    at_least = len(ordered) - np.searchsorted(ordered, values, side="left")
    return np.where(np.isnan(values), np.nan, (1.0 + at_least) / (len(ordered) + 1.0))


def label_threshold(scores: Any, labels: Any) -> float:
    """Threshold that reproduces given labels: half-way between the rows flagged and the rows not flagged.

    Where no threshold gives the labels (a thresholder may cluster), the one that disagrees with the
    fewest rows.

    Parameters
    ----------
    scores : array-like of shape (n,)
        OOD scores (higher = more OOD).
    labels : array-like of shape (n,)
        1 = flagged, 0 = not flagged.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the labels are not one 0 or 1 a score.

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import label_threshold
    >>> label_threshold([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1])
    1.5
    """
    values, flagged = np.asarray(scores, dtype=float), np.asarray(labels)
    if flagged.shape != values.shape or not np.isin(flagged, (0, 1)).all():
        raise ValueError(
            f"The thresholder in contamination= gave labels of shape {flagged.shape} for "
            f"{len(values)} scores; it must give one 0 (inlier) or 1 (outlier) a score, as "
            "PyThresh's thresholders do."
        )
    order = np.argsort(values, kind="stable")
    ordered, flags = values[order], flagged[order].astype(int)
    # Wrong rows when the first k are kept and the others flagged, for every k that does not part
    # equal scores.
    wrong = np.concatenate([[0], np.cumsum(flags)]) + np.concatenate(
        [np.cumsum(1 - flags[::-1])[::-1], [0]]
    )
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    kept = int(np.argmin(np.where(possible, wrong, len(values) + 1)))
    if kept == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if kept == len(ordered):
        return float(ordered[-1])
    middle = ordered[kept - 1] + (ordered[kept] - ordered[kept - 1]) / 2
    return float(middle if middle < ordered[kept] else ordered[kept - 1])


def thresholder_threshold(thresholder: Any, scores: Any) -> float:
    """Threshold of a PyThresh-style object, on the scale of the scores.

    The object's labels decide; its own ``thresh_`` is ignored, because PyThresh states it on scores
    rescaled to [0, 1].

    Parameters
    ----------
    thresholder : object
        With ``eval(scores)`` that returns labels (PyThresh), or ``fit(scores)`` that sets
        ``labels_`` (what PyOD calls). A copy is used.
    scores : array-like of shape (n,)
        OOD scores (higher = more OOD).

    Returns
    -------
    float

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import thresholder_threshold
    >>> class AboveMean:
    ...     def eval(self, scores):
    ...         return (scores > scores.mean()).astype(int)
    >>> thresholder_threshold(AboveMean(), [0.0, 1.0, 5.0])
    3.0
    """
    own, values = deepcopy(thresholder), np.asarray(scores, dtype=float)
    if hasattr(own, "fit"):
        own.fit(values)
        labels = own.labels_
    else:
        labels = own.eval(values)
    return label_threshold(values, labels)


def logistic_probability(scores: Any, threshold: float, unit: float = 1.0) -> np.ndarray:
    """``expit((score - threshold) / unit)``: a monotone map to (0, 1) that is 0.5 at the threshold.

    Parameters
    ----------
    scores : array-like of shape (m,)
        OOD scores.
    threshold : float
        Where the value is 0.5.
    unit : float, default=1.0
        Score difference that counts as one unit of log-odds.

    Returns
    -------
    ndarray of shape (m,)

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import logistic_probability
    >>> logistic_probability([2.0], 2.0).tolist()
    [0.5]
    """
    from scipy.special import expit

    return expit((np.asarray(scores, dtype=float) - threshold) / unit)


def linear_probability(scores: Any, fit_scores: Any) -> np.ndarray:
    """PyOD's ``method="linear"``: min-max scaling by the scores of the rows given to fit, clipped.

    Parameters
    ----------
    scores, fit_scores : array-like of shape (m,) and (n,)
        OOD scores to map, and of the rows given to fit (NaN ignored).

    Returns
    -------
    ndarray of shape (m,)

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import linear_probability
    >>> linear_probability([1.0, 9.0], [0.0, 4.0]).tolist()
    [0.25, 1.0]
    """
    low, high = np.nanmin(fit_scores), np.nanmax(fit_scores)
    return np.clip((np.asarray(scores, dtype=float) - low) / ((high - low) or 1.0), 0, 1)


def unify_probability(scores: Any, fit_scores: Any) -> np.ndarray:
    """PyOD's ``method="unify"``: Gaussian scaling (Kriegel et al., 2011), clipped at 0.

    Parameters
    ----------
    scores, fit_scores : array-like of shape (m,) and (n,)
        OOD scores to map, and of the rows given to fit (NaN ignored).

    Returns
    -------
    ndarray of shape (m,)

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import unify_probability
    >>> unify_probability([1.0], [0.0, 2.0]).tolist()
    [0.0]
    """
    from scipy.special import erf

    spread = np.nanstd(fit_scores) or 1.0
    return np.clip(
        erf((np.asarray(scores, dtype=float) - np.nanmean(fit_scores)) / (spread * np.sqrt(2))),
        0,
        1,
    )


def prediction_confidence(
    scores: Any, fit_scores: Any, flagged: Any, contamination: float
) -> np.ndarray:
    """How surely a row would get the same label had fit seen other rows (PyOD's ``predict_confidence``).

    Perini et al., "Quantifying the confidence of anomaly detectors in their example-wise
    predictions", 2020.

    Parameters
    ----------
    scores, fit_scores : array-like of shape (m,) and (n,)
        OOD scores to judge, and of the rows given to fit.
    flagged : array-like of shape (m,)
        1 where the row is flagged.
    contamination : float
        Share of the rows given to fit that is flagged.

    Returns
    -------
    ndarray of shape (m,)
        In [0, 1].

    Examples
    --------
    >>> from dnm_sklearn.calibration.thresholds import prediction_confidence
    >>> prediction_confidence([9.0], [0.0, 1.0, 2.0, 3.0], [1], 0.25).round(3).tolist()
    [0.482]
    """
    from scipy.stats import binom

    values = np.asarray(scores, dtype=float)
    ordered = np.sort(np.asarray(fit_scores, dtype=float))
    n = len(ordered)
    share = (1 + np.searchsorted(ordered, values, side="right")) / (2 + n)
    confidence = 1 - binom.cdf(n - int(n * contamination), n, share)
    confidence = np.where(np.asarray(flagged) == 0, 1 - confidence, confidence)
    return np.where(np.isnan(values), np.nan, confidence)


def _finite_scores(scores: Any) -> np.ndarray:
    values = np.asarray(scores, dtype=float).ravel()
    if len(values) == 0:
        raise ValueError("No calibration scores: give at least one ID image.")
    if np.isnan(values).any():
        raise ValueError(
            f"{int(np.isnan(values).sum())} calibration scores are NaN; remove the unreadable "
            "images."
        )
    return values
