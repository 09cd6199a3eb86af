"""Intervals of a mean AUROC: pair by pair in plain Python, and what they hold for."""

import numpy as np
import pytest

from dnm_sklearn.bench.results.intervals import mean_auroc_interval


def by_pairs(sets):
    """DeLong's interval of the mean over sets, each of runs on the same images."""
    aurocs, variance, of_ids = [], 0.0, []
    for runs in sets:
        wins = np.mean(
            [[[(o > i) + 0.5 * (o == i) for o in oods] for i in ids] for ids, oods in runs], axis=0
        )
        aurocs.append(wins.mean())
        of_ids.append(wins.mean(axis=1))
        variance += wins.mean(axis=0).var(ddof=1) / wins.shape[1] / len(sets) ** 2
    of_id = np.mean(of_ids, axis=0)
    variance += of_id.var(ddof=1) / len(of_id)
    auroc = np.mean(aurocs)
    half = 1.959964 * np.sqrt(variance) / (auroc * (1 - auroc))
    middle = np.log(auroc / (1 - auroc))
    return [1 / (1 + np.exp(-(middle + sign * half))) for sign in (-1, 1)]


def test_interval_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    sets = []
    for n_ood in (30, 50):
        ids = np.round(rng.normal(0, 1, (2, 40)), 1)
        oods = np.round(rng.normal(1, 1, (2, n_ood)), 1)
        sets.append(((ids, oods),))
    expected = by_pairs([list(zip(*runs[0], strict=True)) for runs in sets])
    assert mean_auroc_interval(sets) == pytest.approx(expected, rel=1e-9)


def test_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2).
    truth, n_held = 0.7602, 0
    for _ in range(400):
        pair = rng.normal(0, 1, (1, 60)), rng.normal(1, 1, (1, 40))
        low, high = mean_auroc_interval([[pair]])
        n_held += low <= truth <= high
    assert 0.92 <= n_held / 400 <= 0.98


def test_what_has_no_interval():
    ids, oods = np.zeros((1, 3)), np.array([[1.0, 2.0, np.nan]])
    assert mean_auroc_interval([[(ids, oods)]]) is None
    assert mean_auroc_interval([[(ids, oods[:, :1])]]) is None
    assert mean_auroc_interval([[(ids, oods[:, :2]), (ids[:, :2], oods[:, :2])]]) is None
    # Two sets with other ID images than each other's.
    assert mean_auroc_interval([[(ids, oods[:, :2])], [(ids[:, :2], oods[:, :2])]]) is None
    assert mean_auroc_interval([[(ids, oods[:, :2])]]) == (1.0, 1.0)
