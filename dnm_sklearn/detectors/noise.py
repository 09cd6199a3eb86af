"""Images of noise under an embedder: the one sample of "any image" that needs no data."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dnm_sklearn.datasets.noise import noise_images


def noise_embeddings(embedder: Any, random_state: Any = 0) -> np.ndarray:
    """Unit rows (15, D) of images of noise, through the image tower."""
    # A copy of the embedder, so that its list of the images that a fit could not read stays.
    return copy.copy(embedder).encode_image(list(noise_images(random_state)))
