"""``dnm-bench run``: methods on a suite, one record each, one table."""

from __future__ import annotations

import ast
import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnm_sklearn.bench.cli.common import (
    INTERRUPTED,
    BadInput,
    cache_options,
    console,
    say,
    set_up_logging,
    user_errors,
    verbose_option,
)
from dnm_sklearn.bench.run.backends import BACKENDS
from dnm_sklearn.bench.run.orders import MEANING, ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnm_sklearn.bench.results.records import Record
    from dnm_sklearn.bench.run.registry import Method
    from dnm_sklearn.datasets.benchmark import Suite

logger = logging.getLogger(__name__)


@click.command()
@click.option(
    "--suite",
    "suite_name",
    default="glyphs",
    show_default=True,
    help="A shipped suite's name, or a suite's folder.",
)
@click.option(
    "--data-root",
    type=click.Path(),
    help="Folder with the images of a benchmark (dnm-bench list suites).",
)
@click.option(
    "--download", is_flag=True, help="Let torchvision download its own data sets into --data-root."
)
@click.option(
    "-d",
    "--detector",
    "detector_names",
    multiple=True,
    help="Only this detector: a name, or NegLabel(n_groups=10), or, fitted on ID images beside the names, "
    "ENL(id_per_class=4); may be repeated.",
)
@click.option(
    "-b",
    "--baseline",
    "baseline_names",
    multiple=True,
    help="Only this baseline: a name, or pyod:KNN(n_neighbors=10), sklearn:LocalOutlierFactor; may be repeated.",
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
@click.option(
    "--corpus",
    help="Candidate negative labels: a corpus's name (wordnet-csp), or a text file of words.",
)
@click.option(
    "--model", help="The open_clip model (name/tag) that embeds the suite's images and names."
)
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
    help="ID images a class that the baselines are fitted on; 0 = all that there are.",
)
@click.option(
    "--id-train",
    type=click.Path(),
    help="ID images to fit on: a folder with a subfolder a class, or an npz file of embeddings.",
)
@click.option(
    "-j",
    "--jobs",
    type=int,
    default=1,
    show_default=True,
    help="Methods at a time, through joblib; -1 = one a processor.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="joblib's back end for --jobs; default: loky. dask: the scheduler at DASK_SCHEDULER_ADDRESS, or a local one.",
)
@cache_options
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    help="Folder for records/*.json (one a method and OOD set), their scores, and table.csv.",
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Keep what is valid in the output folder; compute the rest.",
)
@click.option("--wide", is_flag=True, help="One table with every metric of every set.")
@verbose_option
def run(
    suite_name: str,
    data_root: str | None,
    download: bool,
    detector_names: tuple[str, ...],
    baseline_names: tuple[str, ...],
    no_baselines: bool,
    no_detectors: bool,
    params: tuple[str, ...],
    prompt: str | None,
    corpus: str | None,
    model: str | None,
    seed: int,
    stream: Any,
    repeats: int,
    id_per_class: int,
    id_train: str | None,
    jobs: int,
    backend: str | None,
    cache: str | None,
    cache_size: int | None,
    output: str | None,
    skip_existing: bool,
    wide: bool,
    verbose: int,
) -> None:
    """Run detectors and baselines on a suite and print one table.

    \b
    dnm-bench run
    dnm-bench run --suite my-suite -d NegLabel -d DNM --param DNM.n_groups=10 -o results
    dnm-bench run --suite my-suite -o results --skip-existing
    dnm-bench run -d TANL --stream rare-ood --repeats 5
    dnm-bench run -d ENL -d "ENL(id_per_class=4)" -d "ENL(id_per_class=16)" -b KNN
    dnm-bench run -b "pyod:KNN(n_neighbors=10)" -b sklearn:IsolationForest --jobs 2
    dnm-bench run --suite glyphs-symbols --no-baselines --wide
    dnm-bench run --suite imagenet1k-four-ood --data-root data --model ViT-B-16-quickgelu/openai

    A killed run goes on where it stopped with --skip-existing: records that are whole and belong to
    the same configuration are kept, failed and damaged ones are made again.
    """  # noqa: D301
    from dnm_sklearn._utils.progress import progress
    from dnm_sklearn.bench.results import rows
    from dnm_sklearn.bench.run import backends, prepare, runner

    set_up_logging(verbose)
    if prompt is not None and "{}" not in prompt:
        raise BadInput(
            f"--prompt {prompt!r} has no {{}} where the class name goes, e.g. 'a photo of a {{}}'."
        )
    if no_baselines and baseline_names:
        raise BadInput("--no-baselines and --baseline contradict each other; give one of them.")
    if no_detectors and detector_names:
        raise BadInput("--no-detectors and --detector contradict each other; give one of them.")
    if skip_existing and output is None:
        raise BadInput("--skip-existing needs the folder of the run: give it with -o.")
    if jobs == 0:
        raise BadInput("--jobs 0 runs nothing; give the number of methods to run at a time, or -1.")
    if backend is not None and jobs == 1:
        raise BadInput("--backend is for several methods at a time; give --jobs too.")
    folder = None if output is None else Path(output)
    computing = ExitStack()
    try:
        known = _existing(folder, skip_existing)
        methods = [] if no_detectors else _detectors(detector_names)
        methods += _baselines(no_baselines, baseline_names)
        if not methods:
            raise BadInput("Nothing to run: both detectors and baselines are left out.")
        overrides = _overrides(params, {m.name: m for m in methods})
        suite = _suite(suite_name, model, data_root, download)
        if corpus is not None:
            suite = _with_corpus(suite, corpus)
        if id_train is not None:
            from dnm_sklearn.bench.run.id_train import with_id_train

            suite = with_id_train(suite, id_train)
        methods = _with_images(
            methods, suite, asked=bool(detector_names), asked_baselines=bool(baseline_names)
        )
        if all(method.kind != "baseline" and method.id_per_class is None for method in methods):
            suite = replace(
                suite, id_train=None
            )  # nothing looks at these images, so they are not embedded
        if folder is not None:
            _make_folder(folder)
        say(f"Embedding the images of {suite.name} ...")
        embedded = prepare.embed_suite(suite, memory=cache, cache_size=cache_size)
        plan = prepare.Plan(seed, prompt, id_per_class, overrides, stream, repeats)
        computing.enter_context(backends.using(backend, jobs))
        bar = computing.enter_context(progress(len(methods) * len(suite.ood), True, "Running"))
        outcomes = runner.run_outcomes(
            embedded,
            methods,
            plan,
            known=known,
            jobs=jobs,
            on_start=_shown_on(bar) if jobs == 1 else None,
        )
    except user_errors() as error:
        computing.close()
        raise BadInput(str(error)) from error
    done: list[Record] = []
    try:
        with computing:
            _collect(outcomes, folder, done, bar)
        if folder is not None:
            rows.write_csv(folder / "table.csv", done)
    except OSError as error:
        raise BadInput(f"Cannot write to {folder}: {error}; what is there is complete.") from error
    except KeyboardInterrupt:
        _interrupted(folder, done)
    rows.render(done, console(), wide=wide)
    if folder is not None:
        click.echo(f"Wrote {len(done)} records and table.csv to {folder}")
    if any(record.status != "ok" for record in done):
        sys.exit(1)


def _existing(folder: Path | None, skip_existing: bool) -> dict[str, Record]:
    """Find what a run folder already holds; a folder of a newer version is refused."""
    from dnm_sklearn.bench.results.score_files import valid_records

    if folder is None:
        return {}
    found = valid_records(folder / "records")
    logger.info(
        "%d valid records in %s%s",
        len(found),
        folder,
        "" if skip_existing else ", to be made again",
    )
    return found if skip_existing else {}


def _suite(name: str, model: str | None, data_root: str | None, download: bool) -> Suite:
    """Load a suite, with another model if that is possible."""
    import numpy as np

    from dnm_sklearn.bench.run import registry
    from dnm_sklearn.embedding.open_clip.registry import shown_model_name

    suite = registry.load_suite(name, data_root=data_root, download=download)
    if model is None:
        return suite
    made_by = (suite.meta or {}).get("model")
    if isinstance(suite.id.images, np.ndarray) and suite.id.images.ndim == 2:
        if made_by in (model, shown_model_name(model)):
            return suite
        raise BadInput(
            f"The suite {suite.name!r} holds embeddings of {made_by or 'an unnamed model'}, not of "
            f"{model!r}; leave --model out, or embed the images again with 'dnm-bench embed "
            "--model'."
        )
    from dnm_sklearn.embedding import CLIPEmbedder

    return replace(suite, embedder=CLIPEmbedder(model))


def _with_corpus(suite: Suite, name: str) -> Suite:
    """Give a suite other candidate negative labels, if its model can encode them."""
    from dnm_sklearn.corpus import check_corpus
    from dnm_sklearn.embedding import EmbeddingTable

    corpus = check_corpus(name)
    if isinstance(suite.embedder, EmbeddingTable):
        raise BadInput(
            f"--corpus {name}: the suite {suite.name!r} holds embeddings of its own "
            f"{len(suite.corpus)} words and no model to encode others; embed the images again with "
            f"'dnm-bench embed --corpus {name}'."
        )
    return replace(suite, corpus=corpus)


def _with_images(
    methods: list[Method], suite: Suite, *, asked: bool, asked_baselines: bool
) -> list[Method]:
    """Leave out what needs ID images that there are not, unless it was asked for."""
    if not asked and (suite.id_train is None or suite.id_train.labels is None):
        methods = [m for m in methods if m.id_per_class is None]
    if suite.id_train is not None or asked_baselines:
        return methods
    if any(m.kind == "baseline" for m in methods):
        click.echo(
            f"The suite {suite.name} has no id_train images: baselines are left out.", err=True
        )
    left = [m for m in methods if m.kind != "baseline"]
    if not left:
        raise BadInput(
            f"Nothing to run: {suite.name} has no ID images for the baselines; give some with "
            "--id-train."
        )
    return left


def _baselines(none: bool, names: tuple[str, ...]) -> list[Method]:
    from dnm_sklearn.bench.run import registry
    from dnm_sklearn.bench.run.specs import is_spec, method_of_spec

    if none:
        return []
    known = registry.baselines()
    if not names:
        return list(known.values())
    found = [
        method_of_spec(name) if is_spec(name) else registry.resolve(name, known) for name in names
    ]
    return list({method.key: method for method in found}.values())


def _detectors(names: tuple[str, ...]) -> list[Method]:
    """Detectors by name or specification; without any, all of them, and what can use ID images with some too."""
    from dnm_sklearn.bench.run import registry
    from dnm_sklearn.bench.run.specs import detector_of_spec

    if not names:
        known = list(registry.detectors().values())
        return known + [
            replace(m, id_per_class=registry.FEW_ID_IMAGES) for m in known if m.uses_id_images
        ]
    found = [detector_of_spec(name) for name in names]
    return list({method.key: method for method in found}.values())


def _overrides(params: tuple[str, ...], methods: dict[str, Method]) -> dict[str, dict[str, Any]]:
    """Read METHOD.NAME=VALUE; values are Python literals, anything else a string."""
    from dnm_sklearn.bench.run.registry import resolve

    found: dict[str, dict[str, Any]] = {}
    for param in params:
        target, equals, text = param.partition("=")
        method, dot, key = target.strip().rpartition(".")
        if not (equals and dot and method and key.strip()):
            raise BadInput(
                f"--param {param!r} is not METHOD.NAME=VALUE, e.g. NegLabelDetector.n_groups=10."
            )
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            value = text.strip()
        found.setdefault(resolve(method, methods).name, {})[key.strip()] = value
    return found


def _shown_on(bar: Any) -> Callable[[str], None]:
    """Return what shows the method that runs on the bar."""
    return lambda label: bar.set_description(f"Running {label}")


def _collect(outcomes: Any, folder: Path | None, done: list[Record], bar: Any) -> None:
    """Take outcomes as they come, and write each at once."""
    from dnm_sklearn.bench.results.score_files import write_with_scores

    for outcome in outcomes:
        record = outcome.record
        logger.info(
            "%s on %s: %s",
            record.label,
            record.ood["name"],
            record.status if outcome.is_new else "kept as it was",
        )
        if folder is not None and outcome.is_new:
            record = write_with_scores(folder / "records", record, outcome.scores)
        done.append(record)
        bar.update()


def _interrupted(folder: Path | None, done: list[Record]) -> None:
    said = "nothing was kept: give -o DIR to keep records as they are made."
    if folder is not None:
        said = f"{len(done)} records in {folder} are complete; go on with --skip-existing."
    click.echo(f"Interrupted: {said}", err=True)
    sys.exit(INTERRUPTED)


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
