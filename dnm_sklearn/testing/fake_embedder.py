"""A deterministic encoder without weights, for tests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval

from dnm_sklearn.embedding.base import BaseEmbedder
from dnm_sklearn.embedding.pipeline import ImageEncoder

__all__ = ["FakeEmbedder"]

_SIDE = 8  # pixels to which images are shrunk before they are projected


@lru_cache(maxsize=8)
def _projection(dim: int, random_state: int) -> np.ndarray:
    """Random matrix from pixels, and one constant, to the embedding."""
    rng = np.random.default_rng([random_state, dim, 77])
    return rng.standard_normal((_SIDE * _SIDE * 3 + 1, dim))


class FakeEmbedder(BaseEmbedder):
    """Encode names by hashing and images by a random projection; nothing is learned or downloaded.

    It has the surface of `CLIPEmbedder`. The width of its text embeddings follows the data: that of
    the array given to `fit`, else `dim`.

    Parameters
    ----------
    dim : int, default=32
        Width of the embeddings where `fit` was given no array.
    logit_scale : float, default=100.0
        What ``logit_scale_`` says.
    random_state : int, default=0
        Seed of the hashing and the projection.
    log_path : str or path, optional
        File that gets one line for each image row that is really computed, to count them across
        processes.
    memory : str, path, joblib.Memory or None, default=None
        As in `CLIPEmbedder`.
    cache_size : int, str or None, default=None
        As in `CLIPEmbedder`.
    on_error : {"raise", "nan"}, default="raise"
        As in `CLIPEmbedder`.

    Examples
    --------
    >>> from dnm_sklearn.testing import FakeEmbedder
    >>> FakeEmbedder(dim=4).encode_text(["cat", "dog", "cat"]).shape
    (3, 4)
    """

    _parameter_constraints: dict = {
        "dim": [Interval(Integral, 1, None, closed="left")],
        "logit_scale": [Interval(Real, 0, None, closed="neither")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
        "log_path": [None, str, HasMethods(["__fspath__"])],
        "memory": [None, str, HasMethods(["cache"]), HasMethods(["__fspath__"])],
        "cache_size": [None, Integral, str],
        "on_error": [str],
    }

    def __init__(
        self,
        dim: int = 32,
        *,
        logit_scale: float = 100.0,
        random_state: int = 0,
        log_path: Any = None,
        memory: Any = None,
        cache_size: int | str | None = None,
        on_error: str = "raise",
    ) -> None:
        self.dim = dim
        self.logit_scale = logit_scale
        self.random_state = random_state
        self.log_path = log_path
        self.memory = memory
        self.cache_size = cache_size
        self.on_error = on_error

    @property
    def embedding_dim_(self) -> int:
        """Width of the embeddings."""
        return int(self.n_features_in_) if self._has_width() else int(self.dim)

    @property
    def fingerprint_(self) -> str:
        """Digest of width and seed."""
        return hashlib.blake2b(
            f"fake {self.embedding_dim_} {self.random_state}".encode(), digest_size=20
        ).hexdigest()

    @property
    def logit_scale_(self) -> float:
        """The parameter `logit_scale`."""
        return float(self.logit_scale)

    def _encode_prompts(self, prompts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        rows = np.empty((len(prompts), self.embedding_dim_))
        for row, prompt in zip(rows, prompts, strict=True):
            # Seeded by the text itself: the same vector in every process, whatever is beside it.
            text = prompt.encode("utf-8", "surrogatepass")
            seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
            row[:] = np.random.default_rng([seed, self.random_state]).standard_normal(len(row))
            if len(row) == 1:  # all texts point the same way, so that no mean over prompts vanishes
                row[:] = np.abs(row)

        return rows, []  # no prompt is ever too long

    def _image_encoder(self) -> _FakeImageEncoder:
        return _FakeImageEncoder(self.embedding_dim_, int(self.random_state), self.log_path)


class _FakeImageEncoder(ImageEncoder):
    """Projects small images at random, and counts them."""

    def __init__(self, width: int, random_state: int, log_path: Any) -> None:
        self.projection = _projection(width, random_state)
        self.log_path = log_path

    def preprocess(self, image: Any) -> np.ndarray:
        """Shrink the image to 8 x 8 pixels."""
        return np.asarray(image.resize((_SIDE, _SIDE)))

    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Project the pixels, and log one line per row."""
        if self.log_path is not None:
            # One write of the operating system: lines of several processes do not mix.
            handle = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, b"row\n" * len(batch))
            finally:
                os.close(handle)

        flat = batch.reshape(len(batch), -1) / 255.0 - 0.5
        # The constant keeps a grey image from having an embedding of zeros.
        return np.column_stack([flat, np.full(len(flat), 0.1)]) @ self.projection
