"""Methods over data sets: mean ranks, Friedman's test, and pairs corrected by Holm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import friedmanchisquare, norm, rankdata

from dnm_sklearn.bench.results.rows import GROUPS
from dnm_sklearn.bench.results.run_groups import RunGroup

# Friedman's test compares three methods or more, over several data sets.
_FEWEST_METHODS, _FEWEST_SETS = 3, 2


@dataclass(frozen=True)
class Ranks:
    """Ranks of k methods over N data sets, best first.

    Attributes
    ----------
    labels : list of str
        The methods, by mean rank.
    mean_ranks : ndarray of shape (k,)
        1 = best on every set; ties share the mean of their ranks.
    sets : list of str
        The data sets.
    p_value : float
        Friedman's test that all methods are alike.
    pairs : ndarray of shape (k, k)
        P-value of each pair being alike, by its difference of mean ranks; all pairs corrected
        together by Holm. 1 on the diagonal.
    """

    labels: list[str]
    mean_ranks: np.ndarray
    sets: list[str]
    p_value: float
    pairs: np.ndarray

    def alike(self, level: float = 0.05) -> list[tuple[int, int]]:
        """The longest runs (first, last) of methods of which no pair differs at `level`."""
        runs: list[tuple[int, int]] = []
        for first in range(len(self.labels)):
            last = first
            while last + 1 < len(self.labels):
                block = self.pairs[first : last + 2, first : last + 2]
                if (block < level).any():
                    break
                last += 1
            # A run inside of the one before it says nothing new.
            if last > first and (not runs or last > runs[-1][1]):
                runs.append((first, last))
        return runs


def method_ranks(groups: Sequence[RunGroup], metric: str = "auroc") -> Ranks | str:
    """Rank the rows that all run groups have on every OOD set; or say why that cannot be.

    A data set is one OOD set of one suite and model; sets of the group "sanity" do not count.
    """
    sets: list[str] = []
    of_sets: list[dict[str, float]] = []
    for group in groups:
        rows = group.rows
        for name, ood_group in group.ood_sets:
            if ood_group in GROUPS:
                found = {row.label: row.value(metric, name) for row in rows}
                sets.append(f"{group.title}: {name}")
                of_sets.append({label: x for label, x in found.items() if x is not None})

    # What was not run on a set, or failed there, has no rank among the others.
    labels = sorted(set.intersection(*map(set, of_sets))) if sets else []
    if len(labels) < _FEWEST_METHODS or len(sets) < _FEWEST_SETS:
        return (
            f"ranks need {_FEWEST_METHODS} methods that were run on all of {_FEWEST_SETS} OOD sets "
            f"or more; there are {len(labels)} on all of {len(sets)}"
        )

    values = np.array([[of_set[label] for label in labels] for of_set in of_sets])
    lower_is_better = metric.startswith("fpr95")
    return _ranked(labels, values if lower_is_better else -values, sets)


def _ranked(labels: list[str], values: np.ndarray, sets: list[str]) -> Ranks:
    """Rank columns of values (N, k), lower = better."""
    n_sets, n_methods = values.shape
    mean_ranks = rankdata(values, axis=1).mean(axis=0)

    # Where all columns are equal the statistic is 0 / 0.
    p_value = float(friedmanchisquare(*values.T).pvalue)
    p_value = 1.0 if np.isnan(p_value) else p_value

    # Two mean ranks differ by a normal of this deviation if the methods are alike.
    deviation = np.sqrt(n_methods * (n_methods + 1) / (6 * n_sets))
    index = list(combinations(range(n_methods), 2))
    raw = [2 * norm.sf(abs(mean_ranks[i] - mean_ranks[j]) / deviation) for i, j in index]

    pairs = np.ones((n_methods, n_methods))
    for (i, j), p in zip(index, holm(raw), strict=True):
        pairs[i, j] = pairs[j, i] = p

    order = np.argsort(mean_ranks, kind="stable")
    ordered = [labels[i] for i in order]
    return Ranks(ordered, mean_ranks[order], sets, p_value, pairs[np.ix_(order, order)])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected by Holm's step-down procedure."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    # The smallest is multiplied by the number of tests, the next by one less; none may fall.
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected
