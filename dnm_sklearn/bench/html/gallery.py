"""The most confident errors of a detector, as small pictures with what explains them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dnm_sklearn.bench.html.curves import first_scores
from dnm_sklearn.bench.html.svg import escape
from dnm_sklearn.bench.results.formats import Block
from dnm_sklearn.bench.results.records import Record
from dnm_sklearn.bench.results.rows import Row, build_rows
from dnm_sklearn.datasets.benchmark import Suite

_SIDE = 96
_LABELS = 3


@dataclass(frozen=True)
class Error:
    """One image that a detector got wrong.

    Parameters
    ----------
    picture : str
        Data URI.
    source : str
        File name, or place in the set.
    truth : str
        Class name, or name of the OOD set.
    nearest : str
        ID class that it looks most like.
    score : float
        Higher = more OOD.
    negatives : list of (str, float)
        Nearest negative labels with their cosine similarity.
    """

    picture: str
    source: str
    truth: str
    nearest: str
    score: float
    negatives: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Gallery:
    """Errors of one detector.

    Parameters
    ----------
    label : str
        The detector.
    accepted : list of (str, list of Error)
        For each OOD set, its images of lowest score.
    flagged : list of Error
        ID images of highest score.
    problem : str
        Why there is none.
    """

    label: str
    accepted: list[tuple[str, list[Error]]] = field(default_factory=list)
    flagged: list[Error] = field(default_factory=list)
    problem: str = ""


def make_gallery(
    block: Block,
    *,
    method: str | None = None,
    suite: str | None = None,
    data_root: str | None = None,
    memory: str | None = None,
    cache_size: int | None = None,
    n_images: int = 6,
) -> Gallery | None:
    """Find the most confident errors and what explains them.

    The suite is loaded again, and the detector fitted again from its class names.

    Parameters
    ----------
    block : Block
        Records of a suite.
    method : str, optional
        Label or name of the detector; default: the detector with negative labels of the highest
        mean AUROC.
    suite : str, optional
        Name or file of the suite; default: the name in the records, if that is a shipped one's.
    data_root : str, optional
        Folder of a benchmark's images.
    memory : str, optional
        Cache of the embedder.
    cache_size : int, optional
        Cap on this cache, in bytes.
    n_images : int, default=6
        Images of each set.

    Returns
    -------
    Gallery or None
        None for suites of embeddings, which have no pictures, and unknown ones; with ``problem``
        set where the suite cannot be loaded or is not the one of the records.

    Raises
    ------
    ValueError
        If there is no detector `method`.

    Examples
    --------
    >>> from dnm_sklearn.bench.html.gallery import make_gallery
    >>> gallery = make_gallery(block)  # doctest: +SKIP
    """
    row = _choose(build_rows(block.records), method)
    if row is None:
        return None
    records = [r for r in row.records if r.seed == row.seeds[0] and r.status == "ok" and r.scores]
    if not records:
        return Gallery(row.label, problem="The records keep no scores of single images; run again.")
    try:
        loaded = _load(records[0], suite, data_root)
    except (ValueError, OSError, ImportError) as error:
        return Gallery(row.label, problem=f"The images cannot be shown: {error}")
    if loaded is None or (isinstance(loaded.id.images, np.ndarray) and loaded.id.images.ndim == 2):
        return None
    by_name = {images.name: images for images in loaded.ood}
    sizes = {r.ood["name"]: r.ood["n"] for r in records}
    if len(loaded.id) != records[0].id["n"] or any(
        len(by_name.get(n, ())) != size for n, size in sizes.items()
    ):
        return Gallery(
            row.label, problem="The images on disk are not as many as those of the records."
        )
    explain = _Explainer(records[0], loaded, memory, cache_size)
    accepted: list[tuple[str, list[Error]]] = []
    flagged: list[Error] = []
    for record in records:
        scores = first_scores(block, record)
        images = by_name[record.ood["name"]]
        if scores is None or len(scores[1]) != len(images):
            continue
        order = np.argsort(scores[1], kind="stable")[:n_images]
        accepted.append((images.name, explain.errors(images, order, scores[1][order])))
        if not flagged and len(scores[0]) == len(loaded.id):
            order = np.argsort(-scores[0], kind="stable")[:n_images]
            flagged = explain.errors(loaded.id, order, scores[0][order])
    return Gallery(row.label, accepted, flagged, explain.problem)


def gallery_html(gallery: Gallery) -> str:
    """Write a gallery as HTML.

    Parameters
    ----------
    gallery : Gallery
        What to show.

    Returns
    -------
    str
    """
    parts = [f"<h3>Most confident errors of {escape(gallery.label)}</h3>"]
    if gallery.problem:
        parts.append(f'<p class="quiet">{escape(gallery.problem)}</p>')
    if gallery.flagged:
        parts.append("<h4>ID images with the highest OOD scores</h4>")
        parts.append(_figures(gallery.flagged, "Its class"))
    for name, errors in gallery.accepted:
        parts.append(f"<h4>Images of {escape(name)} with the lowest OOD scores</h4>")
        parts.append(_figures(errors, "From"))
    return "".join(parts)


def _figures(errors: Sequence[Error], truth: str) -> str:
    shown = []
    for error in errors:
        alternative = f"{error.truth}, taken for {error.nearest}" if error.nearest else error.truth
        words = f"<b>{escape(truth)}:</b> {escape(error.truth)}<br>"
        if error.nearest:
            words += f"<b>Nearest class:</b> {escape(error.nearest)}<br>"
        words += f"<b>Score:</b> {error.score:.3g}<br>{escape(error.source)}"
        if error.negatives:
            items = "".join(
                f"<li>{escape(name)} ({value:.2f})</li>" for name, value in error.negatives
            )
            words += f"<br><b>Nearest negative labels</b> (cosine):<ol>{items}</ol>"
        image = f'<img src="{escape(error.picture)}" alt="{escape(alternative)}" width="{_SIDE}" height="{_SIDE}">'
        shown.append(f"<figure>{image}<figcaption>{words}</figcaption></figure>")
    return f'<div class="gallery">{"".join(shown)}</div>'


def _choose(rows: Sequence[Row], method: str | None) -> Row | None:
    there = [row for row in rows if not row.error and row.kind == "detector"]
    if method is not None:
        wanted = method.lower().removesuffix("detector")
        for row in there:
            if wanted in (row.label.lower(), row.method.lower().removesuffix("detector")):
                return row
        raise ValueError(
            f"There is no detector {method!r} in the run; it has "
            f"{', '.join(r.label for r in there)}."
        )

    def rank(row: Row) -> tuple[bool, float]:
        values = [
            value for r in row.records for value in [r.metrics.get("auroc")] if value is not None
        ]
        return "n_negative_labels" in row.records[0].fitted, float(
            np.mean(values)
        ) if values else 0.0

    return max(there, key=rank, default=None)


def _load(record: Record, name: str | None, data_root: str | None) -> Suite | None:
    from dnm_sklearn.bench.run.registry import UnknownNameError, load_suite
    from dnm_sklearn.datasets.definitions import benchmark_names

    given = name or record.suite["name"]
    if given in benchmark_names() and data_root is None:
        raise ValueError("say where they lie with --data-root.")
    try:
        suite = load_suite(given, data_root=data_root)
    except UnknownNameError:
        if name is not None:
            raise
        return None
    if suite.name != record.suite["name"]:
        raise ValueError(
            f"the suite {given!r} is {suite.name!r}, the records are of {record.suite['name']!r}."
        )
    model = record.model.get("name")
    if suite.embedder is None and model:
        from dnm_sklearn.embedding import CLIPEmbedder

        suite = replace(suite, embedder=CLIPEmbedder(model))
    return suite


class _Explainer:
    """A detector fitted again, to say what single images look like."""

    def __init__(
        self, record: Record, suite: Any, memory: str | None, cache_size: int | None
    ) -> None:
        from dnm_sklearn.bench.run.prepare import EmbeddedSuite, Plan, SharedText, build
        from dnm_sklearn.bench.run.registry import detectors
        from dnm_sklearn.embedding.check import check_embedder

        self.suite, self.problem = suite, ""
        self.made: Any = None
        try:
            self.embedder = check_embedder(suite.embedder, memory=memory, cache_size=cache_size)
            if self.embedder.fingerprint_ != record.model["fingerprint"]:
                self.problem = "The model is not the one of the records, so the errors are shown without explanation."
                return
            embedded = EmbeddedSuite(suite, SharedText(self.embedder), 0.0, 0)
            plan = Plan(record.seed, None, overrides={record.method: record.params})
            self.made = build(detectors()[record.method], embedded, plan)
            self.made.fit()
        except (ValueError, OSError, KeyError, ImportError, RuntimeError) as error:
            self.made = None
            self.problem = f"The errors are shown without explanation: {error}"

    def errors(self, images: Any, order: np.ndarray, scores: np.ndarray) -> list[Error]:
        pictures = [_item(images.images, int(i)) for i in order]
        rows = None if self.made is None else np.asarray(self.embedder.encode_image(pictures))
        found = []
        for k, (i, score) in enumerate(zip(order.tolist(), scores.tolist(), strict=True)):
            truth = (
                images.name if images.labels is None else self.suite.class_names[images.labels[i]]
            )
            nearest, negatives = ("", []) if rows is None else self._explain(rows[k])
            found.append(
                Error(
                    _thumbnail(pictures[k]),
                    _source(pictures[k], i),
                    truth,
                    nearest,
                    score,
                    negatives,
                )
            )
        return found

    def _explain(self, row: np.ndarray) -> tuple[str, list[tuple[str, float]]]:
        nearest = self.made.class_names_[
            int(np.argmax(np.asarray(self.made.class_embeddings_) @ row))
        ]
        text = getattr(self.made, "negative_embeddings_", None)
        if text is None:
            return nearest, []
        cosine = np.asarray(text, dtype=np.float32) @ row
        top = np.argsort(-cosine, kind="stable")[:_LABELS]
        return nearest, [(str(self.made.negative_labels_[i]), float(cosine[i])) for i in top]


def _item(images: Any, i: int) -> Any:
    item = images[i]
    return item[0] if isinstance(item, tuple) else item


def _source(picture: Any, i: int) -> str:
    return (
        picture.replace("\\", "/").rsplit("/", 1)[-1] if isinstance(picture, str) else f"image {i}"
    )


def _thumbnail(picture: Any) -> str:
    from PIL import Image

    if isinstance(picture, str):
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
    elif isinstance(picture, Image.Image):
        image = picture.convert("RGB")
    else:
        image = Image.fromarray(np.asarray(picture)).convert("RGB")
    image.thumbnail((_SIDE * 2, _SIDE * 2))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
