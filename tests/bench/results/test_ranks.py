"""Mean ranks, Friedman's test and Holm's correction against definitions and published numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from dnm_sklearn.bench.results.formats import make_rank_table
from dnm_sklearn.bench.results.ranks import Ranks, holm, method_ranks


def group_of(values, sets, title="suite"):
    """A run group of rows {label: {set: value}}, as far as ranks look at it."""
    rows = []
    for label, of_sets in values.items():
        rows.append(
            SimpleNamespace(label=label, value=lambda metric, name, own=of_sets: own.get(name))
        )
    return SimpleNamespace(rows=rows, ood_sets=sets, title=title)


SETS = [(f"set {i}", "far") for i in range(6)] + [("noise", "sanity")]
NAMES = [name for name, _ in SETS]


def world(order=("best", "middle", "worst"), n_sets=6):
    values = {}
    for rank, label in enumerate(order):
        values[label] = {name: 0.9 - 0.1 * rank + 0.001 * i for i, name in enumerate(NAMES)}
    return values, SETS[:n_sets] + SETS[6:]


def test_methods_that_are_always_in_one_order():
    ranks = method_ranks([group_of(*world())])
    assert ranks.labels == ["best", "middle", "worst"]
    np.testing.assert_array_equal(ranks.mean_ranks, [1, 2, 3])
    assert len(ranks.sets) == 6  # noise is no data set
    # chi2 = 12 N / (k (k + 1)) * (sum of squares - k (k + 1)^2 / 4) = 12 with 2 degrees of freedom
    assert ranks.p_value == pytest.approx(np.exp(-6))
    # z = (3 - 1) / sqrt(12 / 36) and 1 / sqrt(12 / 36)
    assert ranks.pairs[0, 2] == pytest.approx(3 * 5.32e-4, rel=1e-2)
    assert ranks.pairs[0, 1] == pytest.approx(2 * 0.0833, rel=1e-2)
    assert ranks.alike() == [(0, 1), (1, 2)]


def test_lower_is_better_for_fpr95():
    ranks = method_ranks([group_of(*world())], "fpr95_id_positive")
    assert ranks.labels == ["worst", "middle", "best"]


def test_sets_of_several_groups_count_and_rows_that_lack_one_do_not():
    values, sets = world(n_sets=2)
    more = {**values, "only here": values["best"]}
    failed = {**values, "best": {NAMES[0]: 0.9}}
    both = method_ranks([group_of(more, sets, "a"), group_of(values, sets, "b")])
    assert both.labels == ["best", "middle", "worst"]
    assert both.sets == ["a: set 0", "a: set 1", "b: set 0", "b: set 1"]
    assert "there are 2 on all of 2" in method_ranks([group_of(failed, sets)])
    assert "there are 3 on all of 1" in method_ranks([group_of(values, sets[:1])])


def test_equal_methods_are_alike():
    same = {label: dict.fromkeys(NAMES, 0.5) for label in "abc"}
    ranks = method_ranks([group_of(same, SETS)])
    assert ranks.p_value == 1
    np.testing.assert_array_equal(ranks.mean_ranks, 2)
    assert ranks.alike() == [(0, 2)]


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])


def test_the_table():
    pairs = np.array([[1, 0.2, 0.01], [0.2, 1, 0.3], [0.01, 0.3, 1]])
    ranks = Ranks(["a", "b", "c"], np.array([1.2, 1.9, 2.9]), ["x", "y"], 0.04, pairs)
    table = make_rank_table(ranks, "auroc")
    assert table.rows == [
        ["a", "1.20", "-", "c"],
        ["b", "1.90", "0.200", "-"],
        ["c", "2.90", "0.010", "-"],
    ]
    assert "p = 0.04" in table.notes[1]
