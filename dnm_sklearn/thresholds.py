"""From scores to decisions: thresholds and conformal p-values (pure functions).

Every score here is higher = more OOD; a row is flagged when its score is *above* the threshold.
"""

from __future__ import annotations

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
    >>> from dnm_sklearn.thresholds import contamination_threshold
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
    >>> from dnm_sklearn.thresholds import keep_threshold
    >>> keep_threshold([3.0, 1.0, 2.0, 4.0], keep=0.75)
    3.0
    """
    ordered = np.sort(np.asarray(scores_id, dtype=float))
    return float(ordered[max(ceil(keep * len(ordered) - 1e-9), 1) - 1])


def calibration_threshold(scores_id: Any, id_tpr: float = 0.95) -> float:
    """Split-conformal threshold: a new ID row is flagged with probability at most ``1 - id_tpr``.

    The ``ceil((n + 1) * id_tpr)``-th smallest of n calibration scores. The guarantee is marginal over
    the calibration rows and the new row, and needs them exchangeable (Vovk et al., 2005).

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
    >>> from dnm_sklearn.thresholds import calibration_threshold
    >>> calibration_threshold(range(19), id_tpr=0.95)
    18.0
    """
    ordered = np.sort(_finite_scores(scores_id))
    rank = ceil((len(ordered) + 1) * id_tpr - 1e-9)
    if rank > len(ordered):
        needed = ceil(id_tpr / (1 - id_tpr) - 1e-9)
        raise ValueError(
            f"{len(ordered)} calibration images cannot hold id_tpr={id_tpr:g}: at least {needed} are needed. "
            "Give more ID images or a smaller id_tpr."
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
    >>> from dnm_sklearn.thresholds import conformal_p_values
    >>> conformal_p_values([5.0, 1.0], [0.0, 1.0, 2.0]).tolist()
    [0.25, 0.75]
    """
    ordered = np.sort(_finite_scores(calibration_scores))
    values = np.asarray(scores, dtype=float)
    at_least = len(ordered) - np.searchsorted(ordered, values, side="left")
    return np.where(np.isnan(values), np.nan, (1.0 + at_least) / (len(ordered) + 1.0))


def _finite_scores(scores: Any) -> np.ndarray:
    values = np.asarray(scores, dtype=float).ravel()
    if len(values) == 0:
        raise ValueError("No calibration scores: give at least one ID image.")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} calibration scores are NaN; remove the unreadable images.")
    return values
