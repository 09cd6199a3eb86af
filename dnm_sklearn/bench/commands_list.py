"""``dnm-bench list``: what can be run, by name."""

from __future__ import annotations

from collections.abc import Callable

import click

from dnm_sklearn.bench.common import console

Lines = list[tuple[str, str]]


@click.command(name="list")
@click.argument(
    "what", type=click.Choice(["all", "detectors", "baselines", "suites", "datasets", "models"]), default="all"
)
@click.argument("pattern", default="")
def list_(what: str, pattern: str) -> None:
    """List what can be run, by name; with PATTERN, only names that contain it.

    \b
    dnm-bench list
    dnm-bench list models laion

    Beside the baselines listed, every detector of PyOD and scikit-learn can be given to "dnm-bench run" as
    pyod:NAME(...) or sklearn:NAME(...).
    """  # noqa: D301
    from rich.table import Table
    from rich.text import Text

    out = console()
    for title, lines in ((name, _LISTS[name]()) for name in (_SHORT if what == "all" else [what])):
        table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, summary in lines:
            if pattern.lower() in name.lower():
                table.add_row(Text(name), Text(summary))
        out.print(table)
        out.print()


def _detectors() -> Lines:
    from dnm_sklearn.bench import registry

    return [(m.name, m.summary) for m in registry.detectors().values()]


def _baselines() -> Lines:
    from dnm_sklearn.bench import registry

    return [(m.name, m.summary) for m in registry.baselines().values()]


def _suites() -> Lines:
    from dnm_sklearn.bench import registry

    return list(registry.suites().items())


def _models() -> Lines:
    """Give the shipped model, then open_clip's; DataComp and MetaCLIP among them."""
    import open_clip

    known = [
        (f"{name}/{tag}", "open_clip: weights are downloaded at first use") for name, tag in open_clip.list_pretrained()
    ]
    return [("glyphclip", "shipped with this package, for the glyph suites"), *known]


def _datasets() -> Lines:
    from dnm_sklearn.bench import registry

    return registry.datasets()


_LISTS: dict[str, Callable[[], Lines]] = {
    "detectors": _detectors,
    "baselines": _baselines,
    "suites": _suites,
    "datasets": _datasets,
    "models": _models,
}
_SHORT = ("detectors", "baselines", "suites")
