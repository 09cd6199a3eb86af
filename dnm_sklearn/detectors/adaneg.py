"""AdaNeg: proxies of the labels, learned from confident test images."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.streams.adaneg import STATE_NAMES, LabelMemoryStream


class AdaNegDetector(StreamingDetector, NegativeLabelDetector):
    """AdaNeg: NegLabel with label proxies that confident test images draw towards the image space.

    Images whose grouped NegLabel score S_nl is confident are remembered under their nearest class
    or negative label, the ones of lowest entropy where there are more than `memory_length`. A
    label's proxy is made of its text and its images; S_ada is the grouped score against the
    proxies. The result is ``(S_ada + w * S_nl) / (1 + w)``.

    The method is **transductive**: by default the scores of an image depend on the images before it
    and in its batch.

    Parameters
    ----------
    classes : list of str, dict or None, default=None
        ID class names; see :class:`BaseOODDetector`.
    embedder : CLIPEmbedder, EmbeddingTable, str or None, default=None
        What turns names and images into vectors.
    prompt : str or list of str, default="the nice {}"
        Template for class names and nouns; a list is an ensemble.
    temperature : float or "auto", default="auto"
        "auto" = 1 / the model's logit scale (0.01 for CLIP).
    memory : str, path, joblib.Memory or None, default=None
        Cache for embeddings and mining results.
    contamination : float or "auto", default="auto"
        See :class:`BaseOODDetector`; the zero-shot threshold is 0, the log-odds of a mean score of
        one half. A threshold that images set at fit stays: scores may drift away from it as the
        detector adapts.
    ood_label : str, default="ood"
        The string that marks OOD.
    corpus : Corpus, list of str, str or None, default=None
        Candidate labels. None = "wordnet-neglabel", or with an ``EmbeddingTable`` all its other
        names (with the shipped "glyphclip" its :func:`~dnm_sklearn.datasets.glyph_corpus`).
    adjective_prompt : str or list of str, default="This is a {} photo"
        Template for adjectives.
    mining : {"percentile", "none"}, default="percentile"
        NegLabel's; "none" keeps the corpus as given.
    quantile : float, default=0.95
        Quantile over the class names of a candidate's cosines.
    fraction : float, default=0.15
        Share of nouns, and of adjectives, to keep (the farthest); at least one label is kept.
    memory_length : int, default=10
        Images remembered for a label.
    proxy : {"task", "sample"}, default="task"
        "task" = the mean over a label's slots; "sample" = a mean weighted for each image scored by
        ``exp(-beta * (1 - cos(image, slot)))``. Both are renormalised.
    beta : float, default=5.5
        Sharpness of the weights of ``proxy="sample"``.
    static_weight : float, default=0.1
        w, the paper's lambda: weight of the static score.
    gap : float, default=0.5
        g in [0, 1]: an image is confident if S_nl is above ``(1 + g) / 2`` (ID) or below ``(1 - g)
        / 2`` (OOD).
    n_groups : int, default=5
        Groups the kept labels are dealt into; the score is the mean over groups.
    max_similarity : float or None, default=None
        Drop candidates with a larger cosine to any class name first (CSP's duplicate rule).
    exclude_class_names : bool, default=True
        Drop candidates equal to a class name, ignoring case.
    batch_size : int, default=256
        Images scored at once in a stream. It changes results: a batch is remembered before it is
        scored.
    adaptation : {"transductive", "frozen"}, default="transductive"
        "transductive": ``decision_function(X)`` scores X as a stream on a scratch copy of the
        memory. "frozen": it scores with the memory as it is. Neither changes the detector.
    random_state : int, RandomState instance or None, default=0
        Seed of the grouping, drawn once at fit; None keeps the mined order.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (M,), ndarray (M, D)
        The mined labels and their unit embeddings.
    n_groups_ : int
        Groups used.
    memory_features_ : ndarray of shape (S, D)
        Features of remembered images.
    memory_label_ : ndarray of int of shape (S,)
        Label each belongs to: 0..K-1 a class, K + i the negative label ``permutation_[i]``, -1 a
        free place.
    memory_entropy_ : ndarray of shape (S,)
        Entropy over its side's labels each was stored with.
    n_seen_ : int
        Images learned from since fit.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``expit(score_samples(X))`` is ``(S_ada + w * S_nl) / (1 + w)``. The authors' code stops
    replacing images once an entropy is NaN (0 * log 0 in half precision) and never fills its last
    slot; this one does neither.

    References
    ----------
    Zhang and Zhang, "AdaNeg: Adaptive Negative Proxy Guided OOD Detection with Vision-Language
    Models", NeurIPS 2024, arXiv:2410.20149.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import AdaNegDetector, EmbeddingTable
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = AdaNegDetector(["cat", "dog"], embedder=table, fraction=1.0, n_groups=1).fit()
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    >>> det.partial_fit([[0.9, 0.1, 0.0, 0.1]]).n_seen_
    1
    """

    info = DetectorInfo(
        name="AdaNeg",
        title="AdaNeg: Adaptive Negative Proxy Guided OOD Detection with Vision-Language Models",
        year=2024,
        venue="NeurIPS",
        url="https://arxiv.org/abs/2410.20149",
        needs=("class names", "corpus", "test stream"),
        test_time=True,
    )
    _state_names = STATE_NAMES
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        **StreamingDetector._streaming_constraints,
        "mining": [StrOptions({"percentile", "none"})],
        "fraction": [Interval(Real, 0, 1, closed="both")],
        "max_similarity": [Interval(Real, -1, 1, closed="both"), None],
        "memory_length": [Interval(Integral, 1, None, closed="left")],
        "proxy": [StrOptions({"task", "sample"})],
        "beta": [Interval(Real, 0, None, closed="left")],
        "static_weight": [Interval(Real, 0, None, closed="left")],
        "gap": [Interval(Real, 0, 1, closed="both")],
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
        mining="percentile",
        quantile=0.95,
        fraction=0.15,
        memory_length=10,
        proxy="task",
        beta=5.5,
        static_weight=0.1,
        gap=0.5,
        n_groups=5,
        max_similarity=None,
        exclude_class_names=True,
        batch_size=256,
        adaptation="transductive",
        random_state=0,
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
        self.mining = mining
        self.quantile = quantile
        self.fraction = fraction
        self.memory_length = memory_length
        self.proxy = proxy
        self.beta = beta
        self.static_weight = static_weight
        self.gap = gap
        self.n_groups = n_groups
        self.max_similarity = max_similarity
        self.exclude_class_names = exclude_class_names
        self.batch_size = batch_size
        self.adaptation = adaptation
        self.random_state = random_state

    def _mining_params(self) -> dict[str, Any]:
        return {
            "method": self.mining,
            "quantile": self.quantile,
            "noun_fraction": self.fraction,
            "adjective_fraction": self.fraction,
            "n_neighbors": 0,
            "max_similarity": self.max_similarity,
        }

    def _fit_text(self) -> None:
        super()._fit_text()
        self.reset_adaptation()

    def _open_stream(self) -> LabelMemoryStream:
        return LabelMemoryStream(
            self.class_embeddings_,
            self.group_embeddings_,
            temperature=self.temperature_,
            n_groups=self.n_groups_,
            memory_length=self.memory_length,
            proxy=self.proxy,
            beta=self.beta,
            static_weight=self.static_weight,
            gap=self.gap,
        )

    def _initial_state(self) -> dict[str, Any]:
        stream = self._open_stream()
        stream.start()
        return stream.state()
