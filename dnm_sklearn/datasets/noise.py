"""Images of noise: what a camera never sees, as examples of what is surely not in-distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

_IMAGES_PER_KIND = 3


def noise_images(random_state: Any = 0, *, size: int = 224) -> np.ndarray:
    """Fifteen noise images, three of each of five kinds.

    The kinds are Gaussian, uniform, Poisson(5), Gamma(2, 1) and salt-and-pepper noise. Every
    channel of every pixel is drawn independently (salt and pepper: every pixel is black or white),
    and each image is stretched over 0..255, so that a model's own normalisation can be applied to
    it as to a photograph. The result is uint8 of shape (15, size, size, 3), kind after kind in the
    order above.

    Examples
    --------
    >>> from dnm_sklearn.datasets.noise import noise_images
    >>> noise_images(size=8).shape
    (15, 8, 8, 3)
    """
    rng = check_random_state(random_state)
    shape = (_IMAGES_PER_KIND, size, size, 3)
    pixels = np.concatenate(
        [
            rng.normal(size=shape),
            rng.uniform(size=shape),
            rng.poisson(5, size=shape),
            rng.gamma(2, 1, size=shape),
            np.repeat(rng.randint(2, size=(*shape[:3], 1)), 3, axis=3),
        ]
    )

    # Stretch each image over 0..255; an image of one value would divide by zero.
    low = pixels.min(axis=(1, 2, 3), keepdims=True)
    high = pixels.max(axis=(1, 2, 3), keepdims=True)

    return np.rint((pixels - low) / np.maximum(high - low, 1e-12) * 255).astype(np.uint8)
