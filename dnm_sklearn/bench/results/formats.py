"""Tables of a run folder for papers and pages: Markdown, LaTeX, terminal, with differences to a reference."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.bench.results.records import Record, RecordError, read_record
from dnm_sklearn.bench.results.rows import GROUPS, METRICS, Row, build_rows, ood_sets, percent

if TYPE_CHECKING:
    from dnm_sklearn.bench.results.bootstrap import Difference
    from dnm_sklearn.bench.results.differences import Differences


@dataclass
class Block:
    """The records of one suite under one model, with where their scores are.

    Parameters
    ----------
    records : list of Record
        Oldest first.
    folders : dict of str to Path
        Folder of each record's file, by the file's name.
    """

    records: list[Record] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Suite, sizes and model."""
        first = self.records[0]
        name = first.model.get("name") or first.model["fingerprint"][:8]
        sizes = f"{first.id['n']} ID images, {first.suite['n_classes']} classes"
        return f"{first.suite['name']}: {sizes}, {name}"


def read_blocks(folders: Sequence[str | os.PathLike[str]]) -> list[Block]:
    """Read run folders, and sort their records by suite and model.

    Parameters
    ----------
    folders : sequence of path-like
        Folders given to ``dnm-bench run -o``, or their ``records``.

    Returns
    -------
    list of Block
        In the order of the oldest records.

    Raises
    ------
    RecordError
        If a folder is missing or holds no record, or a record is damaged or of a newer version.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.formats import read_blocks
    >>> blocks = read_blocks(["results"])  # doctest: +SKIP
    """
    found: list[tuple[Record, Path]] = []
    for folder in map(Path, folders):
        where = folder / "records" if (folder / "records").is_dir() else folder
        if not where.is_dir():
            raise RecordError(
                f"{folder}: there is no such run folder; give what 'dnm-bench run -o' was given."
            )
        paths = sorted(where.glob("*.json"))
        if not paths:
            raise RecordError(
                f"{folder} holds no records; give a folder that 'dnm-bench run -o' wrote."
            )
        found += [(read_record(path), where) for path in paths]
    blocks: dict[Any, Block] = {}
    for record, where in sorted(found, key=lambda pair: pair[0].created):
        suite = record.suite
        same = (
            suite["name"],
            suite["classes_digest"],
            record.model["fingerprint"],
            repr(record.id),
        )
        block = blocks.setdefault(same, Block())
        if record.file_name not in block.folders:
            block.records.append(record)
        block.folders[record.file_name] = where
    return list(blocks.values())


@dataclass
class Grid:
    """A table as text.

    Parameters
    ----------
    title : str
        Above the table.
    head : list of str
        Names of the columns.
    lines : list of list of str
        Cells, the row's label first.
    notes : list of str
        Below the table.
    """

    title: str
    head: list[str]
    lines: list[list[str]]
    notes: list[str] = field(default_factory=list)


def make_grid(
    block: Block,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    differences: Mapping[str, Differences] | None = None,
    plus_minus: str = "±",
) -> Grid:
    """Lay the means of a block out as a table.

    Parameters
    ----------
    block : Block
        From :func:`read_blocks`.
    metrics : sequence of str
        Which metrics have columns; all by default.
    differences : mapping of str to dict, optional
        From :func:`dnm_sklearn.bench.results.differences.differences`, by the head of their
        columns.
    plus_minus : str, default="±"
        Between mean and standard deviation.

    Returns
    -------
    Grid

    Examples
    --------
    >>> from dnm_sklearn.bench.results.formats import make_grid, read_blocks
    >>> make_grid(read_blocks(["results"])[0]).head  # doctest: +SKIP
    """
    rows, all_sets = build_rows(block.records), ood_sets(block.records)
    groups = [group for group in GROUPS if any(g == group for _, g in all_sets)]
    columns: list[tuple[str, list[str]]] = [
        ("ID images used", [str(row.records[0].id_images_used) for row in rows]),
        ("sees test stream", [_stream(row.records[0]) for row in rows]),
        ("seeds x orders", [_runs(row) for row in rows]),
    ]
    for metric in metrics:
        columns += [
            (
                f"{_name(metric)} {group}",
                [percent(row.group_values(metric, group), plus_minus) for row in rows],
            )
            for group in groups
        ]
    missing: dict[str, list[str]] = {}
    for head, by_group in (differences or {}).items():
        for group, found in by_group.items():
            columns.append(
                (f"{head} {group} [95 % CI]", [_interval(found[i]) for i in range(len(rows))])
            )
            for i, why in found.items():
                if (
                    isinstance(why, str)
                    and why
                    and rows[i].label not in missing.setdefault(why, [])
                ):
                    missing[why].append(rows[i].label)
    accuracies = [[r.id_accuracy for r in row.records if r.id_accuracy is not None] for row in rows]
    columns.append(("ID accuracy", [f"{100 * np.mean(a):.1f}" if a else "-" for a in accuracies]))
    columns.append(("seconds", ["failed" if row.error else f"{row.seconds:.1f}" for row in rows]))
    notes = _notes(metrics)
    notes += [f"No difference for {', '.join(labels)}: {why}." for why, labels in missing.items()]
    if differences and any(row.records[0].stream == "rare-ood" for row in rows):
        notes.append(
            "A difference of or to a row of the stream rare-ood is over the OOD images that were "
            "drawn for each order, so it is not that of the means shown."
        )
    notes += [f"{row.label} failed: {row.error}" for row in rows if row.error]
    if block.records[0].suite.get("note"):
        notes.append(f"Note: {block.records[0].suite['note']}")
    return _grid(block.title, rows, columns, notes)


def make_set_grids(
    block: Block, *, metrics: Sequence[str] = tuple(METRICS), plus_minus: str = "±"
) -> list[Grid]:
    """Lay the single OOD sets of a block out as a table for each metric.

    Parameters
    ----------
    block : Block
        From :func:`read_blocks`.
    metrics : sequence of str
        Which; all by default.
    plus_minus : str, default="±"
        Between mean and standard deviation.

    Returns
    -------
    list of Grid
        With more than eight sets, one for each metric and group.

    Examples
    --------
    >>> from dnm_sklearn.bench.results.formats import make_set_grids, read_blocks
    >>> [grid.title for grid in make_set_grids(read_blocks(["results"])[0])]  # doctest: +SKIP
    """
    rows, sets = build_rows(block.records), ood_sets(block.records)
    parts: list[tuple[str, list[tuple[str, str]]]] = [("OOD set", sets)]
    if len(sets) > _WIDEST:
        groups = dict.fromkeys(group for _, group in sets)
        parts = [
            (f"{group} OOD set", [(name, g) for name, g in sets if g == group]) for group in groups
        ]
    found = []
    for metric in metrics:
        for what, members in parts:
            columns = [
                (
                    name if len(parts) > 1 else f"{name} ({group})",
                    [percent(row.values(metric, name), plus_minus) for row in rows],
                )
                for name, group in members
            ]
            title = f"{_name(metric)} by {what}, {block.title}"
            found.append(_grid(title, rows, columns, _notes([metric])))
    return found


_WIDEST = 8
_MEANINGS = {
    "fpr95_id_positive": "FPR95 ID+: share of OOD images accepted where 95 % of the ID images are.",
    "fpr95_ood_positive": "FPR95 OOD+: share of ID images flagged where 95 % of the OOD images are.",
}


def _grid(
    title: str, rows: Sequence[Row], columns: Sequence[tuple[str, list[str]]], notes: list[str]
) -> Grid:
    lines = [[row.label, *[cells[i] for _, cells in columns]] for i, row in enumerate(rows)]
    return Grid(title, ["Detector", *[head for head, _ in columns]], lines, notes)


def _notes(metrics: Sequence[str]) -> list[str]:
    first = (
        "All in percent; ± is the standard deviation over seeds and, for methods that see the test "
        "stream, its orders."
    )
    meanings = " ".join(text for metric, text in _MEANINGS.items() if metric in metrics)
    return [first, meanings] if meanings else [first]


def _name(metric: str) -> str:
    return " ".join(METRICS[metric]).strip()


def _stream(record: Record) -> str:
    return record.stream or ("yes" if record.sees_test_stream else "no")


def _runs(row: Row) -> str:
    orders = max(len(r.runs) for r in row.records)
    return f"{len(row.seeds)} x {orders}" if row.records[0].stream else str(len(row.seeds))


def _interval(found: Difference | str) -> str:
    if isinstance(found, str) or not math.isfinite(found.value):
        return "-"
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def to_markdown(grid: Grid) -> str:
    r"""Write a table as Markdown.

    Parameters
    ----------
    grid : Grid
        The table.

    Returns
    -------
    str

    Examples
    --------
    >>> from dnm_sklearn.bench.results.formats import Grid, to_markdown
    >>> print(to_markdown(Grid("t", ["a", "b"], [["x|y", "1"]])))
    **t**
    <BLANKLINE>
    | a | b |
    |---|--:|
    | x\|y | 1 |
    <BLANKLINE>
    """

    def clean(text: str) -> str:
        for char in "\\`*_[]<>|":
            text = text.replace(char, "\\" + char)
        return " ".join(text.split())

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(clean, cells)) + " |"

    rule = "|---|" + "--:|" * (len(grid.head) - 1)
    parts = [f"**{clean(grid.title)}**", "", line(grid.head), rule, *map(line, grid.lines), ""]
    parts += [f"{clean(note)}\n" for note in grid.notes]
    return "\n".join(parts)


_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def to_latex(grid: Grid) -> str:
    r"""Write a table as LaTeX (``booktabs``).

    Parameters
    ----------
    grid : Grid
        The table.

    Returns
    -------
    str

    Examples
    --------
    >>> from dnm_sklearn.bench.results.formats import Grid, to_latex
    >>> r"50.0 $\pm$ 1" in to_latex(Grid("t", ["a", "b"], [["x", "50.0 ± 1"]]))
    True
    """

    def clean(text: str) -> str:
        return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(clean, cells)) + r" \\"

    columns = "l" + "r" * (len(grid.head) - 1)
    parts = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    parts += [
        r"\toprule",
        line(grid.head),
        r"\midrule",
        *map(line, grid.lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    caption = " ".join([f"{grid.title}.", *grid.notes])
    return "\n".join([*parts, rf"\caption{{{clean(caption)}}}", r"\end{table}", ""])
