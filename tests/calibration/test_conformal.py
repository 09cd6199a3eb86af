"""Conformal e-values and the drift alarm: formulas, edges, and seeded checks of what they claim."""

import numpy as np
import pytest

from dnm_sklearn.calibration.conformal import (
    ConformalTestMartingale,
    _Bets,
    check_level,
    conformal_e_values,
    label_e_values,
)


def test_e_values_are_the_formula_and_at_most_n_plus_one():
    rng = np.random.default_rng(0)
    x, known = rng.normal(size=7), rng.normal(size=5)
    want = 6 * np.exp(x) / (np.exp(x) + np.exp(known).sum())
    np.testing.assert_allclose(conformal_e_values(x, known), want, rtol=1e-12)
    assert conformal_e_values([1e9, -1e9, np.nan], known)[:2].tolist() == [6.0, 0.0]
    assert np.isnan(conformal_e_values([np.nan], known)[0])
    with pytest.raises(ValueError, match="0 calibration scores"):
        conformal_e_values(x, [])


def test_label_e_values_are_the_formula():
    rng = np.random.default_rng(0)
    x, known, w = rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.uniform(size=4)
    r, s = np.exp(x), np.exp(known).sum(axis=0)
    want = (w * 6 * r / (r + s)).mean(axis=1)
    np.testing.assert_allclose(label_e_values(x, np.log(s), 5, np.log(w)), want, rtol=1e-12)
    with pytest.raises(ValueError, match="mean of at most 1"):
        label_e_values(x, np.log(s), 5, np.full(4, 0.1))


def test_mean_over_all_roles_of_exchangeable_images_is_one():
    """Exact: over which of the n + 1 images is the test image, the e-values average to 1."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 5, size=(20, 6))
    score = [conformal_e_values(values[i, :1], np.delete(values[:, 0], i))[0] for i in range(20)]
    assert np.mean(score) == pytest.approx(1, abs=1e-12)
    label = [
        label_e_values(
            values[i : i + 1], np.logaddexp.reduce(np.delete(values, i, axis=0), axis=0), 19
        )[0]
        for i in range(20)
    ]
    assert np.mean(label) == pytest.approx(1, abs=1e-12)


def test_flags_keep_their_promise_where_the_plug_in_does_not():
    """With 20 images and many heavy-tailed labels, the mean of r / mean(r) is no e-value."""
    rng, n, repeats = np.random.default_rng(0), 20, 600
    score, label, plug_in = [], [], []
    for _ in range(repeats):
        log_r = 2.5 * rng.standard_t(4, size=(n + 1, 100))
        sums = np.logaddexp.reduce(log_r[1:], axis=0)
        label.append(label_e_values(log_r[:1], sums, n)[0])
        log_v = np.logaddexp.reduce(log_r, axis=1)
        score.append(conformal_e_values(log_v[:1], log_v[1:])[0])
        plug_in.append(np.exp(log_r[0] - sums + np.log(n)).mean())
    for level in (0.1, 0.05):
        slack = 3 * np.sqrt(level / repeats)
        assert np.mean(np.array(score) >= 1 / level) <= level + slack
        assert np.mean(np.array(label) >= 1 / level) <= level + slack
        assert np.mean(np.array(plug_in) >= 1 / level) > 2 * level


def test_level_that_cannot_be_reached_says_how_many_images_are_needed():
    assert check_level(0.01, 99) == 0.01
    with pytest.raises(ValueError, match="with 98 calibration images: at least 99 are needed"):
        check_level(0.01, 98)
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        check_level(1.0, 98)


def naive_log_capital(p_values, switch=0.001):
    """Log capital after each p-value, by a loop over experts that are written out one by one."""
    levels = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
    steps = [(a, c) for a in (0.02, 0.05, 0.1, 0.3) for c in levels]
    powers = [(a, e) for a in (0.1, 0.4, 1.0) for e in (0.15, 0.4)]
    initial = np.array([0.1, *[0.7 / 24] * 24, *[0.1 / 6] * 6, 0.1])
    capital, counts, out = initial.copy(), np.ones(20), []
    for p in p_values:
        gain = [1.0]
        gain += [1 - a + a * (p <= c) / c for a, c in steps]
        gain += [1 - a + a * e * p ** (e - 1) for a, e in powers]
        gain += [20 * counts[min(int(p * 20), 19)] / counts.sum()]
        counts[min(int(p * 20), 19)] += 1
        capital = capital * gain
        capital = (1 - switch) * capital + switch * initial * capital.sum()
        out.append(np.log(capital.sum()))
    return out


def test_online_p_values_rank_among_all_before_and_are_bet_on():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=60), 1)
    alarm = (
        ConformalTestMartingale(scores[:20], random_state=3)
        .update(scores[20:50])
        .update(scores[50:])
    )
    u = 1 - np.random.RandomState(3).random_sample(40)
    for t in range(40):
        past = scores[: 21 + t]
        want = ((past > past[-1]).sum() + u[t] * (past == past[-1]).sum()) / len(past)
        assert alarm.p_values_[t] == pytest.approx(want)
    assert alarm.log_capital_ == pytest.approx(naive_log_capital(alarm.p_values_)[-1])
    assert alarm.n_seen_ == 40


def test_each_bet_is_fair():
    """Whatever the past, one more step has mean 1 over a uniform p-value."""
    bets = _Bets(switch=0.001)
    for p in np.random.default_rng(0).beta(0.3, 1, size=30):
        bets.place(p)
    root = (np.arange(20000) + 0.5) / 20000
    density = 8 * root**7  # of p = root**8, so that small p-values are looked at closely
    gains = bets.gains(root**8)
    np.testing.assert_allclose((gains * density[:, None]).mean(axis=0), 1, atol=2e-3)
    assert (gains @ bets._capital * density).mean() == pytest.approx(1, abs=1e-3)


def test_false_alarms_are_rare_and_drift_is_found():
    rng = np.random.default_rng(5)
    null = np.round(rng.normal(size=(300, 100 + 400)), 1)

    def alarm(scores, seed):
        return ConformalTestMartingale(scores[:100], alpha=0.05, random_state=seed).update(
            scores[100:]
        )

    ever = [alarm(scores, seed).alarm_at_ is not None for seed, scores in enumerate(null)]
    assert np.mean(ever) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    drift = null[:50].copy()
    drift[:, 300:][rng.random((50, 200)) < 0.3] = 4.0
    found = []
    for seed, scores in enumerate(drift):
        running = alarm(scores[:300], seed)
        assert running.n_seen_ == 200
        for score in scores[300:]:
            running.update([score])
            if running.log_capital_ >= np.log(20):
                found.append(seed)
                break
    assert len(found) / len(drift) > 0.9


def test_capital_dealt_anew_finds_a_drift_that_begins_late():
    """After long ID streams the experts that bet on drift have only what is dealt anew."""
    rng = np.random.default_rng(7)
    known, late = rng.normal(size=200), rng.normal(3, 1, size=60)
    delays = {"default": [], 0.001: [], 0.0: []}
    for seed in range(5):
        stream = np.r_[rng.normal(size=3000), late]
        for switch, found in delays.items():
            params = {} if switch == "default" else {"switch": switch}
            alarm = ConformalTestMartingale(known, alpha=0.01, random_state=seed, **params)
            alarm.update(stream)
            assert alarm.log_capital_ == pytest.approx(
                naive_log_capital(alarm.p_values_, params.get("switch", 0.001))[-1]
            )
            found.append((alarm.alarm_at_ or 10_000) - 3000)
    assert delays["default"] == delays[0.001]
    assert 0 < max(delays["default"]) < 30
    assert np.mean(delays[0.0]) > 1.5 * np.mean(delays["default"])


def test_alarm_skips_nan_and_checks_its_input():
    alarm = ConformalTestMartingale([0.0, 1.0]).update([np.nan, 0.5])
    assert alarm.n_seen_ == 1
    assert alarm.alarm_at_ is None
    with pytest.raises(ValueError, match="alpha"):
        ConformalTestMartingale([0.0], alpha=1.0)
    with pytest.raises(ValueError, match="0 calibration scores"):
        ConformalTestMartingale([])
    with pytest.raises(ValueError, match="switch"):
        ConformalTestMartingale([0.0], switch=1.0)
