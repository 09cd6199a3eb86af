"""``dnm-bench cache``: what a cache folder holds, whether it is whole, and how to empty it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import click

from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.bench.cli.common import BadInput, UserPath, user_errors

_folder = click.argument("folder", type=UserPath(), required=False)
# Where joblib.Memory keeps its results in a cache folder.
_JOBLIB = "joblib"


@click.group(short_help="Look at, check or empty a cache folder.")
def cache() -> None:
    """Look at, check or empty a cache folder (what --cache or a detector's memory= was given).

    Without FOLDER it is the user's own, where detectors keep the text banks of shipped corpora
    (memory="auto").
    """


@cache.command()
@_folder
def info(folder: str | None) -> None:
    """Say what FOLDER holds: embedded images of each model, and texts and mining results."""
    from rich.filesize import decimal

    from dnm_sklearn.embedding.cache import EmbeddingCache

    root = _existing(folder)
    click.echo(f"folder: {visible(str(root))}")
    with user_errors():
        facts = EmbeddingCache(root).info()

    for model in facts["models"]:
        click.echo(
            f"images: {model['rows']} rows of {model['width']}, model {model['fingerprint'][:16]}"
        )
    click.echo(f"image files: {facts['files']} known to be unchanged")

    # All but the images is joblib's.
    n_results, size = _joblib_results(root)
    in_all = facts["bytes"] + size
    click.echo(f"texts and mining: {n_results} results ({decimal(size)})")
    click.echo(f"in all: {decimal(in_all)}, images {decimal(facts['bytes'])}")


@cache.command()
@_folder
def verify(folder: str | None) -> None:
    """Check all that FOLDER holds: embedded images, and results for texts and mining.

    What is damaged is dropped, to be computed again (exit code 1).
    """
    from dnm_sklearn._utils.checked_store import drop_damaged_results
    from dnm_sklearn.embedding.cache import EmbeddingCache

    root = _existing(folder)
    try:
        with user_errors():
            found = EmbeddingCache(root).verify()
            n_whole, n_dropped = drop_damaged_results(root / _JOBLIB)
    except sqlite3.Error as error:
        raise BadInput(f"The cache could not be written to: {error}") from error

    click.echo(f"images: {found['rows']} rows are whole, {found['dropped']} dropped")
    click.echo(f"texts and mining: {n_whole} results are whole, {n_dropped} dropped")

    # A script can tell by the code that something has to be computed again.
    if found["dropped"] or n_dropped:
        sys.exit(1)
    click.echo("Nothing is damaged.")


@cache.command()
@_folder
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(folder: str | None, yes: bool) -> None:
    """Remove what this package keeps in FOLDER; other files stay."""
    from joblib import Memory

    from dnm_sklearn.embedding.cache import EmbeddingCache

    root = _existing(folder)
    if not yes:
        click.confirm(f"Remove the cache in {visible(str(root))}?", abort=True)
    with user_errors():
        EmbeddingCache(root).clear()
        if (root / _JOBLIB).is_dir():
            Memory(root, verbose=0).clear(warn=False)
    click.echo(f"The cache in {visible(str(root))} is empty.")


def _existing(folder: str | None) -> Path:
    """The folder, which must be there; None is the user's own, which need not."""
    if folder is None:
        from dnm_sklearn._utils.caching import user_cache_folder

        root = user_cache_folder()
        if not root.is_dir():
            click.echo(f"There is nothing yet in the user's cache folder {visible(str(root))}.")
            sys.exit(0)
        return root

    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"{folder}: there is no such folder; give the one that --cache was given.")
    return root


def _joblib_results(root: Path) -> tuple[int, int]:
    """Count the results that joblib keeps in a folder, and their bytes."""
    n_results = size = 0
    for folder, _, names in os.walk(root / _JOBLIB):
        n_results += "output.pkl" in names
        for name in names:
            # Another process may have removed it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(folder, name)).st_size
    return n_results, size
