"""What streams learned side by side, put together."""

import copy

import numpy as np
import pytest

from dnm_sklearn import (
    AdaNegDetector,
    DictionaryDetector,
    EmbeddingTable,
    ENLDetector,
    MCMDetector,
    NegLabelDetector,
    ReNegDetector,
    TANLDetector,
)
from dnm_sklearn.streams._merging import distinct_rows, held

WIDTH, N_WORDS = 16, 60


def world(seed=0):
    rng = np.random.default_rng(seed)
    text = rng.standard_normal((N_WORDS, WIDTH))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    names = [f"word{i}" for i in range(N_WORDS)]
    nearest = rng.integers(0, N_WORDS, 240)
    X = text[nearest] + 0.12 * rng.standard_normal((240, WIDTH))
    return EmbeddingTable(names, text, logit_scale=20.0), names[:8], X


@pytest.fixture(params=["TANL", "AdaNeg", "ENL", "ReNeg", "ReNeg on AdaNeg", "OODD"])
def detector(request):
    table, names, _ = world()
    made = {
        "TANL": lambda: TANLDetector(
            names, embedder=table, n_activated=10, queue_length=40, score_queue_length=50
        ),
        "AdaNeg": lambda: AdaNegDetector(names, embedder=table, n_groups=2),
        "ENL": lambda: ENLDetector(names, embedder=table, adaptation="transductive"),
    }
    if request.param == "OODD":
        made["OODD"] = lambda: DictionaryDetector(
            names, embedder=table, base=NegLabelDetector(), queue_length=30
        )
    if request.param.startswith("ReNeg"):
        base = None if request.param == "ReNeg" else made["AdaNeg"]()
        made[request.param] = lambda: ReNegDetector(
            names, embedder=table, base=base, pool=[f"word{i}" for i in range(30, 50)]
        )
    return made[request.param]().fit()


def grown(detector, parts):
    """States of copies that each learned from one part."""
    return [copy.deepcopy(detector).partial_fit(part).adaptation_state() for part in parts]


def assert_same(one, other):
    """Equal but for the rounding of sums; a state within a state too."""
    if isinstance(one, dict):
        for name, value in one.items():
            assert_same(value, other[name])
    else:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_order_of_the_states_plays_no_part(detector):
    X = world()[2]
    states = grown(detector, np.array_split(X, 4))
    one = copy.deepcopy(detector).merge_adaptation(states)
    other = copy.deepcopy(detector).merge_adaptation(states[::-1])

    for name, value in one.adaptation_state().items():
        assert_same(value, other.adaptation_state()[name])
    assert one.n_seen_ == len(X)
    scores = one.set_params(adaptation="frozen").decision_function(X)
    # The merged state is another one than that after fit.
    assert not np.allclose(scores, detector.set_params(adaptation="frozen").decision_function(X))


@pytest.mark.parametrize("method", [AdaNegDetector, ENLDetector, DictionaryDetector])
def test_where_admission_is_static_merging_equals_one_stream(method):
    """Their rules of what to remember do not depend on what was seen before."""
    table, names, X = world()
    options = {"base": NegLabelDetector()} if method is DictionaryDetector else {}
    det = method(names, embedder=table, **options).fit()
    whole = copy.deepcopy(det).partial_fit(X)
    merged = copy.deepcopy(det).merge_adaptation(grown(det, np.array_split(X, 3)))

    for one in (whole, merged):
        one.set_params(adaptation="frozen")
    np.testing.assert_allclose(
        merged.decision_function(X), whole.decision_function(X), rtol=1e-4, atol=1e-4
    )


def test_one_state_is_taken_as_it_is(detector):
    X = world()[2]
    learned = copy.deepcopy(detector).partial_fit(X[:30])
    merged = copy.deepcopy(detector).merge_adaptation([learned.adaptation_state()])
    for one in (learned, merged):
        one.set_params(adaptation="frozen")
    np.testing.assert_allclose(
        merged.decision_function(X), learned.decision_function(X), rtol=1e-4, atol=1e-4
    )


def test_what_the_copies_had_in_common_counts_once(detector):
    X = world()[2]
    detector.partial_fit(X[:50])
    merged = copy.deepcopy(detector).merge_adaptation(grown(detector, [X[50:90], X[90:100]]))
    assert merged.n_seen_ == 100
    same = copy.deepcopy(detector).merge_adaptation([detector.adaptation_state()] * 3)
    assert same.n_seen_ == 50
    if isinstance(detector, ReNegDetector):
        # All that it keeps are sums, of images and not of their order.
        now = detector.adaptation_state()
        names, kept = (state["caught_names_"] for state in (now, same.adaptation_state()))
        sums = same.adaptation_state()["caught_image_sums_"]
        np.testing.assert_array_equal(np.sort(names), kept)
        np.testing.assert_allclose(sums, now["caught_image_sums_"][np.argsort(names)], atol=1e-5)


def test_a_stream_goes_on_from_a_merged_state(detector):
    X = world()[2]
    merged = copy.deepcopy(detector).merge_adaptation(grown(detector, np.array_split(X[:200], 2)))
    merged.partial_fit(X[200:])
    assert merged.n_seen_ == 240
    assert np.isfinite(merged.decision_function(X)).all()


def test_states_of_others_are_refused(detector):
    with pytest.raises(ValueError, match="no state to merge"):
        detector.merge_adaptation([])
    with pytest.raises(ValueError, match="of another method"):
        detector.merge_adaptation([{"n_seen_": 3}])

    before = detector.adaptation_state()
    state = detector.adaptation_state()
    wrong = next(name for name, value in state.items() if np.ndim(value) == 2)
    assert state[wrong].shape[1] > 1
    state[wrong] = state[wrong][:, :-1]
    with pytest.raises(ValueError, match="other labels or another model"):
        detector.merge_adaptation([state])
    for name, value in before.items():
        assert_same(value, detector.adaptation_state()[name])


def test_too_many_rows_are_chosen_by_their_content():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, 3))
    few = distinct_rows([rows[:50], rows[50:], rows[:7]], 20)
    assert len(few) == 20
    assert {tuple(row) for row in few} <= {tuple(row) for row in rows}
    assert np.array_equal(few, distinct_rows([rows[::-1]], 20))
    # Not simply the smallest ones.
    assert few[:, 0].max() > np.sort(rows[:, 0])[60]


def test_free_places_of_a_ring_are_left_out():
    ring = np.arange(6).reshape(3, 2)
    assert held(ring, 2).tolist() == [[0, 1], [2, 3]]
    assert held(ring, 7).tolist() == ring.tolist()
    assert not hasattr(MCMDetector, "merge_adaptation")
