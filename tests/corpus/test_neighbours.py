"""WordNet's noun relations: the near-OOD pool, the filter of negatives, and the leak check."""

from functools import cache

import numpy as np
import pytest

from dnm_sklearn.corpus import Corpus, load_corpus
from dnm_sklearn.corpus.check import check_corpus
from dnm_sklearn.corpus.neighbours import class_synsets, leaked, neighbours, not_negative
from dnm_sklearn.corpus.nouns import noun_synsets
from dnm_sklearn.corpus.wordnet import lexicographer_files
from dnm_sklearn.datasets.class_names import imagenet_ids

NOUNS = noun_synsets()


@cache
def closure(relation, start):
    found = set()
    for other in getattr(NOUNS, relation)[start]:
        found |= {other} | closure(relation, other)
    return found


def naive_pool(classes):
    """The rule in the words of its authors: sets of relatives, less what belongs to a class."""

    def below(synsets):
        return {child for i in synsets for child in NOUNS.children[i]}

    found, own, related = set(), set(), set()
    for c in classes:
        parents = set(NOUNS.parents[c])
        grandparents = {g for p in parents for g in NOUNS.parents[p]}
        siblings, aunts = below(parents), below(grandparents) - parents
        cousins = below(aunts)
        found |= siblings | below(siblings) | aunts | cousins | below(cousins)
        own |= {lemma.lower() for lemma in NOUNS.lemmas[c]}
        related |= {c} | closure("parents", c) | closure("children", c)
    return {NOUNS.lemmas[i][0].lower() for i in found - related} - own


def test_counts_are_those_of_wordnet_3():
    assert len(NOUNS.offset) == 82_115
    assert sum(map(len, NOUNS.parents)) == 75_850
    assert sum(map(len, NOUNS.classes_of)) == 8_577
    assert sum(map(bool, NOUNS.classes_of)) == 7_730
    assert (np.diff(NOUNS.offset) > 0).all()


def test_first_lemmas_are_the_shipped_word_list():
    files = {}
    for file, words in zip(NOUNS.lexname, NOUNS.lemmas, strict=True):
        files.setdefault(str(file), {})[words[0].lower()] = None
    want = {name: words for name, words in lexicographer_files().items() if name[:4] == "noun"}
    assert {name: tuple(words) for name, words in files.items()} == want


def test_pool_of_the_thousand_imagenet_classes():
    ids = list(imagenet_ids())
    pool = neighbours(ids, {wnid: wnid for wnid in ids})
    assert len(pool.names) == 14_536
    some = ids[::7]
    part = neighbours(some, {wnid: wnid for wnid in some})
    assert set(part.names) == naive_pool([NOUNS.by_id(wnid) for wnid in some])
    # The authors have 648 clusters for 14,526 names.
    assert 640 <= len(set(pool.cluster)) <= 655
    assert pool.unmatched == ()
    assert {"mackerel", "trout", "spaghetti"} < set(pool.names)


def test_a_cluster_is_the_lowest_synset_above_name_and_class():
    pool = neighbours(["tench"], {"tench": "n01440764"})
    above = {NOUNS.lemmas[i][0] for i in set(pool.cluster)}
    assert above == {"cyprinid", "cypriniform fish"}
    by_name = dict(zip(pool.names, pool.cluster, strict=True))
    assert NOUNS.lemmas[by_name["carp"]][0] == "cyprinid"
    assert NOUNS.lemmas[by_name["loach"]][0] == "cypriniform fish"


def test_the_order_of_the_classes_plays_no_part():
    names = ["dog", "wolf", "cat", "sports car", "teapot"]
    pool, other = neighbours(names), neighbours(names[::-1])
    assert pool.names == other.names
    np.testing.assert_array_equal(pool.cluster, other.cluster)


def test_senses_are_found_by_lemma_case_singular_and_frequency():
    found, unmatched = class_synsets(
        ["Great_White shark", "headphones", "cherries", "qqq", "crane"]
    )
    assert unmatched == ("qqq",)
    assert NOUNS.lemmas[found["Great_White shark"]][0] == "great white shark"
    assert NOUNS.lemmas[found["headphones"]][0] == "earphone"
    assert "cherry" in NOUNS.lemmas[found["cherries"]]
    # The bird is the fifth sense, a writer the first.
    bird = {"crane": "n02012849"}
    assert class_synsets(["crane"], bird)[0] != class_synsets(["crane"])[0]
    assert {"stork", "duck"} <= set(Corpus.related(["crane"], synsets=bird))
    for wrong, match in (
        ({"cran": "n02012849"}, "'cran', which is no class name. Did you mean 'crane'"),
        ({"crane": "n99999999"}, "no noun synset of WordNet 3.0"),
        ({"crane": 2012849}, "its ids look like 'n01440764'"),
    ):
        with pytest.raises(ValueError, match=match):
            class_synsets(["crane"], wrong)


def test_a_corpus_of_neighbours():
    with pytest.warns(UserWarning, match="1 class names are no nouns of WordNet.*'qqq'"):
        corpus = Corpus.related(["dog", "qqq"])
    assert corpus.name == "wordnet-near"
    assert "wolf" in corpus
    assert not {"dog", "beagle", "canine", "domestic dog"} & set(corpus)
    assert corpus == check_corpus("wordnet-near", ["dog"])
    with pytest.raises(ValueError, match="None of the 1 class names.*synsets="):
        Corpus.related(["qqq"])
    with pytest.raises(ValueError, match="depends on the class names: Corpus.related"):
        check_corpus("wordnet-near")
    with pytest.raises(ValueError, match="with class names also 'wordnet-near'|Known:"):
        load_corpus("wordnet-nea")


def test_the_filter_of_negatives():
    words = ["paris", "beagle", "dog", "domestic dog", "canine", "teapot", "rin tin tin", "rusty"]
    got = not_negative(words, ["dog", "city"])
    # Of two kinds: proper nouns, and what is below a class; a synonym or a hypernym is neither.
    assert got.tolist() == [True, True, False, False, False, False, False, False]
    assert not_negative(["beagle"], ["dog"], {"dog": "n01440764"}).tolist() == [False]
    # The only sense of an instance below a class.
    assert not_negative(["seine"], ["river"]).tolist() == [True]
    proper = [i for i, above in enumerate(NOUNS.classes_of) if above]
    assert not_negative([NOUNS.lemmas[i][0] for i in proper[:50]], ["dog"]).mean() > 0.5


def test_leaks_are_found_by_name_and_by_synonym():
    assert leaked(["Car", "automobile", "cars", "train"], ["car"]) == ("Car", "automobile")
    assert leaked(["car"], ["Cars"]) == ("car",)
    assert leaked(["QQQ", "car"], ["qqq"]) == ("QQQ",)
    corpus = Corpus(["auto", "teapot"])
    assert corpus.leaked(["car"]) == ("auto",)
    assert corpus.without(corpus.leaked(["car"])).names == ("teapot",)
