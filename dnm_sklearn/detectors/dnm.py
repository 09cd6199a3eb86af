"""Debiased negative mining: correct NegLabel's score for negatives that are really ID."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn import scoring
from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Refine, Synsets
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.scoring import mining

# The probability that a corpus label is truly negative, where nothing is said of it.
_PAPERS_PRIOR = 0.5


@fill_parameters(parameters.PARAGRAPHS)
class DebiasedNegMiningDetector(NegativeLabelDetector):
    """Debiased negative mining (DNM): negative labels corrected for the ID labels among them.

    A corpus label is truly negative only with probability ``negative_prior``; what true negatives
    add to the softmax is estimated by Monte Carlo from the corpus minus the ID part.

    Parameters
    ----------
    {classes, embedder, prompt, temperature, memory, contamination}
        The zero-shot threshold is ``log(Q / id_scale_) - 3.26 - 0.349 log K``, Q labels per group;
        see :doc:`/thresholds`.
    {ood_label, device, corpus, synsets}
        Without a table None = "wordnet-csp".
    {adjective_prompt, refine}
    mining : {"density", "norm", "percentile", "none"}, default="density"
        "density" is the paper's criterion (labels in dense regions of the corpus), "norm" the
        released code's (labels with a small raw text norm, concrete words), "percentile"
        NegLabel's, "none" keeps all labels.
    noun_fraction, adjective_fraction : float, default=0.23, 0.13
        Proportions of nouns and of adjectives to keep (the paper's for ViT-B/16); at least one
        label is kept.
    n_neighbors : int, default=100
        Neighbours of the density criteria.
    negative_prior : float, "auto" or None, default=None
        Probability in (0, 1] that a corpus label is truly negative; 1 gives NegLabel's score.
        None = 0.5, or with few classes as much more as `min_id_scale` wants. "auto" estimates it
        for the kept labels from the text embeddings
        (:func:`~dnm_sklearn.scoring.mining.negative_proportion`, not in the paper).
    positive_noise : float, default=0.0
        Standard deviation of the Gaussian noise on raw ID text embeddings for the Monte-Carlo
        positives; 0 = the ID labels themselves (released code).
    n_positives : int or "auto", default="auto"
        Positives per ID label when ``positive_noise > 0``; "auto" = 1.
    {n_groups}
    min_id_scale : float, default=0.44
        Guard: where ``c = negative_prior - (1 - negative_prior) * Q / K`` falls below it (few
        classes), the prior is raised; of a prior that was given a warning says so, with the
        numbers. 0 = the released behaviour as long as c > 0.
    clamp : float or None, default=None
        Lower bound on the cosine of the debiased negatives, as in debiased contrastive learning (-1
        there); ties many ID images. None = no clamp. Not with ``positive_noise``.
    quantile : float, default=0.95
        Quantile of ``mining="percentile"``.
    {exclude_class_names}
    random_state : int, RandomState instance or None, default=0
        Seed of the grouping and of the noise.

    Attributes
    ----------
    effective_negative_prior_ : float
        The prior, estimated if "auto", after the guard.
    id_scale_ : float
        ``c``, the factor of the class names' sum of exponentials in the score.
    n_floored_ : int
        Images given to `fit` whose own c was raised to the floor (only with ``positive_noise >
        0``).
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (M,), ndarray (M, D)
        The mined labels and their unit embeddings.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    With ``r_j`` the sum of exponentials of group j over that of the class names, the paper's score
    is ``negative_prior / K * mean_j 1 / (c + r_j)``. ``score_samples`` is its log-odds form; the
    paper's value is ``effective_negative_prior_ / (K * id_scale_) * expit(score_samples(X))``. With
    noise c depends on the image and ``score_samples`` is the log of the paper's score; with `clamp`
    it is the log-odds of ``mean_j S / Z_j``.

    References
    ----------
    "Debiased Negative Mining", KDD 2026, arXiv:2605.23797.
    Chuang et al., "Debiased Contrastive Learning", NeurIPS 2020, arXiv:2007.00224.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import DebiasedNegMiningDetector, EmbeddingTable
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = DebiasedNegMiningDetector(["cat", "dog"], embedder=table, mining="none", n_groups=1,
    ...                                 min_id_scale=0.0, negative_prior=0.8).fit()
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    """

    info = DetectorInfo(
        name="DNM",
        title="Debiased Negative Mining",
        year=2026,
        venue="KDD",
        url="https://arxiv.org/abs/2605.23797",
        needs=("class names", "corpus"),
    )
    _default_corpus = "wordnet-csp"
    _kept_params = ("clamp", "min_id_scale")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        **parameters.REFINE,
        "mining": [StrOptions({"density", "norm", "percentile", "none"})],
        "noun_fraction": [Interval(Real, 0, 1, closed="both")],
        "adjective_fraction": [Interval(Real, 0, 1, closed="both")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "negative_prior": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="right"), None],
        "positive_noise": [Interval(Real, 0, parameters.LARGEST_WEIGHT, closed="both")],
        "n_positives": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "min_id_scale": [Interval(Real, 0, 1, closed="both")],
        "clamp": [Interval(Real, -1, 1, closed="both"), None],
    }

    noun_fraction: float
    adjective_fraction: float
    n_neighbors: int
    negative_prior: float | Literal["auto"] | None
    positive_noise: float
    n_positives: int | Literal["auto"]
    min_id_scale: float
    clamp: Any

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
        refine: Refine = None,
        mining: str = "density",
        noun_fraction: float = 0.23,
        adjective_fraction: float = 0.13,
        n_neighbors: int = 100,
        negative_prior: float | Literal["auto"] | None = None,
        positive_noise: float = 0.0,
        n_positives: int | Literal["auto"] = "auto",
        n_groups: int = 100,
        min_id_scale: float = 0.44,
        clamp: Any = None,
        quantile: float = 0.95,
        exclude_class_names: bool = True,
        random_state: Any = 0,
    ) -> None:
        self._store(locals())

    # -- fit ----------------------------------------------------------------------------------

    def _fractions(self) -> tuple[float, float]:
        return self.noun_fraction, self.adjective_fraction

    def _check_before_encoding(self) -> None:
        super()._check_before_encoding()
        if self.clamp is not None and self.positive_noise > 0:
            raise ValueError(
                "clamp and positive_noise cannot be combined: set clamp=None or positive_noise=0."
            )
        if self.positive_noise > 0 and self.min_id_scale == 0:
            raise ValueError(
                "positive_noise > 0 needs min_id_scale > 0, the floor of c(x); the default is 0.44."
            )

    def _fit_text(self) -> None:
        super()._fit_text()
        self._set_prior()
        self.n_floored_ = 0
        self.positive_embeddings_ = self._draw_positives() if self.positive_noise > 0 else None

    def _set_prior(self) -> None:
        """Compute c, and raise the prior where c is too small for the score's direction."""
        prior = self._wanted_prior()

        n_classes = len(self.class_names_)
        group_size = self._group_size()  # Q
        scale = scoring.debiased_id_scale(n_classes, group_size, prior)

        # The clamp bounds the score by itself, whatever c is.
        guarded = self.clamp is None

        if guarded and self.min_id_scale > 0 and scale < self.min_id_scale:
            # c = p - (1 - p) Q / K grows with the prior p; it is c0 = min_id_scale where
            # p = (c0 + Q / K) / (1 + Q / K).
            per_class = group_size / n_classes
            raised = (self.min_id_scale + per_class) / (1 + per_class)
            if self.negative_prior is not None:
                warn(
                    f"With {n_classes} classes and groups of {group_size} negative labels, "
                    f"negative_prior={prior:g} gives an ID scale c={scale:.3g}, below "
                    f"min_id_scale={self.min_id_scale:g}; the prior is raised to {raised:.4g}. Set "
                    "a larger negative_prior or n_groups to choose yourself.",
                )
            prior, scale = raised, float(self.min_id_scale)

        # At c <= 0 the most confident ID images, with r_j near 0, would rank last in 1 / (c + r_j).
        if guarded and scale <= 0:
            raise ValueError(
                f"negative_prior={prior:g} with {n_classes} classes gives c={scale:.3g} <= 0, "
                "where the score inverts. Raise negative_prior or n_groups, or set min_id_scale "
                "above 0 (default 0.44)."
            )
        self.effective_negative_prior_, self.id_scale_ = prior, scale

    def _wanted_prior(self) -> float:
        """The prior given, or the paper's, or estimated."""
        if self.negative_prior is None:
            return _PAPERS_PRIOR
        if self.negative_prior != "auto":
            return float(self.negative_prior)

        # The estimate is by how close class names are to each other.
        if len(self.class_embeddings_) < 2:
            raise ValueError(
                'negative_prior="auto" needs at least 2 classes; give a number in (0, 1].'
            )
        return mining.negative_proportion(
            self.class_embeddings_, self.negative_embeddings_, device=self._scoring_device()
        )

    def _draw_positives(self) -> np.ndarray:
        """Unit rows (K * n, D): ID text embeddings with Gaussian noise on the raw vectors."""
        _, norms = self.embedder_.encode_text(
            self.class_names_.tolist(), self.prompt, return_norm=True
        )
        # Unit rows times their norms: the raw vectors, on which the paper's noise is.
        count = 1 if self.n_positives == "auto" else self.n_positives
        raw = np.repeat(self.class_embeddings_ * norms[:, None], count, axis=0).astype(np.float64)

        rng = check_random_state(self.random_state)
        raw += self.positive_noise * rng.standard_normal(raw.shape)
        return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        # Scored only for the count; the scores themselves come again where the threshold is set.
        if self.positive_embeddings_ is not None:
            self.n_floored_ = self._noisy_scores(embeddings)[1]

    # -- scores -------------------------------------------------------------------------------

    def _zero_shot_threshold(self) -> float | None:
        # Where every group has this ratio r to the class names' sum.
        ratio = zero_shot.dnm_ratio(len(self.class_names_), self._group_size())

        if self.clamp is not None:
            return float(np.log(ratio))
        if self.positive_embeddings_ is None:
            return float(np.log(ratio / self.id_scale_))  # minus the log-odds of c / (c + r)

        # The same point of the log of the paper's score (prior / K) / (c + r).
        log_factor = np.log(self.effective_negative_prior_ / len(self.class_names_))
        return float(np.log(self.id_scale_ + ratio) - log_factor)

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        if self.positive_embeddings_ is not None:
            return self._noisy_scores(embeddings)[0]

        if self.clamp_ is None:
            return super()._score_embeddings(embeddings)

        return scoring.clamped_log_odds(
            embeddings,
            self.class_embeddings_,
            self.group_embeddings_,
            temperature=self.temperature_,
            n_groups=self.n_groups_,
            negative_prior=self.effective_negative_prior_,
            clamp=self.clamp_,
            device=self._scoring_device(),
        )

    def _noisy_scores(self, embeddings: np.ndarray) -> tuple[np.ndarray, int]:
        """Log of the paper's score (n,) where c depends on the image; how many c were raised."""
        return scoring.dnm_log_confidence(
            embeddings,
            self.class_embeddings_,
            self.group_embeddings_,
            self.positive_embeddings_,
            temperature=self.temperature_,
            n_groups=self.n_groups_,
            negative_prior=self.effective_negative_prior_,
            min_id_scale=self.min_id_scale_,
            device=self._scoring_device(),
        )
