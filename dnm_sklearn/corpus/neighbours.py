"""WordNet neighbours of class names: words for what is near the classes, and none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.names import check_names
from dnm_sklearn.corpus.columns import folded
from dnm_sklearn.corpus.nouns import NounSynsets, noun_synsets

# The name of the selection, which depends on the class names.
NEAR = "wordnet-near"

Synsets = Mapping[str, str] | None


@dataclass(frozen=True)
class Neighbours:
    """Names near the classes."""

    names: tuple[str, ...]  # lower-cased, in database order
    lexname: np.ndarray  # their lexicographer files
    # The lowest synset above both a name and its nearest class, as a number of `noun_synsets`.
    cluster: np.ndarray
    unmatched: tuple[str, ...]  # class names that are no noun of WordNet
    # Words for the classes, and for all that is above or below one; case folded.
    words_of_classes: frozenset[str]


def class_synsets(
    names: Iterable[str], synsets: Synsets = None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Noun synset of each class name by name, and the names that are no noun of WordNet.

    `synsets` holds class name -> WordNet 3.0 id, such as "n01440764", where the most frequent sense
    is wrong.
    """
    names = check_names(names)
    senses = _senses(names, synsets)
    found = {name: senses[name][0] for name in names if senses[name]}
    return found, tuple(name for name in names if name not in found)


def _senses(names: list[str], synsets: Synsets) -> dict[str, tuple[int, ...]]:
    """Class name -> numbers of its synsets, most frequent first, or of the one that was given."""
    nouns = noun_synsets()
    found = {name: nouns.senses_of(name) for name in names}
    for name, wnid in (synsets or {}).items():
        if name not in found:
            raise ValueError(
                f"synsets holds {name!r}, which is no class name.{did_you_mean(name, names, n=1)}"
            )
        found[name] = (nouns.by_id(wnid),)
    return found


def neighbours(names: Iterable[str], synsets: Synsets = None) -> Neighbours:
    """Names of the WordNet neighbours of classes: ReNeg's near-OOD pool.

    Of each class: what has a hypernym in common with it (siblings), what is directly below that
    (nephews), the siblings of its hypernyms (aunts), and what is one and two steps below these
    (cousins and their children). Left out are the classes themselves, all that is above or below a
    class, words for a class, and instances (proper nouns). A synset gives its first word.

    Examples
    --------
    >>> from dnm_sklearn.corpus.neighbours import neighbours
    >>> neighbours(["tench"], {"tench": "n01440764"}).names[:3]
    ('loach', 'carp', 'domestic carp')
    """
    nouns = noun_synsets()
    found, unmatched = class_synsets(check_names(names), synsets)
    classes = sorted(set(found.values()))

    nearest = _family(nouns, classes)
    near_classes = {*classes, *nouns.above(classes), *nouns.below(classes)}
    own_words = {folded(word) for i in classes for word in nouns.lemmas[i]}

    # One word a synset; of synsets with the same first word the first stays.
    chosen: dict[str, int] = {}
    for i in sorted(set(nearest) - near_classes):
        word = nouns.lemmas[i][0].lower()
        if folded(word) not in own_words:
            chosen.setdefault(word, i)

    index = np.fromiter(chosen.values(), dtype=np.intp, count=len(chosen))
    cluster = [nearest[i][1] for i in chosen.values()]
    return Neighbours(
        names=tuple(chosen),
        lexname=nouns.lexname[index],
        cluster=np.array(cluster, dtype=np.intp),
        unmatched=unmatched,
        words_of_classes=frozenset(folded(w) for i in near_classes for w in nouns.lemmas[i]),
    )


def _family(nouns: NounSynsets, classes: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Neighbour -> how far it is from its nearest class, and the synset above both."""
    nearest: dict[int, tuple[int, int]] = {}

    def descend(synsets: Iterable[int], generations: int, distance: int, ancestor: int) -> None:
        """Take in synsets below an ancestor, and so many generations in all."""
        for _ in range(generations):
            for i in synsets:
                # Of equally near ancestors the first, whatever the order of the classes.
                here = (distance, ancestor)
                nearest[i] = min(nearest.get(i, here), here)
            synsets = {child for i in synsets for child in nouns.children[i]}
            distance += 1

    for c in classes:
        parents = set(nouns.parents[c])
        for parent in parents:
            descend(nouns.children[parent], 2, 2, parent)
            for grandparent in nouns.parents[parent]:
                descend(set(nouns.children[grandparent]) - parents, 3, 3, grandparent)
    return nearest


def not_negative(words: Iterable[str], names: Iterable[str], synsets: Synsets = None) -> np.ndarray:
    """Which words are no good negative labels of classes: proper nouns, and kinds of a class.

    NegRefine's filter, which asks a language model, answered by WordNet: a word is a proper noun if
    all its noun senses are instances, and a kind of a class if one of its senses is a hyponym or an
    instance of that class. Words that are no noun of WordNet are neither. Of a class name that
    `synsets` does not hold every sense counts.

    Examples
    --------
    >>> from dnm_sklearn.corpus.neighbours import not_negative
    >>> not_negative(["rhine", "beagle", "teapot"], ["dog"]).tolist()
    [True, True, False]
    """
    nouns = noun_synsets()
    classes = set(chain(*_senses(check_names(names), synsets).values()))
    below = {*classes, *nouns.below(classes)}

    found = []
    for word in words:
        senses = nouns.senses.get(folded(word), ())
        is_proper = bool(senses) and all(nouns.classes_of[i] for i in senses)
        # A sense of the class itself is a synonym, left to `exclude_class_names` and the mining.
        is_kind = any(i in below and i not in classes for i in senses)
        is_instance = any(above in below for i in senses for above in nouns.classes_of[i])
        found.append(is_proper or is_kind or is_instance)
    return np.array(found, dtype=bool)


def leaked(words: Iterable[str], names: Iterable[str], synsets: Synsets = None) -> tuple[str, ...]:
    """Words that name one of the classes of an OOD set: equal, or another word for its synset.

    Examples
    --------
    >>> from dnm_sklearn.corpus.neighbours import leaked
    >>> leaked(["Car", "automobile", "teapot"], ["car"])
    ('Car', 'automobile')
    """
    nouns, names = noun_synsets(), check_names(names)
    found, _ = class_synsets(names, synsets)
    same = {folded(name.replace("_", " ")) for name in names}
    for i in found.values():
        same |= {folded(word) for word in nouns.lemmas[i]}
    return tuple(word for word in words if folded(word) in same)
