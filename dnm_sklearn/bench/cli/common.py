"""What the commands share: errors with exit code 2, consoles, messages, logging."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

TABLE_WIDTH = 160
INTERRUPTED = 130


class BadInput(click.ClickException):
    """Something the user gave cannot be used; exit code 2."""

    exit_code = 2


def user_errors() -> tuple[type[Exception], ...]:
    """Errors whose message tells the user what to change; anything else keeps its traceback.

    Returns
    -------
    tuple of type
    """
    from dnm_sklearn.embedding.open_clip.build import WeightsUnavailableError

    return (ValueError, OSError, ImportError, WeightsUnavailableError)


def is_full_disk(error: BaseException) -> bool:
    """Tell an error of a full disk or quota from others.

    Parameters
    ----------
    error : Exception
        As caught.

    Returns
    -------
    bool
    """
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def console(*, wide: bool = False) -> Console:
    """Return a console as wide as the terminal, or wide enough for the tables where there is none.

    Parameters
    ----------
    wide : bool, default=False
        As wide as anything printed.

    Returns
    -------
    rich.console.Console
    """
    from rich.console import Console

    if wide:
        return Console(width=1000, highlight=False)
    if sys.stdout.isatty():
        return Console()
    return Console(width=TABLE_WIDTH, highlight=False)


def say(text: str) -> None:
    """Tell a person who waits at a terminal; silent elsewhere.

    Parameters
    ----------
    text : str
        What to say.
    """
    if sys.stderr.isatty():
        click.echo(text, err=True)


def with_bars(embedder: Any) -> Any:
    """Let an embedder show bars for images and texts, on a terminal only.

    Parameters
    ----------
    embedder : object
        Not yet given to anything; changed if it has a ``verbose``.

    Returns
    -------
    object
        The embedder.
    """
    if "verbose" in getattr(embedder, "get_params", dict)():
        embedder.set_params(verbose=True)
    return embedder


def set_up_logging(verbose: int) -> None:
    """Log to standard error: once ``-v`` what is run on what, twice everything.

    Parameters
    ----------
    verbose : int
        How often ``-v`` was given.
    """
    if not verbose:
        return
    logger = logging.getLogger("dnm_sklearn")
    logger.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
    for old in [h for h in logger.handlers if getattr(h, "dnm_bench", False)]:
        logger.removeHandler(old)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.dnm_bench = True  # type: ignore[attr-defined]
    logger.addHandler(handler)


def _read_size(context: click.Context, option: click.Parameter, size: str | None) -> int | None:
    from dnm_sklearn.embedding.cache import size_in_bytes

    try:
        return None if size is None else size_in_bytes(size)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--cache`` and ``--cache-size``."""
    size = click.option(
        "--cache-size",
        callback=_read_size,
        help="Most that embedded images may take in the cache folder, e.g. 20GB; those used "
        "longest ago are forgotten.",
    )
    folder = click.option(
        "--cache",
        type=click.Path(file_okay=False),
        help="Folder that keeps embedded images between runs.",
    )
    return folder(size(command))


verbose_option = click.option(
    "-v", "--verbose", count=True, help="Log device, model and cache hits; -vv logs more."
)
