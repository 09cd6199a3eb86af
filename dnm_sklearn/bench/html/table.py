"""The result table of a report: columns that a click sorts, and narrow tables for paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dnm_sklearn.bench.html.summary import interval_text
from dnm_sklearn.bench.results.intervals import auroc_interval
from dnm_sklearn.bench.results.rows import (
    FLAGGED,
    METRICS,
    SHIFTED,
    deviation,
    groups_of,
    mean_columns,
    metric_name,
)
from dnm_sklearn.bench.results.run_groups import RunGroup

# Columns of single sets that fit on paper beside the names of the methods.
_SETS_ON_PAPER = 6

# The metrics that have a column per OOD set.
_SET_METRICS = ("auroc", "fpr95_id_positive")


@dataclass(frozen=True)
class Cell:
    """A cell: what is shown, what it is sorted by, and whether it is the best of its column.

    `detail` stands below in small letters: an interval, or a standard deviation.
    """

    text: str
    value: str
    best: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Column:
    """A column with one cell per row; `of_set` columns stand in the narrow tables on paper."""

    head: str
    cells: list[Cell]

    # "number" or "text", and for numbers whether "low" or "high" ones are better (and come first).
    kind: str = "number"
    better: str = ""
    of_set: bool = False


@dataclass(frozen=True)
class PaperTable:
    """Some OOD sets by one metric."""

    title: str
    columns: list[Column]


def result_columns(group: RunGroup) -> list[Column]:
    """Lay out what a method saw, its means, its values on single sets, and its time."""
    rows, sets = group.rows, group.ood_sets
    used, streams = [], []
    for row in rows:
        n_images = str(row.records[0].id_images_used)
        used.append(Cell(n_images, n_images))
        stream = "yes" if row.records[0].sees_test_stream else "no"
        streams.append(Cell(stream, stream))
    columns = [
        Column("ID\nimages", used, better="low"),
        Column("Stream", streams, kind="text"),
    ]

    for metric, ood_group in mean_columns(tuple(METRICS), groups_of(sets)):
        values = [row.group_mean(metric, ood_group) for row in rows]
        head = f"{metric_name(metric)}\n{ood_group}"
        details = _details(group, metric, ood_group)
        columns.append(_percent_column(head, metric, values, ood_group, details=details))
    for name, ood_group in sets:
        for metric in _SET_METRICS:
            values = [row.value(metric, name) for row in rows]
            head = f"{metric_name(metric)}\n{name} ({ood_group})"
            columns.append(_percent_column(head, metric, values, ood_group, of_set=True))

    costs = [row.milliseconds_per_image for row in rows]
    columns.append(_number_column("ms per\nimage", costs, 3, "low"))
    seconds = [None if row.error else row.seconds for row in rows]
    columns.append(_number_column("fit and score\nseconds", seconds, 1, "low"))
    return columns


def _details(group: RunGroup, metric: str, ood_group: str) -> list[str]:
    """Write below each mean how far to trust it: an interval of AUROC, else the spread of runs."""
    details = []
    for row in group.rows:
        interval = auroc_interval(group, row, ood_group) if metric == "auroc" else None
        spread = deviation(row.group_values(metric, ood_group))
        if interval is not None:
            details.append(interval_text(interval))
        else:
            details.append("" if spread is None else f"±{100 * spread:.1f}")
    return details


def paper_tables(group: RunGroup) -> list[PaperTable]:
    """Cut the single sets into tables as wide as paper; on the screen the wide table scrolls."""
    rows, sets = group.rows, group.ood_sets
    tables = []
    for metric in _SET_METRICS:
        for first in range(0, len(sets), _SETS_ON_PAPER):
            columns = []
            for name, ood_group in sets[first : first + _SETS_ON_PAPER]:
                values = [row.value(metric, name) for row in rows]
                head = f"{name} ({ood_group})"
                columns.append(_percent_column(head, metric, values, ood_group))
            tables.append(PaperTable(metric_name(metric), columns))
    return tables


def _percent_column(
    head: str,
    metric: str,
    values: Sequence[float | None],
    ood_group: str,
    **more: Any,
) -> Column:
    """Lay out fractions as percentages with one decimal."""
    percent = [None if value is None else 100 * value for value in values]
    better = "low" if metric.startswith("fpr") else "high"
    if ood_group == SHIFTED:
        # Images of ID classes should be accepted, but neither end of AUROC is best.
        better = {"fpr95_id_positive": "high", FLAGGED: "low"}.get(metric, "")
    return _number_column(head, percent, 1, better, **more)


def _number_column(
    head: str,
    values: Sequence[float | None],
    decimals: int,
    better: str,
    *,
    of_set: bool = False,
    details: Sequence[str] | None = None,
) -> Column:
    """Lay out numbers, and mark the best ones; a row without one has an empty value."""
    # What looks equal in the table is equally good; one number alone is not the best of anything.
    rounded = [round(value, decimals) for value in values if value is not None]
    best = None
    if len(rounded) > 1 and better:
        best = min(rounded) if better == "low" else max(rounded)

    cells = []
    for value, detail in zip(values, details or [""] * len(values), strict=True):
        if value is None:
            cells.append(Cell("-", "", detail=detail))
        else:
            is_best = round(value, decimals) == best
            cells.append(Cell(f"{value:.{decimals}f}", repr(float(value)), is_best, detail))
    return Column(head, cells, better=better, of_set=of_set)
