"""Results on a terminal: tables that are cut into as many as its width needs, and notes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.bench.results.records import EACH_ROW, Record
from dnm_sklearn.bench.results.rows import (
    MEANINGS,
    METRICS,
    Row,
    build_rows,
    groups_of,
    mean_columns,
    metric_head,
    metric_name,
    ood_sets,
    percent,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Head, whose lines are separated by line ends, and cells.
Column = tuple[str, list[str]]

_LABEL_WIDTH = 30
_LEGEND = (
    f"All in percent. {' '.join(MEANINGS.values())} AUPR by the positive class. near, far: means "
    "over the sets of that group. ID images: seen at fit. Stream: whether an image's score depends "
    "on other test images. Seconds: fit and scoring, without encoding images and texts."
)


def print_results(records: Sequence[Record], console: Console, *, wide: bool = False) -> None:
    """Show the records of one suite: means, single sets and notes.

    With `wide` one table holds every metric of every set, whatever the terminal's width.
    """
    rows, sets, first = build_rows(records), ood_sets(records), records[0]
    labels = [row.label for row in rows]
    title = f"{first.suite['name']}: {first.id['n']} ID images, {first.suite['n_classes']} classes"

    # A line below the last row of each kind keeps detectors and baselines apart.
    kinds = [row.kind for row in rows]
    ends = {i for i in range(len(rows) - 1) if kinds[i] != kinds[i + 1]}

    columns = _mean_columns(rows, groups_of(sets))
    if wide:
        columns += _all_set_columns(rows, sets)
        width = console.width
        console.width = max(width, 60 + 20 * len(columns))
        console.print(*make_tables(title, labels, columns, console.width, ends))
        console.width = width
    else:
        of_sets = _set_columns(rows, sets)
        set_title = f"{metric_name('auroc')} / {metric_name('fpr95_id_positive')} by OOD set"
        for table in make_tables(title, labels, columns, console.width, ends):
            console.print(table)
        for table in make_tables(set_title, labels, of_sets, console.width, ends):
            console.print(table)

    # Names and errors are text, not markup of the console.
    for row in rows:
        if row.error:
            text = f"{row.label} failed: {row.error}"
            console.print(visible(text), style="red", markup=False, highlight=False)
    for note in _notes(rows, first):
        console.print(visible(note), style="dim", markup=False, highlight=False)


def make_tables(
    title: str,
    labels: Sequence[str],
    columns: Sequence[Column],
    width: int,
    ends: Collection[int] = (),
) -> list[Table]:
    """Make one table, or as many as `width` needs, each with the labels of all rows.

    A line is drawn below each row in `ends`.
    """
    label_width = min(_LABEL_WIDTH, max(map(len, labels)))

    # The columns of each table: one that does not fit any more begins the next table.
    parts: list[list[Column]] = [[]]
    remaining = width - label_width - 2
    for column in columns:
        head, cells = column
        needed = max(map(len, (*head.split("\n"), *cells))) + 2
        if needed > remaining and parts[-1]:
            parts.append([])
            remaining = width - label_width - 2
        parts[-1].append(column)
        remaining -= needed

    tables = []
    for number, part in enumerate(parts):
        part_title = title if number == 0 else f"{title}, continued"
        tables.append(_make_table(part_title, labels, part, label_width, ends))
    return tables


def _make_table(
    title: str,
    labels: Sequence[str],
    columns: Sequence[Column],
    label_width: int,
    ends: Collection[int],
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(visible(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("Detector", overflow="fold", min_width=label_width, max_width=_LABEL_WIDTH)
    for head, _ in columns:
        table.add_column(Text(visible(head)), justify="right", vertical="bottom", no_wrap=True)

    for i, label in enumerate(labels):
        cells = [Text(visible(column[i])) for _, column in columns]
        table.add_row(Text(visible(label)), *cells, end_section=i in ends)
    return table


def _mean_columns(rows: Sequence[Row], groups: Sequence[str]) -> list[Column]:
    """Columns of what a method saw, of the means over groups of sets, and of the time."""
    used = [str(row.records[0].id_images_used) for row in rows]
    streams = ["yes" if row.records[0].sees_test_stream else "no" for row in rows]
    columns = [("ID\nimages\nused", used), ("sees\ntest\nstream", streams)]

    for metric, group in mean_columns(tuple(METRICS), groups):
        cells = [percent(row.group_values(metric, group)) for row in rows]
        columns.append((_head(*metric_head(metric), group), cells))

    columns.append(("seconds", ["failed" if row.error else f"{row.seconds:.1f}" for row in rows]))
    return columns


def _set_columns(rows: Sequence[Row], sets: Sequence[tuple[str, str]]) -> list[Column]:
    """One column per set: AUROC and FPR95 (ID positive)."""
    columns = []
    for name, group in sets:
        cells = []
        for row in rows:
            auroc = percent(row.values("auroc", name))
            fpr = percent(row.values("fpr95_id_positive", name))
            cells.append(f"{auroc} / {fpr}")
        columns.append((_head(name, group), cells))
    return columns


def _all_set_columns(rows: Sequence[Row], sets: Sequence[tuple[str, str]]) -> list[Column]:
    """One column per metric and set."""
    columns = []
    for metric, head in METRICS.items():
        for name, _ in sets:
            cells = [percent(row.values(metric, name)) for row in rows]
            columns.append((_head(*head, name), cells))
    return columns


def _head(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _notes(rows: Sequence[Row], first: Record) -> list[str]:
    """Say below the tables what the numbers mean, what the methods warned of, and how they ran."""
    notes = [_LEGEND]

    accuracies = set()
    for row in rows:
        known = [record.id_accuracy for record in row.records if record.id_accuracy is not None]
        accuracies |= {percent([accuracy]) for accuracy in known}
    if accuracies:
        shown = " or ".join(sorted(accuracies))
        notes.append(f"Zero-shot accuracy on the ID images: {shown} %.")

    # Images and texts are embedded for all methods together.
    text = sum(row.records[0].seconds.get("encode_text", 0.0) for row in rows)
    images = first.seconds.get("embed_images", 0.0)
    notes.append(
        f"Once for all detectors: images embedded in {images:.1f} s, texts in {text:.1f} s."
    )

    for row in rows:
        if row.records[0].scoring != EACH_ROW:
            notes.append(f"{row.label}: rows are scored {row.records[0].scoring}.")
    for row in rows:
        notes += [f"{row.label}: {warning}" for warning in row.records[0].warnings]

    if any(row.n_runs > 1 for row in rows):
        notes.append(
            "±: standard deviation over seeds, and for test-time methods over orders of the stream."
        )
    if first.suite["note"]:
        notes.append(f"Note: {first.suite['note']}")
    return notes
