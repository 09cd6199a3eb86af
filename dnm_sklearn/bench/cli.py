"""The ``dnm-bench`` command; heavy libraries are imported inside the commands: ``--help`` is quick."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnm_sklearn import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from dnm_sklearn.bench.records import Record
    from dnm_sklearn.bench.registry import Method

_TABLE_WIDTH = 120


class BadInput(click.ClickException):
    """Something the user gave cannot be used; exit code 2."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dnm-bench")
def main() -> None:
    """Compare zero-shot OOD detectors with each other and with PyOD.

    "dnm-bench run" needs nothing but this package: it runs every detector on the shipped glyph images,
    offline, and prints one table. Exit codes: 0 done, 1 a detector failed, 2 bad input.
    """


@main.command()
@click.option(
    "--suite",
    "suite_name",
    default="glyphs",
    show_default=True,
    help="A shipped suite's name, or a suite's folder.",
)
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder with the images of a benchmark.")
@click.option("--model", help="open_clip model for a benchmark's images, as name/tag; default: CLIPEmbedder's.")
@click.option("--download", is_flag=True, help="Let torchvision download its own data sets into --data-root.")
@click.option("-d", "--detector", "detector_names", multiple=True, help="Only this detector; may be repeated.")
@click.option("-b", "--baseline", "baseline_names", multiple=True, help="Only this baseline; may be repeated.")
@click.option("--no-baselines", is_flag=True, help="Leave the PyOD baselines out.")
@click.option("--no-detectors", is_flag=True, help="Run the baselines only.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="METHOD.NAME=VALUE",
    help="Set a parameter, e.g. NegLabelDetector.n_groups=10; may be repeated.",
)
@click.option("--prompt", help="Prompt of the class names with a {}; default: the suite's, else each detector's.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all that is random.")
@click.option(
    "--id-per-class",
    type=click.IntRange(min=0),
    default=16,
    show_default=True,
    help="ID images a class that the baselines are fitted on; 0 = all that the suite has.",
)
@click.option("--cache", type=click.Path(file_okay=False), help="Folder that keeps embedded images between runs.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    help="Folder for records/*.json (one a run) and table.csv.",
)
@click.option("--wide", is_flag=True, help="One table with every metric of every set.")
def run(
    suite_name: str,
    data_root: str | None,
    model: str | None,
    download: bool,
    detector_names: tuple[str, ...],
    baseline_names: tuple[str, ...],
    no_baselines: bool,
    no_detectors: bool,
    params: tuple[str, ...],
    prompt: str | None,
    seed: int,
    id_per_class: int,
    cache: str | None,
    output: str | None,
    wide: bool,
) -> None:
    """Run detectors and baselines on a suite and print one table.

    \b
    dnm-bench run
    dnm-bench run --suite my-suite -d NegLabel -d DNM --param DNM.n_groups=10 -o results
    dnm-bench run --suite glyphs-symbols --no-baselines --wide
    """  # noqa: D301
    from dnm_sklearn.bench import prepare, registry, report, runner
    from dnm_sklearn.bench.records import write_text

    if prompt is not None and "{}" not in prompt:
        raise BadInput(f"--prompt {prompt!r} has no {{}} where the class name goes, e.g. 'a photo of a {{}}'.")
    if no_baselines and baseline_names:
        raise BadInput("--no-baselines and --baseline contradict each other; give one of them.")
    if no_detectors and detector_names:
        raise BadInput("--no-detectors and --detector contradict each other; give one of them.")
    folder = None if output is None else _output_folder(output)
    try:
        methods = [] if no_detectors else _choose(registry.detectors(), detector_names)
        known_baselines = {} if no_baselines else registry.baselines()
        methods += _choose(known_baselines, baseline_names)
        if not methods:
            raise BadInput("Nothing to run: both detectors and baselines are left out.")
        overrides = _overrides(params, {m.name: m for m in methods})
        suite = registry.load_suite(suite_name, data_root=data_root, model=model, download=download)
        if suite.id_train is None and not baseline_names:
            if any(m.kind == "baseline" for m in methods):
                click.echo(f"The suite {suite.name} has no id_train images: baselines are left out.", err=True)
            methods = [m for m in methods if m.kind != "baseline"]
            if not methods:
                raise BadInput(f"Nothing to run: {suite.name} has no ID images for the baselines.")
        _say(f"Embedding the images of {suite.name} ...")
        embedded = prepare.embed_suite(suite, memory=cache)
        plan = prepare.Plan(seed=seed, prompt=prompt, id_per_class=id_per_class, overrides=overrides)
        records = runner.run(embedded, methods, plan, on_start=lambda label: _say(f"Running {label} ..."))
    except _user_errors() as error:
        raise BadInput(str(error)) from error
    try:
        done = _collect(records, folder)
        if folder is not None:
            write_text(folder / "table.csv", report.to_csv(done))
    except OSError as error:
        raise BadInput(f"Cannot write to {folder}: {error}; what is there is complete.") from error
    report.render(done, _console(), wide=wide)
    if folder is not None:
        click.echo(f"Wrote {len(done)} records and table.csv to {folder}")
    if any(record.status != "ok" for record in done):
        sys.exit(1)


@main.command(name="list")
@click.argument("what", type=click.Choice(["all", "detectors", "baselines", "suites", "datasets"]), default="all")
def list_(what: str) -> None:
    """List what can be run, by name."""
    from rich.table import Table

    from dnm_sklearn.bench import registry

    tables: dict[str, list[tuple[str, str]]] = {}
    if what in ("all", "detectors"):
        tables["detectors"] = [(m.name, m.summary) for m in registry.detectors().values()]
    if what in ("all", "baselines"):
        tables["baselines"] = [(m.name, m.summary) for m in registry.baselines().values()]
    if what in ("all", "suites"):
        tables["suites"] = list(registry.suites().items())
    if what in ("all", "datasets"):
        tables["datasets"] = registry.datasets()
    console = _console()
    for title, lines in tables.items():
        table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for line in lines:
            table.add_row(*line)
        console.print(table)
        console.print()


@main.command()
@click.argument("folder", type=click.Path())
@click.option("--id", "id_folder", required=True, type=click.Path(), help="ID test images, one subfolder a class.")
@click.option("--id-train", type=click.Path(), help="ID images for the baselines, the same subfolders.")
@click.option("--near", multiple=True, metavar="NAME=DIR", help="A near-OOD set; may be repeated.")
@click.option("--far", multiple=True, metavar="NAME=DIR", help="A far-OOD set; may be repeated.")
@click.option("--sanity", multiple=True, metavar="NAME=DIR", help="A set that is kept out of the means.")
@click.option("--names", type=click.Path(), help="Text file: subfolder, a tab, class name; one a line.")
@click.option("--corpus", default="wordnet-neglabel", show_default=True, help="A corpus's name, or a file of words.")
@click.option("--model", help="open_clip model as name/tag; default: CLIPEmbedder's.")
@click.option("--prompt", default="the nice {}", show_default=True, help="Prompt of class names and nouns.")
@click.option("--adjective-prompt", default="This is a {} photo", show_default=True, help="Prompt of adjectives.")
@click.option("--name", help="Name of the suite; default: the folder's.")
@click.option("--note", default="", help="What a reader of the table must know.")
@click.option("--skip-unreadable", is_flag=True, help="Leave unreadable images out instead of stopping.")
@click.option("--cache", type=click.Path(file_okay=False), help="Folder that keeps embedded images between runs.")
@click.option("--overwrite", is_flag=True, help="Replace a suite that is there.")
def embed(
    folder: str,
    id_folder: str,
    id_train: str | None,
    near: tuple[str, ...],
    far: tuple[str, ...],
    sanity: tuple[str, ...],
    names: str | None,
    corpus: str,
    model: str | None,
    prompt: str,
    adjective_prompt: str,
    name: str | None,
    note: str,
    skip_unreadable: bool,
    cache: str | None,
    overwrite: bool,
) -> None:
    """Embed image folders once and write them as a suite into FOLDER.

    \b
    dnm-bench embed my-suite --id val --id-train train --near birds=birds --far dtd=dtd/images
    dnm-bench run --suite my-suite
    """  # noqa: D301
    from dnm_sklearn.datasets import embed_image_folders
    from dnm_sklearn.embedding import CLIPEmbedder

    groups = {"near": near, "far": far, "sanity": sanity}
    ood = [(*_named_folder(group, value), group) for group, values in groups.items() for value in values]
    if not ood:
        raise BadInput("No OOD set; give at least one with --near NAME=DIR or --far NAME=DIR.")
    options: dict[str, Any] = {"memory": cache, "on_error": "nan" if skip_unreadable else "raise"}
    try:
        embedder = CLIPEmbedder(model, **options) if model else CLIPEmbedder(**options)
        path = embed_image_folders(
            folder,
            id=id_folder,
            id_train=id_train,
            ood=[(set_name, group, where) for set_name, where, group in ood],  # type: ignore[misc]
            names=None if names is None else _read_names(names),
            embedder=embedder,
            corpus=corpus,
            prompt=prompt,
            adjective_prompt=adjective_prompt,
            name=name,
            note=note,
            overwrite=overwrite,
        )
    except _user_errors() as error:
        raise BadInput(str(error)) from error
    click.echo(f"Wrote the suite to {path}. Next: dnm-bench run --suite {path}")


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors whose message tells the user what to change; anything else keeps its traceback."""
    from dnm_sklearn.embedding.loading import WeightsUnavailableError

    return (ValueError, OSError, ImportError, WeightsUnavailableError)


def _choose(methods: dict[str, Method], names: tuple[str, ...]) -> list[Method]:
    from dnm_sklearn.bench.registry import resolve

    if not names:
        return list(methods.values())
    return list(dict.fromkeys(resolve(name, methods) for name in names))


def _overrides(params: tuple[str, ...], methods: dict[str, Method]) -> dict[str, dict[str, Any]]:
    """Read METHOD.NAME=VALUE; values are Python literals, anything else a string."""
    from dnm_sklearn.bench.registry import resolve

    found: dict[str, dict[str, Any]] = {}
    for param in params:
        target, equals, text = param.partition("=")
        method, dot, key = target.strip().rpartition(".")
        if not (equals and dot and method and key.strip()):
            raise BadInput(f"--param {param!r} is not METHOD.NAME=VALUE, e.g. NegLabelDetector.n_groups=10.")
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            value = text.strip()
        found.setdefault(resolve(method, methods).name, {})[key.strip()] = value
    return found


def _collect(records: Any, folder: Path | None) -> list[Record]:
    """Take records as they come, and write each at once."""
    from dnm_sklearn.bench.records import write_record

    done = []
    for record in records:
        if folder is not None:
            write_record(folder / "records", record)
        done.append(record)
    return done


def _output_folder(output: str) -> Path:
    """Make the output folder and check that it takes files, before anything is run."""
    folder = Path(output)
    try:
        (folder / "records").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"Cannot write to {folder}: {error.strerror}; choose another folder with -o.") from error
    if not os.access(folder / "records", os.W_OK):
        raise BadInput(f"Cannot write to {folder}: permission denied; choose another folder with -o.")
    return folder


def _named_folder(group: str, value: str) -> tuple[str, str]:
    name, equals, folder = value.partition("=")
    if not (name.strip() and equals and folder.strip()):
        raise BadInput(f"--{group} {value!r} is not NAME=DIR, e.g. --{group} textures=dtd/images.")
    return name.strip(), folder.strip()


def _read_names(path: str) -> dict[str, str]:
    names = {}
    for i, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        subfolder, tab, name = line.partition("\t")
        if not (tab and subfolder.strip() and name.strip()):
            raise ValueError(f"{path}, line {i}: not 'subfolder, tab, class name': {line!r}.")
        names[subfolder.strip()] = name.strip()
    return names


def _console() -> Console:
    """Return a console as wide as the terminal, or wide enough for the tables where there is none."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console()
    return Console(width=_TABLE_WIDTH, highlight=False)


def _say(text: str) -> None:
    """Tell a person who waits at a terminal; silent elsewhere."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
