"""``dnm-bench report``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnm_sklearn.bench.cli.common import BadInput, cache_options, say, user_errors

if TYPE_CHECKING:
    from dnm_sklearn.bench.html.gallery import Gallery


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), default="report.html", show_default=True
)
@click.option("--title", default="OOD detection", show_default=True, help="Heading of the page.")
@click.option(
    "--gallery/--no-gallery",
    default=True,
    help="Show the most confident errors, where images are there.",
)
@click.option(
    "--gallery-method",
    help="Detector whose errors are shown; default: the best with negative labels.",
)
@click.option(
    "--suite",
    help="Suite of the images, where the records' name does not say it, e.g. a TOML file.",
)
@click.option(
    "--data-root", type=click.Path(), help="Folder with the images of a benchmark, for the gallery."
)
@cache_options
def report(
    runs: tuple[str, ...],
    output: str,
    title: str,
    gallery: bool,
    gallery_method: str | None,
    suite: str | None,
    data_root: str | None,
    cache: str | None,
    cache_size: int | None,
) -> None:
    """Make one self-contained HTML page of the run folders RUNS.

    \b
    dnm-bench report results
    dnm-bench report seed0 seed1 -o report.html --no-gallery
    dnm-bench report results --data-root data --gallery-method DNM

    The page sorts and filters its tables, asks the network for nothing, and prints.
    """  # noqa: D301
    from dnm_sklearn.bench.html.gallery import make_gallery
    from dnm_sklearn.bench.html.page import make_page
    from dnm_sklearn.bench.results.formats import read_blocks
    from dnm_sklearn.bench.results.records import write_text

    if not Path(output).absolute().parent.is_dir():
        raise BadInput(
            f"{Path(output).parent}: no such folder to write {Path(output).name} into; make it "
            "first."
        )
    try:
        blocks = read_blocks(runs)
        galleries: list[Gallery | None] = []
        for block in blocks:
            say(f"Reporting on {block.title} ...")
            if not gallery:
                galleries.append(None)
                continue
            made = make_gallery(
                block,
                method=gallery_method,
                suite=suite,
                data_root=data_root,
                memory=cache,
                cache_size=cache_size,
            )
            galleries.append(made)
        page = make_page(blocks, galleries, title=title)
    except user_errors() as error:
        raise BadInput(str(error)) from error
    try:
        write_text(output, page)
    except OSError as error:
        raise BadInput(
            f"Cannot write {output}: {error.strerror}; choose another file with -o."
        ) from error
    click.echo(f"Wrote {output}")
