"""How the command ends: with an exit code that says what happened, and without a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn

import click

from dnm_sklearn._utils.safe_text import visible

__all__ = ["Interrupted", "run_to_the_end"]

# Ctrl-C, and what schedulers, `timeout` and `kill` send.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# The signals that came, so that an exception which a library made of one is not taken for a fault.
_received: list[int] = []


class Interrupted(click.ClickException):
    """A signal stopped the command; the message says what is kept, and how to go on."""

    exit_code: int  # type: ignore[misc]

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        # As shells give it: 130 for Ctrl-C, 143 for SIGTERM.
        self.exit_code = 128 + (_received[-1] if _received else signal.SIGINT)

    def show(self, file: IO[Any] | None = None) -> None:
        """Say so on standard error."""
        text = f"Interrupted: {self.message}" if self.message else "Interrupted."
        click.echo(visible(text), file=file, err=True)


class _OutputError(click.ClickException):
    """Standard output cannot be written to."""

    exit_code: int  # type: ignore[misc]

    def __init__(self, error: OSError) -> None:
        super().__init__(f"Cannot write to standard output: {error.strerror or error}.")
        # Whoever closed a pipe has seen enough: nothing is said, and shells give 128 + SIGPIPE.
        self.is_closed_pipe = error.errno == errno.EPIPE
        self.exit_code = 141 if self.is_closed_pipe else 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Say why on standard error."""
        if not self.is_closed_pipe:
            super().show(file)


def run_to_the_end(command: Callable[[], Any]) -> NoReturn:
    """Call what gives an exit code, or raises click's exceptions, and leave the process."""
    with _signals(), _streams():
        try:
            code = command() or 0
            sys.stdout.flush()
        except click.ClickException as error:
            code = _told(error)
        except SystemExit as error:
            code = error.code
        except (KeyboardInterrupt, click.Abort) as error:
            # Of a question click makes an Abort of Ctrl-C, and of the end of its input.
            causes = (error, error.__cause__, error.__context__)
            is_signal = any(isinstance(cause, KeyboardInterrupt) for cause in causes)
            code = _told(Interrupted() if is_signal else click.ClickException("Aborted."))
        except Exception:
            if not _received:
                raise
            code = _told(Interrupted())

        # A library may have taken the signal for a fault of its own, and the command gone on.
        if _received and code == 1:
            code = _told(Interrupted())
    sys.exit(code)


def _told(error: click.ClickException) -> int:
    error.show()
    return error.exit_code


@contextmanager
def _signals() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt, so that files are tidied up and workers ended."""

    def stop(number: int, frame: Any) -> None:
        _received.append(number)
        raise KeyboardInterrupt

    _received.clear()
    before = {}
    for number in _SIGNALS:
        # What the caller lets its processes ignore (nohup) stays; in a thread nothing can be set.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            with suppress(ValueError):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _streams() -> Iterator[None]:
    """Make errors of standard output one exception, and bear those of standard error."""
    out, err = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        # A stream that was closed when the process began is None.
        sys.stdout = _Stream(out or nowhere, is_output=True)
        sys.stderr = _Stream(err or nowhere, is_output=False)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
            _empty(out)
            _empty(err)


class _Stream:
    """Standard output or error in its place, with one answer to each of its errors."""

    def __init__(self, stream: Any, is_output: bool) -> None:
        self._stream = stream
        self._is_output = is_output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._errors():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._errors():
            self._stream.flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """End the command; but results do not depend on whether somebody reads the messages."""
        try:
            yield
        except OSError as error:
            if self._is_output:
                raise _OutputError(error) from error


def _empty(stream: Any) -> None:
    """Let what a stream could not write go: Python would try it once more at its end, and fail."""
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
