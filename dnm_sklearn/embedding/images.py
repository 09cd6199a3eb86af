"""One image, whatever it is given as, to RGB as an image viewer would show it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from typing import Any

import numpy as np

from dnm_sklearn._utils.forks import ForkSafeLock
from dnm_sklearn._utils.image_formats import readable_formats
from dnm_sklearn._utils.untrusted_files import read_bytes
from dnm_sklearn.embedding.inputs import describe, is_one_image, is_path
from dnm_sklearn.exceptions import FileContentError, UnreadableImageError

# EXIF's tag of the orientation; 1 is upright.
_ORIENTATION = 0x0112
# What turns an image upright that is stored in another orientation, by Pillow's names.
_UPRIGHT_BY = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# The address of a buffer in Pillow's messages says nothing, and differs from run to run.
_IN_MEMORY = re.compile(r" ?<_io\.BytesIO object at 0x[0-9a-fA-F]+>")
# The largest images that Pillow opens, 179 million pixels, take 1.4 GB with 16 bits and four
# channels, packed next to nothing.
_LARGEST_FILE = 2**31
# Larger images are decoded and shrunk one at a time, whatever the number of threads: 67 million
# pixels, of a camera that few have, take 270 MB as RGB.
_LARGE_PIXELS = 2**26
_one_large_image = ForkSafeLock()
# Pixels that are converted at a time; their copies in float64 take 34 MB.
_BAND_PIXELS = 2**22
# How a file begins that iPhones and some cameras write: "ftyp" and one of these.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _bands(image: Any) -> list[tuple[int, int, int, int]]:
    """Boxes of horizontal bands that make up an image."""
    height = max(1, _BAND_PIXELS // max(1, image.width))
    starts = range(0, image.height, height)
    return [(0, top, image.width, min(top + height, image.height)) for top in starts]


def _in_bands(image: Any, convert: Callable[[Any], Any]) -> Any:
    """Convert an image to RGB, a large one in bands: copies of the whole would take gigabytes."""
    from PIL import Image

    bands = _bands(image)
    if len(bands) == 1:
        return convert(image)

    rgb = Image.new("RGB", image.size)
    for band in bands:
        rgb.paste(convert(image.crop(band)), band)
    return rgb


def _range(image: Any) -> tuple[float, float]:
    """Least and greatest value of an image of one channel."""
    low, high = np.inf, -np.inf
    for band in _bands(image):
        values = np.asarray(image.crop(band))
        if not np.isfinite(values).all():
            raise UnreadableImageError("it holds NaN or infinite pixel values")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _grey_to_rgb(image: Any) -> Any:
    """Bring an image of 16-bit, 32-bit or float values to 8 bits, as a viewer shows it."""
    from PIL import Image

    low, high = _range(image)
    scale, offset = 1.0, 0.0
    is_float = image.mode == "F"
    if is_float and low >= 0 and high <= 1:
        scale = 255.0
    elif not is_float and low >= 0 and (image.mode.startswith("I;16") or 255 < high <= 65535):
        # 65535 / 257 = 255. Mode "I" (32 bits) is how Pillow opens some files of 16 bits.
        scale = 1 / 257.0
    elif low < 0 or high > 255:
        # No known scale: the values' own range is stretched over the 8 bits.
        scale, offset = 255.0 / max(high - low, np.finfo(np.float64).tiny), low

    def convert(band: Any) -> Any:
        values = (np.asarray(band, dtype=np.float64) - offset) * scale
        return Image.fromarray(np.round(values).astype(np.uint8)).convert("RGB")

    return _in_bands(image, convert)


def _on_white(image: Any) -> Any:
    """Lay a transparent image on white."""
    from PIL import Image

    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def to_rgb(image: Any) -> Any:
    """Convert a PIL image or uint8 array to RGB as an image viewer would show it.

    EXIF orientation is applied, transparency is laid on white, palettes are resolved, 16-bit and
    float greys are scaled to 8 bits (16 bits by 1/257, floats in [0, 1] by 255, other ranges
    stretched), CMYK and other colour spaces are converted. Of an animation the first frame is
    taken.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
            raise UnreadableImageError(
                f"an image array must be uint8 (h, w[, 1, 3 or 4]), got {describe(image)}"
            )
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3 and image.shape[2] not in (3, 4):
            raise UnreadableImageError(f"an image has 1, 3 or 4 channels, got {describe(image)}")
        image = Image.fromarray(np.ascontiguousarray(image))

    _check_decoder(image)
    image.load()
    image = _upright(image)

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;"):
        return _grey_to_rgb(image)

    # Modes with premultiplied alpha convert only to their plain twins.
    if image.mode in ("La", "RGBa"):
        plain = {"La": "LA", "RGBa": "RGBA"}[image.mode]
        return _in_bands(image, lambda band: _on_white(band.convert(plain)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _in_bands(image, _on_white)
    return image.convert("RGB")


def _check_decoder(image: Any) -> None:
    """Refuse an image that is opened but not decoded, where the decoder is none that we name."""
    is_lazy = bool(getattr(image, "tile", None))
    if is_lazy and image.format not in (*readable_formats(), "MPO"):
        raise UnreadableImageError(
            f"it was opened as {image.format}, a format that is not decoded here, since some "
            "decoders start programs; call its load() yourself if you trust its source"
        )


def _upright(image: Any) -> Any:
    """Turn a decoded image as its EXIF orientation says."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    # A damaged EXIF block says nothing; viewers show such an image as it is stored.
    except Exception:
        return image

    # Not ImageOps.exif_transpose: it writes the whole EXIF block anew, which fails for one odd tag
    # of any other kind.
    name = _UPRIGHT_BY.get(orientation) if isinstance(orientation, int) else None
    return image if name is None else image.transpose(Image.Transpose[name])


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of an image file, an ordinary one only: a pipe or a device has no end."""
    if not os.fspath(path):
        raise UnreadableImageError("no path (an empty string)")
    return read_bytes(path, largest=_LARGEST_FILE)


def as_unreadable(error: Exception) -> UnreadableImageError:
    """Give the error that tells of one image what went wrong with it, of whatever kind."""
    if isinstance(error, UnreadableImageError):
        return error
    if isinstance(error, FileNotFoundError):
        reason = "no such file"
    elif isinstance(error, FileContentError):
        reason = str(error)
    elif isinstance(error, OSError) and error.strerror:
        reason = f"it cannot be read ({error.strerror})"
    elif isinstance(error, MemoryError):
        reason = "it does not fit into the memory that is left"
    else:
        reason = f"{type(error).__name__}: {_IN_MEMORY.sub('', str(error))}"
    unreadable = UnreadableImageError(reason)
    unreadable.__cause__ = error
    return unreadable


def _why_unknown(content: bytes) -> str:
    """Say what may be wrong with bytes that no decoder knows."""
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        return (
            "it is a HEIC image, for which Pillow has no decoder: pip install pillow-heif (it is "
            "then used by itself), or convert it to JPEG"
        )
    return (
        "cannot identify image file: it is damaged, or in none of the formats that are read here "
        f"({', '.join(readable_formats())})"
    )


def read_rgb(
    item: Any, content: bytes | None = None, then: Callable[[Any], Any] = lambda image: image
) -> Any:
    """Read one image to RGB, and give what `then` makes of it.

    `content` is a file's bytes where the caller has them already.
    """
    from PIL import Image, UnidentifiedImageError

    if not (is_one_image(item) or isinstance(item, bytes)):
        raise UnreadableImageError(
            f"it is no image: an image is a path, a PIL image or a uint8 array, got "
            f"{describe(item)}"
        )
    try:
        if is_path(item) and content is None:
            content = read_image_file(item)
        elif isinstance(item, bytes):
            content = item
        if content is None:
            return then(to_rgb(item))
        with Image.open(BytesIO(content), formats=readable_formats()) as image:
            # Nothing is decoded yet. A file of 1 MB may be an image of 1.4 GB.
            is_large = image.width * image.height > _LARGE_PIXELS
            with _one_large_image if is_large else nullcontext():
                return then(to_rgb(image))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_why_unknown(content or b"")) from error
    # Decoders raise nearly anything on damaged files.
    except Exception as error:
        raise as_unreadable(error) from error
