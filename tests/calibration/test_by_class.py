"""P-values by predicted class: against slow twins, and valid in simulations."""

import numpy as np
import pytest

from dnm_sklearn import MaxLogitDetector
from dnm_sklearn.calibration.by_class import (
    LEAST_IMAGES,
    PRIOR_IMAGES,
    largest_stratum,
    shrunk_p_values,
    strict_p_values,
)
from dnm_sklearn.testing import make_ood_blobs


def strict_twin(score, own, known, known_classes):
    """The definition, for one image: strata are made of the whole bag."""
    bag = [*known_classes, own]
    size = {k: bag.count(k) for k in set(bag)}

    def stratum(k):
        return k if size[k] >= LEAST_IMAGES else "rest"

    peers = [s for s, k in zip(known, known_classes, strict=True) if stratum(k) == stratum(own)]
    return (1 + sum(s >= score for s in peers)) / (len(peers) + 1)


def shrunk_twin(score, own, known, known_classes):
    """The definition, for one image."""
    bag = [*zip(known, known_classes, strict=True), (score, own)]

    def u(image):
        above = sum(s >= image[0] for s, _ in bag)
        of_class = [s for s, k in bag if k == image[1]]
        in_class = sum(s >= image[0] for s in of_class)
        return (PRIOR_IMAGES * above / len(bag) + in_class) / (PRIOR_IMAGES + len(of_class))

    return sum(u(image) <= u(bag[-1]) + 1e-12 for image in bag) / len(bag)


TWINS = {shrunk_p_values: shrunk_twin, strict_p_values: strict_twin}


@pytest.mark.parametrize("fast", TWINS)
@pytest.mark.parametrize("seed", range(5))
def test_twins_agree_with_ties_and_empty_classes(fast, seed):
    rng = np.random.default_rng(seed)
    n, m, n_classes = 70, 25, 5
    # Rounded scores tie; class 4 has no calibration image, class 0 has about half of them.
    known = rng.normal(size=n).round(1)
    known_classes = rng.choice(4, size=n, p=[0.5, 0.27, 0.2, 0.03])
    scores, classes = rng.normal(size=m).round(1), rng.integers(n_classes, size=m)
    want = [
        TWINS[fast](score, own, known, known_classes)
        for score, own in zip(scores, classes, strict=True)
    ]
    np.testing.assert_allclose(fast(scores, classes, known, known_classes), want, atol=1e-12)


@pytest.mark.parametrize("fast", TWINS)
def test_order_of_calibration_images_plays_no_part(fast):
    rng = np.random.default_rng(0)
    known, known_classes = rng.normal(size=50), rng.integers(3, size=50)
    x, k = rng.normal(size=9), rng.integers(3, size=9)
    order = rng.permutation(50)
    np.testing.assert_array_equal(
        fast(x, k, known, known_classes), fast(x, k, known[order], known_classes[order])
    )


@pytest.mark.parametrize("fast", TWINS)
def test_chunks_change_nothing(fast, monkeypatch):
    rng = np.random.default_rng(0)
    args = (
        rng.normal(size=9),
        rng.integers(3, size=9),
        rng.normal(size=50),
        rng.integers(3, size=50),
    )
    want = fast(*args)
    monkeypatch.setattr("dnm_sklearn.calibration.by_class._CHUNK_NUMBERS", 60)
    np.testing.assert_array_equal(fast(*args), want)


def draws(rng, n, n_classes, m):
    """Scores of ID images whose classes differ in level, spread and size."""
    level, spread = rng.normal(size=n_classes), np.exp(0.4 * rng.normal(size=n_classes))
    proportions = rng.dirichlet(np.ones(n_classes))
    k = rng.choice(n_classes, size=n + m, p=proportions)
    scores = level[k] + spread[k] * rng.normal(size=n + m)
    return scores[:m], k[:m], scores[m:], k[m:]


@pytest.mark.parametrize(("n", "n_classes"), [(39, 5), (100, 10), (400, 8)])
def test_an_id_image_is_flagged_no_more_often_than_stated(n, n_classes):
    rng = np.random.default_rng(0)
    alphas = (0.01, 0.05, 0.1)
    flagged = {fast: np.zeros(3) for fast in TWINS}
    n_draws, m = 600, 10
    for _ in range(n_draws):
        args = draws(rng, n, n_classes, m)
        for fast in TWINS:
            p = fast(*args)
            flagged[fast] += [np.mean(p <= alpha) for alpha in alphas]
    for fast, total in flagged.items():
        rates = total / n_draws
        # Four standard errors; images of one draw share their calibration set.
        errors = 4 * np.sqrt(np.array(alphas) / n_draws)
        assert (rates <= alphas + errors * np.sqrt(0.4)).all(), (fast.__name__, rates)
    # The shrunk form wastes nothing.
    assert flagged[shrunk_p_values][2] / n_draws > 0.08


def test_shrunk_evens_out_the_classes():
    rng = np.random.default_rng(1)
    spread = {"marginal": [], "shrunk": []}
    for _ in range(40):
        level = rng.normal(size=6)
        k = np.repeat(np.arange(6), 30)
        known = level[k] + rng.normal(size=180)
        test_k = np.repeat(np.arange(6), 100)
        x = level[test_k] + rng.normal(size=600)
        marginal = (1 + (known >= x[:, None]).sum(axis=1)) / 181
        for name, p in (("marginal", marginal), ("shrunk", shrunk_p_values(x, test_k, known, k))):
            by_class = [(p[test_k == c] <= 0.05).mean() for c in range(6)]
            spread[name].append(np.sqrt(np.mean((np.array(by_class) - 0.05) ** 2)))
    assert np.mean(spread["shrunk"]) < 0.75 * np.mean(spread["marginal"])


def test_strict_holds_in_each_large_class():
    rng = np.random.default_rng(2)
    rates = []
    for _ in range(400):
        level = np.array([0.0, 3.0])
        k = np.repeat([0, 1], 39)
        known = level[k] + rng.normal(size=78)
        test_k = np.repeat([0, 1], 10)
        p = strict_p_values(level[test_k] + rng.normal(size=20), test_k, known, k)
        rates.append([(p[:10] <= 0.05).mean(), (p[10:] <= 0.05).mean()])
    assert np.abs(np.mean(rates, axis=0) - 0.05).max() < 0.01


def test_largest_stratum_is_a_class_or_the_pool():
    assert largest_stratum([0] * 25 + [1] * 8 + [2] * 9) == 25
    assert largest_stratum([0] * 15 + [1] * 8 + [2] * 9) == 32


# -- through a detector ----------------------------------------------------------------------------


def fitted(by_class):
    blobs = make_ood_blobs(n_images=60)
    det = MaxLogitDetector(blobs.names, embedder=blobs.table).fit()
    return det.calibrate(blobs.X_id, by_class=by_class), blobs


@pytest.mark.parametrize("by_class", ["shrunk", "strict"])
def test_a_detector_gives_the_p_values_of_its_scores_and_nearest_classes(by_class):
    det, blobs = fitted(by_class)
    fast = {"shrunk": shrunk_p_values, "strict": strict_p_values}[by_class]
    names = det.class_names_.tolist()

    def classes(X):
        nearest = det._nearest_class(X.astype(np.float32), np.zeros(len(X), dtype=bool))
        return np.array([names.index(name) for name in nearest])

    want = fast(
        det.decision_function(blobs.X),
        classes(blobs.X),
        det.decision_function(blobs.X_id),
        classes(blobs.X_id),
    )
    np.testing.assert_allclose(det.p_value(blobs.X), want, atol=1e-12)
    np.testing.assert_array_equal(det.predict(blobs.X, level=0.05), want <= 0.05)


def test_without_by_class_nothing_changes_and_a_fit_forgets_it():
    det, blobs = fitted("shrunk")
    plain, _ = fitted(None)
    assert det.threshold_ == plain.threshold_
    assert (det.p_value(blobs.X) != plain.p_value(blobs.X)).any()
    np.testing.assert_array_equal(
        det.calibrate(blobs.X_id).p_value(blobs.X), plain.p_value(blobs.X)
    )
    det.calibrate(blobs.X_id, by_class="strict").fit()
    assert det.calibration_by_class_ is None
    assert det.calibration_classes_ is None


def test_by_class_survives_a_file(tmp_path):
    from dnm_sklearn import load

    det, blobs = fitted("shrunk")
    det.save(tmp_path / "det.skops")
    again = load(tmp_path / "det.skops")
    np.testing.assert_array_equal(again.p_value(blobs.X), det.p_value(blobs.X))


def test_what_cannot_be_is_told():
    det, blobs = fitted(None)
    with pytest.raises(ValueError, match=r"by_class='rest' must be"):
        det.calibrate(blobs.X_id, by_class="rest")
    # The largest stratum is what a small level needs to be met by.
    few = blobs.X_id[:60]
    det.calibrate(few, by_class="strict")
    with pytest.raises(ValueError, match="cannot be reached"):
        det.predict(blobs.X, level=0.005)
