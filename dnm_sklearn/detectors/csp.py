"""CSP: NegLabel on a conjugated semantic pool, adjectives joined to superclasses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.corpus.joining import JOINED, SUPERCLASSES, join_adjectives
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Refine, Synsets
from dnm_sklearn.embedding import Embedder, EmbeddingTable

__all__ = ["JOINED", "NOUN_TEMPLATES", "SUPERCLASSES", "SUPERCLASS_TEMPLATES", "CSPDetector"]

# The authors' eight templates for class names and nouns, and four for joined adjectives.
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


@fill_parameters(parameters.PARAGRAPHS)
class CSPDetector(NegativeLabelDetector):
    """CSP: NegLabel whose adjectives are joined to superclasses ("rusty" to "rusty place").

    Each adjective of the corpus is joined to one of the superclasses, drawn once at fit; nouns
    stay. Candidates that nearly duplicate a class name are dropped, and NegLabel's mining and
    grouped score do the rest.

    Parameters
    ----------
    {classes, embedder}
    prompt : str or list of str, default=NOUN_TEMPLATES
        Templates for class names and nouns (eight), averaged.
    {temperature, memory, contamination}
        The zero-shot threshold is ``log Q - 4.24 - 0.157 log K``, Q labels per group; see
        :doc:`/thresholds`.
    {ood_label, device, corpus, synsets}
        Without a table None = "wordnet-csp". A table has no text tower, and its vectors have their
        prompt already: the templates are ignored, its names are nouns, and a corpus that holds
        adjectives needs a joined name of each in it (``dnm-bench embed`` writes them); where it
        lacks the one drawn, another that it has is taken. Adjectives whose lexicographer file is
        ``JOINED`` ("adj.joined") count as joined already.
    adjective_prompt : str or list of str, default=SUPERCLASS_TEMPLATES
        Templates for joined adjectives (four), averaged.
    superclasses : sequence of str, default=SUPERCLASSES
        The fourteen words that adjectives are joined to.
    {refine, mining}
        Near duplicates of class names are dropped from it even so.
    {quantile, fraction, n_groups, max_similarity, exclude_class_names}
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
    >>> det = CSPDetector(
    ...     ["cat", "dog"], embedder=FakeEmbedder(), corpus=corpus, fraction=1.0, n_groups=1
    ... )
    >>> det.fit().negative_labels_.tolist()
    ['teapot', 'rusty vista']
    """

    info = DetectorInfo(
        name="CSP",
        title="Conjugated Semantic Pool Improves OOD Detection with Pre-trained "
        "Vision-Language Models",
        year=2024,
        venue="NeurIPS",
        url="https://arxiv.org/abs/2410.08611",
        needs=("class names", "corpus"),
    )
    _default_corpus = "wordnet-csp"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        **parameters.REFINE,
        "superclasses": [list, tuple],
        **parameters.PERCENTILE_MINING,
    }

    superclasses: Sequence[str]

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = NOUN_TEMPLATES,
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = "auto",
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        corpus: CorpusLike = None,
        synsets: Synsets = None,
        adjective_prompt: Prompt = SUPERCLASS_TEMPLATES,
        superclasses: Sequence[str] = SUPERCLASSES,
        refine: Refine = None,
        mining: str = "percentile",
        quantile: float = 0.95,
        fraction: float = 0.15,
        n_groups: int = 100,
        max_similarity: float | None = 0.95,
        exclude_class_names: bool = True,
        random_state: Any = 0,
    ) -> None:
        self._store(locals())

    def _check_before_encoding(self) -> None:
        super()._check_before_encoding()
        words = self.superclasses
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"superclasses must be words to join adjectives to, got {words!r}.")

    def _given_corpus(self) -> Corpus:
        """Return the corpus with its adjectives joined to superclasses."""
        corpus = super()._given_corpus()
        # A corpus that a fit gave back holds joined adjectives, which must not be joined twice.
        bare = np.flatnonzero(corpus.is_adjective & (corpus.lexname != JOINED))
        if not len(bare):
            return corpus

        # A table cannot encode a name, but may have been made with one joined name of each.
        table = self.embedder_ if isinstance(self.embedder_, EmbeddingTable) else None
        has = None if table is None else table.__contains__
        joined = join_adjectives(corpus, self.superclasses, self.random_state, has)
        if has is not None:
            self._check_joined([joined.names[i] for i in bare], has)
        return joined

    def _bank(self) -> Corpus | None:
        """The shipped corpus; if the draw is always the same, with its adjectives joined."""
        bank = super()._bank()
        is_standard = tuple(self.superclasses) == SUPERCLASSES
        if bank is None or not (is_standard and isinstance(self.random_state, Integral)):
            return bank
        return _joined_bank(bank, int(self.random_state))

    def _check_joined(self, joined: list[str], has: Callable[[str], bool]) -> None:
        """Raise if a table lacks the joined name of an adjective."""
        missing = [name for name in joined if not has(name)]
        if missing:
            raise ValueError(
                f"CSP joins adjectives to superclasses, and {len(missing)} of the {len(joined)} "
                f"joined names are not in the EmbeddingTable, e.g. {missing[0]!r}. Give a corpus= "
                "of nouns only, add the joined names to the table, or use a CLIPEmbedder."
            )


@lru_cache(maxsize=1)
def _joined_bank(bank: Corpus, random_state: int) -> Corpus:
    """A shipped corpus with joined adjectives, made once for the fits of a search."""
    return join_adjectives(bank, SUPERCLASSES, random_state)
