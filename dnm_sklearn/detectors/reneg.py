"""ReNeg: near-OOD names from WordNet that catch test images, on top of any detector."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.corpus import Corpus, load_corpus
from dnm_sklearn.corpus.check import check_corpus, shipped_corpus
from dnm_sklearn.corpus.columns import folded
from dnm_sklearn.corpus.neighbours import leaked
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.explain import with_more_evidence
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.near_names import NEAR, near_names
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Synsets
from dnm_sklearn.detectors.plug_in import PlugInDetector
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.embedding.text_bank import bank_keeper, encode_part
from dnm_sklearn.scoring import class_index
from dnm_sklearn.streams.reneg import STATE_NAMES, GroundedNamesStream

# Random rows around the mean image, in mode="max".
_N_BACKGROUND = 10_000


@fill_parameters(parameters.PARAGRAPHS)
class ReNegDetector(PlugInDetector):
    """ReNeg: names near the classes that catch test images say what near-OOD images look like.

    It goes on top of any detector and adds an image score to the base's log-odds:
    ``(1 - omega) * base + omega * image score``. Each name of the pool catches the images that are
    nearer to it than to any class name; names whose images the base too takes for OOD become
    prototypes, of their images and not of their texts. An image that is more like these than like
    the confident ID images seen so far is scored down. Each batch is scored before it is learned
    from, so that no image is compared with itself.

    It is made for OOD near the classes. Where the base is poor, or takes near-OOD images for ID,
    its prototypes are wrong and scores get worse; :doc:`/detectors` says with which bases it
    helped.

    Parameters
    ----------
    {classes, embedder}
        Here None = the base's.
    prompt : str, list of str or None, default=None
        Template for class names and the pool. None = the base's.
    {temperature}
        For the image score only; the base has its own.
    memory : "auto", str, path, joblib.Memory or None, default=None
        As elsewhere (of ``ENLDetector``, say). None = the base's.
    {contamination}
        With ID images (and but for ``mode="max"``) the base's threshold sets this one, else scores
        do. The zero-shot threshold is ``1 - omega`` times the base's.
    {ood_label, device}
    base : detector or None, default=None
        Whose score it improves; a copy is fitted on the same names and images. Its `contamination`,
        `ood_label` and `batch_size` play no part. One that learns from test images goes on doing
        so; with ``adaptation="frozen"`` it does not. None = ``ENLDetector()``.
    corpus : Corpus, list of str, str or None, default=None
        The base's corpus, if it has one. None = the base's.
    pool : Corpus, list of str or str, default="wordnet-near"
        Names near the classes and none of them. "wordnet-near" = their neighbours in WordNet
        (:meth:`~dnm_sklearn.corpus.Corpus.related`), of a class that WordNet lacks the 20 corpus
        names nearest to it.
    synsets : dict or None, default=None
        Class name -> WordNet 3.0 id such as "n01440764", where the pool should take another sense
        than the most frequent one.
    exclude : list of str or None, default=None
        Names of classes that the pool must not hold, those of the OOD set of a benchmark say: a
        "blind" pool. Synonyms go too.
    mode : {"balanced", "max", "safe"}, default="balanced"
        The image score. "balanced" only scores down; "max" compares also with what images look like
        in general, and scores up as well; "safe" is "balanced" times the weight of the name that
        catches the image, 0 where none does.
    omega : float, default=0.25
        Weight of the image score, in [0, 1).
    guard : bool, default=True
        Do not vote OOD in a stream that shows no two kinds (means less than 2 log-odds apart), do
        not believe a name by one image, and score the first batch on the scale of the rest. False =
        as released.
    {adaptation, batch_size}
        Also of a base that learns.
    random_state : int, RandomState instance or None, default=0
        Seed of the random rows of ``mode="max"``.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    base_ : detector
        The fitted base.
    pool_labels_, pool_embeddings_, pool_cluster_ : ndarray (J,), ndarray (J, D), ndarray (J,)
        The pool, and which of its names are of one kind.
    pool_unmatched_ : list of str
        Class names that WordNet lacks.
    name_weights_, caught_counts_ : ndarray of shape (J,)
        How far each name is believed to be in the stream, and the images that it has caught.
    grounded_names_ : ndarray of str
        Names that are prototypes in the present state, the most believed first.
    n_seen_ : int
        Images learned from since fit.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    Other attributes of the state are ``margin_sums_``, ``vote_sums_``, ``caught_names_``,
    ``caught_image_sums_``, ``margin_square_sum_``, ``class_image_sums_``, ``class_image_counts_``,
    ``image_sum_`` and ``base_log_odds_``. Some of the authors' constants were chosen on benchmark
    streams, as they say. They report the mode "max" as the best on ImageNet.

    References
    ----------
    Ferdous, ReNeg: "Knowledge-graph negative labels grounded in the test stream for test-time OOD
    detection with CLIP", 2026, software, https://github.com/NabilRafi/ReNeg.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector, ReNegDetector
    >>> table = EmbeddingTable(["dog", "cat", "wolf", "teapot"], np.eye(4))
    >>> base = NegLabelDetector(corpus=["teapot"], n_groups=1)
    >>> det = ReNegDetector(["dog", "cat"], embedder=table, base=base).fit()
    >>> det.pool_labels_.tolist()
    ['wolf']
    >>> det.partial_fit(np.eye(4)[[2, 2]]).caught_counts_.tolist()
    [2.0]
    """

    info = DetectorInfo(
        name="ReNeg",
        title="Knowledge-graph negative labels grounded in the test stream for test-time OOD "
        "detection with CLIP",
        year=2026,
        venue="software",
        url="https://github.com/NabilRafi/ReNeg",
        needs=("class names", "corpus", "test stream", "ID images (optional)"),
        test_time=True,
    )
    _state_names = STATE_NAMES
    _kept_params = ("mode", "omega", "guard")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PlugInDetector._parameter_constraints,
        "pool": [Corpus, "array-like", str],
        "synsets": [dict, None],
        "exclude": ["array-like", None],
        "mode": [StrOptions({"balanced", "max", "safe"})],
        "omega": [Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    }

    pool: Corpus | Iterable[str] | str
    synsets: Synsets
    exclude: Iterable[str] | None
    mode: Literal["balanced", "max", "safe"]
    omega: float
    random_state: Any

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt | None = None,
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = None,
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        base: BaseOODDetector | None = None,
        corpus: CorpusLike = None,
        pool: Corpus | Iterable[str] | str = NEAR,
        synsets: Synsets = None,
        exclude: Iterable[str] | None = None,
        mode: Literal["balanced", "max", "safe"] = "balanced",
        omega: float = 0.25,
        guard: bool = True,
        adaptation: Literal["transductive", "frozen"] = "transductive",
        batch_size: int = 256,
        random_state: Any = 0,
    ) -> None:
        self._store(locals())

    # -- fit ----------------------------------------------------------------------------------

    def _fit_text(self) -> None:
        super()._fit_text()
        names, cluster = self._pool_names()
        dropped = {folded(name) for name in self.class_names_.tolist()}
        if self.exclude is not None:
            dropped |= {folded(name) for name in leaked(names, self.exclude)}

        kept = [i for i, name in enumerate(names) if folded(name) not in dropped]
        if not kept:
            warn("The pool is empty: no name is near the class names, and the base alone scores.")
        names = [names[i] for i in kept]
        self.pool_labels_ = np.array(names, dtype=np.str_)
        self.pool_embeddings_ = self._encode(names)
        if cluster is None:
            cluster = np.zeros(0, np.intp)
            if kept:
                cluster = class_index(
                    self.pool_embeddings_, self.class_embeddings_, device=self._scoring_device()
                )
        else:
            cluster = cluster[kept]
        self.pool_cluster_ = np.unique(cluster, return_inverse=True)[1]

        self.background_seed_ = int(check_random_state(self.random_state).randint(2**31))
        n_classes, width = self.class_embeddings_.shape
        self.labelled_sums_ = np.zeros((n_classes, width))
        self.labelled_counts_ = np.zeros(n_classes)

    def _pool_names(self) -> tuple[list[str], np.ndarray | None]:
        """Names of the pool, and their clusters; None = by the nearest class."""
        self.pool_unmatched_: list[str] = []
        if not (isinstance(self.pool, str) and self.pool == NEAR):
            return list(check_corpus(self.pool)), None

        corpus = self._setting("corpus")
        bank = load_corpus("wordnet") if corpus is None else shipped_corpus(corpus)
        near = near_names(
            self.class_names_.tolist(),
            self.class_embeddings_,
            self.embedder_,
            lambda words: self._encode(words.names, bank),
            synsets=self.synsets,
            corpus=None if corpus is None else check_corpus(corpus, self.class_names_.tolist()),
            device=self._scoring_device(),
        )
        self.pool_unmatched_ = list(near.unmatched)
        return list(near.names), near.cluster

    def _encode(self, names: Iterable[str], bank: Corpus | None = None) -> np.ndarray:
        """Unit rows (n, D) of nouns, maybe of a bank's, through the prompt of class names."""
        names, prompt = list(names), self._setting("prompt")
        if not names:
            return np.zeros((0, self.class_embeddings_.shape[1]), np.float32)

        keeper = None if bank is None else bank_keeper(self.embedder_, self._setting("memory"))
        if bank is None or keeper is None:
            return self.embedder_.encode_text(names, prompt)
        nouns = bank[~bank.is_adjective].names
        title = f"{len(nouns):,} corpus labels"
        return encode_part(self.embedder_, keeper, names, prompt, nouns, title)[0]

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        super()._fit_images(embeddings, labels)
        if labels.is_ood is None:
            return
        X, index = self._id_images(embeddings, labels)
        np.add.at(self.labelled_sums_, index, X)
        np.add.at(self.labelled_counts_, index, 1)

    # -- stream -------------------------------------------------------------------------------

    def _open_stream(self) -> GroundedNamesStream:
        background = None
        if self.mode_ == "max":
            rng = np.random.default_rng(self.background_seed_)
            width = self.class_embeddings_.shape[1]
            background = rng.standard_normal((_N_BACKGROUND, width), dtype=np.float32)
            background /= np.linalg.norm(background, axis=1, keepdims=True)

        unit = self.base_._score_unit()
        return GroundedNamesStream(
            self.class_embeddings_,
            self.pool_embeddings_,
            self.pool_cluster_,
            self._base_stream(lambda scores: scores / unit),
            mode=self.mode_,
            omega=self.omega_,
            temperature=self.temperature_,
            background=background,
            guard=self.guard_,
            device=self._scoring_device(),
        )

    def _initial_state(self) -> dict[str, Any]:
        stream = self._open_stream()
        stream.start(self.labelled_sums_, self.labelled_counts_, self._initial_base_state())
        return stream.state()

    # -- threshold ----------------------------------------------------------------------------

    def _fused(self, threshold: float | None) -> float | None:
        """A threshold of the base's on this one's scale, as long as no image is scored down."""
        if threshold is None:
            return None
        return (1 - self.omega) * threshold / self.base_._score_unit()

    def _threshold_from(
        self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None
    ) -> float | None:
        # Images that the class prototypes are made of score too well to set a threshold.
        known = self.base_.threshold_source_ == "images" and is_ood is not None
        if known and self.mode != "max":
            return self._fused(self.base_.threshold_)
        return super()._threshold_from(scores, usable, is_ood)

    def _zero_shot_threshold(self) -> float | None:
        return self._fused(self.base_._zero_shot_threshold())

    def _zero_shot_doubt(self) -> str:
        if self._is_transductive() or self.mode == "max":
            return "the image score moves with the images around"
        return self.base_._zero_shot_doubt()

    # -- what was learned ---------------------------------------------------------------------

    @property
    def grounded_names_(self) -> np.ndarray:
        """Names that are prototypes in the present state, the most believed first; str (P,)."""
        return self.pool_labels_[self._present_stream().prototype_names()]

    def _with_test_images(
        self, table: dict[str, np.ndarray], rows: np.ndarray, index: np.ndarray
    ) -> dict[str, np.ndarray]:
        names, cosines = self._present_stream().nearest_names(rows)
        found = np.flatnonzero(names >= 0)
        labels = self.pool_labels_[names[found]] if len(found) else np.zeros(0, np.str_)
        return with_more_evidence(table, "stream", index[found], labels, cosines[found])
