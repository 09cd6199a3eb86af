"""Detectors of labelled ID images: prototypes with text, KL matching, Mahalanobis distance."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.parameters import Classes, Memory, Prompt
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.scoring import id_images


class FewImagesDetector(BaseOODDetector):
    """Base of detectors whose score is made of labelled ID images.

    A subclass fits in :meth:`_fit_id_images`. The images given to ``fit`` set the threshold by
    their scores with each left out, since each is too near to what it is a part of.
    """

    def _fit_text(self) -> None:
        """Nothing: the images say what a class looks like."""

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        X, index = self._id_images(embeddings, labels)
        left_out = self._fit_id_images(X, index)
        # An image that nothing is left to compare with tells nothing of new ones.
        self.id_scores_ = np.sort(-left_out[np.isfinite(left_out)])

    @abstractmethod
    def _fit_id_images(self, X: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Fit on unit rows of ID images and their classes; their ID scores, each left out."""

    def _threshold_from(
        self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None
    ) -> float | None:
        known = self.id_scores_
        if not len(known):
            return super()._threshold_from(scores, usable, is_ood)
        return self._threshold_for_new(known)

    def _warn_of_missing(self, known: np.ndarray) -> None:
        """Say which classes have no images, and so are unknown to the score."""
        lacking = np.setdiff1d(np.arange(len(self.class_names_)), known)
        if len(lacking):
            first = ", ".join(repr(str(name)) for name in self.class_names_[lacking[:5]])
            warn(
                f"{len(lacking)} of {len(self.class_names_)} classes have no ID image (first: "
                f"{first}): {type(self).__name__} knows nothing of them, and will flag their "
                "images. Give images of them, or use PrototypeDetector, which has their names.",
            )


@fill_parameters(parameters.PARAGRAPHS)
class PrototypeDetector(FewImagesDetector):
    """Largest cosine to a prototype of a class: its mean image, and its name as so many images.

    Images and names are centred, each by the mean of their kind, since they lie apart in the space
    of a CLIP. It needs ID images with their class names, ``fit(X, y)``; a class without images has
    its name alone.

    Parameters
    ----------
    {classes, embedder, prompt, temperature}
        It has no effect on this score, and is there because all detectors share their parameters.
    {memory, contamination}
        There are always images, which set the threshold.
    {ood_label, device}
    text_weight : float, default=1.0
        Images that a name counts as, above 0.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    prototype_rows_ : ndarray of shape (K, D)
        Unit prototypes.
    image_mean_ : ndarray of shape (D,)
        Mean image.
    id_scores_ : ndarray of shape (n,)
        OOD scores of the images given to fit, each left out of its prototype, sorted.
    threshold_ : float
        Threshold on ``decision_function``.

    References
    ----------
    Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, arXiv:1703.05175.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, PrototypeDetector
    >>> table = EmbeddingTable(["cat", "dog"], np.eye(2, 3))
    >>> X = np.array([[1, 0.1, 0], [1, 0, 0.1], [0.1, 1, 0], [0, 1, 0.1]])
    >>> det = PrototypeDetector(embedder=table).fit(X, ["cat", "cat", "dog", "dog"])
    >>> scores = det.decision_function(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> bool(scores[0] < scores[1])
    True
    """

    info = DetectorInfo(
        name="Prototype",
        title="Prototypical Networks for Few-shot Learning",
        year=2017,
        venue="NeurIPS",
        url="https://arxiv.org/abs/1703.05175",
        needs=("class names", "ID images"),
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOODDetector._parameter_constraints,
        "text_weight": [Interval(Real, 0, None, closed="neither")],
    }

    text_weight: float

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "a photo of a {}",
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = None,
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        text_weight: float = 1.0,
    ) -> None:
        self._store(locals())

    def _fit_id_images(self, X: np.ndarray, index: np.ndarray) -> np.ndarray:
        text = self.class_embeddings_
        fitted = id_images.fit_prototypes(X, index, text, self.text_weight)
        self.prototype_rows_, self.image_mean_ = fitted.rows, fitted.mean
        return id_images.prototype_left_out(X, index, text, self.text_weight, fitted)

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        fitted = id_images.Prototypes(self.prototype_rows_, self.image_mean_)
        return id_images.prototype_score(embeddings, fitted, device=self._scoring_device())

    def _score_unit(self) -> float:
        # A cosine over the temperature is a logit.
        return self.temperature_


@fill_parameters(parameters.PARAGRAPHS)
class KLMatchingDetector(FewImagesDetector):
    """KL matching: how far an image's class probabilities are from the mean ones of every class.

    It needs ID images with their class names, ``fit(X, y)``.

    Parameters
    ----------
    {classes}
        At least two.
    {embedder, prompt, temperature}
        The softmax is flat at 1, and the method is about its shape.
    {memory, contamination}
        There are always images, which set the threshold.
    {ood_label, device}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    templates_ : ndarray of shape (C, K)
        Mean probabilities of the images of each of the C classes that have some.
    id_scores_ : ndarray of shape (n,)
        OOD scores of the images given to fit, each left out of its template, sorted.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is minus the smallest KL divergence from a template. A class without images
    has no template, of which a warning tells.

    References
    ----------
    Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022,
    arXiv:1911.11132.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, KLMatchingDetector
    >>> table = EmbeddingTable(["cat", "dog"], np.eye(2, 3))
    >>> det = KLMatchingDetector(embedder=table, temperature=0.3)
    >>> det = det.fit(np.eye(3)[:2], ["cat", "dog"])
    >>> scores = det.decision_function(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> bool(scores[0] < scores[1])
    True
    """

    info = DetectorInfo(
        name="KLMatching",
        title="Scaling Out-of-Distribution Detection for Real-World Settings",
        year=2022,
        venue="ICML",
        url="https://arxiv.org/abs/1911.11132",
        needs=("class names", "ID images"),
    )

    def _fit_text(self) -> None:
        if len(self.class_names_) < 2:
            raise ValueError(
                "KL matching needs at least two classes: the softmax over one name is always 1."
            )

    def _fit_id_images(self, X: np.ndarray, index: np.ndarray) -> np.ndarray:
        n_classes = len(self.class_names_)
        log_p = id_images.log_softmax(
            X, self.class_embeddings_, self.temperature_, device=self._scoring_device()
        )
        self.templates_, known = id_images.mean_probabilities(log_p, index, n_classes)
        self._warn_of_missing(known)
        return id_images.kl_left_out(log_p, index, n_classes)

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return id_images.kl_divergence(
            embeddings,
            self.class_embeddings_,
            self.templates_,
            temperature=self.temperature_,
            device=self._scoring_device(),
        )


@fill_parameters(parameters.PARAGRAPHS)
class MahalanobisDetector(FewImagesDetector):
    """Mahalanobis distance to the nearest class mean, by one shrunk covariance for all classes.

    It needs ID images with their class names, ``fit(X, y)``. Class names enter the score only where
    `y` says ID and no class (the nearest name then).

    Parameters
    ----------
    {classes, embedder, prompt, temperature}
        It has no effect on this score, and is there because all detectors share their parameters.
    {memory, contamination}
        There are always images, which set the threshold.
    {ood_label, device}
    shrinkage : float or "ledoit-wolf", default="ledoit-wolf"
        How far, in [0, 1], the covariance is drawn to a multiple of the identity. "ledoit-wolf" is
        estimated from the images.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    whitening_, whitened_means_ : ndarray of shape (D, R) and (C, R)
        The matrix that makes the covariance the identity, and the class means behind it.
    shrinkage_ : float
        The shrinkage used.
    id_scores_ : ndarray of shape (n,)
        OOD scores of the images given to fit, each left out of its mean and of the covariance,
        sorted.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is minus the squared distance. A class without images has no mean, of which a
    warning tells.

    References
    ----------
    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks", NeurIPS 2018, arXiv:1807.03888.
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, MahalanobisDetector
    >>> table = EmbeddingTable(["cat", "dog"], np.eye(2, 3))
    >>> X = np.array([[1, 0.1, 0], [1, 0, 0.1], [0.1, 1, 0], [0, 1, 0.1]])
    >>> det = MahalanobisDetector(embedder=table).fit(X, ["cat", "cat", "dog", "dog"])
    >>> scores = det.decision_function(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> bool(scores[0] < scores[1])
    True
    """

    info = DetectorInfo(
        name="Mahalanobis",
        title="A Simple Unified Framework for Detecting Out-of-Distribution Samples and "
        "Adversarial Attacks",
        year=2018,
        venue="NeurIPS",
        url="https://arxiv.org/abs/1807.03888",
        needs=("class names", "ID images"),
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOODDetector._parameter_constraints,
        "shrinkage": [StrOptions({"ledoit-wolf"}), Interval(Real, 0, 1, closed="both")],
    }

    shrinkage: float | Literal["ledoit-wolf"]

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "a photo of a {}",
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = None,
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        shrinkage: float | Literal["ledoit-wolf"] = "ledoit-wolf",
    ) -> None:
        self._store(locals())

    def _fit_id_images(self, X: np.ndarray, index: np.ndarray) -> np.ndarray:
        n_classes = len(self.class_names_)
        if len(X) == len(np.unique(index)):
            raise ValueError(
                f"MahalanobisDetector measures how images of a class differ, but each of the "
                f"{len(X)} ID images is alone in its class (n_samples={len(X)}). Give two images "
                "of a class at least, or use PrototypeDetector."
            )
        given = None if self.shrinkage == "ledoit-wolf" else float(self.shrinkage)
        fitted, known, self.shrinkage_ = id_images.fit_gaussians(X, index, n_classes, given)
        self.whitened_means_, self.whitening_ = fitted.means, fitted.whitening
        self._warn_of_missing(known)
        return id_images.mahalanobis_left_out(X, index, known, fitted, self.shrinkage_)

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        fitted = id_images.Gaussians(self.whitened_means_, self.whitening_)
        return id_images.mahalanobis(embeddings, fitted)

    def _score_unit(self) -> float:
        # Twice a log-likelihood.
        return 2.0
