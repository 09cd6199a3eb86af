"""NegLabel: negative labels far from every class name."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector


class NegLabelDetector(NegativeLabelDetector):
    """NegLabel: the share of softmax mass that falls on class names rather than on mined negative labels.

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
        See :class:`BaseOODDetector`; the zero-shot threshold is ``-log(n_groups_)``.
    ood_label : str, default="ood"
        The string that marks OOD.
    corpus : Corpus, list of str, str or None, default=None
        Candidate labels: a :class:`~dnm_sklearn.corpus.Corpus`, names, or the name of a shipped
        list. None = "wordnet-neglabel", or with an ``EmbeddingTable`` all its other names (with the
        shipped "glyphclip" its :func:`~dnm_sklearn.datasets.glyph_corpus`).
    adjective_prompt : str or list of str, default="This is a {} photo"
        Template for adjectives.
    mining : {"percentile", "none"}, default="percentile"
        "none" keeps the corpus as given.
    quantile : float, default=0.95
        Quantile over the class names of a candidate's cosines: its closeness to the classes.
    fraction : float, default=0.15
        Share of nouns, and of adjectives, to keep (the farthest); at least one label is kept.
    n_groups : int, default=100
        Groups the kept labels are dealt into; the score is the mean over groups.
    max_similarity : float or None, default=None
        Drop candidates with a larger cosine to any class name first (CSP's duplicate rule).
    exclude_class_names : bool, default=True
        Drop candidates equal to a class name, ignoring case.
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
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the log-odds of the paper's value: ``expit(score_samples(X))`` is the mean
    over groups of ``S / (S + N_j)``.

    References
    ----------
    Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models", ICLR
    2024, arXiv:2403.20078.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = NegLabelDetector(["cat", "dog"], embedder=table, fraction=1.0, n_groups=1).fit()
    >>> sorted(det.negative_labels_.tolist())
    ['teapot', 'truck']
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    """

    info = DetectorInfo(
        name="NegLabel",
        title="Negative Label Guided OOD Detection with Pretrained Vision-Language Models",
        year=2024,
        venue="ICLR",
        url="https://arxiv.org/abs/2403.20078",
        needs=("class names", "corpus"),
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        "mining": [StrOptions({"percentile", "none"})],
        "fraction": [Interval(Real, 0, 1, closed="both")],
        "max_similarity": [Interval(Real, -1, 1, closed="both"), None],
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
        n_groups=100,
        max_similarity=None,
        exclude_class_names=True,
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
        self.n_groups = n_groups
        self.max_similarity = max_similarity
        self.exclude_class_names = exclude_class_names
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
