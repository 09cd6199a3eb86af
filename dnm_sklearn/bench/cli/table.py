"""``dnm-bench table``: records into tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dnm_sklearn.bench.cli.common import BadInput, console, user_errors

if TYPE_CHECKING:
    from rich.console import Console

    from dnm_sklearn.bench.results.formats import Grid

_FORMATS = ("rich", "markdown", "csv", "latex")
_METRICS = (
    "auroc",
    "fpr95_id_positive",
    "fpr95_ood_positive",
    "aupr_id_positive",
    "aupr_ood_positive",
)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "-f", "--format", "kind", type=click.Choice(_FORMATS), default="rich", show_default=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Write to this file instead of the terminal.",
)
@click.option("--sets", is_flag=True, help="Also a table of every single OOD set for each metric.")
@click.option(
    "--reference",
    help="Row that the others are compared with: a difference with a bootstrap interval.",
)
@click.option(
    "--metric",
    "chosen",
    multiple=True,
    type=click.Choice(_METRICS),
    help="Only columns of this metric; may be repeated. With --reference also the metric of the difference (default: "
    "auroc; others take minutes on large sets).",
)
@click.option(
    "--resamples",
    type=click.IntRange(min=20),
    default=1000,
    show_default=True,
    help="Bootstrap draws.",
)
def table(
    runs: tuple[str, ...],
    kind: str,
    output: str | None,
    sets: bool,
    reference: str | None,
    chosen: tuple[str, ...],
    resamples: int,
) -> None:
    """Make tables of the run folders RUNS: one for each suite and model, rows averaged over seeds.

    \b
    dnm-bench table results
    dnm-bench table seed0 seed1 seed2 -f latex -o table.tex
    dnm-bench table results --reference MCM --sets -f markdown
    dnm-bench table results --metric auroc --metric fpr95_id_positive --sets

    With --reference, every row gets the difference to that row with a 95 % interval: a paired
    bootstrap over images.
    """  # noqa: D301
    from dnm_sklearn.bench.results import formats
    from dnm_sklearn.bench.results.differences import differences
    from dnm_sklearn.bench.results.records import write_text
    from dnm_sklearn.bench.results.rows import METRICS, to_csv

    if kind == "csv" and reference is not None:
        raise BadInput("--reference adds a column that the CSV has not; choose another --format.")
    texts: list[str] = []
    metrics = tuple(dict.fromkeys(chosen)) or _METRICS
    try:
        blocks = formats.read_blocks(runs)
        grids = []
        for block in blocks if kind != "csv" else []:
            found = {}
            if reference is not None:
                for metric in chosen or ("auroc",):
                    head = f"{' '.join(METRICS[metric]).strip()} minus {reference}'s"
                    found[head] = differences(
                        block, reference, metric=metric, n_resamples=resamples
                    )
            grids.append(formats.make_grid(block, metrics=metrics, differences=found))
            grids += formats.make_set_grids(block, metrics=metrics) if sets else []
        if kind != "latex":  # there each table stands alone
            grids = _notes_once(grids)
    except user_errors() as error:
        raise BadInput(str(error)) from error
    if kind == "csv":
        texts = [to_csv(block.records, metrics) for block in blocks]
    elif kind == "markdown":
        texts = [formats.to_markdown(grid) for grid in grids]
    elif kind == "latex":
        texts = [formats.to_latex(grid) for grid in grids]
    else:
        out = console(wide=output is not None)
        with out.capture() as captured:
            for grid in grids:
                _show(grid, out)
        texts = [captured.get()]
    if output is None:
        click.echo("\n".join(texts))
        return
    try:
        write_text(output, "\n".join(texts))
    except OSError as error:
        raise BadInput(
            f"Cannot write {output}: {error.strerror or error}; choose another file with -o."
        ) from error


def _notes_once(grids: list[Grid]) -> list[Grid]:
    """Leave out of tables that stand below each other the notes that were there before."""
    from dataclasses import replace

    said: set[str] = set()
    found = []
    for grid in grids:
        found.append(replace(grid, notes=[note for note in grid.notes if note not in said]))
        said.update(grid.notes)
    return found


def _show(grid: Grid, out: Console) -> None:
    """Print a grid, in as many parts as its width needs."""
    from dnm_sklearn.bench.results.terminal import make_tables

    labels = [line[0] for line in grid.lines]
    columns = [
        (
            head.replace(" ", "\n").replace("[95\n%\nCI]", "[95 % CI]"),
            [line[i] for line in grid.lines],
        )
        for i, head in enumerate(grid.head[1:], start=1)
    ]
    for part in make_tables(grid.title, labels, columns, out.width):
        out.print(part)
    for note in grid.notes:
        out.print(note, style="dim", markup=False, highlight=False)
