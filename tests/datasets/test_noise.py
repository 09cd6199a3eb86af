"""Images of noise: each kind has the shape of its distribution, which a stretch cannot change."""

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from dnm_sklearn.datasets.noise import noise_images

IMAGES = noise_images(size=128).reshape(5, 3, -1, 3).astype(float)


@pytest.mark.parametrize(
    ("kind", "skewness", "excess"),
    # Skewness and excess kurtosis: of Poisson(m) 1 / sqrt(m) and 1 / m, of Gamma(k) 2 / sqrt(k)
    # and 6 / k; of a coin 0 and -2.
    [(0, 0, 0), (1, 0, -1.2), (2, 5**-0.5, 0.2), (3, 2**0.5, 3), (4, 0, -2)],
)
def test_each_kind_has_the_shape_of_its_distribution(kind, skewness, excess):
    for image in IMAGES[kind]:
        assert skew(image.ravel()) == pytest.approx(skewness, abs=0.08)
        assert kurtosis(image.ravel()) == pytest.approx(excess, abs=0.45)


def test_channels_are_drawn_one_by_one_but_for_salt_and_pepper():
    for kind, images in enumerate(IMAGES):
        for image in images:
            correlation = np.corrcoef(image.T)[0, 1]
            assert correlation == pytest.approx(1.0 if kind == 4 else 0.0, abs=0.05)


def test_images_of_a_kind_differ():
    for images in IMAGES:
        assert abs(np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1]) < 0.05
