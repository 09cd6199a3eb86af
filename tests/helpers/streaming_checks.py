"""Checks that every test-time detector must pass, and data for them."""

import numpy as np
import pytest
from sklearn.base import clone

from dnm_sklearn import EmbeddingTable


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def stream_world(
    n_classes=6, n_corpus=40, n_images=40, dim=16, noise=0.6, seed=0, logit_scale=30.0
):
    """A table, class names, and a shuffled stream of ID and OOD images."""
    rng = np.random.default_rng(seed)
    names, words = [f"class {i}" for i in range(n_classes)], [f"word {i}" for i in range(n_corpus)]
    text = unit(rng.normal(size=(n_classes + n_corpus, dim)))
    table = EmbeddingTable(names + words, text, logit_scale=logit_scale)
    y = rng.integers(2, size=n_images)
    target = np.where(
        y, n_classes + rng.integers(n_corpus, size=n_images), rng.integers(n_classes, size=n_images)
    )
    X = unit(text[target] + noise * unit(rng.normal(size=(n_images, dim)))).astype(np.float32)
    return names, table, X, y


def snapshot(det):
    return {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in vars(det).items()}


def assert_same(det, before):
    assert vars(det).keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_equal(vars(det)[key], value, err_msg=key)


def check_scoring_changes_nothing(det, X):
    before = snapshot(det)
    first = det.decision_function(X)
    np.testing.assert_array_equal(det.decision_function(X), first)
    det.predict(X), det.predict_class(X)
    assert_same(det, before)
    assert det.decision_function(X[:0]).shape == (0,)


def check_stream_equals_transductive(det, X):
    size = det.batch_size
    whole = det.decision_function(X)
    other = clone(det).fit()
    parts = list(other.score_stream(X[i : i + size] for i in range(0, len(X), size)))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-9)
    assert other.n_seen_ == len(X)
    learned = det.partial_fit(X).decision_function(X)
    assert det.n_seen_ == len(X)
    np.testing.assert_array_equal(other.decision_function(X), learned)
    assert not np.array_equal(learned, whole)
    np.testing.assert_array_equal(det.reset_adaptation().decision_function(X), whole)
    assert det.n_seen_ == 0


def check_frozen_ignores_order_and_company(det, X):
    det.set_params(adaptation="frozen").fit().partial_fit(X)
    scores = det.decision_function(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(det.decision_function(X[order]), scores[order], atol=1e-9)
    np.testing.assert_allclose(det.decision_function(X[:1]), scores[:1], atol=1e-9)
    np.testing.assert_allclose(
        -det.set_params(adaptation="transductive")._frozen_scores(X)[2], -scores, atol=1e-12
    )
    det.calibrate(X)
    np.testing.assert_allclose(det.calibration_scores_, np.sort(scores), atol=1e-12)


def check_errors_leave_the_state(det, X):
    det.partial_fit(X)
    before = snapshot(det)
    nan, zero = X.copy(), X.copy()
    nan[-1], zero[-1] = np.nan, 0
    for bad, match in (
        (X[:, :-1], "features"), (np.hstack([X, X]), "features"),
        (nan, "NaN"), (zero, "zero"), (X[:0], "empty"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            det.partial_fit(bad)
        assert_same(det, before)
        with pytest.raises(ValueError, match=match):
            next(det.score_stream([bad]))
        assert_same(det, before)
    with pytest.raises(ValueError, match="classes="):
        clone(det).set_params(classes=None).partial_fit(X)
    fresh = clone(det).partial_fit(X)
    np.testing.assert_array_equal(fresh.decision_function(X), det.decision_function(X))
    with pytest.raises(ValueError, match="cover the whole corpus"):
        clone(det).set_params(corpus=list(det.class_names_)).fit()
