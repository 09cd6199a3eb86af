"""What one worker does with one partition: read, embed, score, write its file."""

from __future__ import annotations

import io
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dnm_sklearn.detectors.nearest_labels import Verdict, nearest_labels, verdicts
from dnm_sklearn.distributed.partitions import Partition
from dnm_sklearn.distributed.places import Place
from dnm_sklearn.exceptions import UnreadableImageWarning

# What a partition's file says of itself, so that a job that goes on need not read its rows.
N_ROWS, N_ERRORS, N_FLAGGED = b"dnm_rows", b"dnm_errors", b"dnm_flagged"
# Columns of the scores, in the order of the file.
_COLUMNS = {
    "score": pa.float64(),
    "is_ood": pa.bool_(),
    "label": pa.string(),
    "nearest_class": pa.string(),
    "top_negative_label": pa.string(),
}
# A batch is halved so often before a partition is given up for want of memory.
_HALVINGS = 6
# A partition is given up after so many workers died with it; each has half the batch of the last.
_DEATHS = 4


@dataclass(frozen=True)
class Task:
    """What all workers of a job have in common; it is put in the object store once."""

    partitions: list[Partition]
    # Folder of the results; None where nothing is written.
    output: Place | None
    embedder: Any
    detector: Any
    # Whether the file of scores holds the embeddings, too.
    keep_embeddings: bool
    batch_bytes: int

    def file_of(self, number: int) -> Place:
        """Where a partition's results go."""
        assert self.output is not None
        return self.output.child(f"{self.output.path}/{result_name(number)}")


def result_name(number: int) -> str:
    """Name of the file of a partition's results."""
    return f"part-{number:06d}.parquet"


class Starts:
    """Counts the starts of each partition, in an actor of its own that outlives the workers."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def one_more(self, number: int) -> int:
        """Count a start; give the number of starts so far."""
        self.counts[number] += 1
        return self.counts[number]


class Worker:
    """One actor: it loads the model once, and works partition by partition."""

    def __init__(self, task: Any, starts: Any) -> None:
        import ray

        self.task: Task = ray.get(task)
        self.starts = starts

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Work through the partition whose number came; tell of it in one row."""
        import ray

        number = int(batch["number"][0])
        row: dict[str, Any] = {"number": number, "rows": 0, "errors": 0, "flagged": 0}
        row |= {"read_embed_s": 0.0, "score_s": 0.0, "write_s": 0.0, "problem": "", "state": b""}

        # A worker that died with this partition may have been killed for want of memory. Ray would
        # hand it out for ever.
        n_deaths = ray.get(self.starts.one_more.remote(number)) - 1
        if n_deaths >= _DEATHS:
            row["problem"] = (
                f"its worker died {n_deaths} times: give workers more memory, or smaller "
                "partitions or batches; an image may crash its decoder, too"
            )
            return {name: [value] for name, value in row.items()}

        try:
            row |= self.work(number, self.task.batch_bytes >> n_deaths)
        except Exception as error:
            # One bad partition must not end a job of thousands: it is told at the end.
            row["problem"] = f"{type(error).__name__}: {error}"
        return {name: [value] for name, value in row.items()}

    def work(self, number: int, max_bytes: int) -> dict[str, Any]:
        """Do a partition, and say what came of it."""
        started = time.perf_counter()
        ids, rows, errors = self.embedded(number, max_bytes)
        embedded = time.perf_counter()
        columns, n_flagged = self.columns(rows)
        scored = time.perf_counter()

        table = pa.table({"id": pa.array(ids, pa.string()), **columns, "error": errors})
        n_errors = len(ids) - errors.null_count
        facts = {N_ROWS: str(len(ids)), N_ERRORS: str(n_errors), N_FLAGGED: str(n_flagged)}
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(facts), content)
        self.task.file_of(number).write(content.getvalue())
        return {
            "rows": len(ids),
            "errors": n_errors,
            "flagged": n_flagged,
            "read_embed_s": embedded - started,
            "score_s": scored - embedded,
            "write_s": time.perf_counter() - scored,
        }

    def embedded(self, number: int, max_bytes: int) -> tuple[list[str], np.ndarray, pa.Array]:
        """Identities, embeddings (NaN where unreadable), and what was wrong with each image."""
        partition = self.task.partitions[number]
        for _ in range(_HALVINGS):
            try:
                return self._read(partition, max_bytes)
            except MemoryError:
                max_bytes //= 2
        return self._read(partition, max_bytes)

    def _read(self, partition: Partition, max_bytes: int) -> tuple[list[str], np.ndarray, pa.Array]:
        embedder = self.task.embedder
        ids: list[str] = []
        rows = [np.empty((0, embedder.embedding_dim_), np.float32)]
        errors: list[str | None] = []

        for of_batch, images in partition.batches(max_bytes):
            with warnings.catch_warnings():
                # They are listed in the result, and counted at the end.
                warnings.simplefilter("ignore", UnreadableImageWarning)
                rows.append(embedder.encode_image(images))
            ids.extend(of_batch)
            of_images: list[str | None] = [None] * len(of_batch)
            for index, _, reason in embedder.failures_:
                of_images[index] = reason
            errors.extend(of_images)
        return ids, np.concatenate(rows), pa.array(errors, pa.string())

    def columns(self, rows: np.ndarray) -> tuple[dict[str, pa.Array], int]:
        """Columns of the result, and how many readable images are flagged."""
        if self.task.detector is None:
            return {"embedding": _float16_lists(rows)}, 0

        columns, n_flagged = _scored(self.task.detector, rows)
        if self.task.keep_embeddings:
            columns["embedding"] = _float16_lists(rows)
        return columns, n_flagged


class Learner(Worker):
    """A worker whose test-time detector learns from each partition, and gives its state back."""

    def work(self, number: int, max_bytes: int) -> dict[str, Any]:
        """Learn from a partition, starting from the detector's own state."""
        import ray.cloudpickle as pickle

        started = time.perf_counter()
        ids, rows, errors = self.embedded(number, max_bytes)
        readable = rows[~np.isnan(rows).any(axis=1)]
        detector = pickle.loads(pickle.dumps(self.task.detector))
        if len(readable):
            detector.partial_fit(readable)
        return {
            "rows": len(ids),
            "errors": len(ids) - errors.null_count,
            "read_embed_s": time.perf_counter() - started,
            "state": pickle.dumps(detector.adaptation_state()),
        }


def _scored(detector: Any, rows: np.ndarray) -> tuple[dict[str, pa.Array], int]:
    """Scores, flags and labels of rows, of which unreadable ones are NaN."""
    readable = np.flatnonzero(~np.isnan(rows).any(axis=1))
    judged: list[Verdict] = []
    if len(readable):
        usable = rows[readable]
        scores = detector.decision_function(usable)
        judged = verdicts(detector, scores, nearest_labels(detector, usable))

    # An unreadable image has no score and is not known to be ID.
    flag = None if detector.threshold_ is None else True
    lines: list[tuple[Any, ...]] = [(None, flag, detector.ood_label, None, None)] * len(rows)
    for i, it in zip(readable.tolist(), judged, strict=True):
        negative = it.top_negative_label or None
        lines[i] = (it.score, it.is_ood, it.label, it.nearest_class, negative)

    columns = {}
    for place, (name, kind) in enumerate(_COLUMNS.items()):
        columns[name] = pa.array([line[place] for line in lines], kind)
    return columns, sum(bool(it.is_ood) for it in judged)


def _float16_lists(rows: np.ndarray) -> pa.Array:
    """Rows as lists of one length; of a unit vector float16 keeps three digits of each number."""
    values = pa.array(rows.astype(np.float16).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
