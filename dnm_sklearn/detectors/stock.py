"""Images that ship with the package, as a sample of images in general."""

from __future__ import annotations

from typing import cast

import numpy as np

from dnm_sklearn.datasets import ImageSet, load_glyphs
from dnm_sklearn.datasets.noise import noise_images


def stock_images() -> list[np.ndarray]:
    """Return fifteen noise images and fifteen drawn letters, none of them a test image; RGB uint8."""
    noise = noise_images()
    letters = np.asarray(cast(ImageSet, load_glyphs().id_train).images)
    picked = np.linspace(0, len(letters) - 1, len(noise)).astype(int)
    return [*noise, *(np.repeat(letters[i][:, :, None], 3, axis=2) for i in picked)]
