"""ENL: every corpus label divided by its mean activation on ID images."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn import scoring
from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import thresholds
from dnm_sklearn.detectors.guarantee import GuaranteedDetector
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import CorpusDetector
from dnm_sklearn.detectors.stock import stock_images
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.scoring import enl, enl_prior
from dnm_sklearn.streams.enl import STATE_NAMES, ExpectationStream

_AUTO_TEMPERATURE = 0.7
_NAMES_GATE = -5.0


class ENLDetector(GuaranteedDetector, CorpusDetector):
    """Expectation-normalised labels (ENL): debiasing done per corpus label. This toolkit's own method.

    With ``r_j(x)`` the mass of corpus label j over that of all class names and ``E_j`` its mean
    over ID images, ``score_samples`` is ``-log mean_j w_j r_j(x) / E_j`` over *all* corpus labels:
    no mining, no groups, no prior of contamination. Synonyms, hypernyms and hub words have a large
    ``E_j`` and fall silent by themselves. A few ID images (about 32 in all) give most of the gain;
    without any, ``E_j`` is guessed from the names.

    It is a score and no e-value, because E is estimated. Guarantees come from :meth:`calibrate`
    with images used for nothing else: :meth:`p_value`, :meth:`e_value`, ``predict(X, level=0.05)``,
    :meth:`drift_alarm`.

    Parameters
    ----------
    classes : list of str, dict or None, default=None
        ID class names; see :class:`BaseOODDetector`.
    embedder : CLIPEmbedder, EmbeddingTable, str or None, default=None
        What turns names and images into vectors.
    prompt : str or list of str, default="the nice {}"
        Template for class names and nouns; a list is an ensemble.
    temperature : float or "auto", default="auto"
        "auto" = 0.7 / the model's logit scale (0.007 for CLIP).
    memory : str, joblib.Memory or None, default=None
        Cache for embeddings.
    contamination : float or "auto", default="auto"
        See :class:`BaseOODDetector`. With ID images "auto" keeps 95 % of their leave-one-out
        scores; the zero-shot threshold is 0, the mean activation of an ID image.
    ood_label : str, default="ood"
        The string that marks OOD.
    corpus : Corpus, list of str, str or None, default=None
        Corpus labels, all of them used. None = "wordnet-neglabel", or with an ``EmbeddingTable``
        all its other names (with the shipped "glyphclip" its
        :func:`~dnm_sklearn.datasets.glyph_corpus`).
    adjective_prompt : str or list of str, default="This is a {} photo"
        Template for adjectives.
    expectation : {"stratified", "plain"}, default="stratified"
        How E is made of ID images: "plain" = their mean; "stratified" = the mean over all classes,
        each with a zero-shot guess that counts as `prior_strength` images. Needed where the images
        do not cover all classes or come from another domain.
    prior_strength : float, default=1.0
        Images of each class that the guess counts as.
    image_mean : array-like of shape (D,) or None, default=None
        Mean embedding of images in general (not normalised), for the guess. None = the mean of the
        ID images given to `fit`; without any, that of the package's stock images (noise and drawn
        letters) under the embedder; an ``EmbeddingTable`` cannot embed those: then E = 1, with a
        warning.
    prior_slope, prior_spread : float, default=0.5, 0.035
        Of the guess, see :class:`~dnm_sklearn.scoring.enl_prior.ZeroShotPrior`; found on
        512-dimensional CLIP embeddings.
    prototype_weight : float, default=0.1
        With ID images, weight of the cosine to a class's mean image beside that to its name; 0 =
        names only.
    background : float or "auto", default=0.0
        Weight of a background label against all corpus labels together, see
        :func:`~dnm_sklearn.scoring.enl.add_background`: for images that no corpus label describes. "auto" = class names
        / corpus labels: much where classes are many and the corpus is small, next to nothing with a
        large corpus. Without ID images and `image_mean` it is not used.
    trim : float, default=0.0
        Against bad ID images (OOD ones, wrong class names): largest share of them to leave out of E
        and the prototypes, about twice the share feared; see
        :func:`~dnm_sklearn.scoring.enl_prior.trusted_images`. On clean images 0.2 costs next to
        nothing. Half of it is also taken to be OOD where `threshold_` comes from the ID images'
        scores. For the score only: calibration images are assumed clean.
    adaptation : {"frozen", "transductive"}, default="frozen"
        "frozen": score with the present weights. "transductive": score X as a stream on a scratch
        copy of the state.
    admission_level : float, default=0.01
        A stream's image is admitted as OOD if the leave-one-out conformal p-value of its *static*
        score is at most this. With fewer than ``1 / admission_level - 1`` ID images a rule by names
        alone admits.
    window : int, default=1000
        Admitted images that the weights remember.
    weight_floor : float, default=0.1
        Part of each weight that does not follow the stream.
    shrinkage : float, default=20.0
        Admitted images at which weights have gone half of the way.
    batch_size : int, default=256
        Images scored at once in a stream.
    exclude_class_names : bool, default=True
        Drop corpus labels equal to a class name, ignoring case.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    id_prototypes_ : ndarray of shape (K, D)
        Text embeddings plus weighted prototypes: what the ID mass is made of.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (N,), ndarray (N, D)
        The corpus labels and their unit embeddings.
    log_expectation_ : ndarray of shape (N,)
        log E.
    log_weights_ : ndarray of shape (N,)
        Log of the static weights: 0 with ID images, else by names alone.
    background_log_expectation_ : float
        log E of the background label; inf where there is nothing to estimate it from.
    n_id_images_ : int
        ID images that E is made of.
    id_images_used_ : ndarray of bool of shape (n,) or None
        Rows of the X given to `fit` that E is made of; None without ID images. With `trim`, ID rows
        that are False here are worth a look.
    id_scores_ : ndarray of shape (n,) or None
        OOD scores of all ID images, sorted: leave-one-out for those that E is made of; None without
        ID images.
    admitted_, probability_sums_, n_admitted_, n_seen_ : ndarray, ndarray, int, int
        State of the stream: ring of admitted images, sums of their label probabilities, images admitted
        and seen.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    Only rows of X that `y` says are ID enter E. The constants 0.7, 0.5, 0.035, 0.1 and those of the
    stream were chosen on small CLIP suites.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, ENLDetector
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = ENLDetector(["cat", "dog"], embedder=table, image_mean=np.zeros(4)).fit()
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    """

    info = DetectorInfo(
        name="ENL",
        title="Expectation-normalised labels",
        year=2026,
        venue="",
        url="",
        needs=("class names", "corpus", "ID images (optional)"),
        test_time=True,
        own=True,
    )
    _state_names = STATE_NAMES
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CorpusDetector._parameter_constraints,
        **StreamingDetector._streaming_constraints,
        "expectation": [StrOptions({"stratified", "plain"})],
        "prior_strength": [Interval(Real, 0, None, closed="neither")],
        "image_mean": ["array-like", None],
        "prior_slope": [Interval(Real, 0, None, closed="left")],
        "prior_spread": [Interval(Real, 0, None, closed="left")],
        "prototype_weight": [Interval(Real, 0, None, closed="left")],
        "background": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "trim": [Interval(Real, 0, 0.5, closed="left")],
        "admission_level": [Interval(Real, 0, 1, closed="neither")],
        "window": [Interval(Integral, 1, None, closed="left")],
        "weight_floor": [Interval(Real, 0, 1, closed="both")],
        "shrinkage": [Interval(Real, 0, None, closed="left")],
        "exclude_class_names": ["boolean"],
    }

    def __init__(
        self,
        classes=None,
        *,
        embedder=None,
        prompt="the nice {}",
        temperature="auto",
        memory=None,
        contamination="auto",
        ood_label="ood",
        corpus=None,
        adjective_prompt="This is a {} photo",
        expectation="stratified",
        prior_strength=1.0,
        image_mean=None,
        prior_slope=0.5,
        prior_spread=0.035,
        prototype_weight=0.1,
        background=0.0,
        trim=0.0,
        adaptation="frozen",
        admission_level=0.01,
        window=1000,
        weight_floor=0.1,
        shrinkage=20.0,
        batch_size=256,
        exclude_class_names=True,
    ):
        super().__init__(
            classes,
            embedder=embedder,
            prompt=prompt,
            temperature=temperature,
            memory=memory,
            contamination=contamination,
            ood_label=ood_label,
        )
        self.corpus = corpus
        self.adjective_prompt = adjective_prompt
        self.expectation = expectation
        self.prior_strength = prior_strength
        self.image_mean = image_mean
        self.prior_slope = prior_slope
        self.prior_spread = prior_spread
        self.prototype_weight = prototype_weight
        self.background = background
        self.trim = trim
        self.adaptation = adaptation
        self.admission_level = admission_level
        self.window = window
        self.weight_floor = weight_floor
        self.shrinkage = shrinkage
        self.batch_size = batch_size
        self.exclude_class_names = exclude_class_names

    # -- fit ------------------------------------------------------------------------------------------

    def _temperature(self) -> float:
        scale = 1.0 if self.temperature != "auto" else _AUTO_TEMPERATURE
        return scale * super()._temperature()

    def _fit_text(self) -> None:
        self.negative_corpus_ = self._candidates(exclude_class_names=self.exclude_class_names)
        self.negative_labels_ = np.asarray(self.negative_corpus_.names)
        self.negative_embeddings_, _ = self._encode_corpus(self.negative_corpus_)
        self.id_prototypes_ = self.class_embeddings_
        self.id_scores_: np.ndarray | None = None
        self.id_images_used_: np.ndarray | None = None
        self.background_log_expectation_ = np.inf
        self.n_id_images_ = 0

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        if labels.is_ood is None:
            warn(
                "Images were given without a y that says which are ID, so ENL's score does not "
                "use them: pass y (class names, class indices, or 0 for ID and 1 for OOD).",
            )
            return
        if labels.is_ood.all():
            return
        image = embeddings[~labels.is_ood]
        nearest = scoring.class_index(image, self.class_embeddings_)
        index = nearest if labels.class_index is None else labels.class_index[~labels.is_ood]
        used = enl_prior.trusted_images(
            image,
            index,
            self._prior(image),
            self.negative_embeddings_,
            temperature=self.temperature_,
            proportion=self.trim,
        )
        self._fit_expectation(image[used], index[used])
        self.n_id_images_, self.id_images_used_ = int(used.sum()), used
        if self.id_scores_ is not None:
            self.id_scores_ = np.sort(
                np.concatenate([self.id_scores_, self._left_out_scores(image[~used])])
            )

    def _left_out_scores(self, image: np.ndarray) -> np.ndarray:
        """OOD scores of ID images that E is not made of."""
        if not len(image):
            return np.empty(0)
        scores = enl.expectation_score(
            image,
            self.id_prototypes_,
            self.negative_embeddings_,
            self.log_expectation_,
            temperature=self.temperature_,
        )
        return -self._add_background(image, scores)

    def _set_threshold(
        self, rows: np.ndarray | None, failed: np.ndarray | None, labels: ResolvedLabels
    ) -> None:
        if not self.n_id_images_:
            self._fit_names()
        elif rows is not None and failed is not None and labels.is_ood is not None:
            given = np.zeros(len(rows), dtype=bool)
            given[~failed & ~labels.is_ood] = self.id_images_used_
            self.id_images_used_ = given
        self.reset_adaptation()
        super()._set_threshold(rows, failed, labels)

    def _prior(self, image: np.ndarray) -> enl_prior.ZeroShotPrior:
        """Guess with the image mean given, or else that of `image`."""
        given = self._given_image_mean()
        mean = image.mean(axis=0, dtype=float) if given is None else given
        return enl_prior.ZeroShotPrior(
            self.class_embeddings_,
            mean,
            self.prior_slope,
            self.prior_spread,
            strength=self.prior_strength,
        )

    def _fit_expectation(self, image: np.ndarray, index: np.ndarray) -> None:
        """Set E, the ID bank and the leave-one-out OOD scores (in the order of the images)."""
        prior = self._prior(image)
        own: dict[str, Any] = {}
        self.id_prototypes_ = self.class_embeddings_
        if self.prototype_weight > 0:
            corpus_mean = self.negative_embeddings_.mean(axis=0, dtype=float)
            prototypes, left_out = enl.class_prototypes(
                image, index, prior.class_means(corpus_mean)
            )
            self.id_prototypes_ = (
                self.class_embeddings_ + self.prototype_weight * prototypes
            ).astype(np.float32)
            own = {
                "own_class": index,
                "own_row": self.class_embeddings_[index] + self.prototype_weight * left_out,
            }
        log_id = enl.class_logsumexp(image, self.id_prototypes_, temperature=self.temperature_, **own)
        strata: dict[str, Any] = (
            {"class_index": index, "prior": prior} if self.expectation == "stratified" else {}
        )
        arguments = (image, log_id, self.negative_embeddings_)
        fitted = enl.expectation(*arguments, temperature=self.temperature_, **strata)
        self.log_expectation_ = fitted.log_mean
        self.log_weights_ = np.zeros(len(self.negative_embeddings_))
        background = -scoring.max_logit(image, self.class_embeddings_) / self.temperature_
        self.background_log_expectation_ = float(
            np.logaddexp.reduce(background) - np.log(len(image))
        )
        self.id_scores_ = None
        if len(image) > 1:
            scores = enl.leave_one_out_scores(
                *arguments, temperature=self.temperature_, shift=fitted.shift, **strata
            )
            top = background.max()
            others = np.exp(background - top).sum() - np.exp(background - top)
            log_mean = np.log(np.maximum(others, 1e-280)) + top - np.log(len(image) - 1)
            self.id_scores_ = -self._add_background(image, scores, log_mean)

    def _fit_names(self) -> None:
        """Set E and the weights from names alone."""
        with np.errstate(divide="ignore"):
            self.log_weights_ = np.log(
                enl_prior.names_only_weights(self.class_embeddings_, self.negative_embeddings_)
            )
        stock = self.class_embeddings_  # not used if the mean is given
        if self._given_image_mean() is None:
            if isinstance(self.embedder_, EmbeddingTable):
                warn(
                    "ENLDetector has an EmbeddingTable and neither ID images nor image_mean: E = "
                    "1 is used, with weights from the names. Give image_mean= (the mean of any "
                    "images' embeddings), or fit(X_id, y).",
                )
                self.log_expectation_ = np.zeros(len(self.negative_embeddings_))
                return
            # A copy, so that the list of unreadable images of the fit stays.
            stock = copy.copy(self.embedder_).encode_image(stock_images())
        prior = self._prior(stock)
        self.log_expectation_ = enl_prior.zero_shot_log_expectation(
            prior, self.negative_embeddings_, temperature=self.temperature_
        )
        own = np.einsum(
            "kd,kd->k",
            self.class_embeddings_,
            prior.class_means(self.negative_embeddings_.mean(axis=0, dtype=float)),
        )
        moment = -own / self.temperature_ + (self.prior_spread / self.temperature_) ** 2 / 2
        self.background_log_expectation_ = float(np.logaddexp.reduce(moment) - np.log(len(own)))

    def _given_image_mean(self) -> np.ndarray | None:
        if self.image_mean is None:
            return None
        mean = np.asarray(self.image_mean, dtype=float)
        width = self.class_embeddings_.shape[1]
        if mean.shape != (width,) or not np.isfinite(mean).all():
            raise ValueError(
                f"image_mean must be {width} finite numbers, the embedder's width; got shape "
                f"{mean.shape}."
            )
        return mean

    # -- stream ---------------------------------------------------------------------------------------

    def _open_stream(self) -> ExpectationStream:
        return ExpectationStream(
            self.id_prototypes_,
            self.negative_embeddings_,
            log_expectation=self.log_expectation_,
            log_weights=self.log_weights_,
            temperature=self.temperature_,
            admit=self._admit,
            floor=self.weight_floor,
            shrinkage=self.shrinkage,
            background=self._add_background,
        )

    def _add_background(
        self, rows: np.ndarray, scores: np.ndarray, log_expectation: Any = None
    ) -> np.ndarray:
        """Scores with the background label, if there is one."""
        log_mean = self.background_log_expectation_ if log_expectation is None else log_expectation
        weight = (
            len(self.class_embeddings_) / len(self.negative_embeddings_)
            if self.background == "auto"
            else self.background
        )
        if weight == 0 or np.isinf(log_mean).all():
            return scores
        largest = scoring.max_logit(rows, self.class_embeddings_)
        return enl.add_background(
            scores, largest, log_mean, weight=weight, temperature=self.temperature_
        )

    def _initial_state(self) -> dict[str, Any]:
        stream = self._open_stream()
        stream.start(self.window)
        return stream.state()

    def _admit(self, rows: np.ndarray, static: np.ndarray) -> np.ndarray:
        """Which images are surely OOD; depends on nothing that a stream has shown."""
        known = self.id_scores_
        if known is not None and self.admission_level * (len(known) + 1) >= 1:
            return thresholds.conformal_p_values(-static, known) <= self.admission_level
        with np.errstate(divide="ignore"):
            weights = np.log(
                enl_prior.names_only_weights(self.class_embeddings_, self.negative_embeddings_)
            )
        gate = enl.expectation_score(
            rows,
            self.class_embeddings_,
            self.negative_embeddings_,
            temperature=super()._temperature(),
            log_weights=weights,
        )
        return gate - np.log(len(weights)) < _NAMES_GATE

    # -- decisions and reasons --------------------------------------------------------------------------

    def _threshold_from(
        self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None
    ) -> float | None:
        if isinstance(self.contamination, str) and self.id_scores_ is not None:
            believed = self.id_scores_[
                : len(self.id_scores_) - int(self.trim * len(self.id_scores_) / 2)
            ]
            return thresholds.keep_threshold(believed, keep=0.95)
        return super()._threshold_from(scores, usable, is_ood)

    def _present_log_weights(self) -> np.ndarray:
        stream = self._open_stream()
        stream.load(self._state())
        return stream.log_weights()

    def _negative_side(self) -> dict[str, Any] | None:
        check_is_fitted(self, "log_expectation_")
        side = super()._negative_side()
        if side is not None:
            n_labels = len(self.negative_embeddings_)
            side["offset"] = self._present_log_weights() - self.log_expectation_ - np.log(n_labels)
            side["id_prototypes"] = self.id_prototypes_
        return side
