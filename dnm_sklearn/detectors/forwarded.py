"""What a pipeline offers of the detector that it ends in."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dnm_sklearn._utils.forwarding import available_if_detector_has, forwarded
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.streaming import StreamingDetector


class ForwardedMethods(metaclass=ABCMeta):
    """The methods of a detector, on what the steps before it make of images.

    Those that scikit-learn's ``Pipeline`` forwards by itself (``predict``, ``decision_function``
    and so on) are not here.
    """

    @abstractmethod
    def _rows(self, X: Any) -> Any:
        """Embeddings (n, D) of images."""

    @abstractmethod
    def _own_detector(self) -> Any:
        """The detector."""

    @abstractmethod
    def _fitted_detector(self) -> Any:
        """The detector, or NotFittedError."""

    @property
    def threshold_(self) -> float | None:
        """Threshold of the detector."""
        return self._own_detector().threshold_

    @property
    def decision_scores_(self) -> np.ndarray:
        """OOD scores of the images given to fit."""
        return self._own_detector().decision_scores_

    @property
    def labels_(self) -> np.ndarray:
        """Decisions on the images given to fit, 0 = ID, 1 = OOD."""
        return self._own_detector().labels_

    predict_class = forwarded(BaseOODDetector.predict_class)
    predict_confidence = forwarded(BaseOODDetector.predict_confidence)
    predict_with_rejection = forwarded(BaseOODDetector.predict_with_rejection)
    compute_rejection_stats = forwarded(BaseOODDetector.compute_rejection_stats, rows=False)
    fit_predict_score = forwarded(BaseOODDetector.fit_predict_score, fitted=False)
    explain = forwarded(BaseOODDetector.explain)

    calibrate = forwarded(BaseOODDetector.calibrate)
    p_value = forwarded(BaseOODDetector.p_value)
    drift_alarm = forwarded(BaseOODDetector.drift_alarm, rows=False)

    partial_fit = forwarded(StreamingDetector.partial_fit, fitted=False)
    reset_adaptation = forwarded(StreamingDetector.reset_adaptation, rows=False)
    adaptation_state = forwarded(StreamingDetector.adaptation_state, rows=False)
    merge_adaptation = forwarded(StreamingDetector.merge_adaptation, rows=False)

    @available_if_detector_has("e_value")
    def e_value(self, X: Any, **params: Any) -> np.ndarray:
        """Conformal e-values of "this image is ID", after :meth:`calibrate`; see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        **params : dict
            As in the detector (ENL's ``form``).

        Returns
        -------
        ndarray of shape (n,)
            Large = unlike ID.
        """
        return self._fitted_detector().e_value(self._rows(X), **params)

    @available_if_detector_has("score_stream")
    def score_stream(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score an endless stream, and keep what was learned after every batch; see the detector.

        Parameters
        ----------
        batches : iterable of images or of array-likes of shape (b, D)
            Batches of test images or embeddings.

        Returns
        -------
        iterator of ndarray of shape (b,)
            OOD scores of each batch, higher = more OOD.
        """
        return self._fitted_detector().score_stream(map(self._rows, batches))
