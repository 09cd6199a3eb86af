"""The ``dnm-bench`` command. Its sub-commands import heavy libraries: ``--help`` is quick."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from dnm_sklearn import __version__
from dnm_sklearn.bench.cli.common import GIVEN, BadInput, plain_warnings
from dnm_sklearn.bench.cli.ending import Interrupted, run_to_the_end

__all__ = ["BadInput", "main"]

# Command -> module:function; imported when the command is called.
_COMMANDS = {
    "run": "dnm_sklearn.bench.cli.run:run",
    "table": "dnm_sklearn.bench.cli.table:table",
    "report": "dnm_sklearn.bench.cli.report:report",
    "score": "dnm_sklearn.bench.cli.score:score",
    "embed": "dnm_sklearn.bench.cli.embed:embed",
    "list": "dnm_sklearn.bench.cli.list:list_",
    "model-facts": "dnm_sklearn.bench.cli.model_facts:model_facts",
    "cache": "dnm_sklearn.bench.cli.cache:cache",
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is called, and leaves with its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        return getattr(import_module(module), name)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run a command; the process ends with it unless `standalone_mode` is False."""
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        return run_to_the_end(
            lambda: super(_LazyGroup, self).main(args, standalone_mode=False, **extra)
        )

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **more: Any,
    ) -> click.Context:
        """Keep what was typed beside what click makes of it."""
        given = tuple(args)
        context = super().make_context(info_name, args, parent, **more)
        context.meta[GIVEN] = given
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command that was named."""
        try:
            with plain_warnings():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error


@click.group(
    cls=_LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="dnm-bench")
def main() -> None:
    """Compare zero-shot OOD detectors with each other and with PyOD.

    "dnm-bench run" needs nothing but this package: it runs every detector on the shipped
    images, offline, and prints one table. Exit codes: 0 done, 1 a detector failed, 2 bad input, 130
    interrupted (143 by SIGTERM).
    """
