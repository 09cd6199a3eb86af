"""Tables of a run folder for papers and pages: Markdown, LaTeX, terminal, with differences to a reference."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.bench.bootstrap import Difference, Pair, paired_difference
from dnm_sklearn.bench.records import Record, RecordError, read_record
from dnm_sklearn.bench.report import GROUPS, METRICS, Row, build_rows, ood_sets, percent
from dnm_sklearn.bench.scorefiles import read_scores


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
    >>> from dnm_sklearn.bench.tables import read_blocks
    >>> blocks = read_blocks(["results"])  # doctest: +SKIP
    """
    found: list[tuple[Record, Path]] = []
    for folder in map(Path, folders):
        where = folder / "records" if (folder / "records").is_dir() else folder
        if not where.is_dir():
            raise RecordError(f"{folder}: there is no such run folder; give what 'dnm-bench run -o' was given.")
        paths = sorted(where.glob("*.json"))
        if not paths:
            raise RecordError(f"{folder} holds no records; give a folder that 'dnm-bench run -o' wrote.")
        found += [(read_record(path), where) for path in paths]
    blocks: dict[Any, Block] = {}
    for record, where in sorted(found, key=lambda pair: pair[0].created):
        suite = record.suite
        same = (suite["name"], suite["classes_digest"], record.model["fingerprint"], repr(record.id))
        block = blocks.setdefault(same, Block())
        if record.file_name not in block.folders:
            block.records.append(record)
        block.folders[record.file_name] = where
    return list(blocks.values())


def differences(
    block: Block, reference: str, *, metric: str = "auroc", n_resamples: int = 1000
) -> dict[str, dict[int, Difference | None]]:
    """Bootstrap the difference of every row to a reference row, near and far.

    Parameters
    ----------
    block : Block
        From :func:`read_blocks`.
    reference : str
        A method's name or its label in the table.
    metric : str, default="auroc"
        Which metric.
    n_resamples : int, default=1000
        Draws.

    Returns
    -------
    dict
        For "near" and "far", as far as there are such sets, the difference of each row by its position; None for the
        reference itself and where the two were not scored on the same images.

    Raises
    ------
    RecordError
        If there is no such row, or its scores were not kept.

    Examples
    --------
    >>> from dnm_sklearn.bench.tables import differences, read_blocks
    >>> differences(read_blocks(["results"])[0], "MCM")  # doctest: +SKIP
    """
    rows = build_rows(block.records)
    base = _find(rows, reference)
    groups = [group for group in GROUPS if any(g == group for _, g in ood_sets(block.records))]
    found: dict[str, dict[int, Difference | None]] = {group: {} for group in groups}
    for group in groups:
        names = [name for name, g in ood_sets(block.records) if g == group]
        theirs = _scores(block, rows[base], names)
        for i, row in enumerate(rows):
            ours = None if i == base or row.error else _scores(block, row, names)
            if ours is None or theirs is None or [a.shape[1] for _, a in ours] != [a.shape[1] for _, a in theirs]:
                found[group][i] = None
            else:
                found[group][i] = paired_difference(ours, theirs, metric=metric, n_resamples=n_resamples)
    return found


def _find(rows: Sequence[Row], name: str) -> int:
    from dnm_sklearn.bench.registry import UnknownNameError, nearest

    wanted = name.strip().lower()
    for i, row in enumerate(rows):
        if wanted in (row.label.lower(), row.method.lower(), row.method.lower().removesuffix("detector")):
            return i
    labels = [row.label for row in rows]
    hint = nearest(name, [*(row.method for row in rows), *labels])
    raise UnknownNameError(f"--reference {name!r} is no row of the table.{hint} Rows: {', '.join(labels)}.")


def _scores(block: Block, row: Row, names: Sequence[str]) -> list[Pair] | None:
    """Read the scores of a row on some sets, all seeds and orders; None if an image was not in a stream."""
    found = []
    for name in names:
        mine = [r for r in row.records if r.ood["name"] == name and r.status == "ok"]
        if not mine:
            return None
        pairs = [read_scores(block.folders[r.file_name], r) for r in mine]
        ids, oods = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
        if np.isnan(oods).any():
            return None
        found.append((ids, oods))
    return found


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
    sets: bool = False,
    difference: dict[str, dict[int, Difference | None]] | None = None,
    difference_of: str = "",
    plus_minus: str = "±",
) -> Grid:
    """Lay a block out as a table.

    Parameters
    ----------
    block : Block
        From :func:`read_blocks`.
    sets : bool, default=False
        Also columns of every single OOD set.
    difference : dict, optional
        From :func:`differences`.
    difference_of : str, default=""
        Head of its columns.
    plus_minus : str, default="±"
        Between mean and standard deviation.

    Returns
    -------
    Grid

    Examples
    --------
    >>> from dnm_sklearn.bench.tables import make_grid, read_blocks
    >>> make_grid(read_blocks(["results"])[0]).head  # doctest: +SKIP
    """
    rows, all_sets = build_rows(block.records), ood_sets(block.records)
    groups = [group for group in GROUPS if any(g == group for _, g in all_sets)]
    columns: list[tuple[str, list[str]]] = [
        ("ID images used", [str(row.records[0].id_images_used) for row in rows]),
        ("sees test stream", [_stream(row.records[0]) for row in rows]),
        ("seeds x orders", [_runs(row) for row in rows]),
    ]
    for metric, head in METRICS.items():
        title = " ".join(part for part in head if part)
        columns += [
            (f"{title} {group}", [percent(row.group_values(metric, group), plus_minus) for row in rows])
            for group in groups
        ]
        if sets:
            columns += [
                (f"{title} {name}", [percent(row.values(metric, name), plus_minus) for row in rows])
                for name, _ in all_sets
            ]
    for group, found in (difference or {}).items():
        columns.append((f"{difference_of} {group} [95 % CI]", [_interval(found.get(i)) for i in range(len(rows))]))
    accuracies = [[r.id_accuracy for r in row.records if r.id_accuracy is not None] for row in rows]
    columns.append(("ID accuracy", [f"{100 * np.mean(a):.1f}" if a else "-" for a in accuracies]))
    columns.append(("seconds", ["failed" if row.error else f"{row.seconds:.1f}" for row in rows]))
    notes = [
        "All in percent; ± is the standard deviation over seeds and, for methods that see the test stream, its orders.",
        "FPR95 ID+: share of OOD images accepted where 95 % of the ID images are. "
        "FPR95 OOD+: share of ID images flagged where 95 % of the OOD images are.",
    ]
    notes += [f"{row.label} failed: {row.error}" for row in rows if row.error]
    if block.records[0].suite.get("note"):
        notes.append(f"Note: {block.records[0].suite['note']}")
    lines = [[row.label, *[cells[i] for _, cells in columns]] for i, row in enumerate(rows)]
    return Grid(block.title, ["Detector", *[head for head, _ in columns]], lines, notes)


def _stream(record: Record) -> str:
    return record.stream or ("yes" if record.sees_test_stream else "no")


def _runs(row: Row) -> str:
    orders = max(len(r.runs) for r in row.records)
    return f"{len(row.seeds)} x {orders}" if row.records[0].stream else str(len(row.seeds))


def _interval(found: Difference | None) -> str:
    if found is None or not math.isfinite(found.value):
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
    >>> from dnm_sklearn.bench.tables import Grid, to_markdown
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
    >>> from dnm_sklearn.bench.tables import Grid, to_latex
    >>> r"50.0 $\pm$ 1" in to_latex(Grid("t", ["a", "b"], [["x", "50.0 ± 1"]]))
    True
    """

    def clean(text: str) -> str:
        return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(clean, cells)) + r" \\"

    columns = "l" + "r" * (len(grid.head) - 1)
    parts = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}"]
    parts += [r"\toprule", line(grid.head), r"\midrule", *map(line, grid.lines), r"\bottomrule", r"\end{tabular}"]
    caption = " ".join([f"{grid.title}.", *grid.notes])
    return "\n".join([*parts, rf"\caption{{{clean(caption)}}}", r"\end{table}", ""])
