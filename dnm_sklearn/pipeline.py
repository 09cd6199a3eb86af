"""A pipeline in which the detector's embedder is the first step's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.all_or_nothing import all_or_nothing
from dnm_sklearn._utils.forwarding import available_if_detector_has, forwarded
from dnm_sklearn._utils.names import is_string_sequence
from dnm_sklearn._utils.y_column import read_y
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.saving import write_detector
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.embedding.check import check_embedder

if TYPE_CHECKING:
    from typing_extensions import Self


class OODPipeline(Pipeline):
    """Embedder then detector, with one embedder for images and names.

    Build it with :func:`make_ood_pipeline`. The last step is a clone of the detector given, whose
    ``embedder`` parameter *is* the first step, also after ``clone``,
    ``set_params(embedder__model=...)``, pickling and inside ``GridSearchCV``. A detector with
    another embedder is refused. It offers whatever its detector does.

    Parameters
    ----------
    steps : list of (str, estimator)
        ``[("embedder", ...), ("detector", ...)]``, possibly with array transformers between them.
    transform_input : list of str or None, default=None
        As in :class:`sklearn.pipeline.Pipeline`.
    memory : str, joblib.Memory or None, default=None
        As in :class:`sklearn.pipeline.Pipeline`.
    verbose : bool, default=False
        As in :class:`sklearn.pipeline.Pipeline`.
    """

    steps: list[tuple[str, Any]]

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        transform_input: list[str] | None = None,
        memory: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self._adopt()

    def _has_detector(self) -> bool:
        """Whether the last step is a detector; a slice, such as pipe[:-1], may have none."""
        first, last = self.steps[0][1], self.steps[-1][1]
        return last is not first and hasattr(last, "decision_function")

    def _adopt(self) -> None:
        """Put a clone in the place of a detector that is somebody else's."""
        if not self._has_detector() or self.steps[-1][1].embedder is self.steps[0][1]:
            return
        self._check_embedder()
        name, detector = self.steps[-1]
        own = clone(detector).set_params(embedder=self.steps[0][1])
        self.steps = [*self.steps[:-1], (name, own)]

    def _link(self) -> None:
        """Make the pipeline's own detector use the first step's embedder."""
        # scikit-learn's Pipeline with memory= replaces its steps by fitted clones.
        if self._has_detector() and self.steps[-1][1].embedder is not self.steps[0][1]:
            self._check_embedder()
            self.steps[-1][1].set_params(embedder=self.steps[0][1])

    def _check_embedder(self) -> None:
        """Refuse a detector with an embedder that differs from the first step."""
        first, own = self.steps[0][1], self.steps[-1][1].embedder
        if own is None or _are_alike(first, own):
            return
        raise ValueError(
            f"The detector has an embedder of its own, {own!r}, which is not the pipeline's, "
            f"{first!r}: images and names would go through different models. Leave the detector's "
            "embedder=None; the first step is it (set_params(embedder=...) changes both)."
        )

    def __sklearn_clone__(self) -> Self:
        """Clone, keeping the one embedder."""
        # scikit-learn's own clone compares each parameter with the one given, and the detector's
        # embedder is no longer that.
        steps = [(name, clone(step)) for name, step in self.steps]
        if self._has_detector():
            steps[-1][1].set_params(embedder=steps[0][1])
        return type(self)(
            steps,
            transform_input=clone(self.transform_input, safe=False),
            memory=clone(self.memory, safe=False),
            verbose=self.verbose,
        )

    def set_params(self, **params: Any) -> Self:
        """Set parameters, as in scikit-learn's ``Pipeline``, and keep the one embedder.

        Parameters
        ----------
        **params : dict
            ``embedder__model=...``, ``detector__n_groups=...`` and so on.

        Returns
        -------
        self : object
        """
        before = self.steps
        super().set_params(**params)
        if not self._has_detector():
            return self

        detector = self.steps[-1][1]
        if detector is not before[-1][1]:
            self._adopt()
        elif detector.embedder is before[0][1]:
            detector.set_params(embedder=self.steps[0][1])  # the embedder was exchanged, for both
        else:
            self._check_embedder()
        return self

    def fit(self, X: Any = None, y: Any = None, **params: Any) -> Self:
        """Fit on images and labels, or on names alone.

        Parameters
        ----------
        X : images, array-like of shape (n, D), sequence of str or None, default=None
            Images or embeddings; or the class names, if neither `y` nor the detector has any.
        y : array-like or None, default=None
            As in the detector's ``fit``.
        **params : dict
            Passed on by scikit-learn's ``Pipeline`` (only with images).

        Returns
        -------
        self : object
        """
        self._link()
        # A fit that fails leaves what an earlier one has made, in each step.
        with all_or_nothing(self, *(step for _, step in self.steps if hasattr(step, "fit"))):
            if self._names_only(X, y):
                # Names are no images: nothing goes through the steps in between.
                self.steps[0][1].fit()
                self.steps[-1][1].fit(X, y)
                return self
            return super().fit(X, y, **params)

    def _names_only(self, X: Any, y: Any) -> bool:
        """Whether `fit` is given class names and no images (the names rule of the detectors)."""
        if X is None:
            return True
        gave_names = self.steps[-1][1].classes is not None or isinstance(read_y(y), list)
        return is_string_sequence(X) and not gave_names

    # -- the detector's, on what the steps before it make of images ---------------------------

    def _rows(self, X: Any) -> Any:
        """Embeddings (n, D): X through all steps but the detector."""
        return self[:-1].transform(X)

    def _own_detector(self) -> Any:
        self._link()
        return self.steps[-1][1]

    def _fitted_detector(self) -> Any:
        check_is_fitted(self.steps[-1][1])
        return self.steps[-1][1]

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

    # What scikit-learn's Pipeline forwards by itself (`predict` and so on) is not here.
    predict_class = forwarded(BaseOODDetector.predict_class)
    predict_confidence = forwarded(BaseOODDetector.predict_confidence)
    predict_with_rejection = forwarded(BaseOODDetector.predict_with_rejection)
    compute_rejection_stats = forwarded(BaseOODDetector.compute_rejection_stats, rows=False)
    fit_predict_score = forwarded(BaseOODDetector.fit_predict_score, fitted=False)
    explain = forwarded(BaseOODDetector.explain)

    calibrate = forwarded(BaseOODDetector.calibrate)
    p_value = forwarded(BaseOODDetector.p_value)
    drift_alarm = forwarded(BaseOODDetector.drift_alarm, rows=False)

    # Decorated there, where mypy comes only later.
    partial_fit = forwarded(StreamingDetector.partial_fit, fitted=False)  # type: ignore[has-type]
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

    @available_if_detector_has("save")
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted pipeline to a file that :func:`dnm_sklearn.load` reads.

        Parameters
        ----------
        path : str or path
            File to write.
        """
        if len(self.steps) != 2:
            raise TypeError(
                "A file holds a pipeline of an embedder and a detector, and this one has "
                f"{len(self.steps)} steps: save the detector (pipe[-1].save(path)), or the whole "
                "with joblib."
            )

        write_detector(self._fitted_detector(), path, [name for name, _ in self.steps])


def make_ood_pipeline(
    embedder: Any, detector: Any, *, memory: Any = None, verbose: bool = False
) -> OODPipeline:
    """Join an embedder and a detector that share one model.

    Parameters
    ----------
    embedder : CLIPEmbedder or str
        First step; a string is a model name.
    detector : BaseOODDetector
        A clone of it, without its fit, is the last step, with the first step as its ``embedder``.
    memory : str, joblib.Memory or None, default=None
        As in scikit-learn's ``Pipeline``. Embeddings are cached by the embedder's own ``memory``.
    verbose : bool, default=False
        As in scikit-learn's ``Pipeline``.

    Returns
    -------
    OODPipeline

    Raises
    ------
    ValueError
        If the detector has an ``embedder`` that is not like the first step.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import NegLabelDetector, make_ood_pipeline
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> detector = NegLabelDetector(corpus=["x", "y", "z"], n_groups=1)
    >>> pipe = make_ood_pipeline(FakeEmbedder(dim=8), detector)
    >>> pipe.fit(["cat", "dog"]).decision_function(np.ones((2, 8))).shape
    (2,)
    """
    # The caller's own stay as they are, so that two pipelines of them are two.
    embedder = check_embedder(embedder)
    return OODPipeline(
        [("embedder", embedder), ("detector", detector)], memory=memory, verbose=verbose
    )


def _are_alike(first: Any, other: Any) -> bool:
    """Whether two embedders are one, or equal in class and parameters; a string names a model."""
    if isinstance(other, str):
        other = check_embedder(other)
    if other is first:
        return True
    if type(other) is not type(first) or not hasattr(first, "get_params"):
        return False
    return joblib.hash(first.get_params()) == joblib.hash(other.get_params())
