"""RenyiDetector: its one number, the guard of it, and both solvers."""

import numpy as np
import pytest

from dnm_sklearn import RenyiDetector
from dnm_sklearn.scoring import renyi
from dnm_sklearn.testing import make_ood_blobs

BLOBS = make_ood_blobs(n_corpus=300)


def fitted(**params):
    return RenyiDetector(BLOBS.names, embedder=BLOBS.table, **params).fit()


def test_scores_are_the_function_of_the_mined_labels():
    det = fitted(noun_fraction=0.5)
    want = renyi.renyi_log_ratio(
        BLOBS.X.astype(np.float32), det.class_embeddings_, det.negative_embeddings_,
        radius=det.radius_,
    )  # fmt: skip
    assert len(det.negative_labels_) == 150
    np.testing.assert_allclose(det.score_samples(BLOBS.X), want, atol=1e-6)


def test_the_default_tail_rests_on_five_labels_at_least():
    small = fitted(noun_fraction=0.1)
    assert small.tail_ == pytest.approx(5 / 38)
    large = fitted(mining="none", max_similarity=None)
    assert large.tail_ == pytest.approx(0.03)
    assert large.radius_ == pytest.approx(0.03 ** (-1 / 21))
    tiny = RenyiDetector(["class 0"], embedder=BLOBS.table, corpus=["word 0"], mining="none").fit()
    assert tiny.tail_ == pytest.approx(0.5)


def test_tail_and_radius():
    assert fitted(tail=0.2).tail_ == pytest.approx(0.2)
    assert fitted(radius=1.2).tail_ == pytest.approx(1.2**-21)
    with pytest.raises(ValueError, match="two ways to give one number"):
        fitted(tail=0.2, radius=1.2)
    with pytest.raises(ValueError, match="radius=0.9 must be above 1"):
        fitted(radius=0.9)
    with pytest.warns(UserWarning, match="less than one label"):
        fitted(radius=2.0)


def test_the_released_solver():
    det = fitted(radius=0.9, solver="released", n_steps=3, beta_start=0.1)
    want = renyi.stepped_renyi_log_ratio(
        BLOBS.X.astype(np.float32), det.class_embeddings_, det.negative_embeddings_, radius=0.9,
        n_steps=3, beta_start=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(det.score_samples(BLOBS.X), want, atol=1e-6)
    assert det.tail_ == 1
    assert "exact" in det._zero_shot_doubt()
    assert fitted(mining="none", max_similarity=None)._zero_shot_doubt() == ""
