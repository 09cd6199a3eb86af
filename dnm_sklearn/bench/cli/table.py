"""``dnm-bench table``: records into tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.bench.cli.common import BadInput, UserPath, console, user_errors, write_output
from dnm_sklearn.bench.results.rows import METRICS, metric_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dnm_sklearn.bench.results.formats import Table
    from dnm_sklearn.bench.results.run_groups import RunGroup

_FORMATS = ("rich", "markdown", "csv", "latex")


@click.command(short_help="Make tables of run folders, one per suite and model.")
@click.argument("runs", nargs=-1, required=True, type=UserPath())
@click.option("-f", "--format", "format_", type=click.Choice(_FORMATS), default="rich")
@click.option(
    "-o",
    "--output",
    type=UserPath(dir_okay=False),
    help="Write to this file instead of the terminal.",
)
@click.option("--sets", is_flag=True, help="Also one table per metric of every single OOD set.")
@click.option(
    "--ranks",
    is_flag=True,
    help="Also mean ranks over all OOD sets of all RUNS, with Friedman's test and pairs corrected "
    "by Holm.",
)
@click.option(
    "--reference",
    help="Row that the others are compared with: a difference with a bootstrap interval.",
)
@click.option(
    "--metric",
    "chosen",
    multiple=True,
    type=click.Choice(tuple(METRICS)),
    help="Only columns of this metric; may be repeated. With --reference also the metric of the "
    "difference (default: auroc; others take minutes on large sets).",
)
@click.option("--resamples", type=click.IntRange(min=20), default=1000, help="Bootstrap draws.")
def table(
    runs: tuple[str, ...],
    format_: str,
    output: str | None,
    sets: bool,
    ranks: bool,
    reference: str | None,
    chosen: tuple[str, ...],
    resamples: int,
) -> None:
    """Make tables of the run folders RUNS: one per suite and model, rows averaged over seeds.

    \b
    dnm-bench table results
    dnm-bench table seed0 seed1 seed2 -f latex -o table.tex
    dnm-bench table results --reference MCM --sets -f markdown
    dnm-bench table suite1 suite2 suite3 --ranks
    dnm-bench table results --metric auroc --metric fpr95_id_positive --sets

    With --reference, every row gets the difference to that row with a 95 % interval: a paired
    bootstrap over images.
    """  # noqa: D301
    from dnm_sklearn.bench.results import formats
    from dnm_sklearn.bench.results.run_groups import read_run_groups

    if format_ == "csv" and reference is not None:
        raise BadInput("--reference adds a column that the CSV has not; choose another --format.")

    if format_ == "csv" and ranks:
        raise BadInput("--ranks adds a table that the CSV has not; choose another --format.")

    # Each metric once, in the order given.
    metrics = tuple(dict.fromkeys(chosen)) or tuple(METRICS)
    with user_errors():
        groups = read_run_groups(runs)
        tables = []
        for group in groups if format_ != "csv" else []:
            found = {}
            if reference is not None:
                found = _differences(group, reference, chosen or ("auroc",), resamples)
            tables.append(formats.make_table(group, metrics=metrics, differences=found))
            tables += formats.make_set_tables(group, metrics=metrics) if sets else []
        tables += _rank_tables(groups, chosen or ("auroc",)) if ranks else []

    if format_ == "csv":
        texts = [formats.to_csv(group.records, metrics) for group in groups]
    elif format_ == "markdown":
        texts = [formats.to_markdown(table) for table in _notes_once(tables)]
    elif format_ == "latex":
        # There each table stands alone, with all of its notes.
        texts = [formats.to_latex(table) for table in tables]
    else:
        texts = [_to_text(_notes_once(tables), console(wide=output is not None))]

    if output is None:
        click.echo("\n".join(texts))
    else:
        write_output(output, "\n".join(texts))


def _rank_tables(groups: Sequence[RunGroup], metrics: Sequence[str]) -> list[Table]:
    """Rank the methods over the OOD sets of all groups, by each metric."""
    from dnm_sklearn.bench.results.formats import make_rank_table
    from dnm_sklearn.bench.results.ranks import method_ranks

    tables = []
    for metric in metrics:
        found = method_ranks(groups, metric)
        if isinstance(found, str):
            raise BadInput(f"--ranks: {found}.")
        tables.append(make_rank_table(found, metric))
    return tables


def _differences(group: RunGroup, reference: str, metrics: Sequence[str], n_resamples: int) -> dict:
    """Compute the differences to a reference row, by the names of their columns."""
    from dnm_sklearn.bench.results.differences import differences

    found = {}
    for metric in metrics:
        name = f"{metric_name(metric)} minus {reference}'s"
        found[name] = differences(group, reference, metric=metric, n_resamples=n_resamples)
    return found


def _notes_once(tables: Sequence[Table]) -> list[Table]:
    """Leave out of tables that stand below each other the notes that were there before."""
    shown: set[str] = set()
    found = []
    for one in tables:
        found.append(replace(one, notes=[note for note in one.notes if note not in shown]))
        shown.update(one.notes)
    return found


def _to_text(tables: Sequence[Table], out: Console) -> str:
    """Write tables as on a terminal, each in as many parts as the console's width needs."""
    from dnm_sklearn.bench.results.terminal import make_tables

    with out.capture() as captured:
        for one in tables:
            labels = [row[0] for row in one.rows]
            columns = []
            for i, name in enumerate(one.head[1:], start=1):
                # One word per line makes the columns narrow.
                head = name.replace(" ", "\n").replace("[95\n%\nCI]", "[95 % CI]")
                columns.append((head, [row[i] for row in one.rows]))
            for part in make_tables(one.title, labels, columns, out.width):
                out.print(part)
            for note in one.notes:
                out.print(visible(note), style="dim", markup=False, highlight=False)
    return captured.get()
