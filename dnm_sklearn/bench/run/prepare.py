"""Before a run: images embedded once, texts shared, methods built."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.bench.cli.common import with_bars
from dnm_sklearn.bench.run.orders import Order
from dnm_sklearn.bench.run.registry import Method
from dnm_sklearn.datasets.benchmark import ImageSet, Suite
from dnm_sklearn.embedding.digest import digest_array
from dnm_sklearn.embedding.protocol import FixedEmbedder
from dnm_sklearn.embedding.text import names_digest

logger = logging.getLogger(__name__)
SUITE_PARAMS = ("classes", "embedder", "corpus", "memory")


class SharedText(FixedEmbedder):
    """An embedder that encodes a bank of texts once, for all methods of a run, and keeps the time.

    Parameters
    ----------
    embedder : CLIPEmbedder or the like
        What does the work.
    """

    def __init__(self, embedder: Any):
        self._embedder = embedder
        self._banks: dict[Any, dict[str, tuple[np.ndarray, float]]] = {}
        self.seconds = 0.0

    def encode_image(self, X: Any) -> np.ndarray:
        """Return unit rows of images or embeddings."""
        return self._embedder.encode_image(X)

    def encode_text(
        self, names: Sequence[str], prompt: Any = "{}", *, return_norm: bool = False
    ) -> Any:
        """Return unit rows of texts; each text is encoded once for each prompt."""
        start = time.perf_counter()
        key = prompt if isinstance(prompt, str) else tuple(prompt)
        bank = self._banks.setdefault(key, {})
        missing = [name for name in dict.fromkeys(names) if name not in bank]
        if missing:
            rows, norms = self._embedder.encode_text(missing, prompt, return_norm=True)
            bank.update(zip(missing, zip(rows, norms, strict=True), strict=True))
        found = [bank[name] for name in names]
        rows = np.stack([row for row, _ in found])
        self.seconds += time.perf_counter() - start
        return (
            (rows, np.array([norm for _, norm in found], dtype=np.float32)) if return_norm else rows
        )

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
    """A suite whose images are float32 unit rows, with the embedder that made them.

    Parameters
    ----------
    suite : Suite
        With arrays as images.
    embedder : SharedText or EmbeddingTable
        For the texts (a table has them ready-made).
    seconds : float
        What embedding the images took.
    n_images : int
        Images embedded.
    model : str
        The model's name, as far as it has one.
    id_digest : str
        Digest of the ID images.
    ood_digests : tuple of str
        Digests of the OOD sets.
    id_train_digest : str
        Digest of the ID images that may be used at fit; empty if there are none.
    """

    suite: Suite
    embedder: Any
    seconds: float
    n_images: int
    model: str = ""
    id_digest: str = ""
    ood_digests: tuple[str, ...] = ()
    id_train_digest: str = ""


@dataclass(frozen=True)
class Plan:
    """How to run the methods.

    Parameters
    ----------
    seed : int, default=0
        ``random_state`` of every method that has one, and of the draw of ID images.
    prompt : str or None, default=None
        Prompt of the class names; None = the suite's, else each detector's own.
    id_per_class : int, default=16
        ID images a class that baselines see; 0 = all of the suite's.
    overrides : mapping of str to dict
        Parameters by method name.
    stream : str, default="shuffled"
        Order in which test-time methods see a set; see :mod:`dnm_sklearn.bench.run.orders`.
    repeats : int, default=3
        Orders that a test-time method is scored in.
    """

    seed: int = 0
    prompt: str | None = None
    id_per_class: int = 16
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stream: Order = "shuffled"
    repeats: int = 3

    def of(self, method: Method) -> dict[str, Any]:
        """Return the parameters of a method that were asked for; those beside its name go first."""
        return {**self.overrides.get(method.name, {}), **dict(method.params)}

    def id_images_of(self, method: Method) -> int | None:
        """Return the ID images a class that a method is fitted on; 0 = all, None = none."""
        return self.id_per_class if method.kind == "baseline" else method.id_per_class


def embed_suite(
    suite: Suite, memory: Any = None, cache_size: int | str | None = None
) -> EmbeddedSuite:
    """Embed all images of a suite.

    Parameters
    ----------
    suite : Suite
        Images or embeddings.
    memory : str, joblib.Memory or None, default=None
        Cache of the embedder.
    cache_size : int, str or None, default=None
        Cap on the cache of the embedder.

    Returns
    -------
    EmbeddedSuite

    Raises
    ------
    ValueError
        If an image cannot be read.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.registry import load_suite
    >>> from dnm_sklearn.bench.run.prepare import embed_suite
    >>> embedded = embed_suite(load_suite("glyphs"))  # doctest: +SKIP
    """
    from dnm_sklearn.embedding import EmbeddingTable
    from dnm_sklearn.embedding.check import check_embedder
    from dnm_sklearn.embedding.open_clip.registry import shown_model_name

    model = with_bars(check_embedder(suite.embedder, memory=memory, cache_size=cache_size))
    logger.info("model %s on %s", getattr(model, "model", type(model).__name__), _device(model))
    start = time.perf_counter()

    def embed(images: ImageSet) -> ImageSet:
        rows = np.asarray(model.encode_image(images.images))
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} images of the set {images.name!r} could not be read (first: number "
                f"{bad[0]}); remove them from the suite."
            )
        return replace(images, images=rows)

    before = _cached_rows(memory)
    done = replace(
        suite,
        id=embed(suite.id),
        ood=[embed(images) for images in suite.ood],
        id_train=None if suite.id_train is None else embed(suite.id_train),
    )
    n_images = (
        len(done.id)
        + sum(map(len, done.ood))
        + (0 if done.id_train is None else len(done.id_train))
    )
    taken = time.perf_counter() - start
    new = _cached_rows(memory) - before
    logger.info("%d images in %.1f s", n_images, taken)
    if memory is not None and not isinstance(suite.id.images, np.ndarray):
        logger.info(
            "cache %s: %d rows were new, %d hits (equal images count as hits)",
            memory,
            new,
            n_images - new,
        )
    name = shown_model_name(
        str((suite.meta or {}).get("model") or getattr(model, "model", "") or "")
    )
    return EmbeddedSuite(
        done,
        model if isinstance(model, EmbeddingTable) else SharedText(model),
        taken,
        n_images,
        name,
        images_digest(suite.id.images),
        tuple(images_digest(images.images) for images in suite.ood),
        "" if suite.id_train is None else images_digest(suite.id_train.images),
    )


def _device(model: Any) -> str:
    from dnm_sklearn._utils.device import resolve_device

    device = getattr(model, "device", None)
    return "no device: precomputed embeddings" if device is None else str(resolve_device(device))


def _cached_rows(memory: Any) -> int:
    from dnm_sklearn.embedding.cache import EmbeddingCache

    where = getattr(memory, "location", memory)
    return 0 if where is None else EmbeddingCache(where).count_rows()


def images_digest(images: Any) -> str:
    """Tell sets of images apart, without the model.

    Parameters
    ----------
    images : sequence of images, or ndarray of shape (n, d)
        Files are told apart by folder, name and size.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.run.prepare import images_digest
    >>> images_digest(np.eye(2)) == images_digest(np.eye(3))
    False
    """
    if isinstance(images, np.ndarray):
        return digest_array(images).hex()[:16]
    parts = []
    for image in images:
        if isinstance(image, (str, Path)):
            path = Path(image)
            parts.append(
                f"{path.parent.name}/{path.name} {path.stat().st_size if path.exists() else -1}"
            )
        else:
            parts.append(digest_array(np.asarray(image)).hex())
    return names_digest(parts)[:16]


def build(method: Method, embedded: EmbeddedSuite, plan: Plan) -> Any:
    """Make an unfitted detector or baseline for a suite.

    Parameters
    ----------
    method : Method
        What to make.
    embedded : EmbeddedSuite
        Gives classes, embedder, corpus and prompt to a detector, as far as its class has these
        parameters.
    plan : Plan
        Seed, prompt and overrides.

    Returns
    -------
    object
        With ``fit`` and ``decision_function``.

    Raises
    ------
    ValueError
        If an override names no parameter of the class, or has a bad value.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.prepare import Plan, build
    >>> build(method, embedded, Plan(seed=1))  # doctest: +SKIP
    """
    cls = method.load()
    known = cls().get_params(deep=False)
    overrides = plan.of(method)
    given: dict[str, Any] = {"random_state": plan.seed, **dict(method.defaults)}
    for key in overrides:
        if key not in known or key in SUITE_PARAMS:
            free = sorted(k for k in known if k not in SUITE_PARAMS)
            close = difflib.get_close_matches(key, free, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            if key == "corpus":
                hint = " One corpus is for all methods: give it with --corpus."
            raise ValueError(
                f"{method.name} has no parameter {key!r} to set.{hint} It has: {', '.join(free)}."
            )
    if method.kind == "detector":
        suite = embedded.suite
        given |= {
            "classes": suite.class_names,
            "embedder": embedded.embedder,
            "corpus": suite.corpus,
        }
        prompt = plan.prompt if plan.prompt is not None else suite.prompt
        if prompt is not None:
            given["prompt"] = prompt
    made = cls(**{key: value for key, value in {**given, **overrides}.items() if key in known})
    if hasattr(made, "_parameter_constraints"):
        made._validate_params()
    return made


def draw_id_images(images: ImageSet, per_class: int, seed: int) -> ImageSet:
    """ID images for a fit: up to `per_class` of each class.

    Parameters
    ----------
    images : ImageSet
        ID training images as embeddings.
    per_class : int
        How many of each class; 0 = all. Without labels, all.
    seed : int
        Seed of the draw.

    Returns
    -------
    ImageSet
        In the order of the set.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.run.prepare import draw_id_images
    >>> from dnm_sklearn.datasets import ImageSet
    >>> len(draw_id_images(ImageSet("t", np.eye(4), "id", np.array([0, 0, 0, 1])), 2, seed=0))
    3
    """
    if per_class == 0 or images.labels is None:
        return images
    order = np.random.default_rng(seed).permutation(len(images))
    taken: list[int] = []
    for label in np.unique(images.labels):
        taken += order[images.labels[order] == label][:per_class].tolist()
    taken.sort()
    return replace(images, images=images.images[taken], labels=images.labels[taken])
