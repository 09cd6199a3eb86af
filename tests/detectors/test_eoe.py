"""EOE against a loop, and where its outlier names come from."""

import numpy as np
import pytest

from dnm_sklearn import EOEDetector
from dnm_sklearn.scoring import _chunks
from dnm_sklearn.scoring.eoe import outlier_exposure
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

BLOBS = make_ood_blobs()


def naive(X, classes, outliers, temperature, weight):
    scores = []
    for x in X:
        h = np.concatenate([classes @ x, outliers @ x]) / temperature
        p = np.exp(h - h.max())
        p /= p.sum()
        scores.append(p[: len(classes)].max() - weight * p[len(classes) :].max())
    return scores


@pytest.mark.parametrize("temperature", [1.0, 0.01])
@pytest.mark.parametrize("float64_numbers", [0, 2**18])
def test_score_by_a_loop(monkeypatch, temperature, float64_numbers):
    monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", float64_numbers)
    classes = BLOBS.table.encode_text(BLOBS.names).astype(float)
    outliers = BLOBS.table.encode_text(BLOBS.words).astype(float)
    got = outlier_exposure(BLOBS.X, classes, outliers, temperature=temperature, outlier_weight=0.4)
    want = naive(BLOBS.X, classes, outliers, temperature, 0.4)
    np.testing.assert_allclose(got, want, rtol=2e-4 if temperature < 1 else 1e-5, atol=1e-9)


def test_detector_is_the_function():
    det = EOEDetector(BLOBS.names, embedder=BLOBS.table, outlier_weight=0.3).fit()
    assert det.temperature_ == 1
    assert sorted(det.negative_labels_) == sorted(BLOBS.words)
    want = outlier_exposure(
        BLOBS.X, det.class_embeddings_, det.negative_embeddings_, outlier_weight=0.3
    )
    np.testing.assert_allclose(det.score_samples(BLOBS.X), want, atol=1e-8)


def test_the_papers_weight_is_a_quarter():
    det = EOEDetector(BLOBS.names, embedder=BLOBS.table).fit()
    want = naive(BLOBS.X, det.class_embeddings_, det.negative_embeddings_, 1.0, 0.25)
    got = outlier_exposure(BLOBS.X, det.class_embeddings_, det.negative_embeddings_)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(det.score_samples(BLOBS.X), want, rtol=1e-5, atol=1e-9)


def test_describe_is_asked_once_for_the_class_names(tmp_path):
    asked = []

    def describe(names):
        asked.append(names)
        return ["fox", " wolf ", "fox", "CAT"]

    det = EOEDetector(["cat", "dog"], embedder=FakeEmbedder(), describe=describe).fit()
    assert asked == [["cat", "dog"]]
    assert det.negative_labels_.tolist() == ["fox", "wolf"]
    given = EOEDetector(["cat", "dog"], embedder=FakeEmbedder(), corpus=["fox", "wolf"]).fit()
    X = np.random.default_rng(0).normal(size=(5, 32))
    np.testing.assert_array_equal(det.score_samples(X), given.score_samples(X))
    with pytest.raises(TypeError, match="set_params"):
        det.save(tmp_path / "det.skops")
    det.set_params(describe=None).save(tmp_path / "det.skops")


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({}, "EOE needs names of outliers"),
        ({"corpus": ["fox"], "describe": lambda names: ["wolf"]}, "leave one of them out"),
        ({"describe": lambda names: []}, "returned no name"),
        ({"describe": lambda names: "fox"}, "describe.*single"),
        ({"describe": lambda names: ["cat"]}, "cover the whole corpus"),
    ],
)
def test_bad_names(params, match):
    with pytest.raises(ValueError, match=match):
        EOEDetector(["cat", "dog"], embedder=FakeEmbedder(), **params).fit()
