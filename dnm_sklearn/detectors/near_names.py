"""The corpus ``"wordnet-near"`` of a detector: WordNet's neighbours, or the embedding's for want of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    corpus : Corpus
        The n names.
    cluster : ndarray of int of shape (n,)
        Which of them are of one kind: the number of a synset, or -1 - k for the neighbours that
        class k has in the embedding.
    unmatched : tuple of str
        Class names that WordNet lacks.
    """

    corpus: Corpus
    cluster: np.ndarray
    unmatched: tuple[str, ...]


def near_names(
    class_names: Sequence[str],
    class_embeddings: np.ndarray,
    embedder: object,
    encode: Callable[[Corpus], np.ndarray],
    *,
    synsets: Synsets = None,
    device: str = "auto",
) -> NearNames:
    """Names near the classes that the embedder can encode.

    An `EmbeddingTable` has those of its names that are among them. `encode` gives the unit rows of
    a corpus; it is called only where a class is no noun of WordNet.
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
        candidates = _candidates(embedder, class_names, found)
        for k, nearest in _nearest(
            candidates, class_names, class_embeddings, encode, found, device
        ).items():
            # A name near two classes, or near by WordNet too, stays where it is first.
            new = [i for i in nearest if candidates.names[i] not in names]
            names += [candidates.names[i] for i in new]
            lexname += candidates.lexname[new].tolist()
            cluster += [-1 - k] * len(new)

    if not names:
        raise ValueError(
            f"{NEAR!r} is empty: none of WordNet's {len(found.names)} neighbours of the class names "
            "is in the EmbeddingTable. Add Corpus.related(class_names) to the table, or give a "
            "corpus of your own."
        )
    return NearNames(
        Corpus(names, "noun", lexname, name=NEAR), np.array(cluster, np.intp), found.unmatched
    )


def _candidates(embedder: object, class_names: Sequence[str], found: Neighbours) -> Corpus:
    """What the neighbours of a class may be taken from, no words for classes among them."""
    if isinstance(embedder, EmbeddingTable):
        corpus = Corpus(embedder.names, name="table")
    else:
        corpus = load_corpus("wordnet").filter(part_of_speech="noun")
    own = found.words_of_classes | {folded(name) for name in class_names}
    return corpus.filter(where=lambda name: folded(name) not in own)


def _nearest(
    candidates: Corpus,
    class_names: Sequence[str],
    class_embeddings: np.ndarray,
    encode: Callable[[Corpus], np.ndarray],
    found: Neighbours,
    device: str,
) -> dict[int, np.ndarray]:
    """Class without a synset -> its nearest candidates, the most similar first."""
    position = {name: k for k, name in enumerate(class_names)}
    index = [position[name] for name in found.unmatched]
    cosines = whole_product(class_embeddings[index], encode(candidates), device=device)
    cosines[cosines > _LARGEST_COSINE] = -np.inf

    nearest = {}
    for k, row in zip(index, cosines, strict=True):
        order = np.argsort(-row, kind="stable")[:_N_NEAREST]
        nearest[k] = order[np.isfinite(row[order])]
    return nearest
