"""Adjectives joined to superclasses."""

import numpy as np

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.corpus.joining import JOINED, SUPERCLASSES, join_adjectives

CORPUS = Corpus(
    ["oak", "red", "ash", "blue", "odd"], ["noun", "adjective", "noun"] + ["adjective"] * 2
)


def test_each_adjective_is_joined_to_the_superclass_drawn_for_it():
    drawn = np.random.RandomState(3).randint(14, size=3)
    words = [SUPERCLASSES[i] for i in drawn]
    joined = join_adjectives(CORPUS, random_state=3)
    assert joined.names == ("oak", f"red {words[0]}", "ash", f"blue {words[1]}", f"odd {words[2]}")
    assert joined.lexname.tolist() == ["", JOINED, "", JOINED, JOINED]
    # Nothing is joined twice.
    assert join_adjectives(joined) is joined


def test_a_name_that_can_be_had_takes_the_place_of_one_that_cannot():
    first = join_adjectives(CORPUS, random_state=0)
    again = join_adjectives(CORPUS, random_state=5, has=first.names.__contains__)
    assert again.names == first.names
    assert join_adjectives(CORPUS, random_state=5).names != first.names
    # Without any, the one that was drawn stays, for whoever asks to name it.
    none = join_adjectives(CORPUS, random_state=5, has=lambda name: False)
    assert none.names == join_adjectives(CORPUS, random_state=5).names
