"""``dnm-bench score``: names and images, or embeddings, to a file of scores and a page."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from dnm_sklearn.bench.cli.common import (
    BadInput,
    UserPath,
    cache_options,
    check_prompt,
    command_line,
    given_by_user,
    refuse,
    tell,
    user_errors,
    verbose_option,
    write_output,
)
from dnm_sklearn.bench.cli.ending import Interrupted
from dnm_sklearn.bench.cli.engine import check_engine, engine_options, run_on_ray

if TYPE_CHECKING:
    from dnm_sklearn.bench.run.own_data import Items
    from dnm_sklearn.bench.run.scoring_job import Job

logger = logging.getLogger(__name__)

# What a saved detector brings itself, by the names of options here.
_OF_DETECTOR = ("names", "names_file", "detector_name", "params", "prompt", "corpus")
# What only the local engine does.
_LOCAL = ("explain", "html", "top_k", "order", "texts", "chunk", "restart")


@click.command()
@click.argument("images", type=UserPath())
@click.option(
    "-o",
    "--output",
    type=UserPath(),
    help="A .csv or .parquet file; with --engine ray a folder of Parquet files.",
)
@click.option(
    "--html",
    type=UserPath(dir_okay=False),
    help="A page with the images by score, flags and explanations.",
)
@click.option(
    "--explain",
    type=UserPath(dir_okay=False),
    help="A .csv or .parquet file with the nearest labels of each image.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=5,
    help="Class names, and negative labels, that explain an image.",
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["given", "score", "path"]),
    default="given",
    help="Order of the lines; score: the highest first.",
)
@click.option(
    "--column",
    help="Column of a Parquet file, or array of an npz file, with the embeddings; default: "
    "embedding. With --engine ray: the column of the images' bytes or paths.",
)
@click.option("-n", "--name", "names", multiple=True, help="An ID class name; may be repeated.")
@click.option(
    "--names",
    "names_file",
    type=UserPath(),
    help="File of ID class names: text with one per line, .csv, .tsv or .json.",
)
@click.option("--names-column", help="Column of the CSV file with the class names.")
@click.option(
    "--load",
    type=UserPath(),
    help="A detector that was saved; it brings names, parameters and threshold.",
)
@click.option("-d", "--detector", "detector_name", default="UnknownImage", help="Which detector.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of it; may be repeated.",
)
@click.option("--model", help="open_clip model as name/tag; default: CLIPEmbedder's.")
@click.option(
    "--texts",
    type=UserPath(),
    help="npz file with 'name' and 'embedding' of class names and negative labels; no model then.",
)
@click.option(
    "--prompt",
    callback=check_prompt,
    help="Prompt of the class names with a {}; default: that which the model was trained with, if "
    "it was one, else the detector's.",
)
@click.option("--corpus", help="Candidate negative labels: a corpus's name, or a file of words.")
@click.option(
    "--calibrate",
    type=UserPath(),
    help="ID images (or embeddings) that the threshold is set by; used for nothing else.",
)
@click.option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Proportion of ID images that --calibrate lets be flagged; default: 0.05.",
)
@cache_options
@click.option("--chunk", type=click.IntRange(min=1), default=1024, help="Images at a time.")
@click.option(
    "--restart", is_flag=True, help="Forget the part that an earlier, interrupted call left."
)
@engine_options("IMAGES may then be a pattern, Parquet or tar files, or a URL")
@verbose_option
def score(**values: Any) -> None:
    """Score IMAGES; write one line per image.

    \b
    dnm-bench score photos -n cat -n dog -o scores.csv
    dnm-bench score photos --names classes.txt -d DNM --cache cache -o scores.parquet
    dnm-bench score photos --load detector.skops --html page.html
    dnm-bench score rows.npy --texts texts.npz --names classes.json -o scores.csv --sort score
    dnm-bench score photos --names classes.csv --calibrate good --false-alarms 0.01 -o scores.csv

    IMAGES is a folder, a text file with one path per line, or a file of embeddings of the model:
    .npy, .npz (array "embedding") or .parquet (a column of lists); strings "path" beside them name
    the rows.

    Columns: path, score (higher = more OOD), is_ood, label (the nearest class, or "ood"),
    nearest_class, top_negative_label (of methods with negative labels), error (of an image that
    cannot be read: no score, is_ood true). Without --calibrate is_ood and label go by a rule of
    thumb, and a line on standard error says how far to trust it. A byte of a path that is no UTF-8
    stands as \\xNN.

    The files appear when they are complete. Until then finished chunks are kept in OUTPUT.part, and
    the same call goes on behind them.

    With --engine ray the work is done by Ray workers, on this machine or a cluster:

    \b
    dnm-bench score 's3://bucket/photos' -n cat -n dog -o scores --engine ray --address auto
    """  # noqa: D301
    options = SimpleNamespace(**values)
    # The first of the files that are written.
    options.target = options.output or options.html or ""
    # Labels of each side that are kept of an image, None where nobody asked for them.
    options.n_labels = options.top_k if options.explain or options.html else None

    goes_on = f"the same command goes on behind what is in {options.target}.part."
    try:
        # Everything that can be wrong on the command line is checked before a model is loaded.
        full = f"the disk of {options.target} or of the cache is full; free some, and {goes_on}"
        with user_errors(full):
            _check(options)
            detector = _detector(options)
            if options.engine == "ray":
                _score_on_ray(detector, options)
            else:
                _score_here(detector, options)
    except KeyboardInterrupt as error:
        raise Interrupted(goes_on) from error


def _check(options: SimpleNamespace) -> None:
    """Refuse options that contradict each other or would be passed over."""
    from dnm_sklearn.bench.run.job_files import check_output

    check_engine(options.engine, _LOCAL)
    if not options.target:
        raise BadInput("Nothing to write: give -o FILE or --html FILE.")
    if options.engine == "ray":
        if options.output is None:
            raise BadInput("--engine ray writes a folder: give it with -o.")
    elif options.output is not None:
        check_output("-o", options.output)
    if options.html is not None:
        check_output("--html", options.html, (".html", ".htm"))
    if options.explain is not None:
        check_output("--explain", options.explain)

    if options.load is not None:
        refuse(_OF_DETECTOR, "cannot stand beside --load: the saved detector has its own")
    if options.texts is not None:
        fixed = ("model", "prompt", "corpus", "cache", "cache_size")
        refuse(fixed, "cannot stand beside --texts, whose vectors are what they are")
    if options.false_alarms is not None and options.calibrate is None:
        raise BadInput("--false-alarms needs --calibrate: a rate is set by ID images.")
    if options.names_column is not None and options.names_file is None:
        raise BadInput("--names-column needs --names FILE.csv.")
    given = given_by_user()
    if "top_k" in given and options.n_labels is None:
        raise BadInput("--top-k needs --explain or --html.")
    if "order" in given and options.output is None:
        raise BadInput("--sort needs -o: the page can be sorted in the browser.")


def _detector(options: SimpleNamespace) -> Any:
    """Load the detector, or make an unfitted one."""
    from dnm_sklearn.bench.run import own_data, scoring_job

    texts = None if options.texts is None else own_data.read_texts(options.texts)
    if options.load is not None:
        return own_data.load_detector(
            options.load, options.model, texts, options.cache, options.cache_size
        )

    classes = list(options.names)
    if options.names_file is not None:
        classes += own_data.read_class_names(options.names_file, options.names_column)
    if not classes:
        raise BadInput("No class names; give them with -n NAME or --names FILE.")
    scoring_job.check_class_names(classes)
    return scoring_job.make_detector(
        options.detector_name,
        classes,
        params=options.params,
        model=options.model,
        texts=texts,
        prompt=options.prompt,
        corpus=options.corpus,
        cache=options.cache,
        cache_size=options.cache_size,
    )


def _calibration(options: SimpleNamespace, column: str | None) -> Items | None:
    """Find the images, or open the embeddings, that the threshold is set by."""
    from dnm_sklearn.bench.run.own_data import read_items

    return None if options.calibrate is None else read_items(options.calibrate, column)


def _prepare(detector: Any, options: SimpleNamespace, calibration: Items | None) -> None:
    """Fit a detector that was not loaded, and set its threshold."""
    # A detector is fitted also where only the last chunks are missing: it is quick, and a fitted
    # one would have to be kept with its version.
    if options.load is None:
        detector.fit()
    if calibration is not None:
        detector.calibrate(calibration.all(), false_alarm_rate=options.false_alarms)
    if detector.threshold_ is None:
        raise BadInput(
            f"{type(detector).__name__} has no threshold to flag images by: give --calibrate."
        )


def _score_on_ray(detector: Any, options: SimpleNamespace) -> None:
    """Score partition by partition, by workers."""
    from dnm_sklearn.distributed import score as job

    # The column is that of the images to score.
    _prepare(detector, options, _calibration(options, None))
    run_on_ray(job, options.images, detector, options.target, options)


def _score_here(detector: Any, options: SimpleNamespace) -> None:
    """Score chunk by chunk, and write what was asked for."""
    from dnm_sklearn._utils.digest import digest_file
    from dnm_sklearn.bench.run import job_files
    from dnm_sklearn.bench.run.own_data import read_items
    from dnm_sklearn.bench.run.scoring_job import Job

    items = read_items(options.images, options.column)
    if options.html is not None and items.rows is not None:
        raise BadInput(f"--html shows images, and {options.images} holds embeddings.")
    calibration = _calibration(options, options.column)

    # What decides the results: a job of anything else does not go on with these chunks. Files count
    # by their content, which may be another by then.
    files = (options.names_file, options.load, options.texts)
    identity = [options.detector_name, options.names, options.names_column, options.params]
    identity += [options.calibrate, options.false_alarms, options.model, options.prompt]
    identity += [options.corpus, options.column, options.chunk]
    identity += [path and digest_file(path).hex() for path in files]
    job = Job(
        options.target,
        items,
        identity,
        options.chunk,
        top_k=options.n_labels,
        restart=options.restart,
    )
    _prepare(detector, options, calibration)
    job.run(detector)

    n_unreadable = sum(not line[1] for line in job.lines())
    if options.output is not None:
        lines = job_files.in_order(job.lines(), options.order)
        job_files.write_lines(options.output, job_files.COLUMNS, lines)
    if options.explain is not None:
        job_files.write_lines(options.explain, job_files.EXPLAINED, job.explanations())
    if options.html is not None:
        write_output(options.html, _page(detector, options, items, job))
    job.forget()

    if detector.threshold_source_ == "names":
        message = f"{detector._uncalibrated_message()} On this command line: --calibrate FOLDER."
        tell(f"Warning: {message}")
    unreadable = f" ({n_unreadable} images unreadable)" if n_unreadable else ""
    written = [str(Path(path)) for path in (options.output, options.explain, options.html) if path]
    click.echo(f"Wrote {len(items)} lines to {', '.join(written)}{unreadable}")


def _page(detector: Any, options: SimpleNamespace, items: Items, job: Job) -> str:
    """Make the contact sheet."""
    from dnm_sklearn.bench.html.score_page import make_score_page

    classes = [str(name) for name in detector.class_names_]
    more = f", and {len(classes) - 30} others" if len(classes) > 30 else ""
    source = {
        "names": "a rule of thumb (give --calibrate for a known rate)",
        "images": "the images given to fit",
        "calibration": "ID images (calibrated)",
    }[detector.threshold_source_]
    facts = [
        ("Detector", type(detector).__name__),
        ("Model", str(getattr(detector.embedder_, "model", None) or "embeddings")),
        ("Threshold by", source),
        ("Date", date.today().isoformat()),
        ("Classes", ", ".join(classes[:30]) + more),
        ("Command", command_line()),
    ]
    return make_score_page(
        items.names,
        job.lines(),
        job.explanations(),
        title=f"Images of {Path(options.images).name or options.images}",
        facts=facts,
        threshold=float(detector.threshold_),
    )
