"""Intervals of a mean AUROC over the chance of the images (DeLong et al., 1988), without draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from dnm_sklearn.bench.results.differences import Pair
from dnm_sklearn.bench.results.rows import Row
from dnm_sklearn.bench.results.run_groups import RunGroup

# The quantile of the normal distribution that leaves 2.5 % on each side.
_QUANTILE = 1.959964

Interval = tuple[float, float]


def auroc_interval(group: RunGroup, row: Row, ood_group: str) -> Interval | None:
    """Give the 95 % interval of a row's mean AUROC over the sets of a group, fractions.

    None where scores were not kept, or a stream held only some of the images.
    """
    records = [record for record in row.succeeded if record.ood["group"] == ood_group]
    if not records or not all(record.scores for record in records):
        return None

    by_set: dict[str, list[Pair]] = {}
    for record in records:
        by_set.setdefault(record.ood["name"], []).append(group.scores(record))
    return mean_auroc_interval(list(by_set.values()))


def mean_auroc_interval(sets: Sequence[Sequence[Pair]]) -> Interval | None:
    """Give the 95 % interval of the mean AUROC over sets, each with runs on the same images.

    By DeLong's variance on the scale of log-odds, so that its ends stay in [0, 1]; it speaks of the
    chance of the images, not of seeds or of the order of a stream. The sets share their ID images.
    """
    of_ids, aurocs, variance = [], [], 0.0
    for pairs in sets:
        id_shares, ood_shares = [], []
        for ids, oods in pairs:
            for of_id, of_ood in zip(ids, oods, strict=True):
                if np.isnan(of_ood).any() or np.isnan(of_id).any():
                    return None
                # Of each ID image the share of OOD images above it, of each OOD image that of ID
                # images below it.
                id_shares.append(1 - _share_below(of_ood, of_id))
                ood_shares.append(_share_below(of_id, of_ood))

        # Runs on other images than the first cannot be averaged image by image.
        sizes = {(len(won), len(wins)) for won, wins in zip(id_shares, ood_shares, strict=True)}
        if len(sizes) != 1 or min(*sizes.copy().pop()) < 2:
            return None
        of_ood = np.mean(ood_shares, axis=0)
        of_ids.append(np.mean(id_shares, axis=0))
        aurocs.append(float(of_ood.mean()))
        variance += float(of_ood.var(ddof=1)) / len(of_ood)

    if len({len(of_id) for of_id in of_ids}) != 1:
        return None
    # The OOD sets are independent of each other, and the ID images are drawn once for all.
    of_id = np.mean(of_ids, axis=0)
    variance = variance / len(sets) ** 2 + float(of_id.var(ddof=1)) / len(of_id)

    auroc = float(np.mean(aurocs))
    if not 0 < auroc < 1:
        return auroc, auroc
    half = _QUANTILE * math.sqrt(variance) / (auroc * (1 - auroc))
    return float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half))


def _share_below(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Proportion of the scores below each value, an equal one counted half."""
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return below / (2 * len(ordered))
