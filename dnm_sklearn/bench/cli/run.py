"""``dnm-bench run``: methods on a suite, one record each, one table."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
    user_errors,
    verbose_option,
)
from dnm_sklearn.bench.cli.ending import Interrupted
from dnm_sklearn.bench.run.backends import BACKENDS
from dnm_sklearn.bench.run.orders import MEANING, ORDERS

if TYPE_CHECKING:
    from dnm_sklearn.bench.results.records import Record
    from dnm_sklearn.bench.run.runner import Result

logger = logging.getLogger(__name__)


# What is run: the suite and its images.
@click.command()
@click.option(
    "--suite", "suite_name", default="pictures", help="A shipped suite's name, or a suite's folder."
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
    callback=check_prompt,
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
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of all that is random.")
@click.option(
    "--stream",
    type=click.Choice(ORDERS),
    default="shuffled",
    help="Order in which test-time methods see the images of an OOD set and the ID set: "
    + "; ".join(f"{name}: {text}" for name, text in MEANING.items())
    + ".",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    help="Orders that each test-time method is scored in.",
)
@click.option(
    "--id-per-class",
    type=click.IntRange(min=0),
    default=16,
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
    type=UserPath(file_okay=False, path_type=Path),
    help="Folder for records/*.json (one per method and OOD set), their scores, and table.csv.",
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Keep what is valid in the output folder; compute the rest.",
)
@click.option("--wide", is_flag=True, help="One table with every metric of every set.")
@verbose_option
def run(**given: Any) -> None:
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
    from dnm_sklearn._utils.atomic_write import atomic_write
    from dnm_sklearn.bench.results.formats import to_csv
    from dnm_sklearn.bench.results.terminal import print_results

    options = SimpleNamespace(**given)
    _check(options)
    folder = options.output
    records: list[Record] = []
    try:
        with ExitStack() as running:
            with user_errors():
                results, bar = _start(options, running)
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


def _check(options: SimpleNamespace) -> None:
    """Refuse options that contradict each other."""
    if options.no_baselines and options.baseline_names:
        raise BadInput("--no-baselines and --baseline contradict each other; give one of them.")
    if options.no_detectors and options.detector_names:
        raise BadInput("--no-detectors and --detector contradict each other; give one of them.")
    if options.skip_existing and options.output is None:
        raise BadInput("--skip-existing needs the folder of the run: give it with -o.")
    if options.jobs == 0:
        raise BadInput("--jobs 0 runs nothing; give the number of methods to run at a time, or -1.")
    if options.backend is not None and options.jobs == 1:
        raise BadInput("--backend is for several methods at a time; give --jobs too.")


def _start(options: SimpleNamespace, running: ExitStack) -> tuple[Iterable[Result], Any]:
    """Prepare everything and begin to run; return the results to come, and the bar.

    What must be closed at the end is put on `running`.
    """
    from dnm_sklearn._utils.progress import progress
    from dnm_sklearn.bench.cli import choice
    from dnm_sklearn.bench.run import backends, prepare
    from dnm_sklearn.bench.run.config import RunConfig
    from dnm_sklearn.bench.run.runner import run_methods

    # In this order, mistakes in what was typed are told before anything takes long.
    cached = _cached_records(options)
    methods = choice.choose_methods(options)
    config = RunConfig(
        seed=options.seed,
        prompt=options.prompt,
        id_per_class=options.id_per_class,
        overrides=choice.parse_overrides(options.params, methods),
        stream=options.stream,
        repeats=options.repeats,
        command=command_line(),
    )
    suite = choice.choose_suite(options)
    methods = choice.without_pictures(methods, suite)
    methods = choice.without_missing_images(methods, suite, options)

    # ID training images that no method looks at are not embedded.
    if all(config.id_images_of(method) is None for method in methods):
        suite = replace(suite, id_train=None)
    if options.output is not None:
        _make_folder(options.output)

    say(f"Embedding the images of {suite.name} ...")
    embedded = prepare.embed_suite(suite, options.cache, options.cache_size)

    running.enter_context(backends.using(options.backend, options.jobs))
    bar = running.enter_context(progress(len(methods) * len(suite.ood), True, "Running"))

    def show(label: str) -> None:
        bar.set_description(f"Running {label}")

    # With several methods at a time there is no one name to show.
    on_start = show if options.jobs == 1 else None
    results = run_methods(
        embedded, methods, config, cached=cached, jobs=options.jobs, on_start=on_start
    )
    return results, bar


def _cached_records(options: SimpleNamespace) -> dict[str, Record]:
    """Find the records of a run folder that are kept; a folder of a newer version is refused."""
    from dnm_sklearn.bench.results.score_files import valid_records

    if options.output is None:
        return {}
    records = valid_records(options.output / "records")
    then = "" if options.skip_existing else ", to be made again"
    logger.info("%d valid records in %s%s", len(records), options.output, then)
    return records if options.skip_existing else {}


def _make_folder(folder: Path) -> None:
    """Make the output folder and check that it takes files, before anything is run."""
    try:
        (folder / "records").mkdir(parents=True, exist_ok=True)
        if not os.access(folder / "records", os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")
    except OSError as error:
        raise BadInput(
            f"Cannot write to {folder}: {error.strerror}; choose another folder with -o."
        ) from error


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


def _kept(options: SimpleNamespace, n_records: int) -> str:
    """Say what is kept of a run that stopped, and how to go on."""
    if options.output is None:
        return "nothing was kept: give -o DIR to keep records as they are made."
    return f"{n_records} records in {options.output} are complete; go on with --skip-existing."
