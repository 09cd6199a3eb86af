"""``dnm-bench run``: methods on a suite, one record each, one table."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnm_sklearn.bench.cli.common import (
    BadInput,
    UserPath,
    WorkFailed,
    cache_options,
    check_prompt,
    command_line,
    console,
    say,
    set_up_logging,
    tell,
    user_errors,
    verbose_option,
)
from dnm_sklearn.bench.cli.ending import Interrupted
from dnm_sklearn.bench.run.backends import BACKENDS
from dnm_sklearn.bench.run.orders import MEANING, ORDERS, Order

if TYPE_CHECKING:
    from dnm_sklearn.bench.results.records import Record
    from dnm_sklearn.bench.run.config import RunConfig
    from dnm_sklearn.bench.run.registry import Method
    from dnm_sklearn.bench.run.runner import Result
    from dnm_sklearn.datasets.benchmark import Suite

logger = logging.getLogger(__name__)

# ID images per class of the forms with ID images that a run without choices adds.
_FEW_ID_IMAGES = 4


@dataclass(frozen=True)
class RunOptions:
    """What stands on the command line; the fields are the options."""

    # The suite, its images and its model.
    suite_name: str
    data_root: str | None
    download: bool
    model: str | None
    corpus: str | None
    blind: bool
    cache: str | None
    cache_size: int | None

    # The methods and their parameters.
    detector_names: tuple[str, ...]
    baseline_names: tuple[str, ...]
    no_detectors: bool
    no_baselines: bool
    params: tuple[str, ...]
    prompt: str | None

    # How they are run.
    seed: int
    stream: Order
    repeats: int
    id_per_class: int
    id_train: str | None
    jobs: int
    backend: str | None

    # Where the results go.
    output: str | None
    skip_existing: bool
    wide: bool
    verbose: int

    @property
    def folder(self) -> Path | None:
        """The folder of the run, if its results are kept."""
        return None if self.output is None else Path(self.output)


# What is run: the suite and its images.
@click.command()
@click.option(
    "--suite",
    "suite_name",
    default="pictures",
    show_default=True,
    help="A shipped suite's name, or a suite's folder.",
)
@click.option(
    "--data-root",
    type=UserPath(),
    help="Folder with the images of a benchmark (dnm-bench list suites).",
)
@click.option(
    "--download", is_flag=True, help="Let torchvision download its own data sets into --data-root."
)
# The methods and their parameters.
@click.option(
    "-d",
    "--detector",
    "detector_names",
    multiple=True,
    help="Only this detector: a name, or NegLabel(n_groups=10), or, fitted on ID images beside the "
    "names, ENL(id_per_class=4), or on top of another ReNeg(base=TANL), or one of your own "
    "package.module:Class; may be repeated.",
)
@click.option(
    "-b",
    "--baseline",
    "baseline_names",
    multiple=True,
    help="Only this baseline: a name, or pyod:KNN(n_neighbors=10), sklearn:LocalOutlierFactor; may "
    "be repeated.",
)
@click.option("--no-baselines", is_flag=True, help="Leave the PyOD baselines out.")
@click.option("--no-detectors", is_flag=True, help="Run the baselines only.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="METHOD.NAME=VALUE",
    help="Set a parameter, e.g. NegLabelDetector.n_groups=10; may be repeated.",
)
@click.option(
    "--prompt",
    help="Prompt of the class names with a {}; default: the suite's, else each detector's.",
)
# Words and model.
@click.option(
    "--corpus",
    help="Candidate negative labels: a corpus's name (wordnet-csp), or a text file of words.",
)
@click.option(
    "--blind",
    is_flag=True,
    help="Leave out of the corpus, and of ReNeg's pool, the names of the OOD sets' classes.",
)
@click.option(
    "--model", help="The open_clip model (name/tag) that embeds the suite's images and names."
)
# How the methods are run.
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of all that is random.",
)
@click.option(
    "--stream",
    type=click.Choice(ORDERS),
    default="shuffled",
    show_default=True,
    help="Order in which test-time methods see the images of an OOD set and the ID set: "
    + "; ".join(f"{name}: {text}" for name, text in MEANING.items())
    + ".",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Orders that each test-time method is scored in.",
)
@click.option(
    "--id-per-class",
    type=click.IntRange(min=0),
    default=16,
    show_default=True,
    help="ID images per class that the baselines are fitted on; 0 = all that there are.",
)
@click.option(
    "--id-train",
    type=UserPath(),
    help="ID images to fit on: a folder with a subfolder per class, or an npz file of embeddings.",
)
# Where the work is done, and what is kept of it.
@click.option(
    "-j",
    "--jobs",
    type=int,
    default=1,
    show_default=True,
    help="Methods at a time, through joblib; -1 = one per processor.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="joblib's back end for --jobs; default: loky. dask: the scheduler at "
    "DASK_SCHEDULER_ADDRESS, or a local one.",
)
@cache_options
@click.option(
    "-o",
    "--output",
    type=UserPath(file_okay=False),
    help="Folder for records/*.json (one per method and OOD set), their scores, and table.csv.",
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Keep what is valid in the output folder; compute the rest.",
)
@click.option("--wide", is_flag=True, help="One table with every metric of every set.")
@verbose_option
def run(**options: Any) -> None:
    """Run detectors and baselines on a suite and print one table.

    \b
    dnm-bench run
    dnm-bench run --suite my-suite -d NegLabel -d DNM --param DNM.n_groups=10 -o results
    dnm-bench run --suite my-suite -o results --skip-existing
    dnm-bench run -d TANL --stream rare-ood --repeats 5
    dnm-bench run -d ENL -d "ENL(id_per_class=4)" -d "ENL(id_per_class=16)" -b KNN
    dnm-bench run -b "pyod:KNN(n_neighbors=10)" -b sklearn:IsolationForest --jobs 2
    dnm-bench run --suite pictures-artifacts --no-baselines --wide
    dnm-bench run --suite imagenet1k-four-ood --data-root data --model ViT-B-16-quickgelu/openai

    A killed run goes on where it stopped with --skip-existing: records that are whole and belong to
    the same configuration are kept, failed and damaged ones are made again.
    """  # noqa: D301
    run_command(RunOptions(**options))


def run_command(options: RunOptions) -> None:
    """Run the methods, write their records as they come, and print the table."""
    from dnm_sklearn._utils.atomic_write import atomic_write
    from dnm_sklearn.bench.results.formats import to_csv
    from dnm_sklearn.bench.results.terminal import print_results

    set_up_logging(options.verbose)
    _check(options)
    folder = options.folder
    records: list[Record] = []
    try:
        with ExitStack() as running:
            try:
                results, bar = _start(options, running)
            except user_errors() as error:
                raise BadInput(str(error)) from error
            _collect(results, folder, bar, records)
    except KeyboardInterrupt as error:
        raise Interrupted(_kept(options, len(records))) from error
    except BrokenExecutor as error:
        raise WorkFailed(
            "A worker process ended before its work was done, perhaps for want of memory (fewer "
            f"--jobs need less): {_kept(options, len(records))}"
        ) from error

    # The table is made from the records, so it can be made again without running anything.
    if folder is not None:
        with _writing_to(folder), atomic_write(folder / "table.csv") as scratch:
            scratch.write_text(to_csv(records), encoding="utf-8", newline="\n")
    print_results(records, console(), wide=options.wide)
    if folder is not None:
        click.echo(f"Wrote {len(records)} records and table.csv to {folder}")
    if any(record.status != "ok" for record in records):
        sys.exit(1)


def _check(options: RunOptions) -> None:
    """Refuse options that contradict each other."""
    check_prompt(options.prompt)

    # What to run.
    if options.no_baselines and options.baseline_names:
        raise BadInput("--no-baselines and --baseline contradict each other; give one of them.")
    if options.no_detectors and options.detector_names:
        raise BadInput("--no-detectors and --detector contradict each other; give one of them.")

    # Where, and how many at a time.
    if options.skip_existing and options.output is None:
        raise BadInput("--skip-existing needs the folder of the run: give it with -o.")
    if options.jobs == 0:
        raise BadInput("--jobs 0 runs nothing; give the number of methods to run at a time, or -1.")
    if options.backend is not None and options.jobs == 1:
        raise BadInput("--backend is for several methods at a time; give --jobs too.")


def _start(options: RunOptions, running: ExitStack) -> tuple[Iterable[Result], Any]:
    """Prepare everything and begin to run; return the results to come, and the bar.

    What must be closed at the end is put on `running`.
    """
    from dnm_sklearn._utils.progress import progress
    from dnm_sklearn.bench.run import backends, prepare
    from dnm_sklearn.bench.run.runner import run_methods

    # In this order, mistakes in what was typed are told before anything takes long.
    cached = _cached_records(options)
    methods = _methods(options)
    config = _config(options, methods)
    suite = _suite(options)
    methods = _without_pictures(methods, suite)
    methods = _without_missing_images(methods, suite, options)

    # ID training images that no method looks at are not embedded.
    if all(config.id_images_of(method) is None for method in methods):
        suite = replace(suite, id_train=None)
    if options.folder is not None:
        _make_folder(options.folder)

    say(f"Embedding the images of {suite.name} ...")
    embedded = prepare.embed_suite(suite, options.cache, options.cache_size)

    running.enter_context(backends.using(options.backend, options.jobs))
    bar = running.enter_context(progress(len(methods) * len(suite.ood), True, "Running"))
    # With several methods at a time there is no one name to show.
    on_start = _shown_on(bar) if options.jobs == 1 else None
    results = run_methods(
        embedded, methods, config, cached=cached, jobs=options.jobs, on_start=on_start
    )
    return results, bar


def _cached_records(options: RunOptions) -> dict[str, Record]:
    """Find the records of a run folder that are kept; a folder of a newer version is refused."""
    from dnm_sklearn.bench.results.score_files import valid_records

    if options.folder is None:
        return {}
    records = valid_records(options.folder / "records")
    then = "" if options.skip_existing else ", to be made again"
    logger.info("%d valid records in %s%s", len(records), options.folder, then)
    return records if options.skip_existing else {}


def _methods(options: RunOptions) -> list[Method]:
    """List the methods in the order of the table: detectors, then baselines."""
    methods = [] if options.no_detectors else _detectors(options.detector_names)
    methods += [] if options.no_baselines else _baselines(options.baseline_names)
    if not methods:
        raise BadInput("Nothing to run: both detectors and baselines are left out.")
    return methods


def _detectors(names: tuple[str, ...]) -> list[Method]:
    """Find detectors by name or specification; without any, all that score embeddings.

    What scores pictures would embed each a second time. Those that use ID images are then run with
    a few, and those that can do without both ways; but for plug-ins, whose rows with images would
    be those of their base once more.
    """
    from dnm_sklearn.bench.run import registry
    from dnm_sklearn.bench.run.specs import detector_of_spec

    if names:
        return _distinct([detector_of_spec(name) for name in names])
    methods = [m for m in registry.detectors().values() if not m.needs_pictures]
    with_images = [m for m in methods if m.uses_id_images and not m.is_plug_in]
    names_only = [method for method in methods if not method.needs_id_images]
    return names_only + [replace(method, id_per_class=_FEW_ID_IMAGES) for method in with_images]


def _baselines(names: tuple[str, ...]) -> list[Method]:
    """Find baselines by name or specification; without any, all of the list."""
    from dnm_sklearn.bench.run import registry
    from dnm_sklearn.bench.run.specs import baseline_of_spec, is_spec

    methods = registry.baselines()
    if not names:
        return list(methods.values())
    found = []
    for name in names:
        found.append(baseline_of_spec(name) if is_spec(name) else registry.resolve(name, methods))
    return _distinct(found)


def _distinct(methods: Iterable[Method]) -> list[Method]:
    """Leave out methods that were given before."""
    return list({method.key: method for method in methods}.values())


def _config(options: RunOptions, methods: Iterable[Method]) -> RunConfig:
    from dnm_sklearn.bench.run.config import RunConfig

    return RunConfig(
        seed=options.seed,
        prompt=options.prompt,
        id_per_class=options.id_per_class,
        overrides=parse_overrides(options.params, {method.name: method for method in methods}),
        stream=options.stream,
        repeats=options.repeats,
        command=command_line(),
    )


def parse_overrides(params: Iterable[str], methods: dict[str, Method]) -> dict[str, dict[str, Any]]:
    """Read METHOD.NAME=VALUE; values are Python literals, anything else a string."""
    from dnm_sklearn.bench.run.registry import resolve
    from dnm_sklearn.bench.run.specs import literal_or_text

    overrides: dict[str, dict[str, Any]] = {}
    for param in params:
        target, equals, text = param.partition("=")
        method, dot, name = target.strip().rpartition(".")
        if not (equals and dot and method and name.strip()):
            raise BadInput(
                f"--param {param!r} is not METHOD.NAME=VALUE, e.g. NegLabelDetector.n_groups=10."
            )
        of_method = overrides.setdefault(resolve(method, methods).name, {})
        of_method[name.strip()] = literal_or_text(text)
    return overrides


def _suite(options: RunOptions) -> Suite:
    """Load the suite, with another model, corpus or ID images to fit on if they are given."""
    from dnm_sklearn.bench.run import registry
    from dnm_sklearn.bench.run.id_train import with_id_train

    suite = registry.load_suite(
        options.suite_name, data_root=options.data_root, download=options.download
    )
    if options.model is not None:
        suite = _with_model(suite, options.model)
    if options.corpus is not None:
        suite = _with_corpus(suite, options.corpus)
    if options.id_train is not None:
        suite = with_id_train(suite, options.id_train)
    return suite.blind() if options.blind else _with_leaks_told(suite)


def _with_leaks_told(suite: Suite) -> Suite:
    """Say how many names of OOD classes the corpus holds."""
    leaks = suite.leaks()
    if leaks:
        shown = ", ".join(f"{name} {len(names)}" for name, names in leaks.items())
        example = next(iter(leaks.values()))[0]
        told = (
            f"The corpus holds names of OOD classes (e.g. {example!r}), by set: {shown}. --blind "
            "leaves them out."
        )
        tell(told)
    return suite


def _with_model(suite: Suite, model: str) -> Suite:
    """Give a suite of images another model; embeddings must be of that model already."""
    from dnm_sklearn.bench.run.prepare import holds_embeddings
    from dnm_sklearn.embedding import CLIPEmbedder
    from dnm_sklearn.embedding.open_clip.registry import shown_model_name

    if not holds_embeddings(suite):
        return replace(suite, embedder=CLIPEmbedder(model))
    own_model = (suite.meta or {}).get("model")
    if own_model in (model, shown_model_name(model)):
        return suite
    raise BadInput(
        f"The suite {suite.name!r} holds embeddings of {own_model or 'an unnamed model'}, not of "
        f"{model!r}; leave --model out, or embed the images again with 'dnm-bench embed --model'."
    )


def _with_corpus(suite: Suite, name: str) -> Suite:
    """Give a suite other candidate negative labels, if its model can encode them."""
    from dnm_sklearn.corpus.check import check_corpus
    from dnm_sklearn.embedding import EmbeddingTable

    corpus = check_corpus(name, suite.class_names, suite.synsets)
    if isinstance(suite.embedder, EmbeddingTable):
        raise BadInput(
            f"--corpus {name}: the suite {suite.name!r} holds embeddings of its own "
            f"{len(suite.corpus)} words and no model to encode others; embed the images again with "
            f"'dnm-bench embed --corpus {name}'."
        )
    return replace(suite, corpus=corpus)


def _without_pictures(methods: list[Method], suite: Suite) -> list[Method]:
    """Leave out what scores pictures where there are only embeddings."""
    from dnm_sklearn.bench.run.prepare import holds_embeddings

    needy = [method.name for method in methods if method.needs_pictures]
    if not needy or not holds_embeddings(suite):
        return methods

    why = f"The suite {suite.name} holds embeddings, and {', '.join(needy)} scores pictures"
    remaining = [method for method in methods if not method.needs_pictures]
    if not remaining:
        raise BadInput(f"Nothing to run: {why}, by their patches; give a suite of images.")
    tell(f"{why}: left out.")
    return remaining


def _without_missing_images(
    methods: list[Method], suite: Suite, options: RunOptions
) -> list[Method]:
    """Leave out what needs ID images that there are not, unless it was requested by name."""
    # The forms with ID images that a run without choices adds draw by class.
    if not options.detector_names and (suite.id_train is None or suite.id_train.labels is None):
        methods = [method for method in methods if method.id_per_class is None]
    if suite.id_train is not None or options.baseline_names:
        return methods

    remaining = [method for method in methods if method.kind != "baseline"]
    if len(remaining) < len(methods):
        tell(f"The suite {suite.name} has no id_train images: baselines are left out.")
    if not remaining:
        raise BadInput(
            f"Nothing to run: {suite.name} has no ID images for the baselines; give some with "
            "--id-train."
        )
    return remaining


def _make_folder(folder: Path) -> None:
    """Make the output folder and check that it takes files, before anything is run."""
    try:
        (folder / "records").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"Cannot write to {folder}: {error.strerror}; choose another folder with -o."
        ) from error
    if not os.access(folder / "records", os.W_OK):
        raise BadInput(
            f"Cannot write to {folder}: permission denied; choose another folder with -o."
        )


def _shown_on(bar: Any) -> Callable[[str], None]:
    """Return what shows the method that runs on the bar."""
    return lambda label: bar.set_description(f"Running {label}")


def _collect(
    results: Iterable[Result], folder: Path | None, bar: Any, records: list[Record]
) -> None:
    """Take results as they come, and write each at once; `records` are those that are done."""
    from dnm_sklearn.bench.results.score_files import write_with_scores

    for result in results:
        record = result.record
        status = record.status if result.is_new else "kept as it was"
        logger.info("%s on %s: %s", record.label, record.ood["name"], status)
        if folder is not None and result.is_new:
            with _writing_to(folder):
                record = write_with_scores(
                    folder / "records", record, result.id_scores, result.ood_scores
                )
        records.append(record)
        bar.update()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Say what became of the run where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"Cannot write to {folder}: {error}; what is there is complete.") from error


def _kept(options: RunOptions, n_records: int) -> str:
    """Say what is kept of a run that stopped, and how to go on."""
    if options.folder is None:
        return "nothing was kept: give -o DIR to keep records as they are made."
    return f"{n_records} records in {options.folder} are complete; go on with --skip-existing."
