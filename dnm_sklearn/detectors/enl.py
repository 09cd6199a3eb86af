"""ENL: corpus labels divided by their mean activation on ID images, and a margin over them all."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import expit, stdtrit
from sklearn.utils._param_validation import Interval

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn._utils.validation import check_temperature
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import conformal, zero_shot
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.explain import NegativeLabels
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import CorpusDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Synsets
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.scoring import enl, enl_margin, enl_prior
from dnm_sklearn.scoring._chunks import whole_product
from dnm_sklearn.streams.enl import STATE_NAMES, ExpectationStream

# What nobody should tune. All were chosen on small CLIP suites; the figures are FPR95 on caltech63
# with 4 ID images per class (docs/enl.rst). Slope, spread and strength of the guess from names are
# the defaults of `ZeroShotPrior`, the constants of the margin stand in `scoring.enl_margin`.

# T as a part of the model's own temperature: near 26.1, with the model's own 31.9.
_AUTO_TEMPERATURE = 0.7
# Weight of the cosine to a class's mean image beside that to its name. The margin term has the mean
# images too: with it 0.05 is better than 0.1, which was best without.
_PROTOTYPE_WEIGHT = 0.05
# Known scores of ID images. Leave-one-out judges an image of class k with n_k - 1 others, but a new
# image meets n_k of them: too low. In sample, where it is one of the n_k, it is too high. So much
# of the way from the first to the second: 5.1 % of new ID images are flagged where 5 % is meant,
# where pure leave-one-out flags 3.6 % and in-sample margins flag 7.9 %.
_IN_SAMPLE_PART = 0.4
# A stream admits an image as OOD where so few ID images would score as low. At 0.02 streams are
# better than at 0.01 (far FPR95 2.6 points); 0.03 gains nothing more and admits 3-4 % of ID.
_ADMISSION_LEVEL = 0.02
# The rule of admission without ID images (or with one). It is on the log-odds of the class names
# against all corpus labels together, at the model's own temperature: below -5 the corpus labels
# hold e**5 = 148 times what the class names hold.
_NAMES_GATE = -5.0
# Admitted images that the weights remember. At 20 (the next constant) they have moved by half; at a
# thousand the mean over them is steady, and a stream that drifts is followed.
_WINDOW = 1000
# Admitted images at which the weights have gone half of the way to what the stream says.
_SHRINKAGE = 20.0
# Part of each weight that does not follow the stream, so that a label that no admitted image
# activates still counts where OOD of a new kind comes.
_WEIGHT_FLOOR = 0.1

# Ratios of images to corpus labels held at once, in numbers (32 MB of float64).
_CHUNK_NUMBERS = 2**22


@fill_parameters(parameters.PARAGRAPHS)
class ENLDetector(StreamingDetector, CorpusDetector):
    """Expectation-normalised labels (ENL), this toolkit's own method: debiasing per corpus label.

    With ``r_j(x)`` the exponential of corpus label j's logit over the sum of those of all class
    names, and ``E_j`` its mean over ID images, ``score_samples`` is ``-log mean_j w_j r_j(x) /
    E_j`` over *all* corpus labels, plus `margin_weight` times a margin over an average label: no
    mining, no groups, no prior of contamination. Synonyms, hypernyms and hub words have a large
    ``E_j`` and are down-weighted by themselves; the margin speaks against images that no corpus
    label describes. A few ID images (about 32 in all) give most of the gain; without any, ``E_j`` =
    1, and the names give the weights.

    It is a score and no e-value, because E is estimated. Guarantees come from :meth:`calibrate`
    with images used for nothing else: :meth:`p_value`, :meth:`e_value`, ``predict(X, level=0.05)``,
    :meth:`drift_alarm`.

    Parameters
    ----------
    {classes, embedder, prompt, temperature}
        Here "auto" = 0.7 times that (0.007 for CLIP).
    {memory, contamination}
        With ID images all of these go by what the score says of images that it is not made of, so
        that about that proportion of *new* ID images is flagged; "auto" = 0.05. The zero-shot
        threshold is a rule of thumb, -7.5 for CLIP at the defaults.
    {ood_label, device, corpus, synsets}
        All of them are used. Without a table None = "wordnet-neglabel".
    {adjective_prompt}
    image_mean : array-like of shape (D,) or None, default=None
        Mean embedding of images in general (not normalised), for the guess of ``E_j`` from names.
        None = the mean of the ID images given to `fit`; without any, ``E_j`` = 1. The mean of the
        images to be scored will not do: it is partly OOD.
    margin_weight : float, default=0.5
        Weight a of the margin ``C(x)``, the cosine to the best class name (moved towards its ID
        images) less that to the mean corpus label, in ``score + a / T * (C(x) - c0)``; see
        :doc:`/enl`. 0 = none. 3 is EOE's form: better where no corpus word describes the OOD images
        and no near OOD is expected, worse near. There is no rule by the number of classes that
        holds up.
    trim : float, default=0.0
        Against bad ID images (OOD ones, wrong class names): largest proportion of them to leave out
        of E, the prototypes and the margin, about twice the proportion feared; see
        :func:`~dnm_sklearn.scoring.enl_prior.trusted_images`. On clean images 0.2 costs little
        far and 4 points of FPR95 near. Half of it is also taken to be OOD where `threshold_` comes
        from the ID images' scores. For the score only: calibration images are assumed clean.
    {adaptation, batch_size}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    id_prototypes_ : ndarray of shape (K, D)
        Text embeddings plus weighted mean images: what images are compared with on the ID side.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (N,), ndarray (N, D)
        The corpus labels and their unit embeddings.
    log_expectation_ : ndarray of shape (N,)
        log E.
    log_weights_ : ndarray of shape (N,)
        Log of the static weights: 0 with ID images, else by names alone.
    margin_rows_, margin_offsets_ : ndarray of shape (K, D) and (K,)
        b_k and d_k: ``C(x)`` is the largest ``x . b_k - d_k``.
    margin_mean_ : float
        c0, the mean of C over the ID images, each left out; 0 without images.
    margin_scale_ : float
        ``margin_weight / T``: what a cosine of the margin adds to the score.
    n_id_images_ : int
        ID images that E is made of.
    id_images_used_ : ndarray of bool of shape (n,) or None
        Rows of the X given to `fit` that E is made of; None without ID images. With `trim`, ID rows
        that are False here are worth a look.
    id_scores_ : ndarray of shape (n,) or None
        What new ID images are expected to score: OOD scores of all ID images, sorted. For those
        that E is made of they are leave-one-out, but for 0.4 of the margin's way back to its value
        in sample. None without ID images.
    admitted_, probability_sums_, n_admitted_, n_seen_ : ndarray, ndarray, int, int
        State of the stream: ring of admitted images, sums of their label probabilities, images
        admitted and seen.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    Only rows of X that `y` says are ID enter E. The method's constants were chosen on small CLIP
    suites.

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
        **parameters.STREAM,
        "image_mean": ["array-like", None],
        "margin_weight": [Interval(Real, 0, parameters.LARGEST_WEIGHT, closed="both")],
        "trim": [Interval(Real, 0, 0.5, closed="left")],
    }

    image_mean: Any
    margin_weight: float
    trim: float

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "the nice {}",
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = "auto",
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        corpus: CorpusLike = None,
        synsets: Synsets = None,
        adjective_prompt: Prompt = "This is a {} photo",
        image_mean: Any = None,
        margin_weight: float = 0.5,
        trim: float = 0.0,
        adaptation: Literal["transductive", "frozen"] = "frozen",
        batch_size: int = 256,
    ) -> None:
        self._store(locals())

    # -- fit ----------------------------------------------------------------------------------

    def _temperature(self) -> float:
        self.model_temperature_ = super()._temperature()
        part = _AUTO_TEMPERATURE if self.temperature == "auto" else 1.0
        return check_temperature(part * self.model_temperature_)

    def _fit_text(self) -> None:
        # All labels: no mining, so that what is kept needs no parameter.
        corpus = self._candidates()
        self._keep_labels(corpus, self._encode_corpus(corpus)[0])

        # What holds where no image enters the score.
        self.id_prototypes_ = self.class_embeddings_
        self.id_scores_: np.ndarray | None = None
        self.id_images_used_: np.ndarray | None = None
        self.n_id_images_ = 0

        self.margin_scale_ = self.margin_weight / self.temperature_
        corpus_mean = self.negative_embeddings_.mean(axis=0, dtype=float)
        self._keep_margin(enl_margin.margin_of_names(self.class_embeddings_, corpus_mean), 0.0)

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        if labels.is_ood is None:
            warn(
                "Images were given without a y that says which are ID, so ENL's score does not "
                "use them: pass y (class names, class indices, or 0 for ID and 1 for OOD).",
            )
            return

        is_id = ~labels.is_ood
        if not is_id.any():
            return

        X, index = self._id_images(embeddings, labels)
        trusted = enl_prior.trusted_images(
            X,
            index,
            self._prior(self._image_mean(X)),
            self.negative_embeddings_,
            temperature=self.temperature_,
            proportion=self.trim,
            device=self._scoring_device(),
        )
        self._fit_expectation(X[trusted], index[trusted])

        self.n_id_images_ = int(trusted.sum())
        self.id_images_used_ = np.zeros(len(embeddings), dtype=bool)
        self.id_images_used_[is_id] = trusted

        # Images left out of E say how ID images score no less than the others do.
        left_out = self._left_out_scores(X[~trusted])
        self.id_scores_ = np.sort(np.concatenate([self.id_scores_, left_out]))

    def _finish_fit(self, readable: np.ndarray | None) -> None:
        if not self.n_id_images_:
            self._fit_names()
        elif readable is not None:
            # From readable images to rows of X.
            used = np.zeros(len(readable), dtype=bool)
            used[readable] = self.id_images_used_
            self.id_images_used_ = used

        # The stream starts from what has been fitted.
        super()._finish_fit(readable)

    def _fit_expectation(self, X: np.ndarray, index: np.ndarray) -> None:
        """Set E, prototypes, margin and known OOD scores by ID images X (n, D) of `index`."""
        prior = self._prior(self._image_mean(X))
        device = self._scoring_device()

        # Prototypes. Inside E an image is left out of its own class's mean, to which it would else
        # be nearer than any new image is.
        corpus_mean = self.negative_embeddings_.mean(axis=0, dtype=float)
        prototypes, left_out = enl.class_prototypes(X, index, prior.class_means(corpus_mean))
        text = self.class_embeddings_
        self.id_prototypes_ = (text + _PROTOTYPE_WEIGHT * prototypes).astype(np.float32)
        log_id = enl.class_logsumexp(
            X,
            self.id_prototypes_,
            temperature=self.temperature_,
            own_class=index,
            own_row=text[index] + _PROTOTYPE_WEIGHT * left_out,
            device=device,
        )

        # E, stratified over the classes; with images every label has weight 1.
        images = (X, log_id, self.negative_embeddings_)
        strata: dict[str, Any] = {
            "temperature": self.temperature_,
            "class_index": index,
            "prior": prior,
            "device": device,
        }
        fitted = enl.expectation(*images, **strata)
        self.log_expectation_ = fitted.log_mean
        self.log_weights_ = np.zeros(len(self.negative_embeddings_))

        # The margin. c0 is its mean over images left out, so that 0 stays "like an ID image".
        margin, left_out_margin = enl_margin.margin_of_images(
            X, index, text, corpus_mean, device=device
        )
        self._keep_margin(margin, float(left_out_margin.mean()))

        # What new ID images will score.
        in_sample = enl_margin.margin(X, margin, device=device)
        known_margin = left_out_margin + _IN_SAMPLE_PART * (in_sample - left_out_margin)
        scores = enl.leave_one_out_scores(*images, **strata, shift=fitted.shift)
        self.id_scores_ = -(scores + self.margin_scale_ * (known_margin - self.margin_mean_))

    def _left_out_scores(self, X: np.ndarray) -> np.ndarray:
        """OOD scores of ID images that E is not made of."""
        if not len(X):
            return np.empty(0)
        scores = enl.expectation_score(
            X,
            self.id_prototypes_,
            self.negative_embeddings_,
            self.log_expectation_,
            temperature=self.temperature_,
            device=self._scoring_device(),
        )
        return -(scores + self._margin(X))

    def _fit_names(self) -> None:
        """Set E and the weights from names alone."""
        self.log_weights_ = self._log_weights_of_names()

        # E, as class names let guess it. Without a mean of images there is nothing to guess from.
        mean = self._given_image_mean()
        if mean is None:
            self.log_expectation_ = np.zeros(len(self.negative_embeddings_))
            return
        self.log_expectation_ = enl_prior.zero_shot_log_expectation(
            self._prior(mean),
            self.negative_embeddings_,
            temperature=self.temperature_,
            device=self._scoring_device(),
        )

    def _image_mean(self, X: np.ndarray) -> np.ndarray:
        """Mean embedding of images (D,): the one given, else that of X."""
        given = self._given_image_mean()
        return X.mean(axis=0, dtype=float) if given is None else given

    def _given_image_mean(self) -> np.ndarray | None:
        """The parameter `image_mean`, checked."""
        if self.image_mean is None:
            return None

        mean = np.asarray(to_numpy(self.image_mean), dtype=float)
        width = self.class_embeddings_.shape[1]
        if mean.shape != (width,) or not np.isfinite(mean).all():
            raise ValueError(
                f"image_mean must be {width} finite numbers, the embedder's width; got shape "
                f"{mean.shape}."
            )
        return mean

    def _prior(self, image_mean: np.ndarray) -> enl_prior.ZeroShotPrior:
        """What names alone say of E, given the mean of images."""
        return enl_prior.ZeroShotPrior(self.class_embeddings_, image_mean)

    def _log_weights_of_names(self) -> np.ndarray:
        """Log weights (N,) by names alone; -inf for a label closer to a class than classes are."""
        weights = enl_prior.names_only_weights(
            self.class_embeddings_, self.negative_embeddings_, device=self._scoring_device()
        )
        with np.errstate(divide="ignore"):
            return np.log(weights)

    # -- stream -------------------------------------------------------------------------------

    def _open_stream(self) -> ExpectationStream:
        return ExpectationStream(
            self.id_prototypes_,
            self.negative_embeddings_,
            log_expectation=self.log_expectation_,
            log_weights=self.log_weights_,
            temperature=self.temperature_,
            admit=self._admit,
            floor=_WEIGHT_FLOOR,
            shrinkage=_SHRINKAGE,
            margin=self._margin,
            device=self._scoring_device(),
        )

    def _initial_state(self) -> dict[str, Any]:
        stream = self._open_stream()
        stream.start(_WINDOW)
        return stream.state()

    def _keep_margin(self, margin: enl_margin.Margin, mean: float) -> None:
        """Set the fitted arrays of the margin, and c0."""
        self.margin_rows_ = margin.rows.astype(np.float32)
        self.margin_offsets_ = margin.offsets
        self.margin_mean_ = mean

    def _margins(self, X: np.ndarray) -> np.ndarray | None:
        if not self.margin_scale_:
            return None
        margin = enl_margin.Margin(self.margin_rows_, self.margin_offsets_)
        return enl_margin.margin(X, margin, device=self._scoring_device()) - self.margin_mean_

    def _margin(self, X: np.ndarray) -> np.ndarray:
        """What the margin adds to the scores of unit rows (n, D)."""
        margins = self._margins(X)
        return np.zeros(len(X)) if margins is None else self.margin_scale_ * margins

    def _admit(self, X: np.ndarray, static: np.ndarray) -> np.ndarray:
        """Which images are surely OOD, by their static scores and nothing a stream has shown."""
        known = self.id_scores_
        if known is None or len(known) == 1:
            return self._admit_by_names(X)

        # A p-value among n scores is at least 1 / (n + 1): the level must be within reach.
        n = len(known)
        if _ADMISSION_LEVEL * (n + 1) >= 1:
            return conformal.conformal_p_values(-static, known) <= _ADMISSION_LEVEL

        # With fewer, the quantile of a new score by Student's t, as if scores were Gaussian:
        # mean + t * sd * sqrt(1 + 1 / n), where the root counts the error of the mean.
        t = stdtrit(n - 1, 1 - _ADMISSION_LEVEL)
        return -static > known.mean() + t * known.std(ddof=1) * np.sqrt(1 + 1 / n)

    def _admit_by_names(self, X: np.ndarray) -> np.ndarray:
        """Which images are surely OOD by names alone."""
        # From what was fitted alone: a loaded detector streams without its model. Without ID images
        # the static weights are those of the names already.
        log_weights = self._log_weights_of_names() if self.n_id_images_ else self.log_weights_
        scores = enl.expectation_score(
            X,
            self.class_embeddings_,
            self.negative_embeddings_,
            temperature=self.model_temperature_,
            log_weights=log_weights,
            device=self._scoring_device(),
        )
        # The score is minus the log of a mean over labels; minus log N, of their sum.
        return scores - np.log(len(log_weights)) < _NAMES_GATE

    # -- decisions and reasons ----------------------------------------------------------------

    def _threshold_from(
        self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None
    ) -> float | None:
        if self.id_scores_ is None:
            return super()._threshold_from(scores, usable, is_ood)

        # Scores of images that E is made of would be too good: by what is known of new ones.
        n_doubted = int(self.trim * len(self.id_scores_) / 2)
        believed = self.id_scores_[: len(self.id_scores_) - n_doubted]
        return self._threshold_for_new(believed)

    def _id_confidence(self, scores: np.ndarray) -> np.ndarray:
        # With E from ID images 0 is "like an ID image"; without, scores are higher all over.
        return expit(scores if self.n_id_images_ else scores + self._zero_shot_threshold())

    def _zero_shot_threshold(self) -> float:
        guessed = self.image_mean is not None
        return zero_shot.enl_threshold(self.temperature_, self.margin_weight, guessed=guessed)

    def _zero_shot_doubt(self) -> str:
        if self.image_mean is not None:
            return "it moves with what image_mean is the mean of"
        return super()._zero_shot_doubt()

    def _negative_labels(self) -> NegativeLabels:
        # log w_j / (E_j N): the score is minus the log of a weighted mean over the labels.
        log_weights = self._present_stream().log_weights() - self.log_expectation_
        log_weights -= np.log(len(log_weights))
        return replace(super()._negative_labels(), log_weights=log_weights)

    def _id_rows(self) -> np.ndarray:
        return self.id_prototypes_

    # -- guarantees ---------------------------------------------------------------------------

    def e_value(self, X: Any, form: str = "score") -> np.ndarray:
        """Conformal e-value of "this image is ID", from the images given to :meth:`calibrate`.

        For an ID image, exchangeable with the n calibration images, its mean is at most 1, hence
        ``P(e >= 1 / alpha) <= alpha``, over the draw of both. It is at most n + 1.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us), scored with the state frozen.
        form : {"score", "labels"}, default="score"
            "score": ``(n + 1) v / (v + sum_i v_i)`` with ``v = exp(decision_function)``. "labels":
            the mean over labels j of ``w_j (n + 1) r_j / (r_j + sum_i r_ij)``, with the present
            weights. It does not see the margin, only the labels.

        Returns
        -------
        ndarray of shape (n,), float64
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
        if form == "score":
            return super().e_value(X)

        # One e-value per corpus label, averaged with weights that no calibration image has moved.
        n_calibration = len(self._calibrated_scores("e_value"))
        rows, failed = self._embed(X, reset=False)
        # Of mean at most 1, in the present state.
        log_weights = self._present_stream().log_weights()

        # Chunk by chunk: ratios to 70,000 labels are many numbers per image.
        values = np.full(len(rows), np.nan)
        readable, step = np.flatnonzero(~failed), self._chunk_rows()
        for start in range(0, len(readable), step):
            chunk = readable[start : start + step]
            values[chunk] = conformal.label_e_values(
                self._log_ratios(rows[chunk]),
                self.calibration_log_sums_,
                n_calibration,
                log_weights,
            )
        return values

    def _finish_calibration(self, rows: np.ndarray) -> None:
        # Log of the sum over calibration images of r_j, which is all that label e-values need.
        log_sums = np.full(len(self.negative_embeddings_), -np.inf)
        step = self._chunk_rows()
        for start in range(0, len(rows), step):
            log_ratios = self._log_ratios(rows[start : start + step])
            log_sums = np.logaddexp(log_sums, np.logaddexp.reduce(log_ratios, axis=0))
        self.calibration_log_sums_ = log_sums

    def _chunk_rows(self) -> int:
        """Images whose ratios to all corpus labels are held at once."""
        return max(1, _CHUNK_NUMBERS // len(self.negative_embeddings_))

    def _log_ratios(self, X: np.ndarray) -> np.ndarray:
        """Log r_j of images and corpus labels, (n, N) float64."""
        device = self._scoring_device()
        log_id = enl.class_logsumexp(
            X, self.id_prototypes_, temperature=self.temperature_, device=device
        )
        logits = whole_product(
            X, self.negative_embeddings_, scale=1 / self.temperature_, device=device
        )
        return logits - log_id[:, None]
