"""Tables, made from records only."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.bench.results.records import EACH_ROW, Record, write_text
from dnm_sklearn.bench.results.terminal import Column, make_tables

if TYPE_CHECKING:
    from rich.console import Console

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
    "All in percent. FPR95 ID+ (ID positive, the papers'): share of OOD accepted where 95 % of ID "
    "is. FPR95 OOD+ (OOD positive): share of ID flagged where 95 % of OOD is. AUPR by the positive "
    "class. near, far: means over the sets of that group. ID images: seen at fit. Stream: whether "
    "an image's score depends on other test images. Seconds: fit and scoring, without encoding "
    "images and texts."
)


@dataclass
class Row:
    """One line of a table: a method under one configuration, with all its seeds.

    Parameters
    ----------
    label, method, kind : str
        As in the records.
    records : list of Record
        One for each OOD set and seed.
    """

    label: str
    method: str
    kind: str
    records: list[Record] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """Seeds, in order."""
        return sorted({r.seed for r in self.records})

    @property
    def error(self) -> str:
        """Why the method failed, or an empty string."""
        return next((r.error for r in self.records if r.status != "ok"), "")

    @property
    def seconds(self) -> float:
        """Fit and scoring of all sets, without encoding images and texts; the mean over the seeds."""
        total = 0.0
        for seed in self.seeds:
            mine = [r.seconds for r in self.records if r.seed == seed]
            total += (
                mine[0].get("fit", 0.0)
                + mine[0].get("score_id", 0.0)
                + sum(s.get("score_ood", 0.0) for s in mine)
            )
        return total / max(1, len(self.seeds))

    @property
    def n_runs(self) -> int:
        """Seeds times orders of the stream."""
        return sum(
            max((len(r.runs) for r in self.records if r.seed == seed), default=0)
            for seed in self.seeds
        )

    def values(self, metric: str, ood: str) -> list[float]:
        """Return a metric on one OOD set for every seed and order, fractions."""
        return [run[metric] for r in self.records if r.ood["name"] == ood for run in r.runs]

    def group_values(self, metric: str, group: str) -> list[float]:
        """Return the mean of a metric over the sets of a group for every seed and order, fractions."""
        found = []
        for seed in self.seeds:
            runs = [
                [run[metric] for run in r.runs]
                for r in self.records
                if r.seed == seed and r.ood["group"] == group and r.status == "ok"
            ]
            found += [float(np.mean(of_sets)) for of_sets in zip(*runs, strict=False)]
        return found

    def value(self, metric: str, ood: str) -> float | None:
        """Return a metric on one OOD set, a fraction, or None; the mean over seeds and orders."""
        return _mean(self.values(metric, ood))

    def mean(self, metric: str, group: str) -> float | None:
        """Return the mean of a metric over the sets of a group, a fraction, or None."""
        return _mean(self.group_values(metric, group))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation over runs.

    Parameters
    ----------
    values : sequence of float
        One for each run.

    Returns
    -------
    float or None
        With ``n - 1``; None for fewer than two runs.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.rows import deviation
    >>> deviation([1.0, 3.0]), deviation([1.0])
    (1.4142135623730951, None)
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def build_rows(records: Sequence[Record]) -> list[Row]:
    """Group records into the rows of a table.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.

    Returns
    -------
    list of Row
        In the order of the records; records that differ in the seed only share a row.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.rows import build_rows
    >>> build_rows([])
    []
    """
    rows: dict[Any, Row] = {}
    for r in records:
        params = {key: value for key, value in r.params.items() if key != "random_state"}
        key = (
            r.method,
            r.label,
            r.id_images_used,
            repr(r.id_train),
            r.stream,
            r.n_repeats,
            repr(params),
        )
        rows.setdefault(key, Row(_label(r), r.method, r.kind)).records.append(r)
    return list(rows.values())


def _label(record: Record) -> str:
    return (
        record.label if record.stream in ("", "shuffled") else f"{record.label} [{record.stream}]"
    )


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
    >>> from dnm_sklearn.bench.results.rows import ood_sets
    >>> ood_sets([])
    []
    """
    return list(dict.fromkeys((r.ood["name"], r.ood["group"]) for r in records))


def to_csv(records: Sequence[Record], metrics: Sequence[str] = tuple(METRICS)) -> str:
    """Write the whole table as CSV.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.
    metrics : sequence of str
        Which metrics have columns; all by default.

    Returns
    -------
    str
        A line for each method; metrics are fractions in [0, 1] at full precision, columns
        ``metric:near``, ``metric:far`` (means) and ``metric:set``.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.rows import to_csv
    >>> to_csv([]).startswith("suite,model,method,label")
    True
    """
    sets = [name for name, _ in ood_sets(records)]
    head = [
        "suite",
        "model",
        "method",
        "label",
        "kind",
        "seeds",
        "runs",
        "status",
        "error",
        "id_images_used",
    ]
    head += ["sees_test_stream", "stream", "scoring", "prompt", "id_accuracy", "seconds"]
    columns = [(metric, column) for metric in metrics for column in (*GROUPS, *sets)]
    head += [f"{metric}:{column}" for metric, column in columns]
    head += [f"{metric}:{column}:sd" for metric, column in columns]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in build_rows(records):
        r = row.records[0]
        status = "failed" if row.error else "ok"
        line = [
            r.suite["name"],
            r.model.get("name", ""),
            r.method,
            row.label,
            r.kind,
            " ".join(map(str, row.seeds)),
        ]
        line += [row.n_runs, status, row.error, r.id_images_used, r.sees_test_stream, r.stream]
        line += [r.scoring, r.prompt, r.id_accuracy, row.seconds]
        found = [
            row.group_values(metric, column) if place < len(GROUPS) else row.values(metric, column)
            for metric in metrics
            for place, column in enumerate((*GROUPS, *sets))
        ]
        line += [_mean(values) for values in found]
        line += [deviation(values) for values in found]
        writer.writerow(["" if value is None else value for value in line])
    return out.getvalue()


def write_csv(path: str | os.PathLike[str], records: Sequence[Record]) -> Path:
    """Write :func:`to_csv` into a file, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The file.
    records : sequence of Record
        Of one suite.

    Returns
    -------
    pathlib.Path
        The file.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.rows import write_csv
    >>> write_csv("table.csv", records)  # doctest: +SKIP
    """
    return write_text(path, to_csv(records))


def render(records: Sequence[Record], console: Console, *, wide: bool = False) -> None:
    """Show records on a terminal.

    Parameters
    ----------
    records : sequence of Record
        Of one suite.
    console : rich.console.Console
        Where to.
    wide : bool, default=False
        One table with everything, whatever its width; else a table of means and one of the single
        sets, cut into as many as the width needs.

    Examples
    --------
    >>> from rich.console import Console
    >>> from dnm_sklearn.bench.results.rows import render
    >>> render(records, Console())  # doctest: +SKIP
    """
    rows = build_rows(records)
    sets = ood_sets(records)
    groups = [group for group in GROUPS if any(g == group for _, g in sets)]
    first = records[0]
    title = f"{first.suite['name']}: {first.id['n']} ID images, {first.suite['n_classes']} classes"
    columns = _mean_columns(rows, groups)
    labels = [row.label for row in rows]
    ends = {i for i in range(len(rows) - 1) if rows[i].kind != rows[i + 1].kind}
    if wide:
        columns += [
            (_lines(*METRICS[metric], name), [percent(row.values(metric, name)) for row in rows])
            for metric in METRICS
            for name, _ in sets
        ]
        width = console.width
        console.width = max(width, 60 + 20 * len(columns))
        console.print(*make_tables(title, labels, columns, console.width, ends))
        console.width = width
    else:
        of_sets = _set_columns(rows, sets)
        for part in make_tables(title, labels, columns, console.width, ends):
            console.print(part)
        for part in make_tables(SETS_TITLE, labels, of_sets, console.width, ends):
            console.print(part)
    for row in rows:
        if row.error:
            console.print(
                f"{row.label} failed: {row.error}", style="red", markup=False, highlight=False
            )
    for note in _notes(rows, first):
        console.print(note, style="dim", markup=False, highlight=False)


SETS_TITLE = "AUROC / FPR95 ID+ by OOD set"


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def percent(values: Sequence[float], plus_minus: str = "±") -> str:
    """Write the mean of some runs in percent, with the standard deviation if there are several.

    Parameters
    ----------
    values : sequence of float
        Fractions, one for each run.
    plus_minus : str, default="±"
        What stands between mean and deviation.

    Returns
    -------
    str

    Examples
    --------
    >>> from dnm_sklearn.bench.results.rows import percent
    >>> percent([0.5]), percent([0.5, 0.6]), percent([])
    ('50.0', '55.0±7.1', '-')
    """
    mean, spread = _mean(values), deviation(values)
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + ("" if spread is None else f"{plus_minus}{100 * spread:.1f}")


def _mean_columns(rows: Sequence[Row], groups: Sequence[str]) -> list[Column]:
    columns: list[Column] = [
        (_lines("ID", "images", "used"), [str(row.records[0].id_images_used) for row in rows]),
        (
            _lines("sees", "test", "stream"),
            ["yes" if row.records[0].sees_test_stream else "no" for row in rows],
        ),
    ]
    for metric, head in METRICS.items():
        columns += [
            (_lines(*head, group), [percent(row.group_values(metric, group)) for row in rows])
            for group in groups
        ]
    columns.append(("seconds", ["failed" if row.error else f"{row.seconds:.1f}" for row in rows]))
    return columns


def _set_columns(rows: Sequence[Row], sets: Sequence[tuple[str, str]]) -> list[Column]:
    """AUROC and FPR95 (ID positive) of every set."""
    auroc, fpr = "auroc", "fpr95_id_positive"
    return [
        (
            _lines(name, group),
            [
                f"{percent(row.values(auroc, name))} / {percent(row.values(fpr, name))}"
                for row in rows
            ],
        )
        for name, group in sets
    ]


def _notes(rows: Sequence[Row], first: Record) -> list[str]:
    notes = [LEGEND]
    accuracy = sorted(
        {percent([r.id_accuracy]) for row in rows for r in row.records if r.id_accuracy is not None}
    )
    if accuracy:
        notes.append(f"Zero-shot accuracy on the ID images: {' or '.join(accuracy)} %.")
    text = sum(row.records[0].seconds.get("encode_text", 0.0) for row in rows)
    embed = first.seconds.get("embed_images", 0.0)
    notes.append(
        f"Once for all detectors: images embedded in {embed:.1f} s, texts in {text:.1f} s."
    )
    notes += [
        f"{row.label}: rows are scored {row.records[0].scoring}."
        for row in rows
        if row.records[0].scoring != EACH_ROW
    ]
    notes += [f"{row.label}: {said}" for row in rows for said in row.records[0].warnings]
    if any(row.n_runs > 1 for row in rows):
        notes.append(
            "±: standard deviation over seeds, and for test-time methods over orders of the stream."
        )
    if first.suite["note"]:
        notes.append(f"Note: {first.suite['note']}")
    return notes
