"""Scoring many images chunk by chunk, so that a killed job goes on where it stopped."""

from __future__ import annotations

import ast
import csv
import difflib
import io
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.bench.cli.common import with_bars
from dnm_sklearn.bench.results.records import whole_file, write_text

COLUMNS = ("path", "score", "is_ood", "label", "nearest_class", "top_negative_label", "error")
_JOB = "job.json"
_SUFFIXES = (".csv", ".parquet")
logger = logging.getLogger(__name__)


def check_output(path: str) -> None:
    """Check, before any work, that a file can be written.

    Parameters
    ----------
    path : str
        A .csv or .parquet file.

    Raises
    ------
    ValueError
        If it has another ending, its folder is missing, or Parquet cannot be written here.
    """
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
    """Read a text file of one entry a line; blank lines are left out.

    Parameters
    ----------
    path : str
        The file, in UTF-8.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If there is no such text file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a text file that can be read ({error}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def list_paths(images: str) -> list[str]:
    """Find the images of a folder, or of a list.

    Parameters
    ----------
    images : str
        A folder (searched in depth), or a text file with a path a line, relative to that file.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If there is nothing of the kind, or it holds no image.
    """
    from dnm_sklearn.datasets.folders import list_images

    where = Path(images)
    if where.is_dir():
        return list_images(where)
    if not where.is_file():
        raise ValueError(f"{images}: there is no such folder of images, or text file of paths.")
    found = [str(where.parent / line) for line in read_lines(images)]
    if not found:
        raise ValueError(f"{images} lists no image.")
    return found


def check_class_names(names: Sequence[str]) -> None:
    """Check ID class names as `fit` does, and that none is a folder or file.

    Parameters
    ----------
    names : sequence of str
        Class names.

    Raises
    ------
    ValueError
        If one looks like the path of an image, is the label of OOD rows, or is a path that exists.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.scoring_job import check_class_names
    >>> check_class_names(["cat", "dog"])
    """
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

    Parameters
    ----------
    name : str
        A detector of :func:`dnm_sklearn.bench.run.registry.detectors`.
    classes : sequence of str
        ID class names.
    params : sequence of str
        ``NAME=VALUE``; values are Python literals, anything else a string.
    model : str, optional
        ``name/tag``.
    prompt : str, optional
        Of the class names.
    corpus : str, optional
        A corpus's name, or a file of words.
    cache : str, optional
        The embedder's memory.
    cache_size : int, optional
        Cap on it, in bytes.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If the detector or a parameter is not known.
    """
    from dnm_sklearn.bench.run.registry import detectors, resolve
    from dnm_sklearn.embedding import CLIPEmbedder

    cls = resolve(name, detectors()).load()
    known = cls().get_params(deep=False)
    options: dict[str, Any] = {"memory": cache, "cache_size": cache_size, "on_error": "nan"}
    embedder = with_bars(CLIPEmbedder(model, **options) if model else CLIPEmbedder(**options))
    given: dict[str, Any] = {"embedder": embedder}
    given |= {
        key: value
        for key, value in {"prompt": prompt, "corpus": corpus}.items()
        if value is not None
    }
    for param in params:
        key, equals, text = param.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--param {param!r} is not NAME=VALUE, e.g. n_groups=10.")
        try:
            given[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            given[key.strip()] = text.strip()
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"{cls.__name__} has no parameter {key!r}.{hint} It has: {', '.join(known)}."
            )
    made = cls(list(classes), **given)
    made._validate_params()
    return made


class Job:
    """Images to score, in chunks whose results are kept until all are done.

    Parameters
    ----------
    output : str
        A .csv or .parquet file; finished chunks are kept in a folder of its name with ``.part``
        behind it.
    paths : sequence of str
        Images.
    settings : object
        What else decides the scores (JSON).
    chunk : int
        Images in a chunk.
    restart : bool, default=False
        Throw an earlier, interrupted job of this output away.

    Raises
    ------
    ValueError
        If an interrupted job of other images or settings is there.
    """

    def __init__(
        self, output: str, paths: Sequence[str], settings: Any, chunk: int, *, restart: bool = False
    ) -> None:
        self.output = Path(output)
        self.paths = list(paths)
        self.chunk = chunk
        self.parts = self.output.with_name(self.output.name + ".part")
        self.identity = json.dumps([1, settings, self.paths])
        if restart and self.parts.is_dir():
            shutil.rmtree(self.parts)
        job = self.parts / _JOB
        if (
            job.exists()
            and any(self.parts.glob("*.csv"))
            and job.read_text(encoding="utf-8") != self.identity
        ):
            raise ValueError(
                f"{self.parts} holds an interrupted job of other images or settings; finish that "
                "one, or give --restart to throw it away."
            )

    def run(self, detector: Any, calibration: Sequence[str] | None = None) -> int:
        """Score what is not yet scored, and write the file.

        Parameters
        ----------
        detector : object
            Not fitted.
        calibration : sequence of str, optional
            ID images for the threshold.

        Returns
        -------
        int
            Images that could not be read.
        """
        from dnm_sklearn._utils.progress import progress

        starts = list(range(0, len(self.paths), self.chunk))
        detector.fit()
        if calibration is not None:
            detector.calibrate(list(calibration))
        self.parts.mkdir(exist_ok=True)
        write_text(self.parts / _JOB, self.identity)
        streaming = bool(detector.info.test_time)
        logger.info(
            "%d images in %d chunks; %s", len(self.paths), len(starts), type(detector).__name__
        )
        with progress(len(self.paths), True, "images") as bar:
            for number, start in enumerate(starts):
                part = self.parts / f"{number:06d}.csv"
                paths = self.paths[start : start + self.chunk]
                if not part.exists():
                    write_text(part, _to_csv(_score(detector, paths, streaming)))
                elif streaming:
                    _learn(detector, paths)
                bar.update(len(paths))
        return self._finish(len(starts))

    def _finish(self, n_parts: int) -> int:
        parts = [self.parts / f"{number:06d}.csv" for number in range(n_parts)]
        n_failed = 0
        with whole_file(self.output) as scratch:
            if self.output.suffix.lower() == ".csv":
                with open(scratch, "w", encoding="utf-8", newline="") as out:
                    csv.writer(out, lineterminator="\n").writerow(COLUMNS)
                    for part in parts:
                        text = part.read_text(encoding="utf-8")
                        n_failed += _count_failed(text)
                        out.write(text)
            else:
                n_failed = _write_parquet(parts, scratch)
        shutil.rmtree(self.parts)
        return n_failed


def _learn(detector: Any, paths: Sequence[str]) -> None:
    """Bring a test-time method to where it was behind a chunk that is done."""
    rows = detector.embedder_.encode_image(list(paths))
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows):
        detector.partial_fit(rows)


def _score(detector: Any, paths: Sequence[str], streaming: bool) -> list[list[Any]]:
    """Score a chunk; a test-time method learns from it."""
    embedder = detector.embedder_
    rows = embedder.encode_image(list(paths))
    said = {index: reason for index, _, reason in getattr(embedder, "failures_", [])}
    good = np.flatnonzero(~np.isnan(rows).any(axis=1))
    lines: list[list[Any]] = [[path, "", True, detector.ood_label, "", "", ""] for path in paths]
    for i, reason in said.items():
        lines[i][-1] = reason
    if not len(good):
        return lines
    rows = rows[good]
    nearest = detector.class_names_[np.argmax(rows @ detector.class_embeddings_.T, axis=1)].tolist()
    scores = (
        next(iter(detector.score_stream([rows]))) if streaming else detector.decision_function(rows)
    )
    negatives = _top_negatives(detector, rows)
    threshold = getattr(detector, "threshold_", None)
    if threshold is not None and not np.isfinite(threshold):
        threshold = None
    for place, i in enumerate(good.tolist()):
        is_ood: Any = "" if threshold is None else bool(scores[place] > threshold)
        label = "" if threshold is None else (detector.ood_label if is_ood else nearest[place])
        lines[i] = [
            paths[i],
            repr(float(scores[place])),
            is_ood,
            label,
            nearest[place],
            negatives[place],
            "",
        ]
    return lines


def _top_negatives(detector: Any, rows: np.ndarray) -> list[str]:
    names = getattr(detector, "negative_labels_", None)
    text = getattr(detector, "negative_embeddings_", None)
    if names is None or text is None:
        names = getattr(detector, "activated_labels_", None)
        corpus = getattr(detector, "corpus_", None)
        if names is None or corpus is None:
            return [""] * len(rows)
        position = {name: i for i, name in enumerate(corpus.names)}
        text = detector.corpus_embeddings_[[position[name] for name in names]]
    return np.asarray(names)[np.argmax(rows @ text.T, axis=1)].tolist()


def _to_csv(lines: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _count_failed(text: str) -> int:
    return sum(not line[1] for line in csv.reader(io.StringIO(text)))


def _write_parquet(parts: Sequence[Path], target: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"score": pa.float64(), "is_ood": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    n_failed = 0
    with pq.ParquetWriter(target, schema) as writer:
        for part in parts:
            lines = list(csv.reader(io.StringIO(part.read_text(encoding="utf-8"))))
            columns = {name: [line[i] or None for line in lines] for i, name in enumerate(COLUMNS)}
            n_failed += sum(value is None for value in columns["score"])
            typed: dict[str, list[Any]] = {
                **columns,
                "score": [None if value is None else float(value) for value in columns["score"]],
                "is_ood": [
                    None if value is None else value == "True" for value in columns["is_ood"]
                ],
            }
            writer.write_table(pa.table(typed, schema=schema))
    return n_failed
