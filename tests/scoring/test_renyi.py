"""The Rényi worst case against a bisection in float64, the golden vectors, and its properties."""

import numpy as np
import pytest
import torch
from golden import golden_cases, golden_excerpt

from dnm_sklearn.scoring import _chunks, renyi

T = 0.01


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def world(seed=0, n=12, n_classes=5, n_negatives=90, dim=16, spread=0.4):
    """Rows about a common direction, so that cosines lie close together as CLIP's do."""
    rng = np.random.default_rng(seed)
    centre = unit(rng.normal(size=dim))
    rows = unit(centre + spread * rng.normal(size=(n + n_classes + n_negatives, dim)))
    return rows[:n], rows[n : n + n_classes], rows[n + n_classes :]


def naive(X, classes, negatives, order, radius, temperature=T):
    """By definition, the minimum by bisection of its slope."""
    q, scores = order / (order - 1), []
    for x in X:
        own = classes @ x / temperature
        h = np.concatenate([own, negatives @ x / temperature])

        def slope(b, h=h):
            d = np.maximum(h - b, 0)
            u = d / d.max()
            return 1 - radius * np.mean(u**q) ** (1 / q - 1) * np.mean(u ** (q - 1))

        low, high = h.max() - 5000, h.max() - 1e-9
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        d = np.maximum(h - low, 0)
        worst = low + radius * d.max() * np.mean((d / d.max()) ** q) ** (1 / q)
        scores.append(np.logaddexp.reduce(own) - worst)
    return np.array(scores)


@pytest.mark.parametrize(("order", "radius"), [(1.02, 1.05), (1.05, 1.2), (1.15, 1.5), (1.5, 1.1)])
@pytest.mark.parametrize("sample", [16, 4096])
def test_it_is_the_minimum_by_bisection(monkeypatch, order, radius, sample):
    monkeypatch.setattr(renyi, "_SAMPLE", sample)
    X, classes, negatives = world()
    got = renyi.renyi_log_ratio(X, classes, negatives, order=order, radius=radius)
    np.testing.assert_allclose(got, naive(X, classes, negatives, order, radius), atol=5e-6)


def test_wide_cosines_and_chunks_of_one_row(monkeypatch):
    monkeypatch.setattr(renyi, "_WORKED_NUMBERS", 1)
    X, classes, negatives = world(spread=3.0)
    want = naive(X, classes, negatives, 1.05, 1.2)
    np.testing.assert_allclose(renyi.renyi_log_ratio(X, classes, negatives), want, atol=5e-6)


def test_float32_is_as_good(monkeypatch):
    X, classes, negatives = world(n_negatives=300)
    want = naive(X, classes, negatives, 1.05, 1.2)
    monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", 0)
    got = renyi.renyi_log_ratio(X.astype(np.float32), classes, negatives)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    """Rows need different numbers of steps: images of a class, of a label, and of nothing."""
    X, classes, negatives = world(n=40, n_classes=40, n_negatives=400, spread=1.0)
    X = np.concatenate([X, unit(classes[:20] + 0.3 * X[:20]), unit(negatives[:20] + 0.3 * X[20:])])
    together = renyi.renyi_log_ratio(X, classes, negatives)
    alone = [renyi.renyi_log_ratio(row[None], classes, negatives)[0] for row in X]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-9)


def test_fewer_labels_than_the_tail_takes_leave_the_nearest():
    X, classes, negatives = world()
    got = renyi.renyi_log_ratio(X, classes, negatives, radius=2.0)  # a tail of 5e-7
    logits = X @ np.concatenate([classes, negatives]).T / T
    want = np.logaddexp.reduce(X @ classes.T / T, axis=1) - logits.max(axis=1)
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_equal_labels_and_an_orthogonal_image():
    equal = np.tile(np.eye(3)[:1], (60, 1))
    got = renyi.renyi_log_ratio(np.eye(3), equal[:4], equal)
    np.testing.assert_allclose(got, np.log(4), atol=1e-9)


def test_a_second_copy_of_every_label_adds_log_2():
    X, classes, negatives = world()
    once = renyi.renyi_log_ratio(X, classes, negatives)
    twice = renyi.renyi_log_ratio(X, np.tile(classes, (2, 1)), np.tile(negatives, (2, 1)))
    np.testing.assert_allclose(twice, once + np.log(2), atol=1e-5)


def test_many_small_steps_end_at_the_minimum():
    X, classes, negatives = world()
    steps = {"n_steps": 2000, "learning_rate": 0.05}
    got = renyi.stepped_renyi_log_ratio(X, classes, negatives, **steps)
    np.testing.assert_allclose(got, renyi.renyi_log_ratio(X, classes, negatives), atol=1e-3)


def test_steps_from_above_all_logits_go_down():
    X, classes, negatives = world()
    log_id = np.logaddexp.reduce(X @ classes.T / T, axis=1)
    got = renyi.stepped_renyi_log_ratio(X, classes, negatives, beta_start=1.2, n_steps=0)
    np.testing.assert_allclose(got, log_id - 120, atol=1e-9)
    got = renyi.stepped_renyi_log_ratio(X, classes, negatives, beta_start=1.2, n_steps=1)
    np.testing.assert_allclose(got, log_id - 119, atol=1e-9)


def test_tail_and_radius_are_one_number():
    assert renyi.tail_of_radius(1.2, 1.05) == pytest.approx(1.2**-21)
    assert renyi.radius_of_tail(renyi.tail_of_radius(1.3, 1.06), 1.06) == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"radius": 1.0}, "radius=1 must be above 1"),
        ({"order": 1.0}, "order must lie between 1 and 2"),
        ({"order": 2.0}, "order must lie between 1 and 2"),
    ],
)
def test_bad_parameters(params, match):
    with pytest.raises(ValueError, match=match):
        renyi.renyi_log_ratio(*world(), **params)
    with pytest.raises(ValueError, match="tail must lie"):
        renyi.radius_of_tail(1.0)


@pytest.mark.parametrize("case", range(4))
def test_golden_vectors(shared_dir, case):
    check_golden(golden_cases(shared_dir, "renyi")[case])


def test_golden_excerpt():
    check_golden(golden_excerpt("renyi"))


def check_golden(golden):
    rows = (golden("image"), golden("id_text"), golden("negative_text"))
    ball = {name: golden(name).item() for name in ("temperature", "order", "radius")}
    steps = {name: golden(name).item() for name in ("beta_start", "n_steps", "learning_rate")}

    got = renyi.stepped_renyi_log_ratio(*rows, **ball, **steps)
    want = golden("score_id_confidence")
    assert np.isfinite(got).all()
    assert np.nanmax(np.abs(got - want)) <= 2e-5
    if ball["radius"] > 1:
        difference = renyi.renyi_log_ratio(*rows, **ball) - golden("score_converged")
        assert np.abs(difference).max() <= 2e-5


@pytest.mark.parametrize("start", [-100.0, -5.0, 3.0, 12.0])
def test_the_root_is_found_from_far_away(start):
    X, classes, negatives = world()
    logits = torch.from_numpy(X @ np.concatenate([classes, negatives]).T / T).float()
    gaps = renyi._Gaps([logits[:, :5].clone(), logits[:, 5:].clone()])
    free = torch.zeros(len(X), 1, dtype=torch.bool)
    near = gaps.mean().log()
    want, _ = renyi._root(gaps, near, free, 21.0, 1.2, 1e-4)
    got, _ = renyi._root(gaps, torch.full_like(near, start), free, 21.0, 1.2, 1e-4)
    np.testing.assert_allclose(got, want, atol=1e-3)
