"""``corpus="wordnet-near"`` and ``refine=`` in the detectors that take a corpus."""

import warnings

import numpy as np
import pytest

from dnm_sklearn import (
    DictionaryDetector,
    EmbeddingTable,
    ENLDetector,
    NegLabelDetector,
    ReNegDetector,
    TANLDetector,
)
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.testing import FakeEmbedder

NAMES = ["dog", "crane"]
WITH_REFINE = [cls for cls in all_detectors().values() if "refine" in cls().get_params()]


def small(cls, **params):
    known = cls().get_params(deep=False)
    values = {"fraction": 1.0, "n_groups": 1, "n_activated": 2, "mining": "none", **params}
    return cls(NAMES, **{key: value for key, value in values.items() if key in known})


@pytest.mark.parametrize("cls", [NegLabelDetector, TANLDetector, ENLDetector])
def test_a_corpus_near_the_classes(cls):
    det = small(cls, corpus="wordnet-near", embedder=FakeEmbedder()).fit()
    corpus = getattr(det, "negative_corpus_", None) or det.corpus_
    assert set(corpus) == set(Corpus.related(NAMES))


def test_a_table_has_the_neighbours_that_it_holds():
    names = ["dog", "crane", "Wolf", "fox", "beagle", "poodle"]
    table = EmbeddingTable(names, np.random.default_rng(0).normal(size=(6, 8)))
    det = small(NegLabelDetector, corpus="wordnet-near", embedder=table).fit()
    assert set(det.negative_labels_) == {"Wolf", "fox"}
    bare = EmbeddingTable(["dog", "crane", "poodle"], np.eye(3))
    with pytest.raises(
        ValueError, match="is empty: WordNet has no neighbours .* in the EmbeddingTable"
    ):
        small(NegLabelDetector, corpus="wordnet-near", embedder=bare).fit()


def test_a_class_that_wordnet_lacks_has_its_nearest_names():
    words = [f"word {i}" for i in range(40)]
    text = np.eye(42, 42)
    # Of 40 words the 25 first are near "qqq", the nearest of them but for its own spelling.
    text[2:27, 1] = np.linspace(2, 1, 25)
    text[2, 1] = 50
    table = EmbeddingTable(["dog", "qqq", *words], text)
    det = NegLabelDetector(
        ["dog", "qqq"], embedder=table, corpus="wordnet-near", fraction=1.0, n_groups=1
    ).fit()
    assert sorted(det.negative_labels_) == sorted(words[1:21])


@pytest.mark.parametrize("cls", WITH_REFINE)
def test_refined_negatives(cls):
    corpus = Corpus(["beagle", "rhine", "poodle", "wolf"], ["noun", "noun", "adjective", "noun"])
    values = {"corpus": corpus, "embedder": FakeEmbedder(), "superclasses": ["thing"]}

    def kept(refine):
        det = small(cls, refine=refine, **values).fit()
        return {
            name.partition(" ")[0] for name in getattr(det, "negative_corpus_", None) or det.corpus_
        }

    assert kept(None) == {"beagle", "rhine", "poodle", "wolf"}
    assert kept("wordnet") == {"poodle", "wolf"}
    asked = []
    assert kept(lambda word, classes: asked.append(classes) or word == "wolf") == {
        "beagle", "rhine", "poodle",
    }  # fmt: skip
    assert asked[0] == NAMES
    with pytest.raises(ValueError, match="drops all .* labels of the corpus"):
        kept(lambda word, classes: True)
    with pytest.raises(ValueError, match="refine"):
        kept("llm")


def test_refine_by_a_function_cannot_be_saved(tmp_path):
    det = small(
        NegLabelDetector, refine=lambda w, c: False, embedder=FakeEmbedder(), corpus=["wolf"]
    )
    with pytest.raises(TypeError, match="Parameter refine is a function"):
        det.fit().save(tmp_path / "det.skops")


BIRD = {"crane": "n02012849"}
WITH_SYNSETS = [cls for cls in all_detectors().values() if "synsets" in cls().get_params()]


def test_every_detector_with_a_corpus_takes_synsets():
    with_corpus = {cls for cls in all_detectors().values() if "corpus" in cls().get_params()}
    assert with_corpus - set(WITH_SYNSETS) == {DictionaryDetector}


@pytest.mark.parametrize("cls", WITH_SYNSETS)
def test_the_sense_that_was_given_is_used(cls):
    near = {"pool": "wordnet-near"} if cls is ReNegDetector else {"corpus": "wordnet-near"}
    wanted = set(Corpus.related(NAMES, synsets=BIRD))
    assert wanted != set(Corpus.related(NAMES))

    det = small(cls, **near, synsets=BIRD, embedder=FakeEmbedder())
    images = ()
    if "ID images" in cls.info.needs:
        images = FakeEmbedder().encode_text(NAMES * 2), NAMES * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        det.fit(*images)
    if "ID images" in cls.info.needs:
        # Few of its candidates are far from the images.
        assert set(det._candidates()) == wanted
    elif cls is ReNegDetector:
        assert set(det.pool_labels_) == wanted
    else:
        assert set(getattr(det, "negative_corpus_", None) or det.corpus_) == wanted


@pytest.mark.parametrize("cls", WITH_REFINE)
def test_refine_by_the_sense_that_was_given(cls):
    values = {"corpus": ["davit", "whooping crane", "wolf"], "superclasses": ["thing"]}
    values |= {"refine": "wordnet", "embedder": FakeEmbedder()}

    def kept(synsets):
        det = small(cls, synsets=synsets, **values).fit()
        return {
            name.partition(" ")[0] for name in getattr(det, "negative_corpus_", None) or det.corpus_
        }

    # Without it every sense of a name counts, and a davit is a crane.
    assert kept(None) == {"wolf"}
    assert kept(BIRD) == {"davit", "wolf"}
    with pytest.raises(ValueError, match="synsets holds 'bird', which is no class name"):
        kept({"bird": "n02012849"})
