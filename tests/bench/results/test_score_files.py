"""Metrics of the scores that a run keeps."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dnm_sklearn.bench.results.score_files import mean_metrics


def test_metrics_are_means_over_repeats_of_the_images_in_the_stream():
    """An image that was not in the stream of a repeat has the score NaN there."""
    rng = np.random.default_rng(0)
    ids, oods = rng.normal(size=(3, 20)), rng.normal(1, size=(3, 15))
    oods[:, 4:] = np.where(rng.random((3, 11)) < 0.5, np.nan, oods[:, 4:])
    means, repeats = mean_metrics(ids, oods)
    want = []
    for known, scores in zip(ids, oods, strict=True):
        seen = scores[~np.isnan(scores)]
        assert len(seen) < 15
        truth = [0] * 20 + [1] * len(seen)
        want.append(roc_auc_score(truth, np.concatenate([known, seen])))
    assert [one["auroc"] for one in repeats] == pytest.approx(want)
    assert means["auroc"] == pytest.approx(np.mean(want))
