"""Scoring many images chunk by chunk, so that a killed job goes on where it stopped."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.safe_text import csv_row, file_name_text, visible
from dnm_sklearn._utils.untrusted_files import read_text
from dnm_sklearn.bench.run.prepare import show_progress
from dnm_sklearn.detectors.nearest_labels import nearest_labels
from dnm_sklearn.exceptions import FileContentError

COLUMNS = ("path", "score", "is_ood", "label", "nearest_class", "top_negative_label", "error")

# The file in the folder of finished chunks that says which job they are of.
_JOB = "job.json"
_SUFFIXES = (".csv", ".parquet")
logger = logging.getLogger(__name__)


def check_output(path: str) -> None:
    """Check before any work that a .csv or .parquet file can be written."""
    where = Path(path)
    if where.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"-o {path}: the file must end in .csv or .parquet.")
    if not where.parent.is_dir():
        raise ValueError(f"-o {path}: there is no folder {where.parent}; make it first.")

    if where.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"-o {path}: Parquet needs pyarrow; install it ('pip install pyarrow') or write a "
                ".csv."
            ) from error


def read_lines(path: str) -> list[str]:
    """Read a text file of one entry per line; blank lines are left out."""
    try:
        text = read_text(path)
    except (FileNotFoundError, FileContentError) as error:
        raise FileContentError(f"{path} is not a text file that can be read ({error}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def list_paths(images: str) -> list[str]:
    """Find the images of a folder, in depth, or of a text file with one path per line.

    Paths in a text file are relative to that file.
    """
    from dnm_sklearn.datasets.folders import list_images

    where = Path(images)
    if where.is_dir():
        return list_images(where)
    if not where.is_file():
        raise ValueError(f"{images}: there is no such folder of images, or text file of paths.")
    paths = [str(where.parent / line) for line in read_lines(images)]
    if not paths:
        raise ValueError(f"{images} lists no image.")
    return paths


def check_class_names(names: Sequence[str]) -> None:
    """Check ID class names as `fit` does, and that none is a folder or file."""
    from dnm_sklearn._utils.labels import resolve_labels

    for name in names:
        if ("/" in name or os.sep in name) and Path(name).exists():
            raise ValueError(
                f"The class name {name!r} is a path on this machine; give each class's own name "
                "with -n, and the folder of the images once, as IMAGES."
            )
    resolve_labels(list(names), None, None)


def make_detector(
    name: str,
    classes: Sequence[str],
    *,
    params: Sequence[str] = (),
    model: str | None = None,
    prompt: str | None = None,
    corpus: str | None = None,
    cache: str | None = None,
    cache_size: int | None = None,
) -> Any:
    """Make an unfitted detector from what stands on a command line.

    `params` are ``NAME=VALUE``; values are Python literals, anything else a string.
    """
    from dnm_sklearn.bench.run.registry import detectors_to_score, resolve
    from dnm_sklearn.bench.run.specs import literal_or_text
    from dnm_sklearn.embedding import CLIPEmbedder

    cls = resolve(name, detectors_to_score()).load()
    options: dict[str, Any] = {"memory": cache, "cache_size": cache_size, "on_error": "nan"}
    embedder = CLIPEmbedder(model, **options) if model else CLIPEmbedder(**options)

    # What is not given keeps the default of the class.
    given: dict[str, Any] = {"embedder": show_progress(embedder)}
    given |= {} if prompt is None else {"prompt": prompt}
    given |= {} if corpus is None else {"corpus": corpus}
    for param in params:
        key, equals, text = param.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--param {param!r} is not NAME=VALUE, e.g. n_groups=10.")
        given[key.strip()] = literal_or_text(text)

    names = list(cls().get_params(deep=False))
    for key in given:
        if key not in names:
            hint = did_you_mean(key, names, n=1)
            raise ValueError(
                f"{cls.__name__} has no parameter {key!r}.{hint} It has: {', '.join(names)}."
            )
    # A bad value is told before any image is embedded.
    detector = cls(list(classes), **given)
    detector._validate_params()
    return detector


class Job:
    """Images to score, in chunks whose results are kept until all are done.

    Finished chunks are in a folder named like the output with ``.part`` behind it. `settings`
    (JSON) is what else decides the scores: an interrupted job of others is not gone on with.
    """

    def __init__(
        self,
        output: str,
        paths: Sequence[str],
        settings: Any,
        chunk: int,
        *,
        restart: bool = False,
    ) -> None:
        self.output = Path(output)
        self.paths = list(paths)
        self.chunk = chunk
        self.parts = self.output.with_name(self.output.name + ".part")

        # The number is the version of this layout.
        self.identity = json.dumps([1, settings, self.paths])
        if restart and self.parts.is_dir():
            shutil.rmtree(self.parts)

        # Without a finished chunk, nothing of the other job would be lost.
        other = self.parts / _JOB
        has_chunks = other.exists() and any(self.parts.glob("*.csv"))
        if has_chunks and read_text(other) != self.identity:
            raise ValueError(
                f"{self.parts} holds an interrupted job of other images or settings; finish that "
                "one, or give --restart to throw it away."
            )

    def run(self, detector: Any, calibration: Sequence[str] | None = None) -> int:
        """Score what is not yet scored and write the file; return how many images were unreadable.

        The detector is not yet fitted; `calibration` are ID images for its threshold.
        """
        from dnm_sklearn._utils.progress import progress

        # The detector is fitted also where only the last chunks are missing: it is quick, and a
        # fitted detector would have to be kept with its version.
        detector.fit()
        if calibration is not None:
            detector.calibrate(list(calibration))

        self.parts.mkdir(exist_ok=True)
        with atomic_write(self.parts / _JOB) as scratch:
            scratch.write_text(self.identity, encoding="utf-8")

        starts = range(0, len(self.paths), self.chunk)
        name = type(detector).__name__
        logger.info("%d images in %d chunks; %s", len(self.paths), len(starts), name)
        with progress(len(self.paths), True, "images") as bar:
            for number, start in enumerate(starts):
                part = self._part(number)
                paths = self.paths[start : start + self.chunk]
                if not part.exists():
                    with atomic_write(part) as scratch:
                        _write_csv(scratch, _score(detector, paths))
                elif detector.info.test_time:
                    _learn(detector, paths)
                bar.update(len(paths))
        return self._finish(len(starts))

    def _part(self, number: int) -> Path:
        return self.parts / f"{number:06d}.csv"

    def _finish(self, n_parts: int) -> int:
        """Join the chunks, and count the images that could not be read."""
        parts = [self._part(number) for number in range(n_parts)]
        with atomic_write(self.output) as scratch:
            if self.output.suffix.lower() == ".csv":
                n_unreadable = _join_csv(parts, scratch)
            else:
                n_unreadable = _join_parquet(parts, scratch)
        shutil.rmtree(self.parts)
        return n_unreadable


# A test-time method that goes on must be in the state that it had behind the finished chunks.
def _learn(detector: Any, paths: Sequence[str]) -> None:
    """Bring a test-time method to where it was behind a chunk that is done."""
    rows = detector.embedder_.encode_image(list(paths))
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows):
        detector.partial_fit(rows)


def _score(detector: Any, paths: Sequence[str]) -> list[list[Any]]:
    """Score a chunk, one line per image; a test-time method learns from it."""
    embedder = detector.embedder_
    rows = embedder.encode_image(list(paths))

    # An unreadable image is not known to be ID.
    lines: list[list[Any]] = []
    for path in paths:
        # A file may have a name that is not in UTF-8, but what we write is.
        lines.append([file_name_text(path), "", True, detector.ood_label, "", "", ""])
    for index, _, reason in getattr(embedder, "failures_", []):
        lines[index][-1] = file_name_text(reason)

    readable = np.flatnonzero(~np.isnan(rows).any(axis=1))
    if not len(readable):
        return lines
    rows = rows[readable]
    is_stream = detector.info.test_time
    scores = next(detector.score_stream([rows])) if is_stream else detector.decision_function(rows)

    nearest = nearest_labels(detector, rows)
    for i, score, labels in zip(readable.tolist(), scores.tolist(), nearest, strict=True):
        class_name = labels.classes[0][0]
        negative = labels.negatives[0][0] if labels.negatives else ""
        is_ood = score > detector.threshold_
        label = detector.ood_label if is_ood else class_name
        path = file_name_text(paths[i])
        lines[i] = [path, repr(score), is_ood, label, class_name, negative, ""]
    return lines


def _write_csv(path: Path, lines: Sequence[Sequence[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(lines)


def _read_csv(path: Path) -> list[list[str]]:
    """Read a finished chunk; one that is damaged is told, and how to go on."""
    try:
        lines = list(csv.reader(io.StringIO(read_text(path), newline="")))
        for line in lines:
            fields = dict(zip(COLUMNS, line, strict=True))
            if fields["is_ood"] not in ("", "True", "False"):
                raise ValueError(f"is_ood is {fields['is_ood']!r}")
            float(fields["score"] or 0)
    except (OSError, ValueError, csv.Error) as error:
        raise FileContentError(
            f"{path} is no finished chunk of this job ({error}); delete it, and the same command "
            "makes it again."
        ) from error
    return lines


def _join_csv(parts: Sequence[Path], target: Path) -> int:
    """Write chunks below a head, and count the lines without a score."""
    n_unreadable = 0
    with open(target, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for part in parts:
            lines = _read_csv(part)
            n_unreadable += sum(not line[1] for line in lines)
            writer.writerows(map(csv_row, lines))
    return n_unreadable


def _join_parquet(parts: Sequence[Path], target: Path) -> int:
    """Write chunks as Parquet, and count the lines without a score; an empty field is a null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"score": pa.float64(), "is_ood": pa.bool_()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    n_unreadable = 0
    with pq.ParquetWriter(target, schema) as writer:
        for part in parts:
            columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
            for line in _read_csv(part):
                fields = dict(zip(COLUMNS, line, strict=True))
                n_unreadable += not fields["score"]
                for name, text in fields.items():
                    columns[name].append(_typed(name, text))
            writer.write_table(pa.table(columns, schema=schema))
    return n_unreadable


def _typed(name: str, text: str) -> Any:
    """Turn a field of a CSV file into what its column holds."""
    if not text:
        return None
    if name == "score":
        return float(text)
    return text == "True" if name == "is_ood" else visible(text)
