"""``dnm-bench table``: records into tables."""

from __future__ import annotations

import click

from dnm_sklearn.bench.common import BadInput, console, user_errors

_FORMATS = ("rich", "markdown", "csv", "latex")
_CI_METRICS = ("auroc", "fpr95_id_positive", "fpr95_ood_positive", "aupr_id_positive", "aupr_ood_positive")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("-f", "--format", "kind", type=click.Choice(_FORMATS), default="rich", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to this file instead of the terminal.")
@click.option("--sets", is_flag=True, help="Also columns of every single OOD set.")
@click.option("--reference", help="Row that the others are compared with: a difference with a bootstrap interval.")
@click.option(
    "--metric",
    type=click.Choice(_CI_METRICS),
    default="auroc",
    show_default=True,
    help="Metric of the difference; others than auroc take minutes on large sets.",
)
@click.option("--resamples", type=click.IntRange(min=20), default=1000, show_default=True, help="Bootstrap draws.")
def table(
    runs: tuple[str, ...],
    kind: str,
    output: str | None,
    sets: bool,
    reference: str | None,
    metric: str,
    resamples: int,
) -> None:
    """Make tables of the run folders RUNS: one for each suite and model, rows averaged over seeds.

    \b
    dnm-bench table results
    dnm-bench table seed0 seed1 seed2 -f latex -o table.tex
    dnm-bench table results --reference MCM --sets -f markdown

    With --reference, every row gets the difference to that row with a 95 % interval: a paired bootstrap over images.
    """  # noqa: D301
    from dnm_sklearn.bench import tables
    from dnm_sklearn.bench.records import write_text
    from dnm_sklearn.bench.report import METRICS, to_csv

    if kind == "csv" and reference is not None:
        raise BadInput("--reference adds a column that the CSV has not; choose another --format.")
    texts: list[str] = []
    try:
        blocks = tables.read_blocks(runs)
        grids = []
        for block in blocks if kind != "csv" else []:
            found = None
            if reference is not None:
                found = tables.differences(block, reference, metric=metric, n_resamples=resamples)
            head = f"{' '.join(METRICS[metric]).strip()} minus {reference}'s"
            grids.append(tables.make_grid(block, sets=sets, difference=found, difference_of=head))
    except user_errors() as error:
        raise BadInput(str(error)) from error
    if kind == "csv":
        texts = [to_csv(block.records) for block in blocks]
    elif kind == "markdown":
        texts = [tables.to_markdown(grid) for grid in grids]
    elif kind == "latex":
        texts = [tables.to_latex(grid) for grid in grids]
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
        raise BadInput(f"Cannot write {output}: {error.strerror or error}; choose another file with -o.") from error


def _show(grid, out) -> None:
    """Print a grid, in as many parts side by side as its width needs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    label = max(len(line[0]) for line in grid.lines)
    first, left = 1, 0
    while first < len(grid.head):
        table = Table(
            title=Text(grid.title if first == 1 else f"{grid.title}, continued"),
            title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
        )  # fmt: skip
        table.add_column("Detector", no_wrap=True)
        left, last = out.width - label - 2, first
        while last < len(grid.head):
            cells = [line[last] for line in grid.lines]
            width = max(*map(len, cells), *map(len, grid.head[last].split())) + 2
            if width > left and last > first:
                break
            table.add_column(Text(grid.head[last].replace(" ", "\n")), justify="right", vertical="bottom", no_wrap=True)
            left, last = left - width, last + 1
        for line in grid.lines:
            table.add_row(Text(line[0]), *[Text(cell) for cell in line[first:last]])
        out.print(table)
        first = last
    for note in grid.notes:
        out.print(note, style="dim", markup=False, highlight=False)
