"""PyOD's ECOD, every row scored alone."""

import numpy as np
import pytest

from dnm_sklearn.bench.run.baselines import RowwiseECOD


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
def test_ecod_is_pyods_row_by_row():
    from pyod.models.ecod import ECOD

    rng = np.random.default_rng(0)
    train = rng.standard_normal((40, 5)) ** 3
    train[:, 1] = np.round(train[:, 1])  # ties
    train[:, 2] = 1.0  # constant
    X = np.concatenate([rng.standard_normal((25, 5)) ** 3, train[:5]])
    X[:10, 2] = 1.0
    original = ECOD().fit(train)
    expected = [original.decision_function(row[None])[0] for row in X]
    ours = RowwiseECOD().fit(train)
    np.testing.assert_allclose(ours.decision_function(X), expected, rtol=1e-10)
    np.testing.assert_allclose(ours.decision_scores_, original.decision_scores_)
