"""``--engine ray``: the work of a command on a cluster, or on the processes of one machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from dnm_sklearn.bench.cli.common import BadInput, WorkFailed, refuse, user_errors
from dnm_sklearn.bench.cli.ending import Interrupted

if TYPE_CHECKING:
    from dnm_sklearn.distributed import JobSummary

# Options that say how Ray computes.
_OF_RAY = ("address", "workers", "num_gpus")


def engine_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that say where a command computes; `what` is different with Ray."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        options = (
            click.option(
                "--engine",
                type=click.Choice(["local", "ray"]),
                default="local",
                help=f"ray: on Ray Data; {what}.",
            ),
            click.option(
                "--address",
                help="Ray cluster, e.g. auto; default: that of RAY_ADDRESS, or this machine.",
            ),
            click.option(
                "--workers", type=click.IntRange(min=1), default=1, help="Workers of --engine ray."
            ),
            click.option(
                "--gpus-per-worker",
                "num_gpus",
                type=click.FloatRange(min=0),
                default=0.0,
                help="GPUs of each worker.",
            ),
        )
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_engine(engine: str, only_local: tuple[str, ...], only_ray: tuple[str, ...] = ()) -> None:
    """Refuse options that the engine would pass over, and Ray that is not installed."""
    if engine == "local":
        refuse((*_OF_RAY, *only_ray), "needs --engine ray")
        return
    refuse(only_local, "is for --engine local")
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "--engine ray needs Ray: pip install 'dnm_sklearn[ray]' (or 'ray[data]')."
        ) from error


def run_on_ray(
    job: Callable[..., JobSummary], source: str, model: Any, output: str, options: SimpleNamespace
) -> None:
    """Run a job of `dnm_sklearn.distributed`, and say in one line what came of it."""
    import ray

    from dnm_sklearn.exceptions import PartitionError

    kept = f"finished partitions are in {output}, and the same command does the others."
    started = not ray.is_initialized()
    try:
        with user_errors(f"free some; {kept}"):
            if started:
                ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
                _check_gpus(options.address, options.num_gpus)
            summary = job(
                source,
                model,
                output,
                workers=options.workers,
                num_gpus=options.num_gpus,
                image_column=options.column,
            )
    except KeyboardInterrupt as error:
        raise Interrupted(kept) from error
    except PartitionError as error:
        raise WorkFailed(str(error)) from error
    finally:
        if started:
            ray.shutdown()
    click.echo(f"{summary}. Wrote {summary.output}")


def _check_gpus(address: str | None, num_gpus: float) -> None:
    """Refuse GPUs that this machine does not have; a cluster may grow."""
    import ray

    there = ray.cluster_resources().get("GPU", 0)
    if num_gpus > there and not (address or os.environ.get("RAY_ADDRESS")):
        raise BadInput(f"--gpus-per-worker {num_gpus:g}: this machine has {there:g} GPUs for Ray.")
