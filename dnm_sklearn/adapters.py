"""Bridges to what scikit-learn expects of outlier detectors (+1 / -1) and of classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin, clone
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.fit_context import fit_context
from dnm_sklearn._utils.forwarding import available_if_detector_has, forwarded
from dnm_sklearn._utils.labels import from_outlier_coding, turned_labels
from dnm_sklearn._utils.names import is_string_sequence
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors.base import BaseOODDetector

if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["OODClassifier", "SklearnOutlierAdapter"]


class _Adapter(BaseEstimator):
    """What the two adapters share: a parameter `detector`, and the fitted clone ``detector_``."""

    _parameter_constraints: dict = {"detector": [HasMethods(["fit", "decision_function"])]}

    def _copy_width(self) -> None:
        """Take over what scikit-learn reads of the number of columns."""
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.detector_, name):
                setattr(self, name, getattr(self.detector_, name))

    def _ood_label(self) -> str:
        """The string that marks OOD rows to the detector, which may end a pipeline."""
        last = self.detector.steps[-1][1] if hasattr(self.detector, "steps") else self.detector
        return getattr(last, "ood_label", "ood")

    def _fitted_detector(self) -> Any:
        """The fitted detector, or NotFittedError."""
        check_is_fitted(self, "detector_")
        return self.detector_

    def _rows(self, X: Any) -> Any:
        """What the detector takes: X itself."""
        return X

    def _scores(self, X: Any) -> np.ndarray:
        return self._fitted_detector().decision_function(X)

    def _threshold(self) -> float:
        if self.threshold_ is None:
            raise ValueError(
                f"{type(self.detector_).__name__} has no zero-shot threshold: fit(X) with images, "
                "or calibrate(X_id)."
            )
        return float(self.threshold_)

    @property
    def threshold_(self) -> float | None:
        """Threshold of the detector, on its ``decision_function`` (higher = more OOD)."""
        return self._fitted_detector().threshold_

    calibrate = forwarded(BaseOODDetector.calibrate)


class SklearnOutlierAdapter(OutlierMixin, _Adapter):
    """A detector with the signs of scikit-learn's outlier detectors.

    +1 = inlier (ID), -1 = outlier (OOD).

    Parameters
    ----------
    detector : BaseOODDetector or OODPipeline
        Cloned at fit; wrap a fitted one in ``sklearn.frozen.FrozenEstimator`` to keep it.

    Attributes
    ----------
    detector_ : object
        The fitted detector.
    offset_ : float
        ``-threshold_``: ``decision_function = score_samples - offset_``.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector, SklearnOutlierAdapter
    >>> table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
    >>> detector = NegLabelDetector(["cat", "dog"], embedder=table, n_groups=1)
    >>> adapter = SklearnOutlierAdapter(detector)
    >>> adapter.fit().predict(np.eye(3)).tolist()
    [1, 1, -1]
    """

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Fit a clone of the detector.

        Parameters
        ----------
        X : images, array-like of shape (n, D), sequence of str or None, default=None
            As in the detector's ``fit``.
        y : array-like or None, default=None
            -1 = OOD and +1 = ID, scikit-learn's coding; or as in the detector's ``fit``. Of two
            labels scikit-learn's scoring strings (``"roc_auc"``) take the greater for the one that
            scores higher, and here ID rows do: after a fit on 0 = ID and 1 = OOD, or on another y
            of this order, there is no ``decision_function``, so that they raise.

        Returns
        -------
        self : object
        """
        labels = from_outlier_coding(y)
        # In scikit-learn's coding the greater label, +1, is ID, as its scoring strings need it.
        turned = turned_labels(y, self._ood_label(), greater="id") if labels is y else ""
        if turned:
            turned += ": pass y = np.where(is_ood, -1, 1)"
            warn(f"{turned}, or use score_samples; there is no decision_function after this fit.")

        # Set once it is whole: a fit that fails leaves an earlier one.
        self.detector_ = clone(self.detector).fit(X, labels)
        self._turned = turned
        self._copy_width()
        return self

    @property
    def offset_(self) -> float:
        """What ``decision_function`` subtracts from ``score_samples``."""
        return -self._threshold()

    def score_samples(self, X: Any) -> np.ndarray:
        """ID score of each row.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,)
            Higher = more ID.
        """
        return -self._scores(X)

    def _has_the_order_of_y(self) -> bool:
        if getattr(self, "_turned", ""):
            raise AttributeError(self._turned + ", or use score_samples.")
        return True

    @available_if(_has_the_order_of_y)
    def decision_function(self, X: Any) -> np.ndarray:
        """Distance to the threshold, with scikit-learn's sign; see the y of `fit`.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,)
            Higher = more ID; at least 0 where ``predict`` is +1.
        """
        threshold = self._threshold()
        return threshold - self._scores(X)

    def predict(self, X: Any) -> np.ndarray:
        """Inlier or outlier.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,), int
            +1 = ID, -1 = OOD.
        """
        # The detector's own decision, with what it has to say of its threshold.
        return np.where(self._fitted_detector().predict(X) == 0, 1, -1)


class OODClassifier(ClassifierMixin, _Adapter):
    """A detector as a binary classifier "is this image OOD?", for tools that take classifiers only.

    ``CalibratedClassifierCV``, ``TunedThresholdClassifierCV``, ``roc_auc`` as a string and
    stratified splits by default work with it. ``y`` is needed and has two values.

    Parameters
    ----------
    detector : BaseOODDetector or OODPipeline
        With class names of its own (``classes=``), for `y` says ID or OOD only. Cloned at fit; wrap
        a fitted one in ``sklearn.frozen.FrozenEstimator`` to keep it.
    ood_class : object, default=None
        The value of `y` that means OOD. None: the detector's ``ood_label`` where `y` holds it, -1
        beside 0 or another class index, else the greater of the two values (1, True).

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The two values of `y`, sorted.
    ood_class_ : object
        The one that means OOD.
    detector_ : object
        The fitted detector.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector, OODClassifier
    >>> table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
    >>> classifier = OODClassifier(NegLabelDetector(["cat", "dog"], embedder=table, n_groups=1))
    >>> classifier.fit(np.eye(3), ["known", "known", "ood"]).predict(np.eye(3)).tolist()
    ['known', 'known', 'ood']
    """

    _parameter_constraints: dict = {**_Adapter._parameter_constraints, "ood_class": "no_validation"}

    def __init__(self, detector: Any, *, ood_class: Any = None) -> None:
        self.detector = detector
        self.ood_class = ood_class

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any) -> Self:
        """Fit a clone of the detector; ID rows set its threshold.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        y : array-like of shape (n,)
            Two values: 0/1, bool, or strings such as "id" and the detector's ``ood_label``.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If y is missing or has not exactly two values.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give 0 "
                "= ID, 1 = OOD."
            )

        labels = self._labels(y)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(
                "OODClassifier needs ID and OOD rows, and y holds only one class: "
                f"{classes.tolist()}. A detector alone needs no OOD rows."
            )
        ood_class = self._ood_class(classes)

        # As bool the detector reads it whatever the two values are.
        detector = clone(self.detector).fit(X, labels == ood_class)
        # Set once all is there: a fit that fails leaves an earlier one.
        self.detector_, self.classes_, self.ood_class_ = detector, classes, ood_class
        self._copy_width()

        return self

    def _labels(self, y: Any) -> np.ndarray:
        """`y` as an array (n,)."""
        # Refused in the words that scikit-learn's checks of classifiers look for.
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                f"Unknown label type: {kind}. OODClassifier takes two classes, e.g. 0 = ID and 1 = "
                "OOD."
            )

        labels = column_or_1d(y, warn=True)
        if kind == "multiclass":
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass. "
                "Give the class names to the detector (classes=[...]), and y = 0 for ID, 1 for OOD "
                "rows: y = (names == 'ood')."
            )

        return labels

    def _ood_class(self, classes: np.ndarray) -> Any:
        """Which of the two classes means OOD."""
        if self.ood_class is not None:
            if self.ood_class not in classes:
                raise ValueError(
                    f"ood_class={self.ood_class!r} is not in y, which holds {classes.tolist()}."
                )
            return self.ood_class

        marker = self._ood_label()
        if is_string_sequence(classes) and marker in classes:
            return marker

        if classes.dtype.kind in "iuf" and classes.tolist() == [-1, 1]:
            warn(
                "y holds -1 and +1; the greater one, +1, is taken for OOD, as scikit-learn does "
                "with classifiers. In the coding of scikit-learn's outlier detectors -1 is the "
                "outlier: then pass ood_class=-1.",
            )

        # -1 = OOD beside a class index, as detectors and scorers read it.
        is_index = classes.dtype.kind in "iuf" and classes[0] == -1 and classes[1] != 1
        return classes[0] if is_index else classes[1]

    def decision_function(self, X: Any) -> np.ndarray:
        """Score of ``classes_[1]``, 0 at the threshold.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,)
            Above 0 where ``predict`` is ``classes_[1]``: higher = more OOD if that is the OOD
            class.
        """
        margin = self._scores(X) - self._threshold()
        if self.ood_class_ == self.classes_[1]:
            return margin
        # The sign turns, and with it the side of a row at the threshold: it is ID, here
        # classes_[1], and must come out just above 0.
        return np.where(margin == 0, np.finfo(float).tiny, -margin)

    def predict(self, X: Any) -> np.ndarray:
        """Class of each row.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n,)
            Values of ``classes_``.
        """
        above = self.decision_function(X) > 0
        return self.classes_[above.astype(int)]

    @available_if_detector_has("predict_proba")
    def predict_proba(self, X: Any) -> np.ndarray:
        """The detector's ``predict_proba``, columns in the order of ``classes_``; not calibrated.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.

        Returns
        -------
        ndarray of shape (n, 2)
            Wrap the classifier in ``CalibratedClassifierCV`` for calibrated probabilities.
        """
        proba = self._fitted_detector().predict_proba(X)
        if self.ood_class_ == self.classes_[1]:
            return proba

        # A row at the threshold is ID, here the second class, and 0.5 for both would read as the
        # first.
        tie = proba[:, :1] == 0.5
        return np.where(tie, [np.nextafter(0.5, 0), np.nextafter(0.5, 1)], proba[:, ::-1])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        # A zero-shot detector learns the classes from their names, never from the rows of
        # scikit-learn's made-up data sets.
        tags.classifier_tags.poor_score = True
        return tags
