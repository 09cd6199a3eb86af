"""From scores to decisions: what every detector's ``predict`` family shares."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import thresholds
from dnm_sklearn.exceptions import CalibrationWarning

_PYOD_CONTAMINATION = 0.1


class DecisionMixin:
    """Thresholds, labels and class predictions on top of ``decision_function``."""

    # What the detector brings.
    contamination: Any
    ood_label: str
    fit: Any
    decision_function: Any
    _embed: Any
    _score_rows: Any
    _nearest_class: Any
    _zero_shot_threshold: Any

    calibration_scores_: np.ndarray | None

    def _set_threshold(
        self, rows: np.ndarray | None, failed: np.ndarray | None, labels: ResolvedLabels
    ) -> None:
        """Set ``decision_scores_``, ``labels_`` and ``threshold_`` from the rows given to fit."""
        self.calibration_scores_ = self.calibration_n_seen_ = None
        if rows is None or failed is None:
            if not isinstance(self.contamination, str):
                raise ValueError(
                    f"contamination={self.contamination!r} needs images: fit(X, y) with X images "
                    "or embeddings, "
                    'or use contamination="auto", or calibrate(X_id) after fit.'
                )
            self.decision_scores_ = np.empty(0)
            self.threshold_ = self._zero_shot_threshold()
        else:
            self.decision_scores_ = -self._score_rows(rows, failed)
            self.threshold_ = self._threshold_from(self.decision_scores_, ~failed, labels.is_ood)
        self.labels_ = (
            self._flag(self.decision_scores_)
            if self.threshold_ is not None
            else np.empty(0, dtype=int)
        )

    def _threshold_from(
        self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None
    ) -> float | None:
        """Rule of ``contamination``; rows known to be OOD are left out."""
        keep = usable if is_ood is None else usable & ~is_ood
        auto = isinstance(self.contamination, str)
        if auto:
            if is_ood is not None and keep.any():
                return thresholds.halfway_up(
                    thresholds.keep_threshold(scores[keep], keep=0.95), scores[keep]
                )
            zero_shot = self._zero_shot_threshold()
            if zero_shot is not None:
                return zero_shot
        if not keep.any():
            raise ValueError(
                f"No usable row sets the threshold: every row of X (n_samples={len(scores)}) is "
                "known to be OOD or unreadable. Add ID rows, or fit without X and call "
                "calibrate(X_id)."
            )
        if not auto and not isinstance(self.contamination, Real):
            return thresholds.thresholder_threshold(self.contamination, scores[keep])
        share = _PYOD_CONTAMINATION if auto else self.contamination
        return thresholds.contamination_threshold(scores[keep], share)

    def _flag(self, scores: np.ndarray) -> np.ndarray:
        """1 = OOD where the score is above the threshold, or NaN (not known to be ID)."""
        return (~(scores <= self.threshold_)).astype(int)

    def _check_threshold(self) -> None:
        if self.threshold_ is None:
            raise ValueError(
                f"{type(self).__name__} has no zero-shot threshold: call calibrate(X_id) with ID "
                "images, or fit(X) with images. Scores (decision_function) need no threshold."
            )

    def _decisions(self, X) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of X, after the checks that every decision needs."""
        check_is_fitted(self, "decision_scores_")
        self._check_threshold()
        self._warn_uncalibrated()
        scores = self.decision_function(X)
        return scores, self._flag(scores)

    def _warn_uncalibrated(self, *, frozen: bool = False) -> None:
        """Calibration holds for the scoring rule that the calibration images met, and no other."""
        if self.calibration_scores_ is None:
            return
        seen = getattr(self, "n_seen_", None)
        if seen != self.calibration_n_seen_:
            warn(
                f"{type(self).__name__} has changed its state since calibrate (n_seen_={seen}, "
                f"then {self.calibration_n_seen_}): the calibrated rate is not guaranteed. Call "
                "calibrate(X_id) again.",
                CalibrationWarning,
            )
        elif not frozen and getattr(self, "adaptation", None) == "transductive":
            warn(
                f"{type(self).__name__} was calibrated with its state frozen, but "
                "adaptation='transductive' scores every image together with the others of X: the "
                "share of ID images kept is not guaranteed. Use set_params(adaptation='frozen') "
                "for the guarantee.",
                CalibrationWarning,
            )

    def predict(self, X, return_confidence=False):
        """Flag OOD rows.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        return_confidence : bool, default=False
            Also return :meth:`predict_confidence` (needs images at fit).

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD (also for an unreadable image: it is not known to be ID).
        confidence : ndarray of shape (n,)
            Only if `return_confidence`.

        Raises
        ------
        ValueError
            If the method has no zero-shot threshold and none was set by images.
        """
        scores, labels = self._decisions(X)
        return (labels, self._confidence(scores, labels)) if return_confidence else labels

    def predict_confidence(self, X):
        """How surely each row would get the same label had fit seen other images (PyOD's confidence).

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,)
            In [0, 1]; NaN for an unreadable image.

        Raises
        ------
        ValueError
            If ``fit`` was given no images.

        References
        ----------
        Perini et al., "Quantifying the confidence of anomaly detectors in their example-wise
        predictions", ECML PKDD 2020.
        """
        return self._confidence(*self._decisions(X))

    def _fit_scores(self, what: str) -> np.ndarray:
        known = self.decision_scores_[~np.isnan(self.decision_scores_)]
        if not len(known):
            raise ValueError(
                f"{what} compares with the scores of images given to fit, and there were none: "
                "fit(X)."
            )
        return known

    def _confidence(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        known = self._fit_scores("The confidence")
        is_share = isinstance(self.contamination, Real)
        share = float(self.contamination) if is_share else float(np.mean(known > self.threshold_))
        return thresholds.prediction_confidence(scores, known, labels, share)

    def _score_unit(self) -> float:
        """Score difference that counts as one unit of log-odds (1 where scores are logs or log-odds)."""
        return 1.0

    def predict_proba(self, X, method="logistic", return_confidence=False):
        """Map scores to (0, 1); **not** a calibrated probability of being OOD.

        How many images are OOD is unknown to a zero-shot detector, and so is any true probability.
        For calibrated ones use ``CalibratedClassifierCV(OODClassifier(detector))`` on labelled
        images; for a guaranteed error rate
        :meth:`calibrate` and :meth:`p_value`.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        method : {"logistic", "linear", "unify"}, default="logistic"
            "logistic": ``expit((decision_function(X) - threshold_) / u)``, with u = 1 for scores
            that are logs or log-odds and u = the temperature for cosines and energies: above 0.5
            exactly where ``predict`` is 1. "linear" and "unify": PyOD's two maps, by the scores of
            the images given to fit.
        return_confidence : bool, default=False
            Also return :meth:`predict_confidence`.

        Returns
        -------
        ndarray of shape (n, 2)
            Columns [ID, OOD]; rows sum to 1. NaN for an unreadable image.
        confidence : ndarray of shape (n,)
            Only if `return_confidence`.
        """
        if method not in ("logistic", "linear", "unify"):
            raise ValueError(f'method={method!r} must be "logistic", "linear" or "unify".')
        scores, labels = self._decisions(X)
        if method == "logistic":
            ood = thresholds.logistic_probability(scores, self.threshold_, self._score_unit())
        else:
            convert = (
                thresholds.linear_probability
                if method == "linear"
                else thresholds.unify_probability
            )
            ood = convert(scores, self._fit_scores(f'predict_proba(method="{method}")'))
        proba = np.column_stack([1 - ood, ood])
        return (proba, self._confidence(scores, labels)) if return_confidence else proba

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
        self._warn_uncalibrated()
        rows, failed = self._embed(X, reset=False)
        flagged = self._flag(-self._score_rows(rows, failed)) == 1
        names = np.asarray(np.where(flagged, self.ood_label, self._nearest_class(rows, failed)))
        return names.astype(str)

    def calibrate(self, X_id, id_tpr=0.95):
        """Set the threshold so that a new ID image is flagged with probability at most ``1 - id_tpr``.

        The ``ceil((n + 1) * id_tpr)``-th smallest of the n scores (split conformal; marginal over
        calibration and test draw, exchangeable ID images). Images used at fit do not count as
        calibration.

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
        self.calibration_n_seen_ = getattr(self, "n_seen_", None)
        self.labels_ = self._flag(self.decision_scores_)
        return self

    def p_value(self, X):
        """Conformal p-value of "this image is ID", from the images given to :meth:`calibrate`.

        ``(1 + #{calibration scores >= score}) / (n + 1)``. For an ID image, exchangeable with the n
        calibration images, ``P(p <= alpha) <= alpha`` for every alpha and every n, over the draw of
        both (Bates et al., 2023). P-values of several images share the calibration set and are not
        independent of each other.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us). Test-time methods score them with their state
            frozen.

        Returns
        -------
        ndarray of shape (n,)
            In [1 / (n + 1), 1]; small = unlike ID. NaN for an unreadable image.

        Raises
        ------
        ValueError
            Before :meth:`calibrate`.

        References
        ----------
        Bates et al., "Testing for outliers with conformal p-values", Annals of Statistics 2023.
        """
        check_is_fitted(self, "decision_scores_")
        if self.calibration_scores_ is None:
            raise ValueError(
                "p_value needs calibration scores: call calibrate(X_id) first, with ID images that "
                "were used for nothing else (images given to fit do not count)."
            )
        self._warn_uncalibrated(frozen=True)
        return thresholds.conformal_p_values(self._frozen_scores(X), self.calibration_scores_)

    def _frozen_scores(self, X) -> np.ndarray:
        """OOD scores with the present state (test-time methods override it)."""
        return self.decision_function(X)
