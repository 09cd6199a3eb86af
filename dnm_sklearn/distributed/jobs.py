"""Jobs over a collection of images: what a user calls."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors import StreamingDetector
from dnm_sklearn.distributed.output_folder import prepare
from dnm_sklearn.distributed.partitions import Reading, find_partitions
from dnm_sklearn.distributed.running import JobSummary, Pool, raise_problems, run, work
from dnm_sklearn.distributed.workers import Learner, Task
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.exceptions import UncalibratedThresholdWarning


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
    how = Reading(format, id_column, image_column, filesystem, rows_per_partition)
    where, partitions = prepare(source, output, embedder, None, how)
    task = Task(partitions, where, embedder, None, False, batch_bytes)
    return run(task, Pool(workers, num_cpus, num_gpus), verbose)


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
    how = Reading(format, id_column, image_column, filesystem, rows_per_partition)
    where, partitions = prepare(source, output, embedder, (detector, embeddings), how)
    task = Task(partitions, where, embedder, detector, embeddings, batch_bytes)
    return run(task, Pool(workers, num_cpus, num_gpus), verbose)


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

    detector, embedder = _parts(detector, on_error)
    if not isinstance(detector, StreamingDetector):
        raise TypeError(f"{type(detector).__name__} does not learn from test images.")
    if hasattr(source, "write_parquet"):
        raise TypeError(
            "adapt has no output folder to keep a Dataset's rows in: write it to files first "
            "(dataset.write_parquet(folder)), and give the folder."
        )

    how = Reading(format, id_column, image_column, filesystem, rows_per_partition)
    partitions = find_partitions(source, how)
    task = Task(partitions, None, embedder, detector, False, batch_bytes)
    pool = Pool(workers, num_cpus, num_gpus)
    rows = work(Learner, task, range(len(partitions)), pool, verbose)
    raise_problems(rows, "adapt")

    # By number, so that the result does not depend on which partition came back first.
    rows.sort(key=lambda row: row["number"])
    states = [ray.cloudpickle.loads(row["state"]) for row in rows]
    learned = ray.cloudpickle.loads(ray.cloudpickle.dumps(detector))
    return learned.merge_adaptation(states)


# -- encoders and detectors as workers get them ------------------------------------------------


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
