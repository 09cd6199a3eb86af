"""Orders of the test stream."""

import numpy as np
import pytest

from dnm_sklearn.bench.run.orders import ORDERS, score_stream


@pytest.mark.parametrize("order", ORDERS)
def test_orders(order):
    ids, oods = np.zeros((40, 2)), np.ones((30, 2))
    ids[:, 1] = np.arange(40)
    oods[:, 1] = np.arange(30)
    seen = []

    def place(rows):
        seen.append(rows)
        return np.arange(float(len(rows)))

    id_scores, ood_scores = score_stream(place, ids, oods, order, (0, 0))
    assert not np.isnan(id_scores).any()
    kinds = [rows[:, 0].tolist() for rows in seen]
    for rows, found in ((ids, id_scores), (oods, ood_scores)):
        for i in np.flatnonzero(~np.isnan(found)):
            assert any(int(found[i]) < len(s) and (s[int(found[i])] == rows[i]).all() for s in seen)
    if order == "id-first":
        assert kinds == [[0] * 40 + [1] * 30]
    elif order == "ood-first":
        assert kinds == [[1] * 30 + [0] * 40]
    elif order == "single-kind":
        assert kinds == [[0] * 40, [1] * 30]
    elif order == "rare-ood":
        assert len(seen[0]) == 42
        assert np.isnan(ood_scores).sum() == 28
    else:
        assert sorted(kinds[0]) == [0] * 40 + [1] * 30
        assert kinds[0] != sorted(kinds[0])
    again, _ = score_stream(place, ids, oods, order, (0, 0))
    np.testing.assert_array_equal(id_scores, again)
    assert not np.array_equal(id_scores, score_stream(place, ids, oods, order, (0, 1))[0])


def test_unknown_order():
    with pytest.raises(ValueError, match="it is one of shuffled"):
        score_stream(len, np.zeros((1, 1)), np.zeros((1, 1)), "sorted", (0, 0))
