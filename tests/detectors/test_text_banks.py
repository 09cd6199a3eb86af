"""memory="auto": text banks of shipped corpora are kept for the next process, and nothing else."""

import os
import pickle
import warnings

import numpy as np
import pytest
from embedding_models import KINDS, registered
from sklearn.base import clone

from dnm_sklearn import (
    CLIPEmbedder,
    CSPDetector,
    DictionaryDetector,
    EOEDetector,
    MCMDetector,
    NegLabelDetector,
    ReNegDetector,
    UnknownImageDetector,
)
from dnm_sklearn._utils import caching
from dnm_sklearn._utils.caching import forget_recent_results
from dnm_sklearn.corpus import Corpus, load_corpus, wordnet
from dnm_sklearn.corpus.columns import LEXICOGRAPHER_FILES
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.exceptions import CacheWriteWarning
from dnm_sklearn.testing import FakeEmbedder

NAMES = ["cat", "dog"]
SMALL = dict.fromkeys(LEXICOGRAPHER_FILES, ()) | {
    "noun.animal": ("cat", "dog", "oryx", "crab"),
    "noun.artifact": ("teapot", "lamp", "anvil", "crate", "sieve"),
    "noun.plant": ("fern", "oak"),
    "adj.all": ("rusty", "hollow", "green"),
}


@pytest.fixture
def small_wordnet(monkeypatch):
    """The shipped corpora, of a few words."""
    monkeypatch.setattr(wordnet, "lexicographer_files", lambda: SMALL)
    wordnet._load.cache_clear()
    forget_recent_results()
    yield
    wordnet._load.cache_clear()
    forget_recent_results()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setenv("DNM_SKLEARN_CACHE", str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def encoded(monkeypatch, small_wordnet):
    """The prompts that models have encoded, in order."""
    prompts = []
    for cls in (CLIPEmbedder, FakeEmbedder):
        original = cls._encode_prompts
        monkeypatch.setattr(
            cls, "_encode_prompts", lambda self, p, to=original: prompts.extend(p) or to(self, p)
        )
    return prompts


def neglabel(names=NAMES, cls=NegLabelDetector, **params):
    """Fit as a new process would; without groups, which so few labels do not fill."""
    forget_recent_results()
    params = {"embedder": "pictoclip", "corpus": "wordnet", "prompt": "{}", **params}
    if cls is NegLabelDetector:
        params = {"adjective_prompt": "{}", "fraction": 1.0, "n_groups": 1, **params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("always", CacheWriteWarning)
        return cls(names, **params).fit()


def results(folder):
    return sorted(path.parent.parent.name for path in folder.rglob("output.pkl"))


def test_another_process_encodes_the_class_names_only(folder, encoded):
    first = neglabel()
    assert results(folder) == ["encode_names"] * 2
    del encoded[:]
    again = neglabel()
    assert encoded == NAMES
    np.testing.assert_array_equal(again.negative_embeddings_, first.negative_embeddings_)

    # The whole corpus is there, so that other classes find it; of the user's own nothing is.
    del encoded[:]
    other = neglabel(["oak", "my secret project"])
    assert encoded == ["oak", "my secret project"]
    assert {"cat", "dog"} < set(other.negative_labels_)
    assert results(folder) == ["encode_names"] * 2


def test_scores_are_those_without_a_cache(folder, encoded):
    X = np.eye(5, 256)
    kept, alone = neglabel(), neglabel(memory=None)
    assert kept.negative_labels_.tolist() == alone.negative_labels_.tolist()
    np.testing.assert_allclose(kept.score_samples(X), alone.score_samples(X), atol=1e-4)


@pytest.mark.parametrize(
    "params",
    [
        {"memory": None},
        {"corpus": list(SMALL["noun.artifact"])},
        {"corpus": Corpus(SMALL["noun.artifact"], name="wordnet")},
        {"embedder": FakeEmbedder(16)},
        {"embedder": CLIPEmbedder("tiny-clip/")},
        {"embedder": type("Own", (CLIPEmbedder,), {})("pictoclip")},
    ],
    ids=["off", "words", "a corpus of that name", "fake", "random weights", "a subclass"],
)
def test_all_else_is_not_kept(folder, encoded, tmp_path, monkeypatch, params):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "models").mkdir()
    with registered(tmp_path / "models", {"tiny-clip": KINDS["tiny-clip"]}):
        neglabel(**params)
    assert encoded
    assert not results(tmp_path)


def test_a_part_of_a_shipped_corpus_is_the_users_own(folder, encoded):
    neglabel(corpus=load_corpus("wordnet").filter(lexname="noun.artifact"))
    assert not results(folder)
    assert "oryx" not in encoded


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a {}"}, {"adjective_prompt": "very {}"}, {"corpus": "wordnet-csp"}],
    ids=lambda change: next(iter(change)),
)
def test_the_key_holds_prompt_and_corpus(folder, encoded, change):
    neglabel()
    del encoded[:]
    changed = neglabel(**change)
    assert len(encoded) > len(NAMES)
    forget_recent_results()
    alone = neglabel(memory=None, **change)
    np.testing.assert_allclose(changed.negative_embeddings_, alone.negative_embeddings_, atol=1e-6)


@pytest.mark.parametrize("part", ["weights", "tokenizer"])
def test_the_key_holds_the_model(folder, encoded, monkeypatch, part):
    from dnm_sklearn.embedding.open_clip import model

    neglabel()
    del encoded[:]
    if part == "tokenizer":
        monkeypatch.setattr(model, "_tokenizer_identity", lambda tokenizer: {"class": "another"})
    else:
        state_of = model.hashlib.blake2b
        monkeypatch.setattr(model.hashlib, "blake2b", lambda *a, **k: state_of(b"other", **k))
    loaded = CLIPEmbedder("pictoclip")._loaded_model()
    monkeypatch.setattr(loaded, "_fingerprint", None)
    neglabel()
    assert "teapot" in encoded


def test_a_folder_of_ones_own_has_the_bank(folder, encoded, tmp_path):
    for memory in (tmp_path / "mine", "auto"):
        embedder = CLIPEmbedder("pictoclip", memory=None if memory != "auto" else tmp_path / "mine")
        neglabel(memory=memory, embedder=embedder)
    assert encoded.count("teapot") == 1
    assert results(tmp_path / "mine").count("encode_names") == 3  # nouns, adjectives, class names
    assert not results(folder)


def test_joined_adjectives_are_kept_if_they_are_always_the_same(folder, encoded):
    neglabel(cls=CSPDetector, n_groups=1)
    del encoded[:]
    neglabel(["oak", "fern"], cls=CSPDetector, n_groups=1)
    assert set(encoded) == {"oak", "fern"}

    # Words of the user's are joined, or no two draws are alike.
    n_kept = len(results(folder))
    for params in ({"superclasses": ["secret"]}, {"random_state": None}):
        neglabel(cls=CSPDetector, n_groups=1, **params)
    assert len(results(folder)) == n_kept
    assert "rusty secret" in encoded


def test_outliers_described_for_the_users_classes_are_not_kept(folder, encoded):
    describe = {"describe": lambda names: ["teapot", "lamp"], "corpus": None}
    neglabel(cls=EOEDetector, **describe)
    assert not results(folder)
    assert "oryx" not in encoded


def test_names_near_classes_that_wordnet_lacks(folder, encoded):
    for names in (["qwxz", "cat"], ["qwxz", "dog"]):
        neglabel(names, corpus="wordnet-near")
        neglabel(names, cls=ReNegDetector, base=MCMDetector(), memory="auto", corpus=None)
    assert encoded.count("teapot") == 1 + 4, "once for the bank, and as a neighbour of each fit"
    assert results(folder) == ["encode_names"]


def test_a_plug_in_follows_its_base(folder, encoded):
    for _ in range(2):
        base = NegLabelDetector(corpus="wordnet", fraction=1.0, n_groups=1)
        neglabel(cls=DictionaryDetector, base=base, corpus=None)
    assert encoded.count("a photo of a teapot") + encoded.count("teapot") == 1


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path, monkeypatch, encoded):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DNM_SKLEARN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(CacheWriteWarning, match="could not be saved in the cache folder") as record:
        det = neglabel()
    assert len([w for w in record if w.category is CacheWriteWarning]) == 1
    assert det.negative_labels_.tolist() == neglabel(memory=None).negative_labels_.tolist()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files here")
def test_pickles_that_others_may_write_are_not_read(folder, encoded, monkeypatch):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.warns(CacheWriteWarning, match="Others may write"):
        neglabel()
    assert not results(folder)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.warns(CacheWriteWarning, match="belongs to somebody else"):
        neglabel()
    assert not results(folder)


def test_a_user_without_a_home_gets_no_folder_here(monkeypatch, encoded, tmp_path):
    monkeypatch.delenv("DNM_SKLEARN_CACHE")
    monkeypatch.setattr(
        caching.platformdirs, "user_cache_path", lambda *a, **k: caching.Path("~/x")
    )
    monkeypatch.chdir(tmp_path)
    with pytest.warns(CacheWriteWarning, match="no home"):
        neglabel()
    assert not list(tmp_path.iterdir())


def test_the_folder_is_bounded(folder, encoded, monkeypatch):
    neglabel()
    size = sum(path.stat().st_size for path in folder.rglob("output.pkl"))
    monkeypatch.setattr(caching, "_USER_CACHE_BYTES", 2 * size)
    for number in range(8):
        neglabel(prompt=f"{number} {{}}", adjective_prompt=f"{number} {{}}")
    assert 2 <= len(results(folder)) <= 6

    # The newest are kept.
    del encoded[:]
    neglabel(prompt="7 {}", adjective_prompt="7 {}")
    assert len(encoded) == len(NAMES)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_a_new_folder_is_the_users_alone(folder, encoded):
    neglabel()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_embedder_is_told_what_auto_is(encoded):
    with pytest.raises(ValueError, match="is for detectors"):
        CLIPEmbedder("pictoclip", memory="auto").encode_text(["cat"])


def test_it_is_the_default_where_there_is_a_corpus():
    for name, cls in {**all_detectors(), "UnknownImageDetector": UnknownImageDetector}.items():
        params = cls().get_params(deep=False)
        # A plug-in takes its base's.
        wanted = "auto" if "corpus" in params and "base" not in params else None
        assert params["memory"] == wanted, name
        assert clone(cls(memory="auto")).memory == "auto"
        assert pickle.loads(pickle.dumps(cls(memory="auto"))).memory == "auto"
