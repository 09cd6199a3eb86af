"""The paired bootstrap."""

import numpy as np
import pytest

from dnm_sklearn.bench.results.differences import paired_difference
from dnm_sklearn.metrics import auroc


@pytest.mark.parametrize("metric", ["auroc", "fpr95_id_positive"])
def test_bootstrap_draws_both_detectors_alike(metric):
    rng = np.random.default_rng(0)
    ids, oods = (
        np.round(rng.standard_normal((1, 40)), 1),
        np.round(1 + rng.standard_normal((1, 30)), 1),
    )
    same = paired_difference([(ids, oods)], [(ids + 5, oods + 5)], metric=metric, n_resamples=30)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
    other = rng.standard_normal((1, 30))
    found = paired_difference([(ids, oods)], [(ids, other)], metric=metric, n_resamples=60)
    assert found.low < found.value < found.high
    if metric == "auroc":
        truth = np.arange(70) >= 40
        expected = auroc(np.r_[ids[0], oods[0]], truth) - auroc(np.r_[ids[0], other[0]], truth)
        assert found.value == pytest.approx(expected, abs=1e-12)
