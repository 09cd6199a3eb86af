"""The noun synsets of WordNet 3.0: the names for each, and which of them stand above which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType

import numpy as np

from dnm_sklearn.corpus.columns import LEXICOGRAPHER_FILES, folded, shipped_blocks

# Number of the first noun file, noun.Tops, in WordNet's list of lexicographer files.
_FIRST_FILE = 3
# WordNet's endings of plurals, and what stands for them in the singular.
_PLURALS = (
    ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
    ("ies", "y"), ("s", ""),
)  # fmt: skip
_WNID = re.compile(r"n(\d{8})")


@dataclass(frozen=True, repr=False)
class NounSynsets:
    """Noun synsets 0..n-1 in database order, and the relations between them."""

    # Offset in WordNet's ``data.noun``, ascending; with an "n" in front the WordNet id.
    offset: np.ndarray
    lexname: np.ndarray  # lexicographer file
    # The words for each, as WordNet writes them, with spaces for underscores.
    lemmas: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]  # hypernyms
    classes_of: tuple[tuple[int, ...], ...]  # what a proper noun is an instance of
    # Word, case ignored -> its synsets, most frequent first.
    senses: Mapping[str, tuple[int, ...]]

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Hyponyms of each synset, instances not among them."""
        found: list[list[int]] = [[] for _ in self.parents]
        for child, parents in enumerate(self.parents):
            for parent in parents:
                found[parent].append(child)
        return tuple(map(tuple, found))

    def senses_of(self, name: str) -> tuple[int, ...]:
        """Synsets of a name, most frequent first; of its singular if it has none itself."""
        word = folded(name.replace("_", " "))
        if word in self.senses:
            return self.senses[word]
        for ending, singular in _PLURALS:
            stem = word.removesuffix(ending) + singular
            if word.endswith(ending) and stem in self.senses:
                return self.senses[stem]
        return ()

    def by_id(self, wnid: str) -> int:
        """Number of the synset of a WordNet id such as "n01440764"."""
        match = _WNID.fullmatch(wnid) if isinstance(wnid, str) else None
        place = int(np.searchsorted(self.offset, int(match[1]))) if match else len(self.offset)
        if match is None or place == len(self.offset) or self.offset[place] != int(match[1]):
            raise ValueError(
                f"{wnid!r} is no noun synset of WordNet 3.0; its ids look like 'n01440764'."
            )
        return place

    def above(self, synsets: Iterable[int]) -> set[int]:
        """All hypernyms of synsets, at any distance."""
        return _reached(self.parents, synsets)

    def below(self, synsets: Iterable[int]) -> set[int]:
        """All hyponyms of synsets, at any distance."""
        return _reached(self.children, synsets)


def _reached(edges: tuple[tuple[int, ...], ...], starts: Iterable[int]) -> set[int]:
    """Whatever can be reached along edges, in one step at least."""
    reached: set[int] = set()
    waiting = list(starts)
    while waiting:
        for other in edges[waiting.pop()]:
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached


@lru_cache(maxsize=1)
def noun_synsets() -> NounSynsets:
    """Read the shipped noun synsets of WordNet 3.0, once in a process.

    Examples
    --------
    >>> from dnm_sklearn.corpus.nouns import noun_synsets
    >>> nouns = noun_synsets()
    >>> [nouns.lemmas[i] for i in nouns.parents[nouns.by_id("n01440764")]]
    [('cyprinid', 'cyprinid fish')]
    """
    # tools/build_wordnet.py says what the four columns are.
    gaps, files, relations, words = shipped_blocks("wordnet30_nouns.txt.xz")
    parents, classes_of = [], []
    for i, relation in enumerate(relations):
        cells = [] if relation == "." else relation.split(" ")
        parents.append(tuple(i - int(cell) for cell in cells if cell[0] != "i"))
        classes_of.append(tuple(i - int(cell[1:]) for cell in cells if cell[0] == "i"))

    lemmas = []
    # Word -> rank of each sense and its synset.
    ranked: dict[str, list[tuple[int, int]]] = {}
    for i, line in enumerate(words):
        own = []
        for cell in line.split(" "):
            lemma, _, rank = cell.replace("_", " ").partition(":")
            own.append(lemma)
            ranked.setdefault(folded(lemma), []).append((int(rank or 1), i))
        lemmas.append(tuple(own))
    senses = {word: tuple(i for _, i in sorted(found)) for word, found in ranked.items()}

    return NounSynsets(
        np.cumsum(np.array(gaps, dtype=np.int64)),
        np.array(LEXICOGRAPHER_FILES)[np.array(files, dtype=np.int64) - _FIRST_FILE],
        tuple(lemmas),
        tuple(parents),
        tuple(classes_of),
        MappingProxyType(senses),
    )
