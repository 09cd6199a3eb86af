"""``dnm-bench report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dnm_sklearn.bench.cli.common import (
    BadInput,
    UserPath,
    cache_options,
    say,
    user_errors,
    write_output,
)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=UserPath())
@click.option("-o", "--output", type=UserPath(dir_okay=False), default="report.html")
@click.option("--title", default="OOD detection", help="Heading of the page.")
@click.option(
    "--gallery/--no-gallery",
    default=True,
    help="Show the most confident errors, where there are images.",
)
@click.option(
    "--gallery-method",
    "methods",
    multiple=True,
    help="Detector whose errors are shown, may be repeated; default: the best with negative labels "
    "and the best.",
)
@click.option(
    "--suite",
    help="Suite of the images, where the name in the records does not say it, e.g. a TOML file.",
)
@click.option(
    "--data-root", type=UserPath(), help="Folder with the images of a benchmark, for the gallery."
)
@cache_options
def report(
    runs: tuple[str, ...], output: str, title: str, gallery: bool, **of_gallery: Any
) -> None:
    """Make one self-contained HTML page of the run folders RUNS.

    \b
    dnm-bench report results
    dnm-bench report seed0 seed1 -o report.html --no-gallery
    dnm-bench report results --data-root data --gallery-method DNM --gallery-method MCM

    The page sorts and filters its tables, asks the network for nothing, and prints.
    """  # noqa: D301
    from dnm_sklearn.bench.html.gallery import make_galleries
    from dnm_sklearn.bench.html.page import make_page
    from dnm_sklearn.bench.results.run_groups import read_run_groups

    # A report may take a minute; a folder that is not there is told before.
    if not Path(output).absolute().parent.is_dir():
        raise BadInput(
            f"{Path(output).parent}: no such folder to write {Path(output).name} into; make it "
            "first."
        )
    with user_errors():
        groups = read_run_groups(runs)
        galleries = []
        for group in groups:
            say(f"Reporting on {group.title} ...")
            galleries.append(make_galleries(group, **of_gallery) if gallery else [])
        page = make_page(groups, galleries, title=title)
    write_output(output, page)
    click.echo(f"Wrote {output}")
