"""What the negative-label family shares: a corpus, mining, groups and the grouped score."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from dnm_sklearn import scoring
from dnm_sklearn._utils.caching import RecentResults, as_memory, cached, own_memory
from dnm_sklearn._utils.digest import digest_array
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.corpus import Corpus, load_corpus
from dnm_sklearn.corpus.check import check_corpus, shipped_corpus
from dnm_sklearn.corpus.neighbours import not_negative
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.explain import NegativeLabels
from dnm_sklearn.detectors.near_names import NEAR, near_names
from dnm_sklearn.embedding import BaseEmbedder, EmbeddingTable
from dnm_sklearn.embedding.text import check_prompt
from dnm_sklearn.embedding.text_bank import bank_keeper, encode_part
from dnm_sklearn.scoring import mining

# How far from 1 the length of a row of half precision that was normalised can be.
_UNIT_TOLERANCE = 0.01


class CorpusDetector(BaseOODDetector):
    """A detector with candidate negative labels: the corpus without the class names.

    A subclass has the parameters `corpus`, `synsets` and `adjective_prompt`, and may have `refine`.
    """

    _default_corpus: ClassVar[str] = "wordnet-neglabel"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOODDetector._parameter_constraints,
        **parameters.CORPUS,
    }

    corpus: Any
    synsets: Any
    adjective_prompt: Any
    refine: Any = None

    def _given_corpus(self) -> Corpus:
        """Return the whole corpus, class names included (a table's class names are not)."""
        if isinstance(self.corpus, str) and self.corpus == NEAR:
            near = near_names(
                self.class_names_.tolist(),
                self.class_embeddings_,
                self.embedder_,
                lambda corpus: self._encode_corpus(corpus, load_corpus("wordnet"))[0],
                synsets=self.synsets,
                device=self._scoring_device(),
            )
            return near.corpus()
        if self.corpus is not None:
            return check_corpus(self.corpus)
        if not isinstance(self.embedder_, EmbeddingTable):
            return load_corpus(self._default_corpus)

        # A table's other names are a corpus that needs no text tower.
        classes = set(self.class_names_.tolist())
        names = [name for name in self.embedder_.names if name not in classes]
        if not names:
            raise ValueError(
                "The EmbeddingTable holds the class names and nothing else, so no candidate "
                "negative label is left. Add more names to the table, or give corpus=."
            )
        return Corpus(names, name="table")

    def _check_before_encoding(self) -> None:
        super()._check_before_encoding()
        check_prompt(self._setting("adjective_prompt"))
        # A file or a name of a corpus; a list is looked at again and again in a search.
        if isinstance(self.corpus, (str, os.PathLike)) and self.corpus != NEAR:
            check_corpus(self.corpus)

    def _candidates(self, *, exclude_class_names: bool = True, ignore_case: bool = True) -> Corpus:
        """Return the corpus the detector chooses from."""
        corpus = self._given_corpus()
        if exclude_class_names:
            try:
                corpus = _without(corpus, tuple(self.class_names_.tolist()), ignore_case)
            except ValueError as error:
                raise ValueError(
                    f"The class names cover the whole corpus ({len(corpus)} labels), so no "
                    "negative label is left. Give a larger corpus=."
                ) from error
        return self._refined(corpus)

    def _refined(self, corpus: Corpus) -> Corpus:
        """Return the corpus without the labels that `refine` drops."""
        if self.refine is None:
            return corpus

        names = self.class_names_.tolist()
        if self.refine == "wordnet":
            # An adjective that is written like a noun is none.
            given = None if self.synsets is None else tuple(self.synsets.items())
            keep = ~_not_negative(corpus, tuple(names), given) | corpus.is_adjective
        else:
            keep = np.array([not self.refine(word, names) for word in corpus.names])
        if not keep.any():
            raise ValueError(
                f"refine={self.refine!r} drops all {len(corpus)} labels of the corpus: give a "
                "larger corpus=, or refine=None."
            )
        return corpus.filter(where=keep)

    def _keep_labels(self, corpus: Corpus, embeddings: np.ndarray) -> None:
        """Make the labels of a corpus, with their unit rows, the negative labels."""
        self.negative_corpus_ = corpus
        self.negative_labels_ = np.asarray(corpus.names)
        self.negative_embeddings_ = embeddings

    def _negative_labels(self) -> NegativeLabels:
        return NegativeLabels(self.negative_corpus_, self.negative_embeddings_)

    def _bank(self) -> Corpus | None:
        """The shipped corpus that candidates are part of; None if they are the user's own."""
        if self.corpus is None and not isinstance(self.embedder_, EmbeddingTable):
            return load_corpus(self._default_corpus)
        return shipped_corpus(self.corpus)

    def _encode_corpus(
        self, corpus: Corpus, bank: Corpus | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unit rows (N, D) float32 and raw norms (N,) of a corpus, which may be part of a bank."""
        bank = self._bank() if bank is None else bank
        return self._encode_by_prompt(corpus, bank, self._keeper(bank))

    def _keeper(self, bank: Corpus | None) -> BaseEmbedder | None:
        """The encoder that keeps the vectors of a bank; None if none does."""
        return None if bank is None else bank_keeper(self.embedder_, self.memory)

    def _encode_by_prompt(
        self, corpus: Corpus, bank: Corpus | None, keeper: BaseEmbedder | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode each part of speech through its prompt."""
        rows = np.empty((len(corpus), self.class_embeddings_.shape[1]), dtype=np.float32)
        norms = np.empty(len(corpus), dtype=np.float32)
        for is_adjective, prompt in ((False, self.prompt), (True, self.adjective_prompt)):
            chosen = np.flatnonzero(corpus.is_adjective == is_adjective)
            if not len(chosen):
                continue

            names = [corpus.names[i] for i in chosen]
            if bank is None or keeper is None:
                encoded, lengths = self.embedder_.encode_text(names, prompt, return_norm=True)
            else:
                of_bank = bank[bank.is_adjective == is_adjective]
                title = f"{len(of_bank):,} of {len(bank):,} corpus labels"
                encoded, lengths = encode_part(
                    self.embedder_, keeper, names, prompt, of_bank.names, title
                )
            norms[chosen] = lengths
            if len(chosen) == len(corpus):
                return encoded, norms  # of one kind only: no copy of what may be 140 MB
            rows[chosen] = encoded
        return rows, norms


class MinedLabelsDetector(CorpusDetector):
    """A detector that keeps some labels of the corpus as negative labels, dealt into groups.

    A subclass scores in :meth:`_score_embeddings`. It has the parameters `mining`, `quantile`,
    `n_groups`, `exclude_class_names` and `random_state`; `fraction` or its own :meth:`_fractions`;
    and may have `max_similarity` and `n_neighbors`.

    Attributes
    ----------
    negative_corpus_ : Corpus
        The kept labels, in order of the criterion; given back as ``corpus`` with ``mining="none"``
        it reproduces the scores.
    negative_labels_ : ndarray of shape (M,)
        Their names.
    negative_embeddings_ : ndarray of shape (M, D)
        Their unit text embeddings.
    n_groups_ : int
        Groups after reduction to the number of kept labels.
    permutation_ : ndarray of shape (Q * G,)
        The order in which kept labels are dealt into groups, drawn once at fit.
    group_embeddings_ : ndarray of shape (Q * G, D)
        ``negative_embeddings_`` in that order: what images are multiplied with. With one group, or
        where the order is theirs, the same array.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CorpusDetector._parameter_constraints,
        **parameters.GROUPS,
    }

    mining: str
    quantile: float
    fraction: float
    max_similarity: float | None = None
    n_neighbors: int | None = None
    n_groups: int
    exclude_class_names: bool
    random_state: Any

    def _fractions(self) -> tuple[float, float]:
        """Proportions of nouns and of adjectives to keep."""
        return self.fraction, self.fraction

    # -- fit ----------------------------------------------------------------------------------

    def _fit_text(self) -> None:
        corpus = self._candidates(exclude_class_names=self.exclude_class_names)
        embeddings, norms = self._corpus_embeddings(corpus)
        if self.mining == "norm":
            _refuse_unit_norms(norms, self.embedder_)

        # A criterion for every candidate, computed once per setting; then the best of it.
        kept, criterion = self._ranked(corpus, embeddings, norms)
        if len(criterion):
            best = mining.select_fraction(
                criterion,
                corpus.is_adjective[kept],
                *self._fractions(),
                # Percentile: the farthest from the classes. Density and norm: the most typical.
                largest=self.mining != "percentile",
            )
            kept = kept[best]

        if not len(kept):
            raise ValueError(
                f"No negative label is left of {len(corpus)}: every one is closer than "
                f"max_similarity={self.max_similarity:g} to a class name. Raise "
                "max_similarity or give another corpus=."
            )

        self._keep_labels(corpus[kept], embeddings[kept])
        self._fit_groups()

    def _corpus_embeddings(self, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the corpus and raw norms; where `memory` keeps any, also the last ones."""
        bank = self._bank()
        keeper = self._keeper(bank)
        if keeper is None and own_memory(self.memory) is None:
            return self._encode_by_prompt(corpus, bank, keeper)

        # The fits of a search have one corpus, and would read 140 MB from disk for each of them.
        key = (
            self.embedder_.fingerprint_,
            corpus.fingerprint,
            repr(self.prompt),
            repr(self.adjective_prompt),
        )
        return _recent_corpora.get(key, lambda: self._encode_by_prompt(corpus, bank, keeper))

    def _ranked(
        self, corpus: Corpus, embeddings: np.ndarray, norms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Result of :func:`rank`, computed once for each setting that it depends on."""
        # Arrays, and where they are multiplied, are no part of the key: fingerprints are. With
        # memory="auto" nothing is kept that depends on the user's classes.
        arrays = ["corpus_embeddings", "class_embeddings", "norms", "device"]
        return cached(as_memory(own_memory(self.memory)), rank, ignore=arrays)(
            corpus_embeddings=embeddings,
            class_embeddings=self.class_embeddings_,
            norms=norms,
            device=self._scoring_device(),
            key=(
                self.embedder_.fingerprint_,
                corpus.fingerprint,
                digest_array(self.class_embeddings_).hex(),
                repr(self.prompt),
                repr(self.adjective_prompt),
            ),
            method=self.mining,
            # A parameter that a method does not use is no part of its key.
            quantile=self.quantile if self.mining == "percentile" else None,
            n_neighbors=self.n_neighbors if self.mining in ("density", "norm") else None,
            max_similarity=self.max_similarity,
        )

    def _fit_groups(self) -> None:
        """Deal the kept labels into groups."""
        n_labels = len(self.negative_labels_)
        self.n_groups_ = min(self.n_groups, n_labels)
        if self.n_groups_ < self.n_groups:
            warn(
                f"n_groups={self.n_groups} is more than the {n_labels} kept negative labels; "
                f"n_groups_={self.n_groups_} is used.",
            )
        self.permutation_ = mining.group_permutation(n_labels, self.n_groups_, self.random_state)

        # The order of labels within a group plays no part, so that one group needs no copy.
        unchanged = np.array_equal(self.permutation_, np.arange(n_labels))
        self.group_embeddings_ = self.negative_embeddings_
        if self.n_groups_ > 1 and not unchanged:
            self.group_embeddings_ = self.negative_embeddings_[self.permutation_]

    def _group_size(self) -> int:
        """Labels per group."""
        return len(self.negative_labels_) // self.n_groups_

    # -- reasons ------------------------------------------------------------------------------

    def _negative_labels(self) -> NegativeLabels:
        group = np.full(len(self.negative_labels_), -1)
        # Labels that the division into equal groups leaves over are in none, -1.
        group[self.permutation_] = np.arange(len(self.permutation_)) // self._group_size()
        return replace(super()._negative_labels(), group=group)


class NegativeLabelDetector(MinedLabelsDetector):
    """Base class of the detectors that score class names against groups of mined negative labels.

    ``score_samples`` is the log-odds of ``mean_j c / (c + r_j)`` with ``r_j`` the sum of
    exponentials of group j over that of the class names, and ``c = id_scale_`` (1 in NegLabel). A
    subclass has the parameters that mining and groups need: see ``NegLabelDetector``.

    Attributes
    ----------
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (M,), ndarray (M, D)
        The kept labels, in order of the criterion, and their unit text embeddings.
    n_groups_ : int
        Groups after reduction to the number of kept labels.
    id_scale_ : float
        c.
    """

    id_scale_: float = 1.0

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return scoring.negative_label_log_odds(
            embeddings,
            self.class_embeddings_,
            self.group_embeddings_,
            temperature=self.temperature_,
            n_groups=self.n_groups_,
            id_scale=self.id_scale_,
            device=self._scoring_device(),
        )

    def _zero_shot_threshold(self) -> float | None:
        return zero_shot.neglabel_threshold(len(self.class_names_), self._group_size())


# The corpus embeddings and norms that a fit with `memory` used last. One item: 70,000 labels take
# 140 MB, and all candidates of a search use the same corpus.
_recent_corpora: RecentResults[tuple[np.ndarray, np.ndarray]] = RecentResults(max_items=1)


def _refuse_unit_norms(norms: np.ndarray, embedder: Any) -> None:
    """Raise if the raw norms say nothing."""
    if np.abs(norms - 1).max() < _UNIT_TOLERANCE:
        raise ValueError(
            'mining="norm" ranks labels by the length of their raw text embeddings, but here all '
            f"have length 1: the embeddings of {embedder!r} were normalised before. Give the "
            "lengths, EmbeddingTable(names, embeddings, norms=...) with those of "
            'encode_text(..., return_norm=True), or choose mining="density".'
        )


@lru_cache(maxsize=4)
def _without(corpus: Corpus, names: tuple[str, ...], ignore_case: bool) -> Corpus:
    """``corpus.without``, so that the fits of a search share one corpus and its fingerprint."""
    return corpus.without(names, ignore_case=ignore_case)


@lru_cache(maxsize=4)
def _not_negative(
    corpus: Corpus, names: tuple[str, ...], synsets: tuple[tuple[str, str], ...] | None
) -> np.ndarray:
    """Mask of WordNet's proper nouns and kinds of the classes, computed once for a search."""
    return not_negative(corpus.names, names, None if synsets is None else dict(synsets))


def rank(
    *,
    corpus_embeddings,
    class_embeddings,
    norms,
    device,
    key,
    method,
    quantile,
    n_neighbors,
    max_similarity,
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (n,) that are not too similar to a class, and their mining criterion (n,).

    The criterion of "none" is empty. Cached by `key` (fingerprints and prompts) and the numbers,
    never by the arrays.
    """
    candidates = np.arange(len(corpus_embeddings))
    if max_similarity is not None:
        nearest = scoring.max_logit(corpus_embeddings, class_embeddings, device=device)
        candidates = np.flatnonzero(nearest <= max_similarity)
    if method == "none" or not len(candidates):
        return candidates, np.empty(0)

    # Without a limit all are candidates, and indexing would copy the whole corpus.
    text = corpus_embeddings
    if len(candidates) < len(corpus_embeddings):
        text = corpus_embeddings[candidates]

    if method == "percentile":
        criterion = mining.percentile_similarity(
            text, class_embeddings, quantile=quantile, device=device
        )
    elif method == "density":
        criterion = mining.knn_density(text, n_neighbors=n_neighbors, device=device)
    else:
        criterion = mining.norm_representativeness(
            text, norms[candidates], n_neighbors=n_neighbors, device=device
        )
    return candidates, criterion
