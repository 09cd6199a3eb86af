"""``dnm-bench cache``: what a cache folder holds, whether it is whole, and how to empty it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dnm_sklearn.bench.cli.common import BadInput, user_errors

_folder = click.argument("folder", type=click.Path())
# Where joblib.Memory keeps its results in a cache folder.
_JOBLIB = "joblib"


@click.group()
def cache() -> None:
    """Look at, check or empty a cache folder (what --cache or a detector's memory= was given)."""


@cache.command()
@_folder
def info(folder: str) -> None:
    """Say what FOLDER holds: embedded images of each model, and texts and mining results."""
    from dnm_sklearn.embedding.store import list_stores

    # Rows of images have a file format of their own, all else is joblib's.
    root = _existing(folder)
    total = 0
    for store in list_stores(root):
        facts = store.info()
        total += facts["bytes"]
        click.echo(
            f"images: {facts['rows']} rows of {facts['width']} ({_size(facts['bytes'])}), model "
            f"{facts['key'][:16]}"
        )
    results, size = _joblib_results(root)
    click.echo(f"texts and mining: {results} results ({_size(size)})")
    click.echo(f"in all: {_size(total + size)}")


@cache.command()
@_folder
def verify(folder: str) -> None:
    """Check every embedded image in FOLDER.

    Damaged ones are dropped, to be embedded again (exit code 1).
    """
    from dnm_sklearn.embedding.store import list_stores

    dropped = 0
    try:
        for store in list_stores(_existing(folder)):
            found = store.verify()
            dropped += found["dropped"]
            click.echo(
                f"model {store.key[:16]}: {found['rows']} rows are whole, {found['dropped']} "
                "dropped"
            )
    except user_errors() as error:
        raise BadInput(str(error)) from error
    # A script can tell by the code that something has to be embedded again.
    if dropped:
        sys.exit(1)
    click.echo("Nothing is damaged.")


@cache.command()
@_folder
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(folder: str, yes: bool) -> None:
    """Remove what this package keeps in FOLDER; other files stay."""
    from joblib import Memory

    from dnm_sklearn.embedding.store import clear_cache

    root = _existing(folder)
    if not yes:
        click.confirm(f"Remove the cache in {root}?", abort=True)
    try:
        clear_cache(root)
        if (root / _JOBLIB).is_dir():
            Memory(root, verbose=0).clear(warn=False)
    except user_errors() as error:
        raise BadInput(str(error)) from error
    click.echo(f"The cache in {root} is empty.")


def _existing(folder: str) -> Path:
    """Refuse a folder that is not there."""
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"{folder}: there is no such folder; give the one that --cache was given.")
    return root


def _joblib_results(root: Path) -> tuple[int, int]:
    """Count the results that joblib keeps in a folder, and their bytes."""
    files = [path for path in (root / _JOBLIB).rglob("*") if path.is_file()]
    n_results = sum(path.name == "output.pkl" for path in files)
    return n_results, sum(path.stat().st_size for path in files)


def _size(n: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"
