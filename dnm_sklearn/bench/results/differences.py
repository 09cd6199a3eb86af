"""Differences of the rows of a table to a reference row, both judged on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnm_sklearn.bench.results.bootstrap import Difference, Pair, paired_difference
from dnm_sklearn.bench.results.rows import GROUPS, Row, find_row
from dnm_sklearn.bench.results.run_groups import RunGroup

# By group of OOD sets the difference of each row by its position, or the reason why there is none;
# an empty string for the reference itself.
Differences = dict[str, dict[int, "Difference | str"]]


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
