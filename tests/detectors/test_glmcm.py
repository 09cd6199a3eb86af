"""GLMCMDetector on arrays of patches: the score by a loop, decisions, files, and bad input."""

import numpy as np
import pytest
from golden import golden_excerpt

from dnm_sklearn import EmbeddingTable, GLMCMDetector, MCMDetector, load
from dnm_sklearn.scoring.glmcm import global_local_mcm, patch_mcm
from dnm_sklearn.testing import make_ood_blobs

BLOBS = make_ood_blobs()
RNG = np.random.default_rng(0)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# Nine patches an image that show nothing, a direction away from all names; in the ID half of the
# images one shows their class.
NOTHING = np.linalg.svd(BLOBS.table.encode_text(BLOBS.names))[2][-1]
X = unit(NOTHING + 0.05 * RNG.normal(size=(80, 10, 32)))
X[BLOBS.y == 0, 4] = BLOBS.X_id


def fitted(**params):
    defaults = {"embedder": BLOBS.table, "temperature": 0.1}
    return GLMCMDetector(BLOBS.names, **{**defaults, **params}).fit()


@pytest.mark.parametrize(("weight", "top_k"), [(1.0, 1), (0.5, 3), (0.0, 1)])
def test_score_by_a_loop(weight, top_k):
    det = fitted(local_weight=weight, top_k=top_k)
    classes = det.class_embeddings_.astype(float)
    for image, score in zip(X, det.score_samples(X), strict=True):
        p = np.exp(image @ classes.T / 0.1)
        best = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
        want = best[0] + weight * np.sort(best[1:])[::-1][:top_k].mean()
        assert score == pytest.approx(want, abs=1e-6)


def test_golden_excerpt():
    """The released scores of embeddings; how these come from pixels is tested with the towers."""
    golden = golden_excerpt("glmcm")
    whole, patches = golden("global"), golden("local")
    rows = np.concatenate([whole[:, None], patches.reshape(len(whole), -1, whole.shape[1])], axis=1)
    for weight in (1.0, 0.5):
        got = global_local_mcm(rows, golden("id_text"), local_weight=weight)
        np.testing.assert_allclose(got, golden(f"score_id_confidence_weight_{weight}"), atol=1e-5)
    for name in ("1.0", "0.01"):
        values = patch_mcm(rows, golden("id_text"), temperature=float(name))
        np.testing.assert_allclose(values[:, 0], golden(f"mcm_T{name}"), atol=1e-5)
        best = values[:, 1:].max(axis=1)
        np.testing.assert_allclose(best, golden(f"local_mcm_T{name}"), atol=1e-5)


def test_an_object_somewhere_makes_the_image_id():
    det = fitted().calibrate(X[:40:2])
    assert det.predict(X[1:40:2]).mean() < 0.2
    assert det.predict(X[40:]).mean() > 0.8
    shares = det.explain_map(X[:40])
    assert shares.shape == (40, 3, 3)
    assert (shares.reshape(40, 9).argmin(axis=1) == 3).mean() > 0.9
    assert det.predict_class(X[:2]).shape == (2,)


def test_without_patches_it_is_mcm():
    mcm = MCMDetector(BLOBS.names, embedder=BLOBS.table, temperature=0.1).fit()
    got = fitted(local_weight=0.0).score_samples(X)
    np.testing.assert_allclose(got, np.exp(mcm.score_samples(X[:, 0])), atol=1e-6)


def test_explain_is_that_of_the_whole_image():
    mcm = MCMDetector(BLOBS.names, embedder=BLOBS.table, temperature=0.1).fit()
    got, want = fitted().explain(X[:3]), mcm.explain(X[:3, 0])
    assert got.equals(want) or np.allclose(got["cosine"], want["cosine"], atol=1e-6)


def test_fit_on_arrays_sets_a_threshold_and_a_file_keeps_it(tmp_path):
    det = GLMCMDetector(embedder=BLOBS.table, temperature=0.1).fit(X, BLOBS.labels)
    assert det.n_features_in_ == 32
    assert det.labels_[40:].mean() > 0.8
    det.save(tmp_path / "det.skops")
    again = load(tmp_path / "det.skops")
    np.testing.assert_array_equal(again.decision_function(X), det.decision_function(X))


def test_bad_input():
    det = fitted()
    with pytest.raises(ValueError, match="Embeddings of whole images are for MCMDetector"):
        det.score_samples(X[:, 0])
    with pytest.raises(ValueError, match="cannot encode the patches"):
        det.score_samples([np.zeros((9, 9, 3), np.uint8)])
    with pytest.raises(ValueError, match="has no patches"):
        det.score_samples(X[:, :1])
    with pytest.raises(ValueError, match="has 31 features"):
        det.score_samples(X[:, :, :31])
    broken = X.copy()
    broken[3, 5] = 0
    with pytest.raises(ValueError, match="first in image 3"):
        det.score_samples(broken)
    with pytest.raises(ValueError, match="top_k must be an integer in 1..9"):
        fitted(top_k=10).score_samples(X)
    with pytest.raises(ValueError, match="form no square"):
        det.explain_map(X[:, :8])
    with pytest.raises(ValueError, match="no zero-shot threshold"):
        det.predict(X)
    with pytest.raises(ValueError, match="at least two classes"):
        GLMCMDetector(["cat"], embedder=EmbeddingTable(["cat"], np.eye(1, 3))).fit()
