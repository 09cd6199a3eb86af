"""ENL's margin over an average label against naive twins, and its properties."""

import numpy as np
import pytest

from dnm_sklearn.scoring import _chunks
from dnm_sklearn.scoring.enl_margin import margin, margin_of_images, margin_of_names

N0, N1, SLOPE = 25, 4, 0.5


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(params=[2**22, 20])
def world(request, monkeypatch):
    """6 classes: 0, 2, 3 have several images, 4 has one, 1 and 5 none; in one chunk and many."""
    monkeypatch.setitem(_chunks.ROW_NUMBERS, "cpu", request.param)
    rng = np.random.default_rng(0)
    text, nbar = unit(rng.normal(size=(6, 12))), 0.1 * rng.normal(size=12)
    index = np.r_[rng.integers(0, 4, size=16), 4]
    X = unit(text[index] + 0.3 * rng.normal(size=(17, 12)))
    return text, nbar, X, index


def naive_row(text, nbar, X, index, k, without=None):
    """b_k by a loop over images; image `without` is left out of its class."""
    mu = X.mean(axis=0)
    own = [i for i in range(len(X)) if index[i] == k and i != without]
    total = N0 * SLOPE * (text[k] - nbar)
    for i in own:
        total = total + X[i] - mu
    return total / (SLOPE * (N0 + len(own)))


def naive_margins(text, nbar, X, index, rows, without=None):
    """C of `rows` by loops over classes and images; image `without` is left out of its class."""
    o = [X[i] @ naive_row(text, nbar, X, index, index[i], without=i) for i in range(len(X))]
    best = np.full(len(rows), -np.inf)
    for k in range(len(text)):
        own = [i for i in range(len(X)) if index[i] == k and i != without]
        d = sum(o[i] - np.mean(o) for i in own) / (len(own) + N1)
        best = np.maximum(best, rows @ naive_row(text, nbar, X, index, k, without) - d)
    return best


def test_margin_of_images_is_the_formula(world):
    text, nbar, X, index = world
    rows = unit(np.random.default_rng(1).normal(size=(30, 12)))
    fitted, _ = margin_of_images(X, index, text, nbar)
    want = naive_margins(text, nbar, X, index, rows)
    np.testing.assert_allclose(margin(rows, fitted), want, rtol=1e-10)


def test_leaving_an_image_out_is_a_refit_without_it(world):
    text, nbar, X, index = world
    _, left_out = margin_of_images(X, index, text, nbar)
    for i in range(len(X)):
        want = naive_margins(text, nbar, X, index, X[i : i + 1], without=i)
        assert left_out[i] == pytest.approx(want[0], rel=1e-10)


def test_without_images_it_is_the_cosine_less_that_to_the_mean_label(world):
    text, nbar, X, _ = world
    got = margin(X, margin_of_names(text, nbar))
    np.testing.assert_allclose(got, (X @ text.T).max(axis=1) - X @ nbar, rtol=1e-10)


def test_a_class_without_images_keeps_what_its_name_says(world):
    text, nbar, X, index = world
    fitted, _ = margin_of_images(X, index, text, nbar)
    np.testing.assert_allclose(fitted.rows[5], text[5] - nbar)
    assert fitted.offsets[5] == 0
    assert np.abs(fitted.rows[:5] - (text - nbar)[:5]).max() > 1e-3


def test_one_image_leaves_its_class_where_its_name_is():
    """The only image is the mean of all, so the name is all that counts, n0 times of n0 + 1."""
    text, nbar = np.eye(3), np.zeros(3)
    fitted, left_out = margin_of_images(np.array([[0.6, 0.8, 0.0]]), [0], text, nbar)
    np.testing.assert_allclose(fitted.rows, [[25 / 26, 0, 0], [0, 1, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(fitted.offsets, 0, atol=1e-12)
    assert left_out[0] == pytest.approx(0.8)


def test_order_of_images_and_of_classes_changes_nothing(world):
    text, nbar, X, index = world
    rng = np.random.default_rng(2)
    fitted, left_out = margin_of_images(X, index, text, nbar)
    order = rng.permutation(len(X))
    again, left_out_again = margin_of_images(X[order], index[order], text, nbar)
    np.testing.assert_allclose(again.rows, fitted.rows, atol=1e-12)
    np.testing.assert_allclose(left_out_again, left_out[order], atol=1e-12)
    classes = rng.permutation(6)
    renamed, left_out_again = margin_of_images(X, np.argsort(classes)[index], text[classes], nbar)
    np.testing.assert_allclose(renamed.rows, fitted.rows[classes], atol=1e-12)
    np.testing.assert_allclose(renamed.offsets, fitted.offsets[classes], atol=1e-12)
    np.testing.assert_allclose(left_out_again, left_out, atol=1e-12)


def test_a_class_with_a_bad_name_is_lifted(world):
    """Its images are all far from it, and d_k gives most of that back."""
    text, nbar, X, index = world
    text[0] = -text[0]
    fitted, _ = margin_of_images(X, index, text, nbar)
    assert fitted.offsets[0] == fitted.offsets.min() < -0.4
