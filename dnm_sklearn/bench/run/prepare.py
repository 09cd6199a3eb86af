"""Before a run: images embedded once, texts shared, methods built."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.digest import digest_array, digest_files, digest_names
from dnm_sklearn.bench.run.config import RunConfig
from dnm_sklearn.bench.run.registry import Method
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.embedding.protocol import FixedEmbedder

logger = logging.getLogger(__name__)

# Parameters that a run sets from its suite, for all methods alike.
SUITE_PARAMS = ("classes", "embedder", "corpus", "memory")


class SharedText(FixedEmbedder):
    """An embedder that encodes each text once per prompt for all methods of a run, with the time.

    `seconds` is what encoding texts has taken so far.
    """

    def __init__(self, embedder: Any):
        self._embedder = embedder
        # Prompt -> text -> (unit row, norm before normalising).
        self._texts: dict[Any, dict[str, tuple[np.ndarray, float]]] = {}
        self.seconds = 0.0

    def encode_image(self, X: Any) -> np.ndarray:
        """Return unit rows of images or embeddings."""
        return self._embedder.encode_image(X)

    def encode_text(
        self, names: Sequence[str], prompt: Any = "{}", *, return_norm: bool = False
    ) -> Any:
        """Return unit rows of texts; only those that are new for this prompt are encoded."""
        start = time.perf_counter()
        key = prompt if isinstance(prompt, str) else tuple(prompt)
        texts = self._texts.setdefault(key, {})

        missing = [name for name in dict.fromkeys(names) if name not in texts]
        if missing:
            rows, norms = self._embedder.encode_text(missing, prompt, return_norm=True)
            texts.update(zip(missing, zip(rows, norms, strict=True), strict=True))

        # In the order of the names, which may hold one several times.
        found = [texts[name] for name in names]
        rows = np.stack([row for row, _ in found])
        self.seconds += time.perf_counter() - start
        if not return_norm:
            return rows
        return rows, np.array([norm for _, norm in found], dtype=np.float32)

    @property
    def encode_local(self) -> Any:
        """The model's own, where it has one."""
        return self._embedder.encode_local

    @property
    def fingerprint_(self) -> str:
        """Fingerprint of the model."""
        return self._embedder.fingerprint_

    @property
    def logit_scale_(self) -> float:
        """Logit scale of the model."""
        return self._embedder.logit_scale_

    @property
    def logit_bias_(self) -> float | None:  # type: ignore[override]
        """Logit bias of the model, if it has one."""
        return getattr(self._embedder, "logit_bias_", None)


@dataclass(frozen=True)
class EmbeddedSuite:
    """A suite whose images are float32 unit rows, with the embedder that made them."""

    suite: Suite

    # As it was given, for detectors that score pictures.
    given: Suite

    # A SharedText, or the suite's EmbeddingTable, which has the texts already.
    embedder: Any

    # Seconds that embedding the images took.
    seconds: float

    # The model's name, as far as it has one.
    model: str

    # Digests of the images as they were before embedding; empty without ID training images.
    id_digest: str
    ood_digests: tuple[str, ...]
    id_train_digest: str

    @property
    def text_seconds(self) -> float:
        """Seconds that encoding texts has taken so far."""
        return self.embedder.seconds if isinstance(self.embedder, SharedText) else 0.0


def embed_suite(
    suite: Suite, memory: Any = None, cache_size: int | str | None = None
) -> EmbeddedSuite:
    """Embed all images of a suite; `memory` and `cache_size` are those of the embedder."""
    from dnm_sklearn.embedding import EmbeddingTable
    from dnm_sklearn.embedding.check import check_embedder
    from dnm_sklearn.embedding.open_clip.registry import shown_model_name

    embedder = show_progress(check_embedder(suite.embedder, memory, cache_size))
    model = getattr(embedder, "model", "")
    logger.info("model %s on %s", model or type(embedder).__name__, _device(embedder))

    # The rows in the cache before and after tell how many were new.
    n_cached = _cached_rows(memory)
    start = time.perf_counter()
    id_train = suite.id_train
    embedded = replace(
        suite,
        id=_embed(suite.id, embedder),
        ood=[_embed(images, embedder) for images in suite.ood],
        id_train=None if id_train is None else _embed(id_train, embedder),
    )
    seconds = time.perf_counter() - start

    n_images = len(suite.id) + sum(map(len, suite.ood)) + (0 if id_train is None else len(id_train))
    logger.info("%d images in %.1f s", n_images, seconds)
    if memory is not None and not isinstance(suite.id.images, np.ndarray):
        n_new = _cached_rows(memory) - n_cached
        logger.info(
            "cache %s: %d rows were new, %d hits (equal images count as hits)",
            memory,
            n_new,
            n_images - n_new,
        )

    return EmbeddedSuite(
        suite=embedded,
        given=suite,
        embedder=embedder if isinstance(embedder, EmbeddingTable) else SharedText(embedder),
        seconds=seconds,
        model=shown_model_name(str((suite.meta or {}).get("model") or model or "")),
        id_digest=images_digest(suite.id.images, memory),
        ood_digests=tuple(images_digest(images.images, memory) for images in suite.ood),
        id_train_digest="" if id_train is None else images_digest(id_train.images, memory),
    )


def show_progress(embedder: Any) -> Any:
    """Let a new embedder show bars for images and texts, on a terminal only; return it."""
    if "verbose" in getattr(embedder, "get_params", dict)():
        embedder.set_params(verbose=True)
    return embedder


def clip_embedder(model: str | None, **options: Any) -> Any:
    """Make the embedder of a model, or of CLIPEmbedder's own where none is named."""
    from dnm_sklearn.embedding import CLIPEmbedder

    embedder = CLIPEmbedder(**options) if model is None else CLIPEmbedder(model, **options)
    return show_progress(embedder)


def images_digest(images: Any, memory: Any = None) -> str:
    """Tell sets of images apart by their content, in order, wherever files of it lie.

    Of files that have not changed, the cache in `memory` remembers the digests; without it all are
    read once more.
    """
    if isinstance(images, np.ndarray):
        return digest_array(images).hex()[:16]

    listed = list(images)
    paths = [image for image in listed if isinstance(image, (str, Path))]
    of_files = iter(_file_digests(paths, memory))
    parts = []
    for image in listed:
        if isinstance(image, (str, Path)):
            digest = next(of_files)
            parts.append("unreadable" if digest is None else digest.hex())
        else:
            parts.append(digest_array(np.asarray(image)).hex())
    return digest_names(parts)[:16]


def _file_digests(paths: Sequence[str | Path], memory: Any) -> list[bytes | None]:
    """Digest the content of files; None for one that cannot be read."""
    from dnm_sklearn.embedding.cache import EmbeddingCache

    folder = getattr(memory, "location", memory)
    if folder is None:
        return [file.digest for file in digest_files(paths)]
    return EmbeddingCache(folder).digest_files(paths)


def holds_embeddings(suite: Suite) -> bool:
    """Tell a suite of precomputed embeddings from a suite of images."""
    images = suite.id.images
    return isinstance(images, np.ndarray) and images.ndim == 2 and images.dtype != np.uint8


def build(method: Method, suite: Suite, embedder: Any, config: RunConfig) -> Any:
    """Make an unfitted detector or baseline for a suite.

    A detector gets the suite's classes, corpus and prompt, and the embedder, as far as its class
    has these parameters; every method gets the run's seed and the parameters requested for it.
    """
    cls = method.load()
    names = list(cls().get_params(deep=False))
    requested = config.params_of(method)
    if "corpus" in requested:
        raise ValueError(
            f"{method.name} has no parameter 'corpus' to set. One corpus is for all methods: give "
            "it with --corpus."
        )
    check_parameters(method.name, requested, sorted({*names} - {*SUITE_PARAMS}))

    # Later ones win: defaults of the run, then what the suite brings, then what the user set.
    params: dict[str, Any] = {"random_state": config.seed, **dict(method.defaults)}
    if method.kind == "detector":
        params["classes"] = suite.class_names
        params["embedder"] = embedder
        params["corpus"] = suite.corpus
        if suite.synsets:
            params["synsets"] = suite.synsets
        prompt = config.prompt if config.prompt is not None else suite.prompt
        if prompt is not None:
            params["prompt"] = prompt
        # What has words beside the corpus leaves the OOD classes out of these too.
        if suite.meta.get("blind_to"):
            params["exclude"] = suite.meta["blind_to"]
    params |= requested

    estimator = cls(**{name: value for name, value in params.items() if name in names})
    # scikit-learn checks values at fit only, which would be after other methods have run.
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()
    return estimator


def draw_id_images(images: ImageSet, per_class: int, seed: int) -> ImageSet:
    """Draw up to `per_class` images of each class for a fit; all where it is 0 or labels miss."""
    if per_class == 0 or images.labels is None:
        return images

    order = np.random.default_rng(seed).permutation(len(images))
    drawn: list[int] = []
    for label in np.unique(images.labels):
        drawn += order[images.labels[order] == label][:per_class].tolist()
    # In the order of the set, so that the same draw gives the same rows.
    drawn.sort()
    return replace(images, images=images.images[drawn], labels=images.labels[drawn])


def _embed(images: ImageSet, embedder: Any) -> ImageSet:
    rows = np.asarray(embedder.encode_image(images.images))
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} images of the set {images.name!r} could not be read (first: number "
            f"{bad[0]}); remove them from the suite."
        )
    return replace(images, images=rows)


def check_parameters(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse parameters that a class does not have, or that are not for the user to set."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, n=1)
            raise ValueError(
                f"{owner} has no parameter {name!r} to set.{hint} It has: {', '.join(known)}."
            )


def _device(embedder: Any) -> str:
    from dnm_sklearn._utils.device import resolve_device

    device = getattr(embedder, "device", None)
    return "no device: precomputed embeddings" if device is None else str(resolve_device(device))


def _cached_rows(memory: Any) -> int:
    """Count the embedded images in a cache."""
    from dnm_sklearn.embedding.cache import EmbeddingCache

    folder = getattr(memory, "location", memory)
    return 0 if folder is None else EmbeddingCache(folder).count_rows()
