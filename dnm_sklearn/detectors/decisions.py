"""From scores to decisions: what every detector's ``predict`` family shares."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn import thresholds
from dnm_sklearn.labels import ResolvedLabels

_PYOD_CONTAMINATION = 0.1


class DecisionMixin:
    """Thresholds, labels and class predictions on top of ``decision_function``."""

    def _set_threshold(self, rows: np.ndarray | None, failed: np.ndarray | None, labels: ResolvedLabels) -> None:
        """Set ``decision_scores_``, ``labels_`` and ``threshold_`` from the rows given to fit."""
        self.calibration_scores_ = None
        if rows is None:
            if self.contamination != "auto":
                raise ValueError(
                    f"contamination={self.contamination!r} needs images: fit(X, y) with X images or embeddings, "
                    'or use contamination="auto", or calibrate(X_id) after fit.'
                )
            self.decision_scores_ = np.empty(0)
            self.threshold_ = self._zero_shot_threshold()
        else:
            self.decision_scores_ = -self._score_rows(rows, failed)
            self.threshold_ = self._threshold_from(self.decision_scores_, ~failed, labels.is_ood)
        self.labels_ = self._flag(self.decision_scores_) if self.threshold_ is not None else np.empty(0, dtype=int)

    def _threshold_from(self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None) -> float | None:
        """Rule of ``contamination``; rows known to be OOD are left out."""
        keep = usable if is_ood is None else usable & ~is_ood
        if self.contamination == "auto":
            if is_ood is not None and keep.any():
                return thresholds.keep_threshold(scores[keep], keep=0.95)
            zero_shot = self._zero_shot_threshold()
            if zero_shot is not None:
                return zero_shot
        if not keep.any():
            raise ValueError(
                f"No usable row sets the threshold: every row of X (n_samples={len(scores)}) is known to be OOD or "
                "unreadable. Add ID rows, or fit without X and call calibrate(X_id)."
            )
        share = _PYOD_CONTAMINATION if self.contamination == "auto" else self.contamination
        return thresholds.contamination_threshold(scores[keep], share)

    def _flag(self, scores: np.ndarray) -> np.ndarray:
        """1 = OOD where the score is above the threshold, or NaN (not known to be ID)."""
        return (~(scores <= self.threshold_)).astype(int)

    def _check_threshold(self) -> None:
        if self.threshold_ is None:
            raise ValueError(
                f"{type(self).__name__} has no zero-shot threshold: call calibrate(X_id) with ID images, or fit(X) "
                "with images. Scores (decision_function) need no threshold."
            )

    def predict(self, X):
        """Flag OOD rows.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD (also for an unreadable image: it is not known to be ID).

        Raises
        ------
        ValueError
            If the method has no zero-shot threshold and none was set by images.
        """
        check_is_fitted(self, "decision_scores_")
        self._check_threshold()
        return self._flag(self.decision_function(X))

    def fit_predict(self, X, y=None):
        """Fit and return ``labels_``, the decision on the rows given to fit.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        y : array-like of shape (n,) or None, default=None
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD.
        """
        return self.fit(X, y).labels_

    def predict_class(self, X):
        """Zero-shot class name of each row, or ``ood_label`` where :meth:`predict` is 1.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,), str
        """
        check_is_fitted(self, "decision_scores_")
        self._check_threshold()
        rows, failed = self._embed(X, reset=False)
        flagged = self._flag(-self._score_rows(rows, failed)) == 1
        names = np.where(flagged, self.ood_label, self._nearest_class(rows, failed))
        return names.astype(str)

    def calibrate(self, X_id, id_tpr=0.95):
        """Set the threshold so that a new ID image is flagged with probability at most ``1 - id_tpr``.

        The ``ceil((n + 1) * id_tpr)``-th smallest of the n scores (split conformal; marginal over calibration
        and test draw, exchangeable ID images). Images used at fit do not count as calibration.

        Parameters
        ----------
        X_id : images or array-like of shape (n, D)
            ID images that were used for nothing else.
        id_tpr : float, default=0.95
            Share of ID images to keep, in (0, 1).

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If n is too small for `id_tpr`.
        """
        check_is_fitted(self, "decision_scores_")
        if not 0 < id_tpr < 1:
            raise ValueError(f"id_tpr={id_tpr!r} must lie in (0, 1).")
        scores = self._frozen_scores(X_id)
        threshold = thresholds.calibration_threshold(scores, id_tpr)
        self.calibration_scores_, self.threshold_ = np.sort(scores), threshold
        return self

    def _frozen_scores(self, X) -> np.ndarray:
        """OOD scores with the present state (test-time methods override it)."""
        return self.decision_function(X)
