"""PyOD's methods that no other library has: a reject option, and fit_predict_score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyod.models.base import BaseDetector as PyODBaseDetector
from pyod.utils.utility import precision_n_scores

from dnm_sklearn._utils.labels import row_is_ood
from dnm_sklearn.detectors.decisions import DecisionMixin
from dnm_sklearn.metrics import auroc

# What PyOD's code calls a rejected row.
_REJECTED = -2


class PyODMethodsMixin(DecisionMixin):
    """What code that is written for PyOD's ``BaseDetector`` calls beyond fit, scores and labels."""

    fit: Callable[..., Any]

    def predict_with_rejection(
        self,
        X: Any,
        T: float = 32,
        return_stats: bool = False,
        delta: float = 0.1,
        c_fp: float = 1,
        c_fn: float = 1,
        c_r: float = -1,
    ) -> np.ndarray | tuple[np.ndarray, list[float]]:
        """Flag OOD rows, but reject those of which the decision is not sure (PyOD's).

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        T : float, default=32
            A row is rejected where its confidence of being on one side, ``|2 c - 1|`` with ``c`` of
            :meth:`predict_confidence`, is at most ``1 - 2 exp(-T)``: the larger, the more.
        return_stats : bool, default=False
            Also return :meth:`compute_rejection_stats`.
        delta, c_fp, c_fn, c_r : float
            As in :meth:`compute_rejection_stats`.

        Returns
        -------
        labels : ndarray of shape (n,), int
            0 = ID, 1 = OOD (also for an unreadable image), -2 = rejected.
        stats : list of float
            Only if `return_stats`.

        Raises
        ------
        ValueError
            If ``fit`` was given no images.

        References
        ----------
        Perini and Davis, "Unsupervised anomaly detection with rejection", NeurIPS 2023.
        """
        labels, confidence = self.predict(X, return_confidence=True)
        labels[np.abs(2 * confidence - 1) <= 1 - 2 * np.exp(-T)] = _REJECTED
        if not return_stats:
            return labels
        return labels, self.compute_rejection_stats(T, delta, c_fp, c_fn, c_r)

    def compute_rejection_stats(
        self,
        T: float = 32,
        delta: float = 0.1,
        c_fp: float = 1,
        c_fn: float = 1,
        c_r: float = -1,
    ) -> list[float]:
        """Estimate how many rows :meth:`predict_with_rejection` rejects, and bound it (PyOD's).

        Parameters
        ----------
        T : float, default=32
            As in :meth:`predict_with_rejection`.
        delta : float, default=0.1
            The bounds hold with probability ``1 - delta``, in (0, 1).
        c_fp, c_fn, c_r : float, default=1, 1, -1
            Costs of a false alarm, a missed OOD row and a rejection; a negative `c_r` is the
            proportion of the images given to ``fit`` that is flagged.

        Returns
        -------
        list of float
            The expected proportion of rejected rows, a bound on it, and a bound on the mean cost.

        Raises
        ------
        ValueError
            If ``fit`` was given no images, or flags none of them, or `delta` is out of range.
        """
        if not 0 < delta < 1:
            raise ValueError(f"delta={delta!r} must lie in (0, 1).")
        known = self._fit_scores("compute_rejection_stats")
        flagged = self._proportion_flagged(known)
        if int(len(known) * flagged) < 1:
            raise ValueError(
                f"compute_rejection_stats needs a flagged image among the {len(known)} given to "
                "fit, and there is none."
            )

        # PyOD's own formulas, on what they read of a detector.
        stand_in = _Fitted(contamination=flagged)
        stand_in.decision_scores_, stand_in.threshold_ = known, self.threshold_
        stand_in.labels_ = self._flag(known)
        stats = stand_in.compute_rejection_stats(T, delta, c_fp, c_fn, flagged if c_r < 0 else c_r)
        return [float(value) for value in stats]

    def fit_predict_score(self, X: Any, y: Any, scoring: str = "roc_auc_score") -> float:
        """Fit on X alone, and judge the scores of X by y (PyOD's).

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        y : array-like of shape (n,)
            Which rows are OOD, as in :meth:`fit`; not used for the fit.
        scoring : {"roc_auc_score", "prc_n_score"}, default="roc_auc_score"
            AUROC, or the precision among as many rows of highest score as there are OOD rows.

        Returns
        -------
        float
            In [0, 1].

        Raises
        ------
        ValueError
            If `scoring` is neither, or y does not say which rows are OOD.
        """
        if scoring not in ("roc_auc_score", "prc_n_score"):
            raise ValueError(f'scoring={scoring!r} must be "roc_auc_score" or "prc_n_score".')
        is_ood = row_is_ood(y, self.ood_label)
        if is_ood is None:
            raise ValueError("y must say which rows are OOD: bool, 0/1, or the ood_label.")

        scores = self.fit(X).decision_scores_
        if scoring == "roc_auc_score":
            return auroc(scores, is_ood)
        return float(precision_n_scores(is_ood.astype(int), scores))


class _Fitted(PyODBaseDetector):
    """What PyOD's formulas need of a fitted detector."""

    def __init__(self, contamination: float = 0.1) -> None:
        super().__init__(contamination=contamination)

    def fit(self, X: Any, y: Any = None) -> _Fitted:
        """Nothing: the attributes are set from outside."""
        return self

    def decision_function(self, X: Any) -> Any:
        """Never called: the scores are known."""
        raise NotImplementedError
