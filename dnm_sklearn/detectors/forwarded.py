"""What a pipeline offers of the detector that it ends in."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dnm_sklearn._utils.forwarding import available_if_detector_has

if TYPE_CHECKING:
    from typing_extensions import Self


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

    @available_if_detector_has("predict_class")
    def predict_class(self, X: Any) -> np.ndarray:
        """Zero-shot class names; see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,), str
        """
        return self._fitted_detector().predict_class(self._rows(X))

    @available_if_detector_has("predict_confidence")
    def predict_confidence(self, X: Any) -> np.ndarray:
        """How surely each row would get the same label had fit seen other images; see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,)
        """
        return self._fitted_detector().predict_confidence(self._rows(X))

    @available_if_detector_has("calibrate")
    def calibrate(
        self,
        X_id: Any,
        id_tpr: float | None = None,
        *,
        false_alarm_rate: float | None = None,
        by_class: Literal["shrunk", "strict"] | None = None,
    ) -> Self:
        """Set the detector's threshold from ID images.

        Parameters
        ----------
        X_id : images or array-like of shape (n, D)
            ID images used for nothing else.
        id_tpr : float or None, default=None
            Proportion of ID images to keep, in (0, 1); None = 0.95, unless `false_alarm_rate` says
            another.
        false_alarm_rate : float or None, default=None
            Proportion of ID images that may be flagged, instead of `id_tpr`.
        by_class : {"shrunk", "strict"} or None, default=None
            P-values by predicted class; see the detector.

        Returns
        -------
        self : object
        """
        self._fitted_detector().calibrate(
            self._rows(X_id), id_tpr, false_alarm_rate=false_alarm_rate, by_class=by_class
        )
        return self

    @available_if_detector_has("p_value")
    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-values of "this image is ID", after :meth:`calibrate`; see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,)
            Small = unlike ID.
        """
        return self._fitted_detector().p_value(self._rows(X))

    @available_if_detector_has("explain")
    def explain(self, X: Any, top_k: int | None = 5) -> Any:
        """Nearest class names and negative labels of each image; see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        top_k : int or None, default=5
            Labels a side; None = all.

        Returns
        -------
        pandas.DataFrame, or list of dict where pandas is not installed
        """
        return self._fitted_detector().explain(self._rows(X), top_k)

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

    @available_if_detector_has("drift_alarm")
    def drift_alarm(self, *, alpha: float = 0.01, random_state: Any = 0) -> Any:
        """Start a drift alarm for a stream of images; see the detector.

        Parameters
        ----------
        alpha : float, default=0.01
            Bound on the probability of a false alarm, ever.
        random_state : int, RandomState instance or None, default=0
            Breaks ties.

        Returns
        -------
        ConformalTestMartingale
            Feed it ``alarm.update(pipe.decision_function(batch))``.
        """
        return self._fitted_detector().drift_alarm(alpha=alpha, random_state=random_state)

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

    @available_if_detector_has("reset_adaptation")
    def reset_adaptation(self) -> Self:
        """Forget what was learned from test images; see the detector.

        Returns
        -------
        self : object
        """
        self._fitted_detector().reset_adaptation()
        return self

    @available_if_detector_has("adaptation_state")
    def adaptation_state(self) -> dict[str, Any]:
        """What was learned from test images; see the detector.

        Returns
        -------
        dict
            Arrays and numbers, copied.
        """
        return self._fitted_detector().adaptation_state()

    @available_if_detector_has("merge_adaptation")
    def merge_adaptation(self, states: Sequence[dict[str, Any]]) -> Self:
        """Put together what copies have learned side by side; see the detector.

        Parameters
        ----------
        states : sequence of dict
            The `adaptation_state` of each copy.

        Returns
        -------
        self : object
        """
        self._fitted_detector().merge_adaptation(states)
        return self

    @available_if_detector_has("predict_with_rejection")
    def predict_with_rejection(self, X: Any, **params: Any) -> Any:
        """Flag OOD rows, but reject unsure ones (PyOD's); see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        **params : dict
            As in the detector.

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD, -2 = rejected; with statistics if they are asked for.
        """
        return self._fitted_detector().predict_with_rejection(self._rows(X), **params)

    @available_if_detector_has("compute_rejection_stats")
    def compute_rejection_stats(self, **params: Any) -> list[float]:
        """Estimate how many rows are rejected (PyOD's); see the detector.

        Parameters
        ----------
        **params : dict
            As in the detector.

        Returns
        -------
        list of float
        """
        return self._fitted_detector().compute_rejection_stats(**params)

    @available_if_detector_has("fit_predict_score")
    def fit_predict_score(self, X: Any, y: Any, scoring: str = "roc_auc_score") -> float:
        """Fit on X alone, and judge the scores of X by y (PyOD's); see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        y : array-like of shape (n,)
            Which rows are OOD.
        scoring : {"roc_auc_score", "prc_n_score"}, default="roc_auc_score"
            What to judge by.

        Returns
        -------
        float
        """
        return self._own_detector().fit_predict_score(self._rows(X), y, scoring)

    @available_if_detector_has("partial_fit")
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Adapt a test-time detector to images and keep its state; see the detector.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        y : ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : object
        """
        self._own_detector().partial_fit(self._rows(X))
        return self
