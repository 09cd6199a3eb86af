"""explain: probabilities sum to 1, groups give the score, labels can be exported and given back."""

import builtins

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone

from dnm_sklearn import DebiasedNegMiningDetector, MCMDetector, NegLabelDetector
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import explain as explain_module
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

pd = pytest.importorskip("pandas")
WORLD = make_ood_blobs(n_images=6, dim=12)


def build(cls, **params):
    corpus = Corpus(WORLD.words, ["noun"] * 40 + ["adjective"] * 20)
    known = cls().get_params()
    values = {
        "corpus": corpus,
        "n_groups": 7,
        "fraction": 1.0,
        "noun_fraction": 1.0,
        "temperature": 0.1,
        **params,
    }
    return cls(WORLD.names, embedder=WORLD.table, **{k: v for k, v in values.items() if k in known})


def test_probabilities_sum_to_one_over_both_sides():
    table = build(NegLabelDetector).fit().explain(WORLD.X, top_k=None)
    assert list(table.columns) == list(explain_module.COLUMNS)
    assert len(table) == len(WORLD.X) * (len(WORLD.names) + 60)
    np.testing.assert_allclose(table.groupby("image")["probability"].sum(), 1)


@pytest.mark.parametrize("cls", [NegLabelDetector, DebiasedNegMiningDetector])
@pytest.mark.parametrize("n_groups", [1, 7])
def test_score_is_recomputed_from_the_groups(cls, n_groups):
    det = build(cls, n_groups=n_groups, negative_prior=0.9).fit()
    table = det.explain(WORLD.X, top_k=None)
    for image, score in enumerate(det.score_samples(WORLD.X)):
        own = table[table["image"] == image]
        s = own.loc[own["side"] == "id", "probability"].sum()
        scored = own[(own["side"] == "negative") & (own["group"] >= 0)]
        n = scored.groupby("group")["probability"].sum().to_numpy()
        assert len(n) == det.n_groups_
        value = (s / (det.id_scale_ * s + n)).mean()
        assert expit(score) == pytest.approx(det.id_scale_ * value, rel=1e-5)
    left_out = table[(table["side"] == "negative") & (table["group"] < 0)]
    assert len(left_out) == len(WORLD.X) * (len(det.negative_labels_) % n_groups)
    assert (table.loc[table["side"] == "id", "group"] == -1).all()


def test_top_k_and_order():
    det = build(NegLabelDetector).fit()
    table, full = det.explain(WORLD.X, top_k=2), det.explain(WORLD.X, top_k=None)
    assert table["rank"].tolist() == [1, 2, 1, 2] * len(WORLD.X)
    assert table["side"].tolist() == ["id", "id", "negative", "negative"] * len(WORLD.X)
    best = full[full["rank"] <= 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, best)
    assert (table.groupby(["image", "side"])["cosine"].diff().dropna() <= 0).all()
    speech = dict(zip(WORLD.words, ["noun"] * 40 + ["adjective"] * 20, strict=True))
    for record in table.to_dict("records"):
        assert record["part_of_speech"] == speech.get(record["label"], "")
    for bad in (0, -1, 1.5, True, "all"):
        with pytest.raises(ValueError, match="top_k"):
            det.explain(WORLD.X, top_k=bad)


def test_without_negatives_only_the_id_side():
    table = build(MCMDetector).fit().explain(WORLD.X, top_k=3)
    assert set(table["side"]) == {"id"}
    assert len(table) == 3 * len(WORLD.X)


def test_chunks_and_empty_input(monkeypatch):
    det = build(NegLabelDetector).fit()
    whole = det.explain(WORLD.X)
    monkeypatch.setattr(explain_module, "_CHUNK_NUMBERS", 100)
    pd.testing.assert_frame_equal(det.explain(WORLD.X), whole)
    assert det.explain(WORLD.X[:0]).empty


def test_without_pandas_a_list_of_dicts(monkeypatch):
    det = build(NegLabelDetector).fit()
    want = det.explain(WORLD.X).to_dict("records")
    original = builtins.__import__

    def no_pandas(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pandas)
    got = det.explain(WORLD.X)
    assert isinstance(got, list)
    assert got == want


def test_unreadable_images_have_no_rows(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    det = NegLabelDetector(
        ["cat", "dog"], embedder=FakeEmbedder(on_error="nan"), corpus=["x", "y", "z"], n_groups=1
    ).fit()
    with pytest.warns(UserWarning, match="could not be read"):
        table = det.explain([np.zeros((8, 8, 3), np.uint8), str(tmp_path / "broken.png")])
    assert set(table["image"]) == {0}


def test_labels_are_exported_edited_and_given_back():
    det = build(NegLabelDetector, fraction=0.3).fit()
    assert isinstance(det.negative_corpus_, Corpus)
    again = clone(det).set_params(corpus=det.negative_corpus_, mining="none").fit()
    np.testing.assert_array_equal(again.score_samples(WORLD.X), det.score_samples(WORLD.X))
    edited = det.negative_corpus_.without([det.negative_labels_[0]])
    without = clone(again).set_params(corpus=edited).fit()
    assert det.negative_labels_[0] not in without.explain(WORLD.X, top_k=None)["label"].tolist()
