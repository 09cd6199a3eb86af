"""``dnm-bench score``: names and images to a file of scores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from dnm_sklearn.bench.cli.common import (
    BadInput,
    cache_options,
    check_prompt,
    is_full_disk,
    set_up_logging,
    user_errors,
    verbose_option,
)
from dnm_sklearn.bench.cli.ending import Interrupted
from dnm_sklearn.bench.cli.engine import check_engine, engine_options, score_on_ray

logger = logging.getLogger(__name__)


@click.command()
@click.argument("images", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False),
    help="A .csv or .parquet file.",
)
@click.option("-n", "--name", "names", multiple=True, help="An ID class name; may be repeated.")
@click.option(
    "--names", "names_file", type=click.Path(), help="Text file of ID class names, one per line."
)
@click.option(
    "-d",
    "--detector",
    "detector_name",
    default="UnknownImage",
    show_default=True,
    help="Which detector.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of it; may be repeated.",
)
@click.option("--model", help="open_clip model as name/tag; default: CLIPEmbedder's.")
@click.option("--prompt", help="Prompt of the class names with a {}; default: the detector's.")
@click.option("--corpus", help="Candidate negative labels: a corpus's name, or a file of words.")
@click.option(
    "--calibrate", type=click.Path(), help="Folder of ID images that the threshold keeps 95 % of."
)
@cache_options
@click.option(
    "--chunk", type=click.IntRange(min=1), default=1024, show_default=True, help="Images at a time."
)
@click.option(
    "--restart", is_flag=True, help="Forget the part that an earlier, interrupted call left."
)
@engine_options
@verbose_option
def score(
    images: str,
    output: str,
    names: tuple[str, ...],
    names_file: str | None,
    detector_name: str,
    params: tuple[str, ...],
    model: str | None,
    prompt: str | None,
    corpus: str | None,
    calibrate: str | None,
    cache: str | None,
    cache_size: int | None,
    chunk: int,
    restart: bool,
    engine: str,
    address: str | None,
    workers: int,
    num_gpus: float,
    verbose: int,
) -> None:
    """Score IMAGES (a folder, or a text file with one path per line); write one line per image.

    \b
    dnm-bench score photos -n cat -n dog -o scores.csv
    dnm-bench score photos --names classes.txt -d DNM --cache cache -o scores.parquet

    Columns: path, score (higher = more OOD), is_ood, label (the nearest class, or "ood"),
    nearest_class, top_negative_label (of methods with negative labels), error (of an image that
    cannot be read: no score, is_ood true). Without --calibrate is_ood and label go by a rule of
    thumb, and a line on standard error says how far to trust it. A byte of a path that is no UTF-8
    stands as \\xNN.

    The file appears when it is complete. Until then finished chunks are kept in OUTPUT.part, and
    the same call goes on behind them.

    With --engine ray the work is done by Ray workers, on this machine or a cluster:

    \b
    dnm-bench score 's3://bucket/photos' -n cat -n dog -o scores --engine ray --address auto
    """  # noqa: D301
    from dnm_sklearn.bench.run import scoring_job

    set_up_logging(verbose)
    check_prompt(prompt)
    try:
        # Everything that can be wrong on the command line is checked before a model is loaded.
        check_engine(engine, {"address": address, "gpus-per-worker": num_gpus})
        if engine == "local":
            scoring_job.check_output(output)
        classes = [*names, *(scoring_job.read_lines(names_file) if names_file else [])]
        if not classes:
            raise BadInput("No class names; give them with -n NAME or --names FILE.")
        scoring_job.check_class_names(classes)
        paths = scoring_job.list_paths(images) if engine == "local" else []
        settings: dict[str, Any] = {
            "params": list(params),
            "model": model,
            "prompt": prompt,
            "corpus": corpus,
        }
        detector = scoring_job.make_detector(
            detector_name, classes, cache=cache, cache_size=cache_size, **settings
        )
        calibration = None if calibrate is None else scoring_job.list_paths(calibrate)
        if engine == "ray":
            detector.fit()
            if calibration is not None:
                detector.calibrate(calibration)
            click.echo(
                score_on_ray(
                    images, output, detector, address=address, workers=workers, num_gpus=num_gpus
                )
            )
            return

        # What decides the scores: a job of anything else does not go on with these chunks.
        identity = [detector_name, classes, calibrate, settings | {"chunk": chunk}]
        job = scoring_job.Job(output, paths, identity, chunk, restart=restart)
        n_unreadable = job.run(detector, calibration)
    except KeyboardInterrupt as error:
        raise Interrupted(f"the same command goes on behind what is in {output}.part.") from error
    except user_errors() as error:
        if is_full_disk(error):
            raise BadInput(
                f"No space left on device: the disk of {output} or of the cache is full; free "
                f"some, and the same command goes on behind the chunks in {output}.part, which are "
                "complete."
            ) from error
        raise BadInput(str(error)) from error
    if detector.threshold_source_ == "names":
        click.echo(
            f"{detector._uncalibrated_message()} On this command line: --calibrate FOLDER.",
            err=True,
        )
    unreadable = f" ({n_unreadable} images unreadable)" if n_unreadable else ""
    click.echo(f"Wrote {len(paths)} lines to {Path(output)}{unreadable}")
