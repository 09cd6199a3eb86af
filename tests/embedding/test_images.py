"""One image to RGB: orientation, transparency, palettes, depths, colour spaces."""

import io
import os
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from dnm_sklearn.embedding import images
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

    @pytest.mark.parametrize(
        "mode", ["RGBA", "LA", "La", "RGBa", "PA", "P", "I", "I;16", "F", "F1"]
    )
    def test_a_large_image_in_bands_is_the_same_image(self, mode, monkeypatch):
        rng = np.random.default_rng(0)
        image = Image.fromarray(rng.integers(0, 256, (23, 7, 4), dtype=np.uint8))
        if mode == "P":
            image = image.convert("RGB").quantize(16)
            image.info["transparency"] = bytes(range(0, 256, 16))
        elif mode == "PA":
            image = image.convert("RGB").quantize(16).convert("PA")
        elif mode in ("LA", "La", "RGBa"):
            image = image.convert("LA").convert(mode) if mode != "RGBa" else image.convert(mode)
        elif mode != "RGBA":
            numbers = rng.integers(0, 65536, (23, 7)) if mode != "F" else rng.normal(size=(23, 7))
            kind = {"I": np.int32, "I;16": np.uint16}.get(mode, np.float32)
            image = Image.fromarray((numbers / (65535 if mode == "F1" else 1)).astype(kind))
        whole = np.asarray(to_rgb(image))

        cropped = []
        crop = Image.Image.crop

        def counted(self, box):
            cropped.append(box)
            return crop(self, box)

        monkeypatch.setattr(images, "_BAND_PIXELS", 20)
        monkeypatch.setattr(Image.Image, "crop", counted)
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), whole)
        assert len(set(cropped)) == 12
        assert len(np.unique(whole)) > 5

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


def encoded(kind="JPEG", size=(40, 20), **options):
    data = io.BytesIO()
    Image.new("RGB", size, (220, 30, 40)).save(data, kind, **options)
    return data.getvalue()


class TestDecoders:
    def test_formats_that_start_programs_are_not_decoded(self, tmp_path):
        (tmp_path / "page.jpg").write_bytes(encoded("EPS"))
        with pytest.raises(UnreadableImageError, match="in none of the formats that are read"):
            read_rgb(str(tmp_path / "page.jpg"))
        # Opened by the user, but not decoded yet.
        with (
            Image.open(tmp_path / "page.jpg") as opened,
            pytest.raises(UnreadableImageError, match="opened as EPS"),
        ):
            read_rgb(opened)

    @pytest.mark.parametrize("kind", ["JPEG", "TGA", "PPM", "JPEG2000", "WEBP", "QOI"])
    def test_named_formats_are_decoded_whatever_the_file_is_called(self, tmp_path, kind):
        Image.init()
        if kind not in Image.SAVE:
            pytest.skip(f"this Pillow writes no {kind}")
        (tmp_path / "picture").write_bytes(encoded(kind))
        assert read_rgb(tmp_path / "picture").size == (40, 20)
        with Image.open(tmp_path / "picture") as opened:
            assert to_rgb(opened).size == (40, 20)

    def test_a_pipe_and_a_device_are_unreadable(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
            with pytest.raises(UnreadableImageError, match="no ordinary file"):
                read_rgb(path)

    def test_a_huge_file_is_not_read(self, tmp_path):
        with open(tmp_path / "sparse.png", "wb") as file:
            file.truncate(2**40)
        with pytest.raises(UnreadableImageError, match="larger than"):
            read_rgb(tmp_path / "sparse.png")

    def test_heic_says_what_to_install(self):
        with pytest.raises(UnreadableImageError, match="pip install pillow-heif"):
            read_rgb(b"\0\0\0\x18ftypheic" + bytes(40))

    def test_large_images_are_decoded_and_shrunk_one_at_a_time(self, monkeypatch):
        at_once, most, lock = 0, 0, threading.Lock()

        def shrink(image):
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.01)
            with lock:
                at_once -= 1
            return image.size

        def read():
            with ThreadPoolExecutor(4) as pool:
                given = [encoded("PNG")] * 8
                assert (
                    list(pool.map(lambda data: read_rgb(data, then=shrink), given))
                    == [(40, 20)] * 8
                )

        monkeypatch.setattr(images, "_LARGE_PIXELS", 40 * 20 - 1)
        read()
        assert most == 1

        # Those of an ordinary size do not wait for a large one.
        monkeypatch.setattr(images, "_LARGE_PIXELS", 40 * 20)
        with images._one_large_image:
            read()

    def test_memory_that_runs_out(self, monkeypatch):
        def no_memory(image):
            raise MemoryError

        monkeypatch.setattr(images, "to_rgb", no_memory)
        with pytest.raises(UnreadableImageError, match="memory"):
            read_rgb(picture())


@pytest.mark.parametrize("kind", [1, 2, 7, 12])
@pytest.mark.parametrize("tag", [0x011A, 0x0132, 0xA005, 0x0100])
def test_orientation_beside_an_odd_tag(tag, kind):
    """Only the orientation is read: nothing else in the EXIF block can make an image unreadable."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0x0112, 3, 1, 6)
    exif += struct.pack("<HHI4s", tag, kind, 3, b"\x05\0\0\0") + bytes(4)
    assert read_rgb(encoded(exif=exif)).size == (20, 40)


@pytest.mark.parametrize("orientation", range(10))
def test_all_orientations_are_those_of_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png")), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_is_left_aside():
    assert read_rgb(encoded(exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (40, 20)
