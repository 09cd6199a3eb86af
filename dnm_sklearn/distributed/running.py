"""A job's partitions through an actor pool of Ray Data, and what came of them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dnm_sklearn._utils.progress import progress
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.distributed.output_folder import finished
from dnm_sklearn.distributed.workers import (
    N_ERRORS,
    N_FLAGGED,
    N_ROWS,
    Starts,
    Task,
    Worker,
    result_name,
)
from dnm_sklearn.exceptions import PartitionError, UnreadableImageWarning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobSummary:
    """What came of a job.

    Attributes
    ----------
    output : str
        Folder of the Parquet files, one per partition; ``pandas.read_parquet(output)`` or
        ``ray.data.read_parquet(output)`` reads them all.
    n_rows, n_errors, n_flagged : int
        Images; those that could not be read; those flagged as OOD.
    n_partitions, n_done_before : int
        Partitions of the job, and those that an earlier, interrupted run had finished.
    n_rows_now : int
        Images of this run.
    seconds : float
        Wall time of this run.
    stages : dict of str to float
        Seconds of all workers together, by stage: "read_embed", "score", "write".
    """

    output: str
    n_rows: int
    n_errors: int
    n_flagged: int
    n_partitions: int
    n_done_before: int
    n_rows_now: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.n_rows_now / max(self.seconds, 1e-9)
        return (
            f"{self.n_rows:,} images ({self.n_errors:,} unreadable) in {self.n_partitions:,} "
            f"partitions, {self.n_done_before:,} of them done before; {rate:,.1f} images/s"
        )


@dataclass(frozen=True)
class Pool:
    """The actors of a job."""

    workers: int | tuple[int, int]
    num_cpus: float
    num_gpus: float

    def options(self, n_partitions: int) -> dict[str, Any]:
        """Arguments of ``map_batches``; no more workers than there is work for."""
        import ray

        least, most = (self.workers,) * 2 if isinstance(self.workers, int) else self.workers
        pool = ray.data.ActorPoolStrategy(
            min_size=min(least, n_partitions), max_size=min(most, n_partitions)
        )
        return {"compute": pool, "num_cpus": self.num_cpus, "num_gpus": self.num_gpus or None}

    def warn_of_waiting(self) -> None:
        """Say it if no worker can start yet: Ray waits, for ever where the cluster never grows."""
        import ray

        there = ray.cluster_resources()
        for kind, wanted in (("CPU", self.num_cpus), ("GPU", self.num_gpus)):
            if wanted > there.get(kind, 0):
                warn(
                    f"Each worker wants {wanted:g} {kind}s, and the whole cluster has "
                    f"{there.get(kind, 0):g}: the job waits until there are more.",
                    UserWarning,
                )


def run(task: Task, pool: Pool, verbose: bool) -> JobSummary:
    """Do the partitions that are missing, and sum all up."""
    started = time.perf_counter()
    where = task.output
    assert where is not None
    there = finished(where)
    done = [n for n in range(len(task.partitions)) if result_name(n) in there]
    missing = sorted(set(range(len(task.partitions))) - set(done))
    logger.info("%d partitions, %d of them done before", len(task.partitions), len(done))

    rows = work(Worker, task, missing, pool, verbose) if missing else []
    raise_problems(rows, where.path)

    counts = [(row["rows"], row["errors"], row["flagged"]) for row in rows]
    counts += [_facts(task, number) for number in done]
    n_rows, n_errors, n_flagged = np.array(counts, dtype=int).reshape(-1, 3).sum(axis=0).tolist()
    stages = ("read_embed", "score", "write")
    summary = JobSummary(
        output=where.path,
        n_rows=n_rows,
        n_errors=n_errors,
        n_flagged=n_flagged,
        n_partitions=len(task.partitions),
        n_done_before=len(done),
        n_rows_now=sum(row["rows"] for row in rows),
        seconds=time.perf_counter() - started,
        stages={stage: sum(row[f"{stage}_s"] for row in rows) for stage in stages},
    )
    if summary.n_errors:
        warn(
            f"{summary.n_errors} of {summary.n_rows} images could not be read; the column 'error' "
            f"of {where.path} says why.",
            UnreadableImageWarning,
        )
    return summary


def _facts(task: Task, number: int) -> tuple[int, int, int]:
    """Rows, errors and flags of a finished file, from its metadata."""
    place = task.file_of(number)
    with place.filesystem.open_input_file(place.path) as source:
        metadata = pq.ParquetFile(source).schema_arrow.metadata
    return int(metadata[N_ROWS]), int(metadata[N_ERRORS]), int(metadata[N_FLAGGED])


def work(worker: Any, task: Task, numbers: Any, pool: Pool, verbose: bool) -> list[dict[str, Any]]:
    """Send the numbers of partitions through an actor pool; collect what each has to tell."""
    import ray

    items = [{"number": int(number)} for number in numbers]
    starts: Any = ray.remote(num_cpus=0, max_restarts=-1)(Starts).remote()
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        worker,
        batch_size=1,
        fn_constructor_args=(ray.put(task), starts),
        **pool.options(len(items)),
    )
    # Ray's own bars show its operators; ours shows partitions. Results are told as they come,
    # whichever is done first. The settings are this Dataset's own, not the user's.
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = False
    pool.warn_of_waiting()

    rows = []
    try:
        with progress(len(items), verbose, "partitions") as bar:
            for row in dataset.iter_rows():
                rows.append(row)
                bar.update(1)
    finally:
        # The workers' copies of its handle would keep it for a while.
        ray.kill(starts)
    return rows


def raise_problems(rows: list[dict[str, Any]], output: str) -> None:
    """Tell of the partitions that failed, once all others are done."""
    failed = [row for row in rows if row["problem"]]
    if failed:
        lines = [f"partition {row['number']}: {row['problem']}" for row in failed[:5]]
        more = f"\n... and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise PartitionError(
            f"{len(failed)} of {len(rows)} partitions failed; the others are in {output}. Mend the "
            "cause and give the same call again: it does what is missing.\n"
            + "\n".join(lines)
            + more
        )
