"""What the negative-label family shares: a corpus, its embeddings, mining and groups."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from dnm_sklearn import scoring
from dnm_sklearn._utils.caching import RecentResults, as_memory, cached
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.corpus import Corpus, check_corpus, load_corpus
from dnm_sklearn.datasets import glyph_corpus
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.embedding.digest import digest_array
from dnm_sklearn.embedding.open_clip.registry import SHIPPED
from dnm_sklearn.scoring import mining

# How far from 1 the length of a row of half precision that was normalised can be.
_UNIT_TOLERANCE = 0.01


class CorpusDetector(BaseOODDetector):
    """A detector with candidate negative labels: the corpus without the class names, and its embeddings.

    Parameters are those of :class:`BaseOODDetector`, and `corpus`, `adjective_prompt`,
    `exclude_class_names` of the subclass.
    """

    _default_corpus: ClassVar[str] = "wordnet-neglabel"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOODDetector._parameter_constraints,
        "corpus": [Corpus, "array-like", str, None],
        "adjective_prompt": [str, list, tuple],
    }

    def _given_corpus(self) -> Corpus:
        """Return the whole corpus, class names included (a table's class names are not)."""
        if self.corpus is not None:
            return check_corpus(self.corpus)
        if getattr(self.embedder_, "model", None) == SHIPPED:
            return glyph_corpus()
        if not isinstance(self.embedder_, EmbeddingTable):
            return load_corpus(self._default_corpus)
        others = set(self.class_names_.tolist())
        names = [name for name in self.embedder_.names if name not in others]
        if not names:
            raise ValueError(
                "The EmbeddingTable holds the class names and nothing else, so no candidate "
                "negative label is left. Add more names to the table, or give corpus=."
            )
        return Corpus(names, name="table")

    def _candidates(self, *, exclude_class_names: bool = True, ignore_case: bool = True) -> Corpus:
        """Return the corpus the detector chooses from."""
        corpus = self._given_corpus()
        if not exclude_class_names:
            return corpus
        try:
            return _without(corpus, tuple(self.class_names_.tolist()), ignore_case)
        except ValueError as error:
            raise ValueError(
                f"The class names cover the whole corpus ({len(corpus)} labels), so no negative "
                "label is left. Give a larger corpus=."
            ) from error

    def _encode_corpus(
        self, corpus: Corpus, *, return_norm: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Unit rows (N, D) float32, nouns and adjectives each through their prompt, and raw norms (N,)."""
        parts: list[np.ndarray] = []
        index: list[np.ndarray] = []
        norms = np.empty(len(corpus), dtype=np.float32)
        for adjective, prompt in ((False, self.prompt), (True, self.adjective_prompt)):
            chosen = np.flatnonzero(corpus.is_adjective == adjective)
            if len(chosen):
                names = [corpus.names[i] for i in chosen]
                encoded = self.embedder_.encode_text(names, prompt, return_norm=return_norm)
                rows, norms[chosen] = encoded if return_norm else (encoded, 1.0)
                parts.append(rows)
                index.append(chosen)
        text = (
            parts[0]
            if len(parts) == 1
            else np.concatenate(parts)[np.argsort(np.concatenate(index))]
        )
        return text, (norms if return_norm else None)


class NegativeLabelDetector(CorpusDetector):
    """Base class of the detectors that compare the ID names with mined negative labels.

    A subclass defines :meth:`_mine` (which labels to keep, in order) and :meth:`_score_embeddings`.

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
    id_scale_ : float
        The ``c`` of the score ``mean_j 1 / (c + r_j)``.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CorpusDetector._parameter_constraints,
        "quantile": [Interval(Real, 0, 1, closed="both")],
        "n_groups": [Interval(Integral, 1, None, closed="left")],
        "exclude_class_names": ["boolean"],
        "random_state": ["random_state"],
    }
    id_scale_ = 1.0

    @abstractmethod
    def _mining_params(self) -> dict[str, Any]:
        """Mining settings that this method's parameters stand for: method, quantile, fractions, neighbours, limit."""

    def _fit_text(self) -> None:
        corpus = self._candidates(exclude_class_names=self.exclude_class_names)
        params = self._mining_params()
        text, norms = self._corpus_bank(corpus, return_norm=params["method"] == "norm")
        if norms is not None:
            _refuse_unit_norms(norms, self.embedder_)
        kept, criterion = self._ranked(corpus, text, norms, params)
        if len(criterion):
            best = mining.select_fraction(
                criterion,
                corpus.is_adjective[kept],
                params["noun_fraction"],
                params["adjective_fraction"],
                largest=params["method"] != "percentile",
            )
            kept = kept[best]
        if not len(kept):
            raise ValueError(
                f"No negative label is left of {len(corpus)}: every one is closer than "
                f"max_similarity={params['max_similarity']:g} to a class name. Raise "
                "max_similarity or give another corpus=."
            )
        self.negative_corpus_ = corpus[kept]
        self.negative_labels_ = np.asarray(self.negative_corpus_.names)
        self.negative_embeddings_ = text[kept]
        self._fit_groups()

    def _corpus_bank(
        self, corpus: Corpus, *, return_norm: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Embeddings of the corpus; with `memory` the last ones stay in this process, for the fits of a search."""
        if self.memory is None:
            return self._encode_corpus(corpus, return_norm=return_norm)
        prompts = repr(self.prompt), repr(self.adjective_prompt)
        key = (self.embedder_.fingerprint_, corpus.fingerprint, *prompts, return_norm)
        return _recent_corpora.get(
            key, lambda: self._encode_corpus(corpus, return_norm=return_norm)
        )

    def _ranked(
        self, corpus: Corpus, text: np.ndarray, norms: np.ndarray | None, params: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Result of :func:`rank`, computed once for each setting that it depends on."""
        method = params["method"]
        return cached(
            as_memory(self.memory), rank, ignore=["corpus_embeddings", "class_embeddings", "norms"]
        )(
            corpus_embeddings=text,
            class_embeddings=self.class_embeddings_,
            norms=norms,
            key=(
                self.embedder_.fingerprint_,
                corpus.fingerprint,
                digest_array(self.class_embeddings_).hex(),
                repr(self.prompt),
                repr(self.adjective_prompt),
            ),
            method=method,
            quantile=params["quantile"] if method == "percentile" else None,
            n_neighbors=params["n_neighbors"] if method in ("density", "norm") else None,
            max_similarity=params["max_similarity"],
        )

    def _fit_groups(self) -> None:
        n_labels = len(self.negative_labels_)
        self.n_groups_ = min(self.n_groups, n_labels)
        if self.n_groups_ < self.n_groups:
            warn(
                f"n_groups={self.n_groups} is more than the {n_labels} kept negative labels; "
                f"n_groups_={self.n_groups_} is used.",
            )
        self.permutation_ = mining.group_permutation(n_labels, self.n_groups_, self.random_state)
        as_it_is = self.n_groups_ == 1 or np.array_equal(self.permutation_, np.arange(n_labels))
        self.group_embeddings_ = (
            self.negative_embeddings_ if as_it_is else self.negative_embeddings_[self.permutation_]
        )

    def _zero_shot_threshold(self) -> float | None:
        return float(-np.log(self.n_groups_ * self.id_scale_))

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return scoring.negative_label_log_odds(
            embeddings,
            self.class_embeddings_,
            self.group_embeddings_,
            temperature=self.temperature_,
            n_groups=self.n_groups_,
            id_scale=self.id_scale_,
        )


# The corpus embeddings (and norms) that a fit with `memory` used last, by their fingerprints. One
# item: a corpus of 70,000 labels takes 140 MB, and all candidates of a search use the same one.
_recent_corpora: RecentResults[tuple[np.ndarray, np.ndarray | None]] = RecentResults(max_items=1)


def _refuse_unit_norms(norms: np.ndarray, embedder: Any) -> None:
    if np.abs(norms - 1).max() < _UNIT_TOLERANCE:
        raise ValueError(
            'mining="norm" ranks labels by the length of their raw text embeddings, but here all have length 1: the '
            f"embeddings of {embedder!r} were normalised before. Give the lengths, "
            "EmbeddingTable(names, embeddings, "
            'norms=...) with those of encode_text(..., return_norm=True), or choose mining="density".'
        )


@lru_cache(maxsize=4)
def _without(corpus: Corpus, names: tuple[str, ...], ignore_case: bool) -> Corpus:
    """``corpus.without``, so that the fits of a search share one corpus and its fingerprint."""
    return corpus.without(names, ignore_case=ignore_case)


def rank(
    *,
    corpus_embeddings,
    class_embeddings,
    norms,
    key,
    method,
    quantile,
    n_neighbors,
    max_similarity,
) -> tuple[np.ndarray, np.ndarray]:
    """Give candidate labels their mining criterion; cached by `key` and the numbers, never by the arrays.

    Parameters
    ----------
    corpus_embeddings : ndarray of shape (N, D)
        Unit text embeddings of the candidates.
    class_embeddings : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    norms : ndarray of shape (N,) or None
        Raw embedding norms, for ``method="norm"``.
    key : tuple of str
        Fingerprints of the embedder, the corpus and the class vectors, and the prompts.
    method : {"percentile", "density", "norm", "none"}
        Criterion.
    quantile : float or None
        Quantile over the classes for "percentile".
    n_neighbors : int or None
        Neighbours for "density" and "norm".
    max_similarity : float or None
        Drop candidates with a larger cosine to a class name first.

    Returns
    -------
    candidates : ndarray of int of shape (n,)
        Those that were not dropped, as given.
    criterion : ndarray of shape (n,), float64
        Theirs; empty for "none".
    """
    candidates = np.arange(len(corpus_embeddings))
    if max_similarity is not None:
        candidates = np.flatnonzero(
            mining.max_similarity(corpus_embeddings, class_embeddings) <= max_similarity
        )
    if method == "none" or not len(candidates):
        return candidates, np.empty(0)
    text = (
        corpus_embeddings
        if len(candidates) == len(corpus_embeddings)
        else corpus_embeddings[candidates]
    )
    if method == "percentile":
        return candidates, mining.percentile_similarity(text, class_embeddings, quantile=quantile)
    if method == "density":
        return candidates, mining.knn_density(text, n_neighbors=n_neighbors)
    return candidates, mining.norm_representativeness(
        text, norms[candidates], n_neighbors=n_neighbors
    )
