"""The ``dnm-bench`` command. Its sub-commands import heavy libraries: ``--help`` is quick."""

from __future__ import annotations

from importlib import import_module

import click

from dnm_sklearn import __version__
from dnm_sklearn.bench.cli.common import BadInput

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
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        return getattr(import_module(module), name)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="dnm-bench")
def main() -> None:
    """Compare zero-shot OOD detectors with each other and with PyOD.

    "dnm-bench run" needs nothing but this package: it runs every detector on the shipped
    images, offline, and prints one table. Exit codes: 0 done, 1 a detector failed, 2 bad input, 130
    interrupted.
    """
