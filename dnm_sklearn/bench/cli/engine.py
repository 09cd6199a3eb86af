"""``--engine ray``: the work of a command on a cluster, or on the processes of one machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click

from dnm_sklearn.bench.cli.common import BadInput


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a command computes."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="ray: on Ray Data; -o is then a folder of Parquet files, and IMAGES may be a "
            "pattern, Parquet or tar files, or a URL.",
        ),
        click.option("--address", help="Ray cluster, e.g. auto; default: this machine."),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Workers of --engine ray.",
        ),
        click.option(
            "--gpus-per-worker",
            "num_gpus",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="GPUs of each worker.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_engine(engine: str, given: dict[str, Any]) -> None:
    """Refuse options that the local engine would pass over, and Ray that is not installed."""
    if engine == "local":
        for name, value in given.items():
            if value:
                raise BadInput(f"--{name} needs --engine ray.")
        return
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "--engine ray needs Ray: pip install 'dnm_sklearn[ray]' (or 'ray[data]')."
        ) from error


def score_on_ray(
    images: str, output: str, detector: Any, *, address: str | None, workers: int, num_gpus: float
) -> str:
    """Score a collection with a fitted detector; return one line on what came of it."""
    import ray

    from dnm_sklearn.distributed import score

    ray.init(
        address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
    )
    summary = score(images, detector, output, workers=workers, num_gpus=num_gpus)
    return f"{summary}. Wrote {summary.output}"
