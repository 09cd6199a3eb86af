"""Resizing and cropping: the pixels of open_clip's own transform, in bounded memory."""

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from dnm_sklearn.embedding.open_clip import geometry
from dnm_sklearn.exceptions import UnreadableImageError

SIZE = 24


def noise(width, height):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def transform(size=SIZE, **options):
    return image_transform_v2(PreprocessCfg(size=size, **options), is_train=False)


def preprocess(image, **options):
    steps, _, _ = geometry.split_transform(transform(**options), "cpu")
    return np.asarray(steps(image), dtype=int)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("sides", [(1, 500), (500, 1), (3, 901), (901, 3), (30, 700), (50, 33)])
def test_cropped_first_the_pixels_are_the_same(monkeypatch, sides, interpolation):
    expected = preprocess(noise(*sides), interpolation=interpolation)
    monkeypatch.setattr(geometry, "_MOST_RESIZED", 0)
    found = preprocess(noise(*sides), interpolation=interpolation)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("sides", [(2_000_000, 1), (1, 2_000_000)])
def test_a_thin_image_is_never_resized_as_a_whole(monkeypatch, sides):
    """Resized before it is cropped this one has 48 million times 24 pixels."""
    largest, resize = [], Image.Image.resize

    def counted(self, size, *args, **kwargs):
        largest.append(size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", counted)
    assert preprocess(Image.new("RGB", sides, (9, 99, 200))).reshape(-1, 3).tolist() == (
        SIZE * SIZE * [[9, 99, 200]]
    )
    assert largest == [SIZE * SIZE]


def test_a_thin_image_for_a_model_that_is_not_square_is_unreadable():
    assert preprocess(noise(40, 20), size=(12, 24)).shape == (12, 24, 3)
    with pytest.raises(UnreadableImageError, match="2000000 x 1 pixels, too thin"):
        preprocess(Image.new("RGB", (2_000_000, 1)), size=(12, 24))


@pytest.mark.parametrize("resize_mode", ["longest", "squash"])
def test_modes_that_make_nothing_larger_are_left_to_open_clip(resize_mode):
    image = noise(50, 20)
    whole = transform(resize_mode=resize_mode)
    expected = image
    for step in whole.transforms[:-2]:
        expected = step(expected)
    np.testing.assert_array_equal(preprocess(image, resize_mode=resize_mode), expected)
