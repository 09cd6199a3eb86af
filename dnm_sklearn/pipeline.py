"""A pipeline in which the detector's embedder is the first step's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.forwarding import available_if_detector_has
from dnm_sklearn._utils.names import is_string_sequence
from dnm_sklearn._utils.y_column import read_y
from dnm_sklearn.detectors.saving import write_detector
from dnm_sklearn.embedding.check import check_embedder

if TYPE_CHECKING:
    from typing_extensions import Self


class OODPipeline(Pipeline):
    """Embedder then detector, with one embedder for images and names.

    Build it with :func:`make_ood_pipeline`. The detector's ``embedder`` parameter *is* the first
    step, also after ``clone``, ``set_params(embedder__model=...)``, pickling and inside
    ``GridSearchCV``.

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

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        transform_input: list[str] | None = None,
        memory: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self._link()

    def _link(self) -> None:
        """Make the detector use the first step's embedder."""
        first, last = self.steps[0][1], self.steps[-1][1]
        # A slice of the pipeline, such as pipe[:-1], may have no detector.
        if last is not first and hasattr(last, "decision_function"):
            last.set_params(embedder=first)

    def __sklearn_clone__(self) -> Self:
        """Clone, keeping the one embedder."""
        # scikit-learn's own clone compares each parameter with the one given, and the detector's
        # embedder is no longer that.
        steps = [(name, clone(step)) for name, step in self.steps]
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
        super().set_params(**params)
        self._link()
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

    def _rows(self, X: Any) -> Any:
        """Embeddings (n, D): X through all steps but the detector."""
        return self[:-1].transform(X)

    @property
    def threshold_(self) -> float | None:
        """Threshold of the detector."""
        return self.steps[-1][1].threshold_

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
        id_tpr: float = 0.95,
        *,
        by_class: Literal["shrunk", "strict"] | None = None,
    ) -> Self:
        """Set the detector's threshold from ID images.

        Parameters
        ----------
        X_id : images or array-like of shape (n, D)
            ID images used for nothing else.
        id_tpr : float, default=0.95
            Proportion of ID images to keep.
        by_class : {"shrunk", "strict"} or None, default=None
            P-values by predicted class; see the detector.

        Returns
        -------
        self : object
        """
        self._fitted_detector().calibrate(self._rows(X_id), id_tpr, by_class=by_class)
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
        self._link()
        self.steps[-1][1].partial_fit(self._rows(X))
        return self

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

    def _fitted_detector(self) -> Any:
        check_is_fitted(self.steps[-1][1])
        return self.steps[-1][1]


def make_ood_pipeline(
    embedder: Any, detector: Any, *, memory: Any = None, verbose: bool = False
) -> OODPipeline:
    """Join an embedder and a detector that share one model.

    Parameters
    ----------
    embedder : CLIPEmbedder or str
        First step; a string is a model name.
    detector : BaseOODDetector
        Last step; its ``embedder`` parameter becomes the first step.
    memory : str, joblib.Memory or None, default=None
        As in scikit-learn's ``Pipeline``. Embeddings are cached by the embedder's own ``memory``.
    verbose : bool, default=False
        As in scikit-learn's ``Pipeline``.

    Returns
    -------
    OODPipeline

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
    if isinstance(embedder, str):
        embedder = check_embedder(embedder)
    return OODPipeline(
        [("embedder", embedder), ("detector", detector)], memory=memory, verbose=verbose
    )
