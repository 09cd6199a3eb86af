"""Encoders as PyOD knows them, so that ``EmbeddingOD(encoder=ours)`` works."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from pyod.utils.encoders import BaseEncoder


class PyODEncoderMixin:
    """Adds ``encode``; registered with ``pyod.utils.encoders.BaseEncoder``, not derived from it."""

    def encode(
        self, X: Any, batch_size: int | None = None, show_progress: bool = False
    ) -> np.ndarray:
        """Encode images under the name that PyOD calls; the same as ``encode_image``.

        Use ``EmbeddingOD(..., standardize=False)``: standardised embeddings have other cosines.

        Parameters
        ----------
        X : sequence of images, Dataset, or array-like of shape (n, d)
            As in ``encode_image``.
        batch_size : int, optional
            Images in a batch; None = the encoder's own (``EmbeddingOD`` passes its own, 32 by
            default).
        show_progress : bool, default=False
            Show a progress bar when the work is long and there is a terminal.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows.
        """
        # Of an immutable encoder (a table) the copy is the encoder itself, which has no batches.
        encoder: Any = copy(self)
        if encoder is not self:
            if batch_size is not None:
                encoder.batch_size = batch_size
            encoder.verbose = bool(show_progress) or getattr(self, "verbose", False)
        return encoder.encode_image(X)


BaseEncoder.register(PyODEncoderMixin)
