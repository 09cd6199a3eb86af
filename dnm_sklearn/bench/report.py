"""Tables, made from records only."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.bench.records import EACH_ROW, Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# metric -> header lines (the definition is part of the header)
METRICS = {
    "auroc": ("AUROC", ""),
    "fpr95_id_positive": ("FPR95", "ID+"),
    "fpr95_ood_positive": ("FPR95", "OOD+"),
    "aupr_id_positive": ("AUPR", "ID+"),
    "aupr_ood_positive": ("AUPR", "OOD+"),
}
GROUPS = ("near", "far")
LEGEND = (
    "All in percent. FPR95 ID+ (ID positive, the papers'): share of OOD accepted where 95 % of ID is. "
    "FPR95 OOD+ (OOD positive): share of ID flagged where 95 % of OOD is. AUPR by the positive class. "
    "near, far: means over the sets of that group. ID images: seen at fit. Stream: whether an image's score "
    "depends on other test images. Seconds: fit and scoring, without encoding images and texts."
)


@dataclass
class Row:
    """One line of a table: a method under one configuration.

    Parameters
    ----------
    label, method, kind : str
        As in the records.
    seed : int
        As in the records.
    records : list of Record
        One for each OOD set.
    """

    label: str
    method: str
    kind: str
    seed: int
    records: list[Record] = field(default_factory=list)

    @property
    def error(self) -> str:
        """Why the method failed, or an empty string."""
        return next((r.error for r in self.records if r.status != "ok"), "")

    @property
    def seconds(self) -> float:
        """Fit and scoring of all sets, without encoding images and texts."""
        first = self.records[0].seconds
        scoring = sum(r.seconds.get("score_ood", 0.0) for r in self.records)
        return first.get("fit", 0.0) + first.get("score_id", 0.0) + scoring

    def value(self, metric: str, ood: str) -> float | None:
        """Return a metric on one OOD set, a fraction, or None."""
        found = (r.metrics.get(metric) for r in self.records if r.ood["name"] == ood)
        return next(found, None)

    def mean(self, metric: str, group: str) -> float | None:
        """Return the mean of a metric over the sets of a group, a fraction, or None."""
        values = [r.metrics[metric] for r in self.records if r.ood["group"] == group and r.status == "ok"]
        return float(np.mean(values)) if values else None


def build_rows(records: Sequence[Record]) -> list[Row]:
    """Group records into the rows of a table.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.

    Returns
    -------
    list of Row
        In the order of the records.

    Examples
    --------
    >>> from dnm_sklearn.bench.report import build_rows
    >>> build_rows([])
    []
    """
    rows: dict[Any, Row] = {}
    for r in records:
        key = (r.method, r.label, r.seed, r.id_images_used, repr(r.params))
        rows.setdefault(key, Row(r.label, r.method, r.kind, r.seed)).records.append(r)
    return list(rows.values())


def ood_sets(records: Sequence[Record]) -> list[tuple[str, str]]:
    """List (name, group) of the OOD sets of some records.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.

    Returns
    -------
    list of (str, str)
        In the order of the records.

    Examples
    --------
    >>> from dnm_sklearn.bench.report import ood_sets
    >>> ood_sets([])
    []
    """
    return list(dict.fromkeys((r.ood["name"], r.ood["group"]) for r in records))


def to_csv(records: Sequence[Record]) -> str:
    """Write the whole table as CSV.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.

    Returns
    -------
    str
        A line for each method; metrics are fractions in [0, 1] at full precision, columns ``metric:near``,
        ``metric:far`` (means) and ``metric:set``.

    Examples
    --------
    >>> from dnm_sklearn.bench.report import to_csv
    >>> to_csv([]).startswith("suite,method,label")
    True
    """
    sets = [name for name, _ in ood_sets(records)]
    head = [
        "suite",
        "method",
        "label",
        "kind",
        "seed",
        "status",
        "error",
        "id_images_used",
        "sees_test_stream",
    ]
    head += ["scoring", "prompt", "id_accuracy", "seconds"]
    head += [f"{metric}:{group}" for metric in METRICS for group in (*GROUPS, *sets)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in build_rows(records):
        r = row.records[0]
        line = [
            r.suite["name"],
            r.method,
            row.label,
            r.kind,
            r.seed,
            "failed" if row.error else "ok",
            row.error,
        ]
        line += [r.id_images_used, r.sees_test_stream, r.scoring, r.prompt, r.id_accuracy, row.seconds]
        for metric in METRICS:
            line += [row.mean(metric, group) for group in GROUPS]
            line += [row.value(metric, name) for name in sets]
        writer.writerow(["" if value is None else value for value in line])
    return out.getvalue()


def render(records: Sequence[Record], console: Console, *, wide: bool = False) -> None:
    """Show records on a terminal.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.
    console : rich.console.Console
        Where to.
    wide : bool, default=False
        One table with everything, whatever its width; else a table of means and one of the single sets, cut
        into as many as the width needs.

    Examples
    --------
    >>> from rich.console import Console
    >>> from dnm_sklearn.bench.report import render
    >>> render(records, Console())  # doctest: +SKIP
    """
    rows = build_rows(records)
    sets = ood_sets(records)
    groups = [group for group in GROUPS if any(g == group for _, g in sets)]
    first = records[0]
    title = f"{first.suite['name']}: {first.id['n']} ID images, {first.suite['n_classes']} classes"
    columns = _mean_columns(rows, groups)
    if wide:
        columns += [
            (_lines(*METRICS[metric], name), [_percent(row.value(metric, name)) for row in rows])
            for metric in METRICS
            for name, _ in sets
        ]
        width = console.width
        console.width = max(width, 60 + 20 * len(columns))
        console.print(_table(title, rows, columns))
        console.width = width
    else:
        console.print(_table(title, rows, columns))
        for part in _set_tables(rows, sets, console.width):
            console.print(part)
    for row in rows:
        if row.error:
            console.print(f"{row.label} failed: {row.error}", style="red", markup=False, highlight=False)
    for note in _notes(rows, first):
        console.print(note, style="dim", markup=False, highlight=False)


Column = tuple[str, list[str]]


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _table(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("Detector", overflow="fold", max_width=30)
    for head, _ in columns:
        table.add_column(Text(head), justify="right", vertical="bottom", no_wrap=True)
    for i, row in enumerate(rows):
        last = i + 1 == len(rows) or rows[i + 1].kind != row.kind
        table.add_row(Text(row.label), *[Text(cells[i]) for _, cells in columns], end_section=last)
    return table


def _mean_columns(rows: Sequence[Row], groups: Sequence[str]) -> list[Column]:
    columns: list[Column] = [
        (_lines("ID", "images", "used"), [str(row.records[0].id_images_used) for row in rows]),
        (
            _lines("sees", "test", "stream"),
            ["yes" if row.records[0].sees_test_stream else "no" for row in rows],
        ),
    ]
    for metric, head in METRICS.items():
        columns += [(_lines(*head, group), [_percent(row.mean(metric, group)) for row in rows]) for group in groups]
    columns.append(("seconds", ["failed" if row.error else f"{row.seconds:.1f}" for row in rows]))
    return columns


def _set_tables(rows: Sequence[Row], sets: Sequence[tuple[str, str]], width: int) -> list[Table]:
    """Make tables of AUROC and FPR95 (ID positive) a set, as many sets side by side as the width takes."""
    label = min(30, max(len(row.label) for row in rows))
    parts: list[list[Column]] = []
    left = 0
    for name, group in sets:
        cells = [
            f"{_percent(row.value('auroc', name))} / {_percent(row.value('fpr95_id_positive', name))}" for row in rows
        ]
        column = (_lines(name, group), cells)
        needed = max(len(name), *map(len, cells)) + 2
        if not parts or needed > left:
            parts.append([])
            left = width - label - 2
        parts[-1].append(column)
        left -= needed
    title = "AUROC / FPR95 ID+ by OOD set"
    return [_table(title if i == 0 else f"{title}, continued", rows, part) for i, part in enumerate(parts)]


def _notes(rows: Sequence[Row], first: Record) -> list[str]:
    notes = [LEGEND]
    accuracy = sorted({_percent(r.id_accuracy) for row in rows for r in row.records if r.id_accuracy is not None})
    if accuracy:
        notes.append(f"Zero-shot accuracy on the ID images: {' or '.join(accuracy)} %.")
    text = sum(row.records[0].seconds.get("encode_text", 0.0) for row in rows)
    embed = first.seconds.get("embed_images", 0.0)
    notes.append(f"Once for all detectors: images embedded in {embed:.1f} s, texts in {text:.1f} s.")
    notes += [
        f"{row.label}: rows are scored {row.records[0].scoring}." for row in rows if row.records[0].scoring != EACH_ROW
    ]
    notes += [f"{row.label}: {said}" for row in rows for said in row.records[0].warnings]
    if first.suite["note"]:
        notes.append(f"Note: {first.suite['note']}")
    return notes
