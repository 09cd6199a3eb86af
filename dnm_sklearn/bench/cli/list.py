"""``dnm-bench list``: what can be run, by name."""

from __future__ import annotations

from collections.abc import Callable

import click

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn.bench.cli.common import BadInput, console
from dnm_sklearn.bench.results.rows import name_key
from dnm_sklearn.bench.run import registry

# Name and a line on it.
Lines = list[tuple[str, str]]


@click.command(name="list")
@click.argument("words", nargs=-1, metavar="[KIND] [PATTERN]")
def list_(words: tuple[str, ...]) -> None:
    """List what can be run, by name.

    KIND is detectors, baselines, suites, corpora, datasets, models, or all. With PATTERN, only
    names that contain it (upper or lower case) are listed: of KIND, or without it of all kinds.
    Without either, all but the long lists of torchvision's data sets and open_clip's models.

    \b
    dnm-bench list
    dnm-bench list suites
    dnm-bench list knn
    dnm-bench list models laion

    Beside the baselines listed, every detector of PyOD and scikit-learn can be given to "dnm-bench
    run" as pyod:NAME(...) or sklearn:NAME(...).
    """  # noqa: D301
    from rich.table import Table
    from rich.text import Text

    kinds, pattern = _parse(words)
    lists = {kind: _LISTS[kind]() for kind in kinds}
    found = {}
    for kind, lines in lists.items():
        found[kind] = [line for line in lines if pattern.lower() in line[0].lower()]

    # Nothing found is bad input: a script must not go on.
    if not any(found.values()):
        raise BadInput(_nothing(words, kinds, pattern, lists))

    out = console()
    for kind, lines in found.items():
        if not lines:
            continue
        table = Table(title=kind, title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, summary in lines:
            table.add_row(Text(name), Text(summary))
        out.print(table)
        out.print()

    if not words:
        rest = " and ".join(f"{_LONG[kind]} (dnm-bench list {kind})" for kind in _LONG)
        out.print(f"Not shown: {rest}.", markup=False, highlight=False)


def _parse(words: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the kinds to look through, and the pattern."""
    if len(words) > 2:
        raise BadInput(
            f"'list' takes a kind and a pattern, got {' '.join(words)!r}; quote a pattern with "
            "blanks."
        )

    if not words:
        return [kind for kind in _LISTS if kind not in _LONG], ""
    # One word is a kind if there is one of that name, and else a pattern.
    first, pattern = words[0].lower(), words[1] if len(words) == 2 else ""
    if first == "all":
        return list(_LISTS), pattern
    if first in _LISTS:
        return [first], pattern

    if len(words) == 2:
        raise BadInput(
            f"There is no kind {words[0]!r}; it is one of {', '.join([*_LISTS, 'all'])}."
        )
    return list(_LISTS), words[0]


def _nothing(
    words: tuple[str, ...], kinds: list[str], pattern: str, lists: dict[str, Lines]
) -> str:
    """Say that nothing was found, and what was perhaps meant."""
    names = [name for lines in lists.values() for name, _ in lines]
    hint = did_you_mean(pattern, names, key=name_key)
    where = kinds[0] if len(kinds) == 1 else "kinds"
    # One word may be meant as a kind.
    choice = f" Kinds: {', '.join([*_LISTS, 'all'])}." if len(words) == 1 else ""
    return f"No name of all {where} contains {pattern!r}.{hint}{choice}"


def _detectors() -> Lines:
    methods = {**registry.detectors(), **registry.detectors_of_others()}
    return [(method.name, method.summary) for method in methods.values()]


def _baselines() -> Lines:
    return [(method.name, method.summary) for method in registry.baselines().values()]


def _suites() -> Lines:
    """List the shipped suites, then the benchmarks, whose images must be on disk."""
    from dnm_sklearn.datasets.definitions import benchmark_names

    lines = [(name, f"{summary}; shipped") for name, summary in registry.suites().items()]
    lines += [(name, f"{title}; with --data-root") for name, title in benchmark_names().items()]
    return lines


def _corpora() -> Lines:
    from dnm_sklearn.corpus.wordnet import corpus_names

    return [(name, _CORPORA.get(name, "")) for name in corpus_names()]


def _models() -> Lines:
    """List the shipped models, then open_clip's; DataComp and MetaCLIP are among them."""
    import open_clip

    lines = [("pictoclip", "shipped with this package, for the suites of pictures")]
    for name, tag in open_clip.list_pretrained():
        lines.append((f"{name}/{tag}", "open_clip: weights are downloaded at first use"))
    return lines


def _datasets() -> Lines:
    """List torchvision's data sets that a benchmark definition can name."""
    from dnm_sklearn.datasets.torchvision import known_torchvision_sets

    sets = known_torchvision_sets()
    return [(f"torchvision:{name}", f"from {spec.url}") for name, spec in sets.items()]


_LISTS: dict[str, Callable[[], Lines]] = {
    "detectors": _detectors,
    "baselines": _baselines,
    "suites": _suites,
    "corpora": _corpora,
    "datasets": _datasets,
    "models": _models,
}

# Kinds that fill several screens, and are listed only when they are named.
_LONG = {"datasets": "torchvision's data sets", "models": "the models"}
_CORPORA = {
    "wordnet": "every noun and adjective of WordNet 3.0",
    "wordnet-neglabel": "that without animals and food: what NegLabel mines",
    "wordnet-csp": "that without persons, quantities, groups and pertainyms as well: what CSP and "
    "DNM mine",
}
