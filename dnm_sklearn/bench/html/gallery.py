"""The most confident errors of a detector, as small images with what explains them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dnm_sklearn.bench.html.images import common_folder, path_below, thumbnail
from dnm_sklearn.bench.results.records import Record
from dnm_sklearn.bench.results.rows import Row, find_row
from dnm_sklearn.bench.results.run_groups import RunGroup
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.detectors.nearest_labels import NearestLabels, nearest_labels
from dnm_sklearn.embedding.inputs import unwrap_item

# Images that are shown of each set, and negative labels of each image.
_IMAGES, _LABELS = 6, 3


@dataclass(frozen=True)
class Error:
    """One image that a detector got wrong."""

    # A data URI, and where the image comes from: its path in the set's folder, or its place.
    image: str
    source: str

    # Its class, or the name of its OOD set; and its score, higher = more OOD.
    truth: str
    score: float

    # The ID class that it looks most like, and negative labels with their cosines; empty where the
    # detector could not be asked.
    nearest: str
    negatives: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Gallery:
    """Errors of one detector: OOD images of lowest score by set, and ID images of highest score.

    `problem` says what is missing, and why.
    """

    label: str
    accepted: list[tuple[str, list[Error]]] = field(default_factory=list)
    flagged: list[Error] = field(default_factory=list)
    problem: str = ""


def make_galleries(
    group: RunGroup,
    *,
    methods: Sequence[str] = (),
    suite: str | None = None,
    data_root: str | None = None,
    cache: str | None = None,
    cache_size: int | None = None,
) -> list[Gallery]:
    """Find the most confident errors of detectors, and what explains them.

    The suite is loaded again, and each detector fitted again from its class names. By default these
    are the detector with negative labels of the highest mean AUROC, and the best of all if that is
    another one; the suite is that of the records. None for suites of embeddings, which have no
    images, and for suites that are not known.
    """
    rows = _choose(group.rows, methods)
    found = [(row, _kept_records(row)) for row in rows]
    if not any(records for _, records in found):
        return [
            Gallery(row.label, problem="The records keep no scores of single images; run again.")
            for row in rows
        ]

    # All records of a group are of one suite.
    first = next(records[0] for _, records in found if records)
    try:
        loaded = _load_suite(first, suite, data_root)
    except (ValueError, OSError, ImportError) as error:
        problem = f"The images cannot be shown: {error}"
        return [Gallery(row.label, problem=problem) for row in rows]
    if loaded is None:
        return []
    return [
        _gallery(group, row, records, loaded, cache, cache_size)
        for row, records in found
        if records
    ]


def _kept_records(row: Row) -> list[Record]:
    """Give the records of a row's first seed that keep scores."""
    return [record for record in row.succeeded if record.seed == row.seeds[0] and record.scores]


def _gallery(
    group: RunGroup,
    row: Row,
    records: Sequence[Record],
    loaded: Suite,
    cache: str | None,
    cache_size: int | None,
) -> Gallery:
    """Find the errors of one detector on a suite that is loaded."""
    sets = {images.name: images for images in loaded.ood}
    if not _has_as_many(loaded.id, records[0].id) or not all(
        _has_as_many(sets.get(record.ood["name"]), record.ood) for record in records
    ):
        return Gallery(
            row.label, problem="The images on disk are not as many as those of the records."
        )

    detector, problem = _fit_again(records[0], loaded, cache, cache_size)
    gallery = Gallery(row.label, problem=problem)
    for record in records:
        scores = group.first_scores(record)
        images = sets[record.ood["name"]]
        if scores is None or len(scores[1]) != len(images):
            continue

        ids, oods = scores
        lowest = np.argsort(oods, kind="stable")[:_IMAGES]
        errors = _errors(detector, loaded, images, lowest, oods)
        gallery.accepted.append((images.name, errors))

        # The ID images are the same in all records.
        if not gallery.flagged and len(ids) == len(loaded.id):
            highest = np.argsort(-ids, kind="stable")[:_IMAGES]
            gallery.flagged.extend(_errors(detector, loaded, loaded.id, highest, ids))
    return gallery


def _choose(rows: Sequence[Row], methods: Sequence[str]) -> list[Row]:
    """Find the rows of detectors by label or name, or the best ones."""
    detectors = [row for row in rows if not row.error and row.kind == "detector"]
    if not methods:
        best = [max(detectors, key=key, default=None) for key in (_rank, _mean_auroc)]
        # One row may be the best in both ways.
        return list({row.label: row for row in best if row is not None}.values())
    return [find_row(detectors, method, "detector") for method in dict.fromkeys(methods)]


def _rank(row: Row) -> tuple[bool, float]:
    """Rank detectors with negative labels first, then by the mean AUROC."""
    has_negative_labels = "n_negative_labels" in row.records[0].fitted
    return has_negative_labels, _mean_auroc(row)


def _mean_auroc(row: Row) -> float:
    return float(np.mean([record.metrics["auroc"] for record in row.records]))


def _load_suite(record: Record, name: str | None, data_root: str | None) -> Suite | None:
    """Load the suite of a record; None where it is not known, or holds no images."""
    from dnm_sklearn.bench.run.prepare import holds_embeddings
    from dnm_sklearn.bench.run.registry import is_shipped_suite, load_suite
    from dnm_sklearn.datasets.definitions import benchmark_names
    from dnm_sklearn.embedding import CLIPEmbedder
    from dnm_sklearn.embedding.open_clip.registry import is_published

    # A record is a file like others: it may name a shipped suite, but choose none on this machine.
    wanted = name or record.suite["name"]
    if name is None and not is_shipped_suite(wanted):
        return None
    if wanted in benchmark_names() and data_root is None:
        raise ValueError("say where they lie with --data-root.")
    suite = load_suite(wanted, data_root=data_root)
    if suite.name != record.suite["name"]:
        raise ValueError(
            f"the suite {wanted!r} is {suite.name!r}, the records are of {record.suite['name']!r}."
        )
    if holds_embeddings(suite):
        return None
    model = record.model.get("name")
    # Nor does it choose weights: those of a path or a hub come with a suite that the user names.
    if suite.embedder is None and model and is_published(model):
        suite = replace(suite, embedder=CLIPEmbedder(model))
    return suite


def _has_as_many(images: ImageSet | None, recorded: dict[str, Any]) -> bool:
    return images is not None and len(images) == recorded["n"]


def _fit_again(
    record: Record, suite: Suite, cache: str | None, cache_size: int | None
) -> tuple[Any, str]:
    """Fit the detector of a record on the class names; or give None, and say why it cannot be."""
    from dnm_sklearn.bench.run.config import RunConfig
    from dnm_sklearn.bench.run.prepare import SUITE_PARAMS, build
    from dnm_sklearn.bench.run.registry import detectors
    from dnm_sklearn.embedding.check import check_embedder

    # A run keeps none of these: in a record they would choose what is read here.
    chosen = sorted(set(record.params) & set(SUITE_PARAMS))
    if chosen:
        return None, (
            f"The records set {', '.join(chosen)}, which a run does not write; the errors are "
            "shown without explanation."
        )

    try:
        embedder = check_embedder(suite.embedder, cache, cache_size)
        if embedder.fingerprint_ != record.model["fingerprint"]:
            return None, (
                "The model is not the one of the records, so the errors are shown without "
                "explanation."
            )
        config = RunConfig(seed=record.seed, overrides={record.method: record.params})
        detector = build(detectors()[record.method], suite, embedder, config)
        return detector.fit(), ""
    except (ValueError, OSError, KeyError, ImportError, RuntimeError) as error:
        return None, f"The errors are shown without explanation: {error}"


def _errors(
    detector: Any, suite: Suite, images: ImageSet, positions: np.ndarray, scores: np.ndarray
) -> list[Error]:
    """Describe the images of a set at some positions."""
    chosen = [unwrap_item(images.images[i]) for i in positions.tolist()]
    answers = [NearestLabels() for _ in chosen]
    if detector is not None:
        answers = nearest_labels(detector, chosen, top_k=_LABELS)

    are_files = all(isinstance(image, str) for image in images.images)
    common = common_folder(images.images) if are_files else ""
    errors = []
    for i, image, answer in zip(positions.tolist(), chosen, answers, strict=True):
        truth = images.name if images.labels is None else suite.class_names[images.labels[i]]
        error = Error(
            image=thumbnail(image),
            source=_source(image, i, common),
            truth=truth,
            score=float(scores[i]),
            nearest=answer.classes[0][0] if answer.classes else "",
            negatives=answer.negatives,
        )
        errors.append(error)
    return errors


def _source(image: Any, position: int, common: str) -> str:
    """Name a file by its path from the folder of its set on, else by the position."""
    if isinstance(image, str):
        return path_below(image, os.path.dirname(common))
    return f"image {position}"
