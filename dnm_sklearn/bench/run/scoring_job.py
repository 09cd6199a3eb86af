"""Scoring many images chunk by chunk, so that a killed job goes on where it stopped."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.safe_text import file_name_text
from dnm_sklearn._utils.untrusted_files import read_text
from dnm_sklearn.bench.run.job_files import EXPLAINED, Line, read_chunk, write_chunk
from dnm_sklearn.bench.run.own_data import Items
from dnm_sklearn.bench.run.prepare import check_parameters, clip_embedder
from dnm_sklearn.detectors.nearest_labels import explanation_lines, nearest_of, verdicts

# The file in the folder of finished chunks that says which job they are of.
_JOB = "job.json"
_BAD_ROW = "the embedding is NaN, infinite or zero"
logger = logging.getLogger(__name__)


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
    texts: Any = None,
    prompt: str | None = None,
    corpus: str | None = None,
    cache: str | None = None,
    cache_size: int | None = None,
) -> Any:
    """Make an unfitted detector from what stands on a command line.

    `params` are ``NAME=VALUE``; values are Python literals, anything else a string. `texts` is an
    `EmbeddingTable` that takes the place of a model.
    """
    from dnm_sklearn.bench.run.registry import detectors_to_score, resolve
    from dnm_sklearn.bench.run.specs import literal_or_text
    from dnm_sklearn.embedding.open_clip.registry import own_prompt

    method = resolve(name, detectors_to_score())
    cls = method.load()
    if method.needs_pictures:
        raise ValueError(
            f"{cls.__name__} scores the patches of pictures, and here each is embedded whole: use "
            "it in Python, or with 'dnm-bench run'. MCM is its score of the whole picture."
        )
    embedder = texts
    if texts is None:
        embedder = clip_embedder(model, memory=cache, cache_size=cache_size, on_error="nan")
        # A model that was trained with one prompt is asked with it.
        prompt = own_prompt(model) if prompt is None else prompt

    # What is not given keeps the default of the class.
    given: dict[str, Any] = {"embedder": embedder}
    given |= {} if prompt is None else {"prompt": prompt}
    given |= {} if corpus is None else {"corpus": corpus}
    for param in params:
        key, equals, text = param.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--param {param!r} is not NAME=VALUE, e.g. n_groups=10.")
        given[key.strip()] = literal_or_text(text)

    check_parameters(cls.__name__, given, list(cls().get_params(deep=False)))
    # A bad value is told before any image is embedded.
    detector = cls(list(classes), **given)
    detector._validate_params()
    return detector


class Job:
    """Images or embeddings to score, in chunks whose results are kept until all are done.

    Finished chunks are in a folder named like the output with ``.part`` behind it. `settings`
    (JSON) is what else decides the results: an interrupted job of others is not gone on with.
    With `top_k`, each chunk has a file of explanations beside it, so many labels of each side.
    """

    def __init__(
        self,
        output: str,
        items: Items,
        settings: Any,
        chunk: int,
        *,
        top_k: int | None = None,
        restart: bool = False,
    ) -> None:
        self.items = items
        self.chunk = chunk
        self.top_k = top_k
        self.parts = Path(output).with_name(Path(output).name + ".part")

        # The number is the version of this layout.
        self.identity = json.dumps([2, settings, top_k, items.names])
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

    def run(self, detector: Any) -> None:
        """Score with a fitted detector what is not yet scored."""
        from dnm_sklearn._utils.progress import progress

        self.parts.mkdir(exist_ok=True)
        with atomic_write(self.parts / _JOB) as scratch:
            scratch.write_text(self.identity, encoding="utf-8")

        name = type(detector).__name__
        logger.info("%d images in %d chunks; %s", len(self.items), self._n_parts, name)
        with progress(len(self.items), True, "images") as bar:
            for number in range(self._n_parts):
                start, stop = number * self.chunk, (number + 1) * self.chunk
                names, part = self.items.names[start:stop], self.items.take(start, stop)
                if not self._part(number).exists():
                    lines, explained = _score(detector, names, part, self.top_k)
                    # The scores come last: where they are, the chunk is whole.
                    if self.top_k is not None:
                        write_chunk(self._part(number, "explained"), explained)
                    write_chunk(self._part(number), lines)
                elif detector.info.test_time:
                    _learn(detector, part)
                bar.update(len(names))

    def lines(self) -> Iterator[Line]:
        """Give the lines of all chunks, in the order of the images."""
        for number in range(self._n_parts):
            yield from read_chunk(self._part(number))

    def explanations(self) -> Iterator[Line]:
        """Give the lines of all explanations, image by image."""
        for number in range(self._n_parts):
            yield from read_chunk(self._part(number, "explained"), EXPLAINED)

    def forget(self) -> None:
        """Remove the chunks, when all is written."""
        shutil.rmtree(self.parts)

    @property
    def _n_parts(self) -> int:
        return -(-len(self.items) // self.chunk)

    def _part(self, number: int, ending: str = "csv") -> Path:
        return self.parts / f"{number:06d}.{ending}"


# A test-time method that goes on must be in the state that it had behind the finished chunks.
def _learn(detector: Any, part: Any) -> None:
    """Bring a test-time method to where it was behind a chunk that is done."""
    rows, _ = _encode(detector, part)
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows):
        detector.partial_fit(rows)


def _encode(detector: Any, part: Any) -> tuple[np.ndarray, dict[int, str]]:
    """Encode paths, or normalise rows; what cannot be used is NaN, with its reason by position."""
    embedder = detector.embedder_
    if isinstance(part, list):
        rows = embedder.encode_image(part)
        return rows, {i: reason for i, _, reason in getattr(embedder, "failures_", [])}

    rows = np.asarray(part, dtype=np.float32)
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    encoded = np.full(rows.shape, np.nan, dtype=np.float32)
    if usable.any():
        encoded[usable] = embedder.encode_image(rows[usable])
    return encoded, dict.fromkeys(np.flatnonzero(~usable).tolist(), _BAD_ROW)


def _score(
    detector: Any, names: Sequence[str], part: Any, top_k: int | None
) -> tuple[list[list[Any]], list[list[Any]]]:
    """Score a chunk, one line per item, and explain it; a test-time method learns from it."""
    rows, reasons = _encode(detector, part)

    # A file may have a name that is not in UTF-8, but what we write is.
    shown = [file_name_text(name) for name in names]
    # An unreadable image is not known to be ID.
    lines: list[list[Any]] = [[name, "", True, detector.ood_label, "", "", ""] for name in shown]
    for index, reason in reasons.items():
        lines[index][-1] = file_name_text(reason)

    readable = np.flatnonzero(~np.isnan(rows).any(axis=1))
    if not len(readable):
        return lines, []
    rows = rows[readable]
    is_stream = detector.info.test_time
    scores = next(detector.score_stream([rows])) if is_stream else detector.decision_function(rows)

    found = explanation_lines(detector, rows, top_k or 1)
    judged = verdicts(detector, scores, nearest_of(found, len(rows)))
    for i, it in zip(readable.tolist(), judged, strict=True):
        words = [it.label, it.nearest_class, it.top_negative_label]
        lines[i] = [shown[i], repr(it.score), it.is_ood, *words, ""]

    explained = []
    for line in found:
        name = shown[readable[line["image"]]]
        explained.append([name, *(line[column] for column in EXPLAINED[1:])])
    return lines, explained
