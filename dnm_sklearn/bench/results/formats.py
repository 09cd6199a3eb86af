"""Tables of a run group as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dnm_sklearn._utils.safe_text import csv_row, latex_text, markdown_text
from dnm_sklearn.bench.results.differences import Difference, Differences
from dnm_sklearn.bench.results.ranks import Ranks
from dnm_sklearn.bench.results.records import Record
from dnm_sklearn.bench.results.rows import (
    GROUPS,
    MEANINGS,
    METRICS,
    SHIFTED,
    Row,
    build_rows,
    deviation,
    groups_of,
    mean,
    mean_columns,
    metric_name,
    ood_sets,
    percent,
)
from dnm_sklearn.bench.results.run_groups import RunGroup

# With more OOD sets than these, a table of single sets is cut by group to fit on a page.
_WIDEST = 8


# Fields of a record that have a column of their name in the CSV.
_CSV_FIELDS = ["id_images_used", "sees_test_stream", "stream", "scoring", "prompt", "id_accuracy"]


@dataclass
class Table:
    """A table as text: names of the columns, rows of cells (the row's label first), and notes."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def make_table(
    group: RunGroup,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    differences: Mapping[str, Differences] | None = None,
) -> Table:
    """Lay the means of a run group out as a table.

    `differences` to a reference row stand in columns of their own, under the names given.
    """
    rows = group.rows
    groups = groups_of(group.ood_sets)
    used = [str(row.records[0].id_images_used) for row in rows]
    streams = [_stream(row.records[0]) for row in rows]
    runs = [_runs(row) for row in rows]
    columns = [("ID images used", used), ("sees test stream", streams), ("seeds x orders", runs)]
    for metric, ood_group in mean_columns(metrics, groups):
        cells = [percent(row.group_values(metric, ood_group)) for row in rows]
        columns.append((f"{metric_name(metric)} {ood_group}", cells))

    # A difference stands beside the means that it is of.
    notes = _metric_notes(metrics)
    if SHIFTED in groups:
        notes.append(MEANINGS[SHIFTED])
    for name, of_groups in (differences or {}).items():
        for ood_group, found in of_groups.items():
            cells = [_interval(found[i]) for i in range(len(rows))]
            columns.append((f"{name} {ood_group} [95 % CI]", cells))

    columns.append(("ID accuracy", [_accuracy(row) for row in rows]))
    columns.append(("seconds", ["failed" if row.error else f"{row.seconds:.1f}" for row in rows]))

    notes += _difference_notes(rows, differences or {})
    notes += [f"{row.label} failed: {row.error}" for row in rows if row.error]
    if group.records[0].suite.get("note"):
        notes.append(f"Note: {group.records[0].suite['note']}")
    return _from_columns(group.title, rows, columns, notes)


def make_set_tables(group: RunGroup, *, metrics: Sequence[str] = tuple(METRICS)) -> list[Table]:
    """Lay the OOD sets out as one table per metric, or for many sets per metric and group."""
    rows, sets = group.rows, group.ood_sets
    cut = len(sets) > _WIDEST
    ood_groups = dict.fromkeys(ood_group for _, ood_group in sets) if cut else [""]

    tables = []
    for metric in metrics:
        for ood_group in ood_groups:
            columns = []
            for name, its_group in sets:
                if cut and its_group != ood_group:
                    continue
                head = name if cut else f"{name} ({its_group})"
                columns.append((head, [percent(row.values(metric, name)) for row in rows]))
            what = f"{ood_group} OOD set" if cut else "OOD set"
            title = f"{metric_name(metric)} by {what}, {group.title}"
            tables.append(_from_columns(title, rows, columns, _metric_notes([metric])))
    return tables


def to_csv(records: Sequence[Record], metrics: Sequence[str] = tuple(METRICS)) -> str:
    """Write the whole table of one suite as CSV, one line per method.

    Metrics are fractions in [0, 1], unrounded: columns ``metric:near`` and ``metric:far`` (means),
    ``auroc:shifted`` and ``flagged:shifted``, ``metric:set``, and each of them with
    ``:sd`` for the standard deviation.
    """
    means = mean_columns(metrics, (*GROUPS, SHIFTED))
    singles = [(metric, name) for metric in metrics for name, _ in ood_sets(records)]
    lines = []
    for row in build_rows(records):
        first = row.records[0]
        line: dict[str, Any] = {
            "suite": first.suite["name"],
            "model": first.model.get("name", ""),
            "method": first.method,
            "label": row.label,
            "kind": first.kind,
            "seeds": " ".join(map(str, row.seeds)),
            "runs": row.n_runs,
            "status": "failed" if row.error else "ok",
            "error": row.error,
        }
        line |= {name: getattr(first, name) for name in _CSV_FIELDS}
        line["seconds"] = row.seconds
        # All means, then all deviations.
        values = {f"{key}:{group}": row.group_values(key, group) for key, group in means}
        values |= {f"{key}:{name}": row.values(key, name) for key, name in singles}
        line |= {name: mean(of_runs) for name, of_runs in values.items()}
        line |= {f"{name}:sd": deviation(of_runs) for name, of_runs in values.items()}
        lines.append(line)

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(csv_row(lines[0]))
    writer.writerows(csv_row(line.values()) for line in lines)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """Write a table as Markdown."""
    rule = "|---|" + "--:|" * (len(table.head) - 1)
    lines = [f"**{markdown_text(table.title)}**", "", _markdown_row(table.head), rule]
    lines += [_markdown_row(row) for row in table.rows]
    lines.append("")
    lines += [f"{markdown_text(note)}\n" for note in table.notes]
    return "\n".join(lines)


def to_latex(table: Table) -> str:
    """Write a table as LaTeX (``booktabs``)."""
    columns = "l" + "r" * (len(table.head) - 1)
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(table.head), r"\midrule"]
    lines += [_latex_row(row) for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]

    caption = " ".join([f"{table.title}.", *table.notes])
    lines += [rf"\caption{{{latex_text(caption)}}}", r"\end{table}", ""]
    return "\n".join(lines)


def _from_columns(
    title: str, rows: Sequence[Row], columns: Sequence[tuple[str, list[str]]], notes: list[str]
) -> Table:
    """Turn columns (name and cells) into a table of rows."""
    head = ["Detector", *(name for name, _ in columns)]
    lines = []
    for i, row in enumerate(rows):
        lines.append([row.label, *(cells[i] for _, cells in columns)])
    return Table(title, head, lines, notes)


def make_rank_table(ranks: Ranks, metric: str) -> Table:
    """Lay mean ranks out as a table, each method with those that it differs from."""
    rows = []
    for i, label in enumerate(ranks.labels):
        worse = [
            other for j, other in enumerate(ranks.labels) if ranks.pairs[i, j] < 0.05 and j > i
        ]
        best = ranks.pairs[0, i] if i else float("nan")
        cells = [f"{ranks.mean_ranks[i]:.2f}", f"{best:.3f}" if i else "-", ", ".join(worse) or "-"]
        rows.append([label, *cells])

    notes = [
        f"Ranks by {metric_name(metric)} on {len(ranks.sets)} OOD sets: {', '.join(ranks.sets)}.",
        f"Friedman's test that all methods are alike: p = {ranks.p_value:.3g}.",
        "p against the first: by the difference of mean ranks, all pairs corrected by Holm.",
    ]
    head = ["Method", "mean rank", "p against the first", "better than (p < 0.05)"]
    return Table(f"Mean ranks over {len(ranks.sets)} OOD sets", head, rows, notes)


def _metric_notes(metrics: Sequence[str]) -> list[str]:
    """Say what the numbers of some metrics mean."""
    notes = [
        "All in percent; ± is the standard deviation over seeds and, for methods that see the test "
        "stream, its orders."
    ]
    meanings = " ".join(MEANINGS[metric] for metric in metrics if metric in MEANINGS)
    return [*notes, meanings] if meanings else notes


def _difference_notes(rows: Sequence[Row], differences: Mapping[str, Differences]) -> list[str]:
    """Say which rows have no difference to the reference, and why."""
    labels: dict[str, list[str]] = {}
    for of_groups in differences.values():
        for found in of_groups.values():
            for i, reason in found.items():
                # The reference itself has an empty string: nothing is missing.
                if isinstance(reason, str) and reason:
                    labels.setdefault(reason, []).append(rows[i].label)

    notes = []
    for reason, found_labels in labels.items():
        shown = ", ".join(dict.fromkeys(found_labels))
        notes.append(f"No difference for {shown}: {reason}.")
    if differences and any(row.records[0].stream == "rare-ood" for row in rows):
        notes.append(
            "A difference of or to a row of the stream rare-ood is over the OOD images that were "
            "drawn for each order, so it is not that of the means shown."
        )
    return notes


def _stream(record: Record) -> str:
    return record.stream or ("yes" if record.sees_test_stream else "no")


def _runs(row: Row) -> str:
    """Return "seeds x orders" of a method with a stream, and the number of seeds of others."""
    n_orders = max(len(record.runs) for record in row.records)
    return f"{len(row.seeds)} x {n_orders}" if row.records[0].stream else str(len(row.seeds))


def _accuracy(row: Row) -> str:
    known = [record.id_accuracy for record in row.records if record.id_accuracy is not None]
    return f"{100 * np.mean(known):.1f}" if known else "-"


def _interval(found: Difference | str) -> str:
    if isinstance(found, str) or not math.isfinite(found.value):
        return "-"
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"
