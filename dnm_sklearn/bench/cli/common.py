"""What the commands share: errors with exit code 2, consoles, messages, logging."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.exceptions import TokenizerUnavailableError, WeightsUnavailableError

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough for the table of means where there is no terminal whose width could be taken.
TABLE_WIDTH = 160


# Where the group keeps the arguments of the command, for the commands in it.
GIVEN = "dnm_sklearn.arguments"


class UserPath(click.Path):
    """A path, with the user's folder in the place of a tilde: shells leave ``--output=~/x`` so."""

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Put the user's folder in, and check what the type of path asks for."""
        return super().convert(os.path.expanduser(value), param, ctx)


class _Failure(click.ClickException):
    """An error of a command."""

    def format_message(self) -> str:
        """Return the message without what a terminal would obey: it may quote names of files."""
        return _fitted(f"Error: {visible(self.message)}").removeprefix("Error: ")


class WorkFailed(_Failure):
    """Something failed that the user did not give; exit code 1."""

    exit_code = 1


class BadInput(_Failure):
    """Something the user gave cannot be used; exit code 2."""

    exit_code = 2


@contextmanager
def user_errors(full_disk: str = "") -> Iterator[None]:
    """Make bad input of errors that tell the user what to change; others keep their traceback.

    `full_disk` is what to say of a full disk, which is no mistake in what was typed.
    """
    try:
        yield
    except (
        ValueError,
        OSError,
        ImportError,
        WeightsUnavailableError,
        TokenizerUnavailableError,
    ) as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = f"No space left on device: {full_disk}" if is_full and full_disk else str(error)
        raise BadInput(text) from error


def command_line() -> str:
    """Return what was typed, quoted for a shell; empty where no command is running."""
    context = click.get_current_context(silent=True)
    arguments = () if context is None else context.meta.get(GIVEN, ())
    return shlex.join(["dnm-bench", *arguments]) if arguments else ""


def given_by_user() -> set[str]:
    """Names of the options that stand on the command line."""
    context = click.get_current_context()
    default = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {name for name in context.params if context.get_parameter_source(name) not in default}


def refuse(names: tuple[str, ...], why: str) -> None:
    """Refuse some options, which are called as click calls their values."""
    given = given_by_user()
    for option in click.get_current_context().command.params:
        if option.name in given and option.name in names:
            raise BadInput(f"{option.opts[-1]} {why}.")


def check_prompt(context: click.Context, option: click.Parameter, prompt: str | None) -> str | None:
    """Refuse a prompt without a place for the class name."""
    if prompt is not None and "{}" not in prompt:
        raise BadInput(
            f"{option.opts[-1]} {prompt!r} has no {{}} where the class name goes, e.g. 'a photo of "
            "a {}'."
        )
    return prompt


def read_folder_names(path: str) -> dict[str, str]:
    """Read the class name of each subfolder."""
    # Subfolders of ImageNet and others have codes for names.
    from dnm_sklearn._utils.untrusted_files import read_text, split_lines

    names = {}
    for i, line in enumerate(split_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        subfolder, tab, name = line.partition("\t")
        if not (tab and subfolder.strip() and name.strip()):
            raise ValueError(f"{path}, line {i}: not 'subfolder, tab, class name': {line!r}.")
        names[subfolder.strip()] = name.strip()
    return names


def write_output(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    from dnm_sklearn._utils.atomic_write import atomic_write

    try:
        with atomic_write(path) as scratch:
            scratch.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise BadInput(
            f"Cannot write {path}: {error.strerror or error}; choose another file with -o."
        ) from error


def console(*, wide: bool = False) -> Console:
    """Return a console as wide as the terminal, or as anything printed if `wide`."""
    from rich.console import Console

    if wide:
        return Console(width=1000, highlight=False)
    if sys.stdout.isatty():
        return Console()
    return Console(width=TABLE_WIDTH, highlight=False)


def say(text: str) -> None:
    """Tell a person who waits at a terminal; silent elsewhere."""
    if sys.stderr.isatty():
        tell(text)


def tell(text: str) -> None:
    """Write a message to standard error."""
    click.echo(_fitted(visible(text)), err=True)


def _fitted(text: str) -> str:
    """Break the lines of a message between words where a terminal would break them anywhere."""
    if not sys.stderr.isatty():
        return text
    wrapper = textwrap.TextWrapper(
        shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False
    )
    # Lines that the message has stay lines.
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Tell warnings of what was typed as such: there the line of the user's is the command."""
    plain = warnings.formatwarning

    def told(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        # The outermost frame that is not this package's; of a detector of the user's it is theirs.
        if Path(filename).parent == Path(click.__file__).parent:
            return _fitted(f"Warning: {message}") + "\n"
        return plain(message, category, filename, lineno, line)

    warnings.formatwarning = told  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = plain


class _Formatter(logging.Formatter):
    """Lines that a terminal can show: names in them come from data."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _set_up_logging(context: click.Context, option: click.Parameter, verbose: int) -> None:
    """Log to standard error: once ``-v`` what is run on what, twice everything."""
    if verbose:
        logger = logging.getLogger("dnm_sklearn")
        logger.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        context.call_on_close(lambda: logger.removeHandler(handler))


def _read_size(context: click.Context, option: click.Parameter, size: str | None) -> int | None:
    from dnm_sklearn.embedding.cache import size_in_bytes

    try:
        return None if size is None else size_in_bytes(size)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--cache`` and ``--cache-size``."""
    folder = click.option(
        "--cache",
        type=UserPath(file_okay=False),
        help="Folder that keeps embedded images between runs.",
    )
    size = click.option(
        "--cache-size",
        callback=_read_size,
        help="Most that embedded images may take in the cache folder, e.g. 20GB; those used "
        "longest ago are forgotten.",
    )
    return folder(size(command))


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    callback=_set_up_logging,
    expose_value=False,
    show_default=False,
    help="Log device, model and cache hits; -vv logs more.",
)
