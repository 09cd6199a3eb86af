"""Scores of labelled ID images against loops, and images left out against refits without them."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.covariance import LedoitWolf

from dnm_sklearn.scoring import id_images

T = 0.1


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def world():
    """5 classes; 4 has one image, 3 has none."""
    rng = np.random.default_rng(0)
    text = unit(rng.normal(size=(5, 12)))
    index = np.r_[rng.integers(0, 3, size=20), 4]
    X = unit(text[index] + 0.6 * unit(rng.normal(size=(21, 12))))
    return X, index, text, unit(rng.normal(size=(7, 12)))


def test_prototypes_by_a_loop(world):
    X, index, text, new = world
    mean = X.mean(axis=0)
    rows = []
    for k in range(5):
        total = 2.0 * unit(text[k] - text.mean(axis=0))
        for x in X[index == k]:
            total = total + unit(x - mean)
        rows.append(unit(total))
    fitted = id_images.fit_prototypes(X, index, text, 2.0)
    got = id_images.prototype_score(new, fitted)
    np.testing.assert_allclose(got, [max(unit(x - mean) @ r for r in rows) for x in new])


def test_prototypes_without_an_image(world):
    """The mean image stays that of all, as one image of many moves it little."""
    X, index, text, _ = world
    fitted = id_images.fit_prototypes(X, index, text, 2.0)
    got = id_images.prototype_left_out(X, index, text, 2.0, fitted)
    centred, names = unit(X - fitted.mean), 2.0 * unit(text - text.mean(axis=0))
    for i in range(len(X)):
        best = -1.0
        for k in range(5):
            own = (index == k) & (np.arange(len(X)) != i)
            best = max(best, centred[i] @ unit(names[k] + centred[own].sum(axis=0)))
        assert got[i] == pytest.approx(best)


def probabilities(X, text):
    p = np.exp(X @ text.T / T)
    return p / p.sum(axis=1, keepdims=True)


def test_kl_matching_by_a_loop(world):
    X, index, text, new = world
    log_p = id_images.log_softmax(X, text, T)
    np.testing.assert_allclose(np.exp(log_p), probabilities(X, text))
    templates, known = id_images.mean_probabilities(log_p, index, 5)
    assert known.tolist() == [0, 1, 2, 4]
    want_rows = [probabilities(X[index == k], text).mean(axis=0) for k in known]
    np.testing.assert_allclose(templates, want_rows)
    got = id_images.kl_divergence(new, text, templates, temperature=T)
    want = [-min(entropy(p, row) for row in want_rows) for p in probabilities(new, text)]
    np.testing.assert_allclose(got, want, rtol=1e-6)

    left_out = id_images.kl_left_out(log_p, index, 5)
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        rows, _ = id_images.mean_probabilities(log_p[others], index[others], 5)
        want = id_images.kl_divergence(X[i : i + 1], text, rows, temperature=T)[0]
        assert left_out[i] == pytest.approx(want, abs=1e-9)


def test_an_image_that_is_the_only_one_has_no_template_without_it(world):
    X, _, text, _ = world
    log_p = id_images.log_softmax(X[:1], text, T)
    assert id_images.kl_left_out(log_p, np.array([2]), 5).tolist() == [-np.inf]


@pytest.mark.parametrize("shrinkage", [None, 0.3, 0.0])
def test_mahalanobis_by_a_loop(world, shrinkage):
    X, index, _, new = world
    fitted, known, used = id_images.fit_gaussians(X, index, 5, shrinkage)
    means = {k: X[index == k].mean(axis=0) for k in known}
    residuals = np.array([x - means[k] for x, k in zip(X, index, strict=True)])
    if shrinkage is None:
        covariance = LedoitWolf(assume_centered=True).fit(residuals).covariance_
        assert 0 < used < 1
    else:
        covariance = residuals.T @ residuals / len(X)
        scale = np.trace(covariance) / 12
        covariance = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(12)
        assert used == shrinkage
    inverse = np.linalg.inv(covariance)
    want = [-min((x - m) @ inverse @ (x - m) for m in means.values()) for x in new]
    np.testing.assert_allclose(id_images.mahalanobis(new, fitted), want, rtol=1e-6)

    left_out = id_images.mahalanobis_left_out(X, index, known, fitted, used)
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        without, _, _ = id_images.fit_gaussians(X[others], index[others], 5, used)
        want = id_images.mahalanobis(X[i : i + 1], without)[0]
        assert left_out[i] == pytest.approx(want, rel=1e-6)


def test_an_image_that_alone_spans_a_direction_is_compared_with_nothing():
    X = np.eye(4)[[0, 0, 1, 2]] + 1.0
    index = np.array([0, 0, 1, 1])
    fitted, known, used = id_images.fit_gaussians(X, index, 2, 0.0)
    left_out = id_images.mahalanobis_left_out(X, index, known, fitted, used)
    assert np.isneginf(left_out[2:]).all()
    assert not np.isnan(left_out).any()
    for shrinkage in (0.0, 0.5, 1.0):
        twins, known, used = id_images.fit_gaussians(X[:2], index[:2], 2, shrinkage)
        left_out = id_images.mahalanobis_left_out(X[:2], index[:2], known, twins, used)
        np.testing.assert_array_equal(left_out, 0.0)


def test_directions_in_which_nothing_varies_are_left_out():
    X = np.zeros((4, 6))
    X[:, 0] = [0.0, 1.0, 0.0, 1.0]
    fitted, _, _ = id_images.fit_gaussians(X, np.array([0, 0, 1, 1]), 2, 0.0)
    assert fitted.whitening.shape == (6, 1)
    assert np.isfinite(id_images.mahalanobis(np.eye(6), fitted)).all()


def test_one_class_keeps_its_name():
    rng = np.random.default_rng(0)
    X, text = unit(rng.normal(size=(4, 6))), unit(rng.normal(size=(1, 6)))
    fitted = id_images.fit_prototypes(X, np.zeros(4, int), text, 2.0)
    centred = unit(X - X.mean(axis=0))
    np.testing.assert_allclose(fitted.rows, unit(centred.sum(axis=0) + 2 * text), atol=1e-9)


def test_what_is_its_own_template_has_no_divergence(world):
    X, _, text, _ = world
    log_p = id_images.log_softmax(X, text, T)
    alone = id_images.kl_divergence(X, text, np.exp(log_p), temperature=T)
    np.testing.assert_array_equal(alone, 0.0)
    # Left out, an image has the template of its twin.
    twice = np.repeat(log_p, 2, axis=0)
    left_out = id_images.kl_left_out(twice, np.repeat(np.arange(len(X)), 2), len(X))
    np.testing.assert_array_equal(left_out, 0.0)


def test_a_mean_is_at_no_negative_distance(world):
    X, index, _, _ = world
    fitted, known, _ = id_images.fit_gaussians(X, index, 5, None)
    means = np.array([X[index == k].mean(axis=0) for k in known])
    assert (id_images.mahalanobis(means, fitted) <= 0).all()
