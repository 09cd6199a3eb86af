"""One image to RGB: orientation, transparency, palettes, depths, colour spaces."""

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn.embedding.images import read_rgb, to_rgb
from dnm_sklearn.exceptions import UnreadableImageError


def picture(seed=0, shape=(40, 30, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class TestConversion:
    def pixels(self, image):
        image = to_rgb(image)
        assert image.mode == "RGB"
        return np.asarray(image)

    def test_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture()).save(tmp_path / "turned.png", exif=exif)
        np.testing.assert_array_equal(
            np.asarray(read_rgb(tmp_path / "turned.png")), np.rot90(picture(), -1)
        )

    def test_alpha_is_laid_on_white(self):
        rgba = np.zeros((1, 3, 4), dtype=np.uint8)
        rgba[0, :, 3] = [0, 255, 128]
        assert self.pixels(rgba)[0, :, 0].tolist() == [255, 0, 127]
        assert self.pixels(Image.fromarray(rgba).convert("LA"))[0, :, 0].tolist() == [255, 0, 127]

    def test_palette(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata([0, 1])
        assert self.pixels(image)[0].tolist() == [[10, 20, 30], [200, 100, 50]]
        image.save(tmp_path / "p.png", transparency=0)
        assert np.asarray(read_rgb(tmp_path / "p.png"))[0].tolist() == [
            [255, 255, 255],
            [200, 100, 50],
        ]

    def test_transparent_colour_of_rgb(self, tmp_path):
        Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], "uint8")).save(
            tmp_path / "t.png", transparency=(1, 2, 3)
        )
        assert np.asarray(read_rgb(tmp_path / "t.png"))[0].tolist() == [[255, 255, 255], [4, 5, 6]]

    def test_grey_and_bilevel(self):
        assert self.pixels(np.array([[7]], "uint8"))[0, 0].tolist() == [7, 7, 7]
        assert self.pixels(np.array([[[7]]], "uint8"))[0, 0].tolist() == [7, 7, 7]
        assert self.pixels(Image.new("1", (1, 1), 1))[0, 0].tolist() == [255, 255, 255]

    def test_sixteen_bits(self, tmp_path):
        Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(
            tmp_path / "16.png"
        )
        assert np.asarray(read_rgb(tmp_path / "16.png"))[0, :, 1].tolist() == [0, 100, 255]

    def test_floats(self):
        assert self.pixels(Image.fromarray(np.array([[0.0, 1.0]], "float32")))[
            0, :, 0
        ].tolist() == [0, 255]
        assert self.pixels(Image.fromarray(np.array([[0.0, 100.0]], "float32")))[
            0, :, 0
        ].tolist() == [0, 100]
        assert self.pixels(Image.fromarray(np.array([[-5.0, 5.0]], "float32")))[
            0, :, 0
        ].tolist() == [0, 255]

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "c.jpg")
        red, green, _ = np.asarray(read_rgb(tmp_path / "c.jpg"))[0, 0].tolist()
        assert red < 30 < 100 < green

    @pytest.mark.parametrize(
        "bad", [np.zeros((0, 4), "uint8"), np.zeros((4, 4, 2), "uint8"), np.zeros((4, 4))]
    )
    def test_no_image(self, bad):
        with pytest.raises(UnreadableImageError):
            to_rgb(bad)
