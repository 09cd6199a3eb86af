"""OODD against the released code's vectors and a twin that keeps one image at a time."""

import numpy as np
import pytest
import streaming_checks as checks
from golden import golden_cases, golden_excerpt
from scipy.special import expit
from streaming_checks import stream_world, unit

from dnm_sklearn import (
    DictionaryDetector,
    EnergyDetector,
    ENLDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    TANLDetector,
    load,
)  # fmt: skip
from dnm_sklearn.streams.base import StaticStream
from dnm_sklearn.streams.dictionary import SuspiciousImagesStream


class GivenConfidence(StaticStream):
    """A base whose confidences are known, in the order of the stream."""

    def __init__(self, values):
        self.values = list(values)

    def advance(self, batch):
        return np.array([self.values.pop(0) for _ in batch])


def run(images, confidence, size, **params):
    stream = SuspiciousImagesStream(GivenConfidence(confidence), images.shape[1], **params)
    stream.start({})
    scores = []
    for start in range(0, len(images), size):
        stream.load(stream.state())
        scores.append(stream.advance(images[start : start + size]))
    return np.concatenate(scores), stream.state()


def naive(images, confidence, size, *, length, k, limit=np.inf, exclude_self=False):
    """The queue as it is written down: in with a row, out with the one of highest confidence."""
    queue, scores = [], []  # (confidence, number)
    images = images.astype(float)
    for start in range(0, len(images), size):
        batch = range(start, min(start + size, len(images)))
        for i in batch:
            if confidence[i] < limit:
                queue.append((confidence[i], i))
            if len(queue) > length:
                queue.remove(max(queue))  # of equal ones the later
        seen = images[: batch.stop]
        for i in batch:
            others = [j for _, j in queue if not (exclude_self and j == i)]
            if len(queue) < k + exclude_self:
                pairs = seen @ seen.T
                n = len(seen)
                near = (pairs.sum() - np.trace(pairs)) / (n * (n - 1))
            else:
                near = np.sort(images[others] @ images[i])[-k]
            scores.append(confidence[i] - near)
    return np.array(scores), sorted(j for _, j in queue)


def test_golden_vectors(shared_dir):
    for case in golden_cases(shared_dir, "oodd"):
        check_golden(case)


def test_golden_excerpt():
    check_golden(golden_excerpt("oodd"))


def check_golden(case):
    scores, state = run(
        case("image"), case("base_id_confidence").astype(float), int(case("batch_size")),
        queue_length=int(case("queue_length")), n_neighbors=int(case("n_neighbors")),
    )  # fmt: skip
    np.testing.assert_allclose(scores, case("score_id_confidence"), atol=1e-6)
    if case("queue_scores_after") is None:
        return  # an excerpt, whose stream is cut
    kept = np.sort(state["queue_confidence_"])
    np.testing.assert_allclose(kept, case("queue_scores_after"), atol=1e-7)


@pytest.mark.parametrize("limit", [np.inf, 0.4])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("length", [7, 500])
def test_stream_is_the_naive_twin(length, exclude_self, limit):
    rng = np.random.default_rng(length)
    images = unit(rng.normal(size=(120, 8)) + 1).astype(np.float32)
    confidence = rng.integers(0, 20, size=120) / 20  # with ties
    got, state = run(
        images, confidence, 11, queue_length=length, n_neighbors=3, largest_confidence=limit,
        exclude_self=exclude_self,
    )  # fmt: skip
    want, kept = naive(
        images, confidence, 11, length=length, k=3, limit=limit, exclude_self=exclude_self
    )
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_array_equal(state["queue_images_"], images[kept])


def test_an_image_in_the_queue_is_its_own_nearest():
    rng = np.random.default_rng(0)
    images, confidence = unit(rng.normal(size=(40, 8))).astype(np.float32), rng.uniform(size=40)
    scores, _ = run(images, confidence, 9, queue_length=40, n_neighbors=1)
    np.testing.assert_allclose(scores, confidence - 1, atol=1e-6)
    # The order within a batch plays no part.
    order = np.concatenate([rng.permutation(9), 9 + np.arange(31)])
    again, _ = run(images[order], confidence[order], 9, queue_length=5, n_neighbors=1)
    scores, _ = run(images, confidence, 9, queue_length=5, n_neighbors=1)
    np.testing.assert_allclose(again, scores[order], atol=1e-6)


# -- the detector ---------------------------------------------------------------------------------


def detector(names, table, **params):
    base = NegLabelDetector(fraction=1.0, n_groups=4)
    values = {"base": base, "batch_size": 10, "n_neighbors": 2, **params}
    return DictionaryDetector(names, embedder=table, **values)


@pytest.mark.parametrize(
    "base", [NegLabelDetector(fraction=1.0, n_groups=4), TANLDetector(n_activated=20)]
)
@pytest.mark.parametrize(
    "check",
    [
        checks.check_scoring_changes_nothing,
        checks.check_stream_equals_transductive,
        checks.check_frozen_ignores_order_and_company,
    ],
)
def test_contract_of_test_time_methods(check, base):
    names, table, X, _ = stream_world(noise=0.4)
    # With images, for there is no zero-shot threshold to decide by.
    check(detector(names, table, base=base).fit(X), X)


def test_errors_leave_the_state():
    names, table, X, _ = stream_world(noise=0.4)
    checks.check_errors_leave_the_state(detector(names, table).fit(), X)


CONFIDENCE = {
    MCMDetector(temperature=0.1): np.exp,
    MaxLogitDetector(): lambda score: np.clip(score, 0, 1),
    EnergyDetector(): lambda score: np.clip(score, 0, 1),
    NegLabelDetector(fraction=1.0, n_groups=4): expit,
    ENLDetector(): lambda score: expit(score - 7.5 * (0.01 * 30)),
}


@pytest.mark.parametrize("base", CONFIDENCE, ids=lambda base: type(base).__name__)
def test_the_base_is_put_on_a_scale_from_0_to_1(base):
    names, table, X, _ = stream_world()
    det = detector(names, table, base=base, adaptation="frozen").fit()
    want = CONFIDENCE[base](det.base_.score_samples(X))
    np.testing.assert_allclose(det.score_samples(X), want, atol=1e-6)
    assert (want >= 0).all()
    assert (want <= 1).all()


def test_the_guard_keeps_id_images_out():
    names, table, X, y = stream_world(n_images=200, noise=0.4)
    det = detector(names, table).fit().partial_fit(X)
    released = detector(names, table, guard=False).fit().partial_fit(X)
    assert len(released.queue_images_) == 200
    is_ood = {row.tobytes(): kind for row, kind in zip(X, y, strict=True)}
    kinds = [is_ood[row.tobytes()] for row in det.queue_images_]
    assert len(kinds) > 50
    assert np.mean(kinds) > 0.85
    # As long as the queue is empty the order of the scores is the base's.
    ID = X[y == 0]
    fresh = detector(names, table, base=MCMDetector(temperature=0.05), batch_size=500)
    fresh.fit(X, y)
    fresh.base_.threshold_ = np.inf
    order = np.argsort(fresh.decision_function(ID))
    np.testing.assert_array_equal(order, np.argsort(fresh.base_.decision_function(ID)))


def test_a_base_that_hardly_differs_is_told():
    names, table, _, _ = stream_world()
    with pytest.warns(UserWarning, match="MCMDetector hardly differs between inputs"):
        detector(names, table, base=MCMDetector(temperature=50.0)).fit()
    with pytest.raises(ValueError, match="never holds the 6 that are compared"):
        detector(names, table, queue_length=5, n_neighbors=5, exclude_self=True).fit()


def test_no_zero_shot_threshold_and_the_nearest_image_in_explain(tmp_path):
    names, table, X, _ = stream_world(n_images=80, noise=0.4)
    det = detector(names, table).fit().partial_fit(X)
    assert det.threshold_ is None
    with pytest.raises(ValueError, match="has no zero-shot threshold"):
        det.predict(X)
    rows = det.explain(X[:5], top_k=1)
    rows = rows[rows["side"] == "dictionary"]
    want = np.sort(X[:5] @ det.queue_images_.T, axis=1)[:, -2]
    np.testing.assert_allclose(rows["cosine"], want, atol=1e-6)
    det.calibrate(X).save(tmp_path / "det.skops")
    again = load(tmp_path / "det.skops", table)
    np.testing.assert_array_equal(again.decision_function(X), det.decision_function(X))
