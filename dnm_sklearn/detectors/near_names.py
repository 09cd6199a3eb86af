"""The corpus ``"wordnet-near"`` of a detector: WordNet's neighbours, else the embedding's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dnm_sklearn.corpus import Corpus, load_corpus
from dnm_sklearn.corpus.columns import folded
from dnm_sklearn.corpus.neighbours import NEAR, Neighbours, Synsets, neighbours
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.scoring._chunks import whole_product

__all__ = ["NEAR", "NearNames", "near_names"]

# For a class that is no noun of WordNet: so many corpus names, the most similar ones that are not
# all but the class itself.
_N_NEAREST = 20
_LARGEST_COSINE = 0.95


@dataclass(frozen=True)
class NearNames:
    """Names near the classes.

    Attributes
    ----------
    names, lexname : list of str
        The n names and their lexicographer files.
    cluster : ndarray of int of shape (n,)
        Which of them are of one kind: the number of a synset, or -1 - k for the neighbours that
        class k has in the embedding.
    unmatched : tuple of str
        Class names that WordNet lacks.
    """

    names: list[str]
    lexname: list[str]
    cluster: np.ndarray
    unmatched: tuple[str, ...]

    def corpus(self) -> Corpus:
        """Give them as a corpus, of which there must be some."""
        if not self.names:
            raise ValueError(
                f"{NEAR!r} is empty: WordNet has no neighbours of the class names, or none that is "
                "in the EmbeddingTable. Add Corpus.related(class_names) to the table, or give a "
                "corpus of your own."
            )
        return Corpus(self.names, "noun", self.lexname, name=NEAR)


def near_names(
    class_names: Sequence[str],
    class_embeddings: np.ndarray,
    embedder: object,
    encode: Callable[[Corpus], np.ndarray],
    *,
    synsets: Synsets = None,
    corpus: Corpus | None = None,
    device: str = "auto",
) -> NearNames:
    """Names near the classes that the embedder can encode.

    An `EmbeddingTable` has those of its names that are among them. A class that is no noun of
    WordNet has its nearest names of `corpus`, without one of all the table's or of WordNet's nouns;
    `encode` gives the unit rows of a corpus, and is called only then.
    """
    found = neighbours(class_names, synsets)
    names, lexname, cluster = list(found.names), found.lexname.tolist(), found.cluster.tolist()
    if isinstance(embedder, EmbeddingTable):
        # A table's names are written as its maker wrote them.
        written = {folded(name): name for name in embedder.names}
        held = [i for i, name in enumerate(names) if folded(name) in written]
        names = [written[folded(names[i])] for i in held]
        lexname, cluster = [lexname[i] for i in held], [cluster[i] for i in held]

    if found.unmatched:
        known = set(names)
        for k, nearest, files in _nearest_names(
            found, class_names, class_embeddings, embedder, encode, corpus, device
        ):
            # A name near two classes, or near by WordNet too, stays where it is first.
            for name, file in zip(nearest, files, strict=True):
                if name not in known:
                    known.add(name)
                    names.append(name)
                    lexname.append(file)
                    cluster.append(-1 - k)
    return NearNames(names, lexname, np.array(cluster, np.intp), found.unmatched)


def _nearest_names(
    found: Neighbours,
    class_names: Sequence[str],
    class_embeddings: np.ndarray,
    embedder: object,
    encode: Callable[[Corpus], np.ndarray],
    corpus: Corpus | None,
    device: str,
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Each class without a synset, and its nearest corpus names with their lexicographer files."""
    if corpus is None and isinstance(embedder, EmbeddingTable):
        corpus = Corpus(embedder.names, name="table")
    elif corpus is None:
        corpus = load_corpus("wordnet")

    # No words for classes, and no adjectives.
    own = found.words_of_classes | {folded(name) for name in class_names}
    keep = np.array([folded(name) not in own for name in corpus.names]) & ~corpus.is_adjective
    if not keep.any():
        return
    corpus = corpus.filter(where=keep)

    position = {name: k for k, name in enumerate(class_names)}
    index = [position[name] for name in found.unmatched]
    cosines = whole_product(class_embeddings[index], encode(corpus), device=device)
    cosines[cosines > _LARGEST_COSINE] = -np.inf
    for k, row in zip(index, cosines, strict=True):
        order = np.argsort(-row, kind="stable")[:_N_NEAREST]
        chosen = order[np.isfinite(row[order])]
        yield k, [corpus.names[i] for i in chosen], corpus.lexname[chosen].tolist()
