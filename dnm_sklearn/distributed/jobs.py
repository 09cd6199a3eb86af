"""Jobs over a collection of images: an actor pool of Ray Data, and files to go on from."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import joblib
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.progress import progress
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors import StreamingDetector
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.embedding.protocol import encoder_identity
from dnm_sklearn.exceptions import (
    PartitionError,
    UncalibratedThresholdWarning,
    UnreadableImageWarning,
)

if TYPE_CHECKING:
    from dnm_sklearn.distributed.partitions import Partition
    from dnm_sklearn.distributed.places import Place
    from dnm_sklearn.distributed.workers import Task

__all__ = ["JobSummary", "adapt", "embed", "score"]

# Files whose names start with an underscore are no data to readers of Parquet folders.
_MANIFEST = "_manifest.json"
# The version of the layout of an output folder.
_LAYOUT = 1
# Columns of a ray Dataset are kept here, so that a job that goes on sees the same partitions.
_STAGED = "_input"
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


def embed(
    source: Any,
    embedder: Any,
    output: Any,
    *,
    format: str = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    filesystem: Any = None,
    workers: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    rows_per_partition: int = 10_000,
    batch_bytes: int = 256 * 2**20,
    on_error: str = "nan",
    verbose: bool = True,
) -> JobSummary:
    """Embed a collection of images into partitioned Parquet.

    Parameters
    ----------
    source : str, path, list of str, or ray.data.Dataset
        A folder, file or pattern (``photos/*/2024*.jpg``) of images; Parquet files with a column of
        images' bytes or paths; tar files of a WebDataset; a list of images; each also as a URL
        (``s3://...``). The columns of a ``ray.data.Dataset`` are first written to the output's
        ``_input`` folder, so that an interrupted job can go on: a column of paths is small.
    embedder : CLIPEmbedder or str
        The model.
    output : str or path
        Folder or URL for ``part-000000.parquet`` and so on: `id` (path, ``file#row`` or the value
        of `id_column`), `embedding` (list of D float16), `error` (null, or why an image could not
        be read; its embedding is NaN).
    format : {"auto", "images", "parquet", "webdataset"}, default="auto"
        What `source` holds; "auto" = by the endings of its files.
    id_column, image_column : str or None, default=None
        Columns of Parquet and Datasets; None = none, and the first of "image", "bytes", "path",
        "url", "jpg", "png" that there is.
    filesystem : pyarrow or fsspec file system, or None, default=None
        Where `source` is; None = by its URL.
    workers : int or (int, int), default=1
        Size of the actor pool, or its least and greatest.
    num_cpus, num_gpus : float
        What Ray sets aside for each worker. With ``num_gpus=1`` each has a GPU of its own.
    rows_per_partition : int, default=10_000
        Images of a partition where `source` is a list of files. Parquet's row groups and tar files
        are partitions as they are.
    batch_bytes : int, default=256 MiB
        Encoded images that a worker holds at once; halved where memory runs out.
    on_error : {"nan", "raise"}, default="nan"
        Whether an unreadable image is listed, or its partition fails.
    verbose : bool, default=True
        Show progress.

    Returns
    -------
    JobSummary

    Raises
    ------
    PartitionError
        After all others are done, if partitions failed: it names them and why. The same call does
        what is missing.
    ValueError
        If `output` holds another job, or `source` no images.

    Notes
    -----
    A killed job goes on when it is called again: finished files stay as they are. Ray restarts
    workers that die, and hands their partition to another.

    Examples
    --------
    >>> import numpy as np, ray
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from dnm_sklearn.distributed import embed
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> _ = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    >>> Path("photos").mkdir()
    >>> for i in range(3):
    ...     Image.fromarray(np.full((8, 8, 3), 80 * i, dtype=np.uint8)).save(f"photos/{i}.png")
    >>> embed("photos", FakeEmbedder(dim=4), "rows").n_rows
    3
    >>> ray.shutdown()
    """
    embedder = _for_workers(check_embedder(embedder), on_error)
    options = (format, id_column, image_column, filesystem, rows_per_partition)
    where, partitions = _prepare(source, output, embedder, None, options)
    pool = _Pool(workers, num_cpus, num_gpus)
    return _run(where, partitions, embedder, None, False, pool, batch_bytes, verbose)


def score(
    source: Any,
    detector: Any,
    output: Any,
    *,
    embeddings: bool = False,
    format: str = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    filesystem: Any = None,
    workers: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    rows_per_partition: int = 10_000,
    batch_bytes: int = 256 * 2**20,
    on_error: str = "nan",
    verbose: bool = True,
) -> JobSummary:
    """Score a collection of images with a fitted detector, into partitioned Parquet.

    Scores equal those of ``detector.decision_function`` on each partition. A test-time detector
    with ``adaptation="transductive"`` adapts within each partition by itself, from the state that
    it has; to share what is learned, call :func:`adapt` first and score with
    ``adaptation="frozen"``.

    Parameters
    ----------
    source : str, path, list of str, or ray.data.Dataset
        As in :func:`embed`.
    detector : detector or OODPipeline
        Fitted. It is sent to each node once, without the weights of its model.
    output : str or path
        Folder or URL for ``part-000000.parquet`` and so on, with the columns `id`, `score` (higher
        = more OOD; null where unreadable), `is_ood` (true also where unreadable; null without a
        threshold), `label` (class name or the detector's `ood_label`), `nearest_class`,
        `top_negative_label` (null for methods without negative labels), `error`.
    embeddings : bool, default=False
        Add the column `embedding` (list of D float16).
    format, id_column, image_column, filesystem
        As in :func:`embed`.
    workers, num_cpus, num_gpus, rows_per_partition, batch_bytes, on_error, verbose
        As in :func:`embed`.

    Returns
    -------
    JobSummary

    Raises
    ------
    PartitionError
        As in :func:`embed`.
    ValueError
        As in :func:`embed`.
    sklearn.exceptions.NotFittedError
        If the detector is not fitted.

    Examples
    --------
    >>> import numpy as np, ray
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from dnm_sklearn import MCMDetector
    >>> from dnm_sklearn.distributed import score
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> _ = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    >>> Path("pictures").mkdir()
    >>> Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save("pictures/black.png")
    >>> detector = MCMDetector(["cat", "dog"], embedder=FakeEmbedder()).fit()
    >>> summary = score("pictures", detector.calibrate(np.eye(40, 32) + 0.1), "scores")
    >>> summary.n_rows, summary.n_errors
    (1, 0)
    >>> ray.shutdown()
    """
    detector, embedder = _parts(detector, on_error)
    options = (format, id_column, image_column, filesystem, rows_per_partition)
    where, partitions = _prepare(source, output, embedder, (detector, embeddings), options)
    pool = _Pool(workers, num_cpus, num_gpus)
    return _run(where, partitions, embedder, detector, embeddings, pool, batch_bytes, verbose)


def adapt(
    source: Any,
    detector: Any,
    *,
    format: str = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    filesystem: Any = None,
    workers: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    rows_per_partition: int = 10_000,
    batch_bytes: int = 256 * 2**20,
    on_error: str = "nan",
    verbose: bool = True,
) -> Any:
    """Let a test-time detector learn from a collection: each partition by itself, then merged.

    Every partition starts from the state that `detector` has; the states are merged as
    ``detector.merge_adaptation`` says. The order of partitions plays no part.

    Parameters
    ----------
    source : str, path or list of str
        As in :func:`embed`; no ``ray.data.Dataset``, whose rows have no folder to be kept in.
    detector : StreamingDetector
        Fitted; it stays as it is.
    format, id_column, image_column, filesystem
        As in :func:`embed`.
    workers, num_cpus, num_gpus, rows_per_partition, batch_bytes, on_error, verbose
        As in :func:`embed`.

    Returns
    -------
    StreamingDetector
        A copy that has learned.

    Raises
    ------
    TypeError
        If the detector does not learn from test images.
    PartitionError
        If partitions failed.

    Examples
    --------
    >>> import numpy as np, ray
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from dnm_sklearn import AdaNegDetector
    >>> from dnm_sklearn.distributed import adapt
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> _ = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    >>> Path("stream").mkdir()
    >>> for i in range(4):
    ...     Image.fromarray(np.full((8, 8, 3), 60 * i, dtype=np.uint8)).save(f"stream/{i}.png")
    >>> detector = AdaNegDetector(
    ...     ["cat"], embedder=FakeEmbedder(), corpus=["truck", "tree"], n_groups=1
    ... ).fit()
    >>> adapt("stream", detector, rows_per_partition=2).n_seen_
    4
    >>> ray.shutdown()
    """
    import ray

    from dnm_sklearn.distributed.partitions import find_partitions
    from dnm_sklearn.distributed.workers import Learner, Task

    detector, embedder = _parts(detector, on_error)
    if not isinstance(detector, StreamingDetector):
        raise TypeError(f"{type(detector).__name__} does not learn from test images.")
    if hasattr(source, "write_parquet"):
        raise TypeError(
            "adapt has no output folder to keep a Dataset's rows in: write it to files first "
            "(dataset.write_parquet(folder)), and give the folder."
        )

    partitions = find_partitions(
        source,
        kind=format,
        rows=rows_per_partition,
        id_column=id_column,
        image_column=image_column,
        filesystem=filesystem,
    )
    task = Task(partitions, None, embedder, detector, False, batch_bytes)
    pool = _Pool(workers, num_cpus, num_gpus)
    rows = _work(Learner, task, range(len(partitions)), pool, verbose)
    _raise_problems(rows, "adapt")

    # By number, so that the result does not depend on which partition came back first.
    rows.sort(key=lambda row: row["number"])
    states = [ray.cloudpickle.loads(row["state"]) for row in rows]
    learned = ray.cloudpickle.loads(ray.cloudpickle.dumps(detector))
    return learned.merge_adaptation(states)


# -- what a job is of -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pool:
    """The actors of a job."""

    workers: int | tuple[int, int]
    num_cpus: float
    num_gpus: float

    def options(self) -> dict[str, Any]:
        """Arguments of ``map_batches``."""
        import ray

        least, most = (self.workers,) * 2 if isinstance(self.workers, int) else self.workers
        pool = ray.data.ActorPoolStrategy(min_size=least, max_size=most)
        return {"compute": pool, "num_cpus": self.num_cpus, "num_gpus": self.num_gpus or None}


def _for_workers(embedder: Any, on_error: str) -> Any:
    """A copy of an embedder that lists unreadable images, or not, and shows no bar of its own."""
    if on_error not in ("nan", "raise"):
        raise ValueError(f'on_error={on_error!r} must be "nan" or "raise".')
    if not hasattr(embedder, "on_error"):
        raise TypeError(
            f"A job over images needs a CLIPEmbedder, not {type(embedder).__name__}, which has no "
            "image encoder."
        )
    quiet = {"verbose": 0} if "verbose" in embedder.get_params() else {}
    return clone(embedder).set_params(on_error=on_error, **quiet)


def _parts(detector: Any, on_error: str) -> tuple[Any, Any]:
    """The detector at the end of a pipeline, and its embedder for the workers."""
    detector = detector.steps[-1][1] if hasattr(detector, "steps") else detector
    check_is_fitted(detector)
    embedder = _for_workers(detector.embedder_, on_error)
    if getattr(detector, "threshold_source_", "") == "names":
        # The warning of predict, once and here: those of the workers would be lost in their logs.
        warn(detector._uncalibrated_message(), UncalibratedThresholdWarning)
    return detector, embedder


def _prepare(
    source: Any, output: Any, embedder: Any, what: Any, options: tuple[Any, ...]
) -> tuple[Place, list[Partition]]:
    """Find the partitions, and make sure that the output folder is this job's."""
    from dnm_sklearn.distributed.partitions import find_partitions
    from dnm_sklearn.distributed.places import find_place

    kind, id_column, image_column, filesystem, rows = options
    where = find_place(output)
    if hasattr(source, "write_parquet"):
        source = _staged(source, where, rows)
        filesystem, kind = source.filesystem, "parquet"
        source = source.path
    partitions = find_partitions(
        source,
        kind=kind,
        rows=rows,
        id_column=id_column,
        image_column=image_column,
        filesystem=filesystem,
    )

    identity = _identity(partitions, embedder, what)
    where.filesystem.create_dir(where.path, recursive=True)
    manifest = where.child(f"{where.path}/{_MANIFEST}")
    if _exists(manifest):
        known = json.loads(manifest.read())
        if known.get("identity") != identity:
            raise ValueError(
                f"{output} holds the results of another job (other images, model or detector): "
                "give another folder, or delete it."
            )
    else:
        about = {"layout": _LAYOUT, "identity": identity, "n_partitions": len(partitions)}
        manifest.write(json.dumps(about, indent=2).encode())
    return where, partitions


def _staged(dataset: Any, where: Place, rows: int) -> Place:
    """Write a Dataset's rows beside the results, unless an earlier run of the job has done it."""
    folder = where.child(f"{where.path}/{_STAGED}")
    complete = folder.child(f"{folder.path}/complete")
    if not _exists(complete):
        if _is_folder(folder):
            folder.filesystem.delete_dir(folder.path)
        folder.filesystem.create_dir(folder.path)
        dataset.write_parquet(folder.path, filesystem=folder.filesystem, min_rows_per_file=rows)
        complete.write(b"")
    return folder


def _exists(place: Place) -> bool:
    return bool(place.filesystem.get_file_info(place.path).is_file)


def _is_folder(place: Place) -> bool:
    from pyarrow import fs

    return bool(place.filesystem.get_file_info(place.path).type == fs.FileType.Directory)


def _identity(partitions: list[Partition], embedder: Any, what: Any) -> str:
    """Digest of all that decides the results: images, model, and the detector's fitted state."""
    digest = hashlib.sha256(encoder_identity(embedder).encode())
    for partition in partitions:
        # The file system is left out: an object of it may be pickled differently each time.
        parts = [getattr(partition, "paths", None), partition.place.path]
        parts += [
            getattr(partition, name, None) for name in ("row_group", "id_column", "image_column")
        ]
        digest.update(json.dumps(parts).encode())

    if what is not None:
        detector, keeps_embeddings = what
        state = {
            name: value
            for name, value in vars(detector).items()
            if name not in ("embedder", "embedder_", "memory", "device")
        }
        digest.update(joblib.hash((type(detector).__qualname__, state, keeps_embeddings)).encode())
    return digest.hexdigest()


# -- running --------------------------------------------------------------------------------------


def _run(
    where: Place,
    partitions: list[Partition],
    embedder: Any,
    detector: Any,
    keep_embeddings: bool,
    pool: _Pool,
    batch_bytes: int,
    verbose: bool,
) -> JobSummary:
    """Do the partitions that are missing, and sum all up."""
    from dnm_sklearn.distributed.workers import Task, Worker

    started = time.perf_counter()
    task = Task(partitions, where, embedder, detector, keep_embeddings, batch_bytes)
    done = [number for number in range(len(partitions)) if _exists(task.file_of(number))]
    missing = sorted(set(range(len(partitions))) - set(done))
    logger.info("%d partitions, %d of them done before", len(partitions), len(done))

    rows = _work(Worker, task, missing, pool, verbose) if missing else []
    _raise_problems(rows, where.path)

    summary = JobSummary(
        output=where.path,
        n_rows=sum(row["rows"] for row in rows),
        n_errors=sum(row["errors"] for row in rows),
        n_flagged=sum(row["flagged"] for row in rows),
        n_partitions=len(partitions),
        n_done_before=len(done),
        n_rows_now=sum(row["rows"] for row in rows),
        seconds=time.perf_counter() - started,
        stages={
            stage: sum(row[f"{stage}_s"] for row in rows)
            for stage in ("read_embed", "score", "write")
        },
    )
    for number in done:
        facts = _facts(task, number)
        summary = replace(
            summary,
            n_rows=summary.n_rows + facts[0],
            n_errors=summary.n_errors + facts[1],
            n_flagged=summary.n_flagged + facts[2],
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
    import pyarrow.parquet as pq

    from dnm_sklearn.distributed.workers import N_ERRORS, N_FLAGGED, N_ROWS

    place = task.file_of(number)
    with place.filesystem.open_input_file(place.path) as source:
        metadata = pq.ParquetFile(source).schema_arrow.metadata
    return int(metadata[N_ROWS]), int(metadata[N_ERRORS]), int(metadata[N_FLAGGED])


def _work(
    worker: Any, task: Task, numbers: Any, pool: _Pool, verbose: bool
) -> list[dict[str, Any]]:
    """Send the numbers of partitions through an actor pool; collect what each has to tell."""
    import ray

    numbers = [{"number": int(number)} for number in numbers]
    dataset = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
        worker,
        batch_size=1,
        fn_constructor_args=(ray.put(task),),
        **pool.options(),
    )
    # Ray's own bars show its operators; ours shows partitions. Results are told as they come,
    # whichever is done first. The settings are this Dataset's own, not the user's.
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = False

    rows = []
    with progress(len(numbers), verbose, "partitions") as bar:
        for row in dataset.iter_rows():
            rows.append(row)
            bar.update(1)
    return rows


def _raise_problems(rows: list[dict[str, Any]], output: str) -> None:
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
