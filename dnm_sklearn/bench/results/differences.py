"""Differences of rows to a reference row on the same images, with a paired bootstrap."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dnm_sklearn.bench.results.rows import GROUPS, Row, find_row
from dnm_sklearn.bench.results.run_groups import RunGroup
from dnm_sklearn.metrics import aupr, fpr_at_tpr

# Scores of the ID images (n_runs, n_id) and of one OOD set (n_runs, n_ood); NaN for an OOD image
# that a run did not see.
Pair = tuple[np.ndarray, np.ndarray]

# A metric of one run on the images drawn, from the positions of the ID and of the OOD images.
_Judge = Callable[[np.ndarray, np.ndarray], float]

# One by one, because `ood_metrics` would count all five for each draw; AUROC has a way of its own.
_OTHER_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "fpr95_id_positive": partial(fpr_at_tpr, positive="id"),
    "fpr95_ood_positive": partial(fpr_at_tpr, positive="ood"),
    "aupr_id_positive": partial(aupr, positive="id"),
    "aupr_ood_positive": partial(aupr, positive="ood"),
}


@dataclass(frozen=True)
class Difference:
    """A difference on all images, method minus reference, with the ends of its interval."""

    value: float
    low: float
    high: float


def paired_difference(
    method: Sequence[Pair],
    reference: Sequence[Pair],
    *,
    metric: str = "auroc",
    n_resamples: int = 1000,
) -> Difference:
    """Bootstrap the difference of a metric, averaged over OOD sets and runs (95 %, percentiles).

    Both detectors are judged on the same draw of ID images and of images of each OOD set. The
    interval speaks of the chance of the images, not of that of seeds or of the order of a stream.
    """
    # scipy.stats takes half a second to import, which no other command should wait for.
    from scipy.stats import DegenerateDataWarning, bootstrap

    # Ranks and the like are made once, not for each draw.
    ours = [_judges(pair, metric) for pair in method]
    theirs = [_judges(pair, metric) for pair in reference]

    def difference(id_drawn: np.ndarray, *ood_drawn: np.ndarray) -> float:
        """Compare on some images; NaN if a set has none that the runs saw."""
        of_sets = []
        for our_runs, their_runs, drawn in zip(ours, theirs, ood_drawn, strict=True):
            our_mean = np.mean([judge(id_drawn, drawn) for judge in our_runs])
            their_mean = np.mean([judge(id_drawn, drawn) for judge in their_runs])
            of_sets.append(our_mean - their_mean)
        return float(np.mean(of_sets))

    # What is drawn are positions of images; the ID images are the same in all sets.
    positions = [np.arange(method[0][0].shape[1])]
    positions += [np.arange(oods.shape[1]) for _, oods in method]
    with warnings.catch_warnings():
        # Draws without a metric would spoil scipy's interval, which is not used.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            positions,
            difference,
            vectorized=False,
            paired=False,
            method="percentile",
            n_resamples=n_resamples,
            # All draws at once would be 400 MB for 1,000 of 50,000 images.
            batch=1,
            random_state=0,
        )

    # A draw without any of the OOD images that the runs saw has no metric.
    drawn = found.bootstrap_distribution
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Difference(difference(*positions), float(low), float(high))


def _judges(pair: Pair, metric: str) -> list[_Judge]:
    """Make a function per run from the positions of images to the metric on them."""
    judges = []
    for ids, oods in zip(*pair, strict=True):
        of_run = _auroc_judge(ids, oods) if metric == "auroc" else _judge(ids, oods, metric)
        judges.append(of_run)
    return judges


def _judge(ids: np.ndarray, oods: np.ndarray, metric: str) -> _Judge:
    """Make a function that scikit-learn counts a metric for."""

    def judge(id_drawn: np.ndarray, ood_drawn: np.ndarray) -> float:
        seen = oods[ood_drawn]
        seen = seen[~np.isnan(seen)]
        if not len(seen):
            return float("nan")
        is_ood = np.repeat([False, True], [len(id_drawn), len(seen)])
        return _OTHER_METRICS[metric](np.concatenate([ids[id_drawn], seen]), is_ood)

    return judge


def _auroc_judge(ids: np.ndarray, oods: np.ndarray) -> _Judge:
    """Make a function that counts AUROC from ranks: a thousand draws sort the scores once."""
    levels, ranks = np.unique(np.concatenate([ids, oods]), return_inverse=True)
    id_ranks, ood_ranks = ranks[: len(ids)], ranks[len(ids) :]
    seen = ~np.isnan(oods)

    def judge(id_drawn: np.ndarray, ood_drawn: np.ndarray) -> float:
        id_counts = np.bincount(id_ranks[id_drawn], minlength=len(levels))
        ood_drawn = ood_drawn[seen[ood_drawn]]
        if not len(ood_drawn):
            return float("nan")

        # Pairs that an OOD image wins, an equal score counted half.
        below = np.cumsum(id_counts) - id_counts / 2
        return float(below[ood_ranks[ood_drawn]].mean() / len(id_drawn))

    return judge


# By group of OOD sets the difference of each row by its position, or the reason why there is none;
# an empty string for the reference itself.
Differences = dict[str, dict[int, Difference | str]]


def differences(
    group: RunGroup, reference: str, *, metric: str = "auroc", n_resamples: int = 1000
) -> Differences:
    """Bootstrap the difference of every row to the row `reference` (a label or a method's name).

    Where a stream held only some OOD images ("rare-ood"), both rows are judged on the images of
    each order.
    """
    rows, sets = group.rows, group.ood_sets
    base = rows.index(find_row(rows, reference))

    found: Differences = {}
    for ood_group in GROUPS:
        names = [name for name, its_group in sets if its_group == ood_group]
        if not names:
            continue
        theirs = _read_scores(group, rows[base], names)
        found[ood_group] = {base: ""}

        for i, row in enumerate(rows):
            if i == base:
                continue
            pairs = _on_the_same_images(_read_scores(group, row, names), theirs)
            if isinstance(pairs, str):
                found[ood_group][i] = pairs
                continue
            of_method, of_reference = zip(*pairs, strict=True)
            found[ood_group][i] = paired_difference(
                of_method, of_reference, metric=metric, n_resamples=n_resamples
            )
    return found


def _read_scores(group: RunGroup, row: Row, names: Sequence[str]) -> list[list[Pair]]:
    """Read for each OOD set a pair per seed; no pairs where the row failed or was not run."""
    found = []
    for name in names:
        records = [record for record in row.succeeded if record.ood["name"] == name]
        records.sort(key=lambda record: record.seed)
        found.append([group.scores(record) for record in records])
    return found


def _on_the_same_images(
    ours: list[list[Pair]], theirs: list[list[Pair]]
) -> list[tuple[Pair, Pair]] | str:
    """Give for each set the runs of both rows, on the same images; or say why that cannot be."""
    sets = []
    for our_pairs, their_pairs in zip(ours, theirs, strict=True):
        if not (our_pairs and their_pairs):
            return "one of the two failed or was not run on all sets"

        our_sizes = [scores.shape[1] for scores in our_pairs[0]]
        their_sizes = [scores.shape[1] for scores in their_pairs[0]]
        if our_sizes != their_sizes:
            return "the two were not scored on the same images"
        if min(our_sizes) < 2:
            return "a bootstrap needs at least two images of a set"

        # A NaN is an image that was not drawn into a stream.
        if any(np.isnan(oods).any() for _, oods in (*our_pairs, *their_pairs)):
            if len(our_pairs) != len(their_pairs):
                return (
                    "the streams hold some of the images only, and the two were run with different "
                    "seeds"
                )
            matched = [_as_drawn(*pairs) for pairs in zip(our_pairs, their_pairs, strict=True)]
            if any(pairs is None for pairs in matched):
                return "the streams of the two hold different images"
            our_pairs = [pairs[0] for pairs in matched if pairs]
            their_pairs = [pairs[1] for pairs in matched if pairs]

        sets.append((_join_runs(our_pairs), _join_runs(their_pairs)))
    return sets


def _join_runs(pairs: Sequence[Pair]) -> Pair:
    """Put the runs of all seeds one below the other."""
    ids = np.concatenate([ids for ids, _ in pairs])
    oods = np.concatenate([oods for _, oods in pairs])
    return ids, oods


def _as_drawn(one: Pair, other: Pair) -> tuple[Pair, Pair] | None:
    """Bring a row scored once on all images, and one of several streams, to the streams' images.

    None where the two saw different images.
    """
    n = max(len(one[0]), len(other[0]))
    if {len(one[0]), len(other[0])} - {1, n}:
        return None

    # The one run of a row without a stream stands beside each repeat of the other.
    one_ids, one_oods = (np.broadcast_to(scores, (n, scores.shape[1])) for scores in one)
    other_ids, other_oods = (np.broadcast_to(scores, (n, scores.shape[1])) for scores in other)

    one_seen, other_seen = ~np.isnan(one_oods), ~np.isnan(other_oods)
    if not (one_seen.all() or other_seen.all() or (one_seen == other_seen).all()):
        return None
    seen = one_seen & other_seen
    one_oods = np.where(seen, one_oods, np.nan)
    other_oods = np.where(seen, other_oods, np.nan)
    return (one_ids, one_oods), (other_ids, other_oods)
