"""Differences of the rows of a table to a reference row, both judged on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dnm_sklearn.bench.results.bootstrap import Difference, Pair, paired_difference
from dnm_sklearn.bench.results.formats import Block
from dnm_sklearn.bench.results.rows import GROUPS, Row, build_rows, ood_sets
from dnm_sklearn.bench.results.score_files import read_scores

# By group the difference of each row by its position, or why there is none; empty for the reference
# itself.
Differences = dict[str, dict[int, "Difference | str"]]


def differences(
    block: Block, reference: str, *, metric: str = "auroc", n_resamples: int = 1000
) -> Differences:
    """Bootstrap the difference of every row to a reference row, near and far.

    Where a stream held only some OOD images ("rare-ood"), both rows are judged on the images of
    each order.

    Parameters
    ----------
    block : Block
        From :func:`~dnm_sklearn.bench.results.formats.read_blocks`.
    reference : str
        A method's name or its label in the table.
    metric : str, default="auroc"
        Which metric.
    n_resamples : int, default=1000
        Draws.

    Returns
    -------
    dict
        For "near" and "far", as far as there are such sets, the difference of each row by its
        position, or a string that says why there is none; empty for the reference itself.

    Raises
    ------
    RecordError
        If scores that a record names are missing.
    UnknownNameError
        If there is no such row.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.differences import differences
    >>> differences(block, "MCM")  # doctest: +SKIP
    """
    rows = build_rows(block.records)
    base = _find(rows, reference)
    found: Differences = {}
    for group in GROUPS:
        names = [name for name, g in ood_sets(block.records) if g == group]
        if not names:
            continue
        theirs = _scores(block, rows[base], names)
        found[group] = {base: ""}
        for i, row in enumerate(rows):
            if i != base:
                sets = _on_the_same_images(_scores(block, row, names), theirs)
                found[group][i] = (
                    sets if isinstance(sets, str) else _bootstrap(sets, metric, n_resamples)
                )
    return found


def _bootstrap(sets: Sequence[tuple[Pair, Pair]], metric: str, n_resamples: int) -> Difference:
    ours, theirs = zip(*sets, strict=True)
    return paired_difference(ours, theirs, metric=metric, n_resamples=n_resamples)


def _find(rows: Sequence[Row], name: str) -> int:
    from dnm_sklearn.bench.run.registry import UnknownNameError, nearest

    wanted = name.strip().lower()
    for i, row in enumerate(rows):
        if wanted in (
            row.label.lower(),
            row.method.lower(),
            row.method.lower().removesuffix("detector"),
        ):
            return i
    labels = [row.label for row in rows]
    hint = nearest(name, [row.method for row in rows] + labels)
    raise UnknownNameError(
        f"--reference {name!r} is no row of the table.{hint} Rows: {', '.join(labels)}."
    )


def _scores(block: Block, row: Row, names: Sequence[str]) -> list[list[Pair]]:
    """Read the scores of a row: for each set a pair for each seed; no pairs where it failed or was not run."""
    found = []
    for name in names:
        mine = sorted(
            (r for r in row.records if r.ood["name"] == name and r.status == "ok"),
            key=lambda r: r.seed,
        )
        found.append([read_scores(block.folders[r.file_name], r) for r in mine])
    return found


def _on_the_same_images(
    ours: list[list[Pair]], theirs: list[list[Pair]]
) -> list[tuple[Pair, Pair]] | str:
    """Give for each set the runs of both rows, on the same images; or say why that cannot be."""
    sets = []
    for mine, other in zip(ours, theirs, strict=True):
        if not (mine and other):
            return "one of the two failed or was not run on all sets"
        if [a.shape[1] for pair in mine[:1] for a in pair] != [
            a.shape[1] for pair in other[:1] for a in pair
        ]:
            return "the two were not scored on the same images"
        if any(np.isnan(oods).any() for _, oods in (*mine, *other)):
            if len(mine) != len(other):
                return "the streams hold some of the images only, and the two were run with different seeds"
            both = [_as_drawn(a, b) for a, b in zip(mine, other, strict=True)]
            if not all(both):
                return "the streams of the two hold different images"
            mine, other = ([pair[side] for pair in both if pair] for side in (0, 1))
        sets.append((_runs(mine), _runs(other)))
    return sets


def _runs(pairs: Sequence[Pair]) -> Pair:
    ids, oods = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    return ids, oods


def _as_drawn(a: Pair, b: Pair) -> tuple[Pair, Pair] | None:
    """Bring a row that was scored on all images and one of several streams to the images of each stream."""
    n = max(len(a[0]), len(b[0]))
    if {len(a[0]), len(b[0])} - {1, n}:
        return None
    (a_id, a_ood), (b_id, b_ood) = (
        [np.repeat(x, n // len(x), axis=0) for x in pair] for pair in (a, b)
    )
    a_seen, b_seen = ~np.isnan(a_ood), ~np.isnan(b_ood)
    if not (a_seen.all() or b_seen.all() or (a_seen == b_seen).all()):
        return None
    seen = a_seen & b_seen
    return (a_id, np.where(seen, a_ood, np.nan)), (b_id, np.where(seen, b_ood, np.nan))
