"""Statements about error rates that are true: p-values, e-values and a drift alarm, from calibration images."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn.calibration import conformal
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.scoring import enl

_CHUNK_NUMBERS = 2**22


class GuaranteedDetector(StreamingDetector):
    """Base class that adds e-values, decisions at a level and a drift alarm to a detector of corpus labels.

    All of them need :meth:`calibrate` with ID images that were used for nothing else, and scores
    that do not depend on the image scored: after the stream's state has changed, they raise until
    it is calibrated again or reset. A subclass has ``id_prototypes_`` and ``negative_embeddings_``,
    and gives the present log weights in :meth:`_present_log_weights`.
    """

    id_prototypes_: np.ndarray
    negative_embeddings_: np.ndarray
    adaptation: str
    n_seen_: int

    @abstractmethod
    def _present_log_weights(self) -> np.ndarray:
        """Log weights of the corpus labels (N,), of mean at most 1."""

    def calibrate(self, X_id, id_tpr=0.95):
        """Set the threshold so that a new ID image is flagged with probability at most ``1 - id_tpr``.

        The images also serve :meth:`p_value`, :meth:`e_value` and :meth:`drift_alarm`. They are
        assumed clean: a mislabelled one among them makes all three more lenient. `trim` plays no
        part here.

        Parameters
        ----------
        X_id : images or array-like of shape (n, D)
            ID images that were used for nothing else: not for E, prototypes, weights or tuning.
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
        super().calibrate(X_id, id_tpr)
        rows, failed = self._embed(X_id, reset=False)
        ratios = [self._log_ratios(part) for part in self._row_parts(rows[~failed])]
        self.calibration_log_sums_ = np.logaddexp.reduce(
            np.concatenate([_log_sums(part) for part in ratios]), axis=0
        )
        return self

    def _row_parts(self, rows: np.ndarray) -> list[np.ndarray]:
        step = max(1, _CHUNK_NUMBERS // len(self.negative_embeddings_))
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def _log_ratios(self, rows: np.ndarray) -> np.ndarray:
        log_id = enl.class_logsumexp(rows, self.id_prototypes_, temperature=self.temperature_)
        return (rows @ self.negative_embeddings_.T).astype(np.float64) / self.temperature_ - log_id[
            :, None
        ]

    def _check_calibrated(self, what: str) -> int:
        """Number of calibration images, if there is a guarantee to give."""
        check_is_fitted(self, "decision_scores_")
        if self.calibration_scores_ is None:
            raise ValueError(
                f"{what} needs calibration scores: call calibrate(X_id) first, with ID images that "
                "were used for nothing else (images given to fit do not count). Without them there "
                "is no guarantee to give."
            )
        if self.n_seen_ != self.calibration_n_seen_:
            raise ValueError(
                f"{what}: the detector has learned from test images since calibrate, so that its "
                "scores may depend on the image scored and the guarantee is void. Call "
                "reset_adaptation() or set adaptation='frozen', then calibrate(X_id) again."
            )
        return len(self.calibration_scores_)

    def p_value(self, X):
        """Conformal p-value of "this image is ID", from the images given to :meth:`calibrate`.

        ``(1 + #{calibration scores >= score}) / (n + 1)``. For an ID image, exchangeable with the n
        calibration images, ``P(p <= alpha) <= alpha`` for every alpha and every n, over the draw of
        both. It is usually the more powerful of the two; :meth:`e_value` can be averaged.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us), scored with the state frozen.

        Returns
        -------
        ndarray of shape (n,)
            In [1 / (n + 1), 1]; small = unlike ID. NaN for an unreadable image.

        Raises
        ------
        ValueError
            Before :meth:`calibrate`, or if the stream's state has changed since.
        """
        self._check_calibrated("p_value")
        return super().p_value(X)

    def e_value(self, X, form="score"):
        """Conformal e-value of "this image is ID", from the images given to :meth:`calibrate`.

        For an ID image, exchangeable with the n calibration images, its mean is at most 1, hence
        ``P(e >= 1 / alpha) <= alpha``, over the draw of both. It is at most n + 1.

        Parameters
        ----------
        X : images or array-like of shape (m, D)
            Images, or embeddings (normalised by us), scored with the state frozen.
        form : {"score", "labels"}, default="score"
            "score": ``(n + 1) v / (v + sum_i v_i)`` with ``v = exp(decision_function)``. "labels":
            the mean over labels j of ``w_j (n + 1) r_j / (r_j + sum_i r_ij)``, with the present
            weights.

        Returns
        -------
        ndarray of shape (m,), float64
            Large = unlike ID. NaN for an unreadable image.

        Raises
        ------
        ValueError
            Before :meth:`calibrate`, or if the stream's state has changed since.

        References
        ----------
        Vovk, "Conformal e-prediction", Pattern Recognition 2025, arXiv:2001.05989.
        """
        if form not in ("score", "labels"):
            raise ValueError(f'form={form!r} must be "score" or "labels".')
        self._check_calibrated("e_value")
        if form == "score":
            return conformal.conformal_e_values(self._frozen_scores(X), self.calibration_scores_)
        rows, failed = self._embed(X, reset=False)
        values = np.full(len(rows), np.nan)
        weights, known = self._present_log_weights(), self._check_calibrated("e_value")
        parts = [
            conformal.label_e_values(
                self._log_ratios(part), self.calibration_log_sums_, known, weights
            )
            for part in self._row_parts(rows[~failed])
        ]
        values[~failed] = np.concatenate(parts) if parts else []
        return values

    def predict(self, X, return_confidence=False, level=None):
        """Flag OOD rows, by the threshold or at a guaranteed level.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        return_confidence : bool, default=False
            Also return :meth:`predict_confidence` (needs images at fit).
        level : float, optional
            alpha: flag where :meth:`p_value` is at most this, so that an ID image is flagged with
            probability at most alpha. None = by ``threshold_``.

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD (also for an unreadable image: it is not known to be ID).
        confidence : ndarray of shape (n,)
            Only if `return_confidence`.

        Raises
        ------
        ValueError
            If `level` needs more calibration images, or :meth:`p_value` raises, or
            ``adaptation="transductive"`` makes weights depend on the images scored.
        """
        if level is None:
            return super().predict(X, return_confidence)
        n_calibration = self._check_calibrated("predict(level=)")
        if self.adaptation == "transductive":
            raise ValueError(
                "predict(level=) has no guarantee to give with adaptation='transductive', where "
                "the weights depend on the images scored: use set_params(adaptation='frozen')."
            )
        conformal.check_level(level, n_calibration)
        labels = (~(self.p_value(X) > level)).astype(int)
        if not return_confidence:
            return labels
        return labels, self._confidence(self._frozen_scores(X), labels)

    def drift_alarm(self, *, alpha=0.01, random_state=0):
        """Start a drift alarm for a stream: P(ever alarm) <= alpha while it is exchangeable with the calibration.

        Feed it ``alarm.update(det.decision_function(batch))`` with ``adaptation="frozen"`` and no
        ``partial_fit`` in between.

        Parameters
        ----------
        alpha : float, default=0.01
            Bound on the probability of a false alarm, ever.
        random_state : int, RandomState instance or None, default=0
            Breaks ties.

        Returns
        -------
        ConformalTestMartingale

        Raises
        ------
        ValueError
            As :meth:`p_value`.
        """
        self._check_calibrated("drift_alarm")
        return conformal.ConformalTestMartingale(
            self.calibration_scores_, alpha=alpha, random_state=random_state
        )


def _log_sums(ratios: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(ratios, axis=0, keepdims=True)
