"""CSP: NegLabel on a conjugated semantic pool, adjectives joined to superclasses."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.embedding import EmbeddingTable

__all__ = ["JOINED", "NOUN_TEMPLATES", "SUPERCLASSES", "SUPERCLASS_TEMPLATES", "CSPDetector"]

NOUN_TEMPLATES = (
    "a close-up photo of the nice {}.",
    "a photo with the nice {}.",
    "a good photo with the nice {}.",
    "a photo of the nice {}.",
    "{}",
    "the {}",
    "the good {}",
    "the nice {}",
)
SUPERCLASS_TEMPLATES = ("{}", "a nice photo of {}", "a good photo of {}", "a close-up photo of {}")
SUPERCLASSES = (
    "environment", "space", "object", "scene", "place", "item", "area", "view", "thing", "pattern", "structure",
    "landscape", "vista", "creature",
)  # fmt: skip
# Lexicographer file of an adjective that is joined to a superclass already, so that it is not
# joined again.
JOINED = "adj.joined"


class CSPDetector(NegativeLabelDetector):
    """CSP: NegLabel whose adjectives are joined to superclasses ("rusty" to "rusty place").

    Each adjective of the corpus is joined to one of the superclasses, drawn once at fit; nouns
    stay. Candidates that nearly duplicate a class name are dropped, and NegLabel's mining and
    grouped score do the rest.

    Parameters
    ----------
    classes : list of str, dict or None, default=None
        ID class names; see :class:`BaseOODDetector`.
    embedder : CLIPEmbedder, EmbeddingTable, str or None, default=None
        What turns names and images into vectors.
    prompt : str or list of str, default=NOUN_TEMPLATES
        Templates for class names and nouns (eight), averaged.
    temperature : float or "auto", default="auto"
        "auto" = 1 / the model's logit scale (0.01 for CLIP).
    memory : str, path, joblib.Memory or None, default=None
        Cache for embeddings and mining results.
    contamination : float or "auto", default="auto"
        See :class:`BaseOODDetector`; the zero-shot threshold is ``-log(n_groups_)``.
    ood_label : str, default="ood"
        The string that marks OOD.
    corpus : Corpus, list of str, str or None, default=None
        Candidate labels. None = "wordnet-csp", or with an ``EmbeddingTable`` all its other names as
        nouns, unjoined (with the shipped "glyphclip" its
        :func:`~dnm_sklearn.datasets.glyph_corpus`): a table has no text tower, and its vectors have
        their prompt already, so the templates are ignored. A corpus that holds adjectives needs
        their joined names in such a table. Adjectives whose lexicographer file is ``JOINED``
        ("adj.joined") count as joined already.
    adjective_prompt : str or list of str, default=SUPERCLASS_TEMPLATES
        Templates for joined adjectives (four), averaged.
    superclasses : sequence of str, default=SUPERCLASSES
        The fourteen words that adjectives are joined to.
    mining : {"percentile", "none"}, default="percentile"
        "none" keeps the corpus as given, but for near duplicates of class names.
    quantile : float, default=0.95
        Quantile over the class names of a candidate's cosines.
    fraction : float, default=0.15
        Share of nouns, and of adjectives, to keep (the farthest); at least one label is kept.
    n_groups : int, default=100
        Groups the kept labels are dealt into; the score is the mean over groups.
    max_similarity : float or None, default=0.95
        Drop candidates with a larger cosine to any class name first.
    exclude_class_names : bool, default=True
        Drop candidates equal to a class name, ignoring case.
    random_state : int, RandomState instance or None, default=0
        Seed of the superclasses drawn and of the grouping, both drawn once at fit. None draws
        superclasses unseeded and keeps the mined order.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_corpus_ : Corpus
        The mined labels; joined adjectives have the lexicographer file ``JOINED``, so that the
        corpus, given back as ``corpus`` with ``mining="none"``, gives the same scores (also through
        ``to_file`` and ``from_file``).
    negative_labels_, negative_embeddings_ : ndarray (M,), ndarray (M, D)
        Their names and unit embeddings.
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
    Chen et al., "Conjugated Semantic Pool Improves OOD Detection with Pre-trained Vision-Language
    Models", NeurIPS 2024, arXiv:2410.08611.

    Examples
    --------
    >>> from dnm_sklearn import CSPDetector
    >>> from dnm_sklearn.corpus import Corpus
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> corpus = Corpus(["teapot", "rusty"], ["noun", "adjective"])
    >>> det = CSPDetector(["cat", "dog"], embedder=FakeEmbedder(), corpus=corpus, fraction=1.0, n_groups=1)
    >>> det.fit().negative_labels_.tolist()
    ['teapot', 'rusty vista']
    """

    info = DetectorInfo(
        name="CSP",
        title="Conjugated Semantic Pool Improves OOD Detection with Pre-trained Vision-Language Models",
        year=2024,
        venue="NeurIPS",
        url="https://arxiv.org/abs/2410.08611",
        needs=("class names", "corpus"),
    )
    _default_corpus = "wordnet-csp"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        "superclasses": [list, tuple],
        "mining": [StrOptions({"percentile", "none"})],
        "fraction": [Interval(Real, 0, 1, closed="both")],
        "max_similarity": [Interval(Real, -1, 1, closed="both"), None],
    }

    def __init__(
        self,
        classes=None,
        *,
        embedder=None,
        prompt=NOUN_TEMPLATES,
        temperature="auto",
        memory=None,
        contamination="auto",
        ood_label="ood",
        corpus=None,
        adjective_prompt=SUPERCLASS_TEMPLATES,
        superclasses=SUPERCLASSES,
        mining="percentile",
        quantile=0.95,
        fraction=0.15,
        n_groups=100,
        max_similarity=0.95,
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
        self.superclasses = superclasses
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

    def _given_corpus(self) -> Corpus:
        """Return the corpus with its adjectives joined to superclasses."""
        corpus = super()._given_corpus()
        bare = np.flatnonzero(corpus.is_adjective & (corpus.lexname != JOINED))
        if not len(bare):
            return corpus
        if not self.superclasses or not all(
            isinstance(word, str) and word.strip() for word in self.superclasses
        ):
            raise ValueError(
                f"superclasses must be words to join adjectives to, got {self.superclasses!r}."
            )
        names, lexname = list(corpus.names), corpus.lexname.astype(object)
        drawn = check_random_state(self.random_state).randint(
            len(self.superclasses), size=len(bare)
        )
        for i, superclass in zip(bare, drawn, strict=True):
            names[i] = f"{names[i]} {self.superclasses[superclass]}"
        if isinstance(self.embedder_, EmbeddingTable):
            missing = [names[i] for i in bare if names[i] not in self.embedder_]
            if missing:
                raise ValueError(
                    f"CSP joins adjectives to superclasses, and {len(missing)} of the {len(bare)} "
                    f"joined names are not in the EmbeddingTable, e.g. {missing[0]!r}. Give a "
                    "corpus= of nouns only, add the joined names to the table, or use a "
                    "CLIPEmbedder."
                )
        lexname[bare] = JOINED
        return Corpus(
            names, corpus.part_of_speech, lexname.tolist(), name=f"{corpus.name} (joined)"
        )
