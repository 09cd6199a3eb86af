"""One image, whatever it is given as, to RGB as an image viewer would show it."""

from __future__ import annotations

import os
import re
from io import BytesIO
from typing import Any

import numpy as np

from dnm_sklearn.embedding.inputs import IMAGE_FIX, describe, is_one_image, is_tensor
from dnm_sklearn.exceptions import UnreadableImageError

__all__ = ["read_rgb", "to_rgb", "unwrap_item"]

# EXIF's tag of the orientation; 1 is upright, 2 to 8 are turned or mirrored.
_ORIENTATION = 0x0112
_TURNED = range(2, 9)
# The address of a buffer in Pillow's messages says nothing, and differs from run to run.
_IN_MEMORY = re.compile(r" ?<_io\.BytesIO object at 0x[0-9a-fA-F]+>")


def _to_eight_bits(image: Any) -> Any:
    """Bring an image of 16-bit, 32-bit or float values to 8 bits, as a viewer shows it."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadableImageError("it holds NaN or infinite pixel values")

    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    is_float = image.mode == "F"
    if is_float and low >= 0 and high <= 1:
        values = values * 255.0
    elif not is_float and low >= 0 and (image.mode.startswith("I;16") or 255 < high <= 65535):
        # 65535 / 257 = 255. Mode "I" (32 bits) is how Pillow opens some files of 16 bits.
        values = values / 257.0
    elif low < 0 or high > 255:
        # No known scale: the values' own range is stretched over the 8 bits.
        values = (values - low) * (255.0 / max(high - low, np.finfo(np.float64).tiny))
    return Image.fromarray(np.round(values).astype(np.uint8))


def to_rgb(image: Any) -> Any:
    """Convert a PIL image or uint8 array to RGB as an image viewer would show it.

    EXIF orientation is applied, transparency is laid on white, palettes are resolved, 16-bit and
    float greys are scaled to 8 bits (16 bits by 1/257, floats in [0, 1] by 255, other ranges
    stretched), CMYK and other colour spaces are converted. Of an animation the first frame is
    taken.
    """
    from PIL import Image, ImageOps

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

    image.load()
    # Asked to turn nothing, Pillow would copy the image.
    if image.getexif().get(_ORIENTATION, 1) in _TURNED:
        image = ImageOps.exif_transpose(image)

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;"):
        return _to_eight_bits(image).convert("RGB")

    # Modes with premultiplied alpha convert only to their plain twins.
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def read_rgb(item: Any, content: bytes | None = None) -> Any:
    """Read one image to RGB; `content` is a file's bytes where the caller has them already."""
    from PIL import Image

    if not is_one_image(item):
        raise TypeError(
            f"An image must be a path, a PIL image or a uint8 array, got {describe(item)}: "
            f"{IMAGE_FIX}."
        )
    try:
        if isinstance(item, (str, os.PathLike)):
            with Image.open(item if content is None else BytesIO(content)) as image:
                return to_rgb(image)
        return to_rgb(item)
    except (UnreadableImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError("no such file") from error
    except Exception as error:
        # Decoders raise nearly anything on damaged files.
        reason = _IN_MEMORY.sub("", str(error))
        raise UnreadableImageError(f"{type(error).__name__}: {reason}") from error


def unwrap_item(item: Any) -> Any:
    """Take the image out of a Dataset's item, which may be ``(image, target)`` or a mapping."""
    if isinstance(item, (tuple, list)) and item:
        item = item[0]
    elif isinstance(item, dict) and ("image" in item or "img" in item):
        item = item["image"] if "image" in item else item["img"]
    if is_tensor(item):
        raise TypeError(
            "The dataset gives tensors; the embedder resizes and normalises images itself. Make "
            "the dataset give PIL images: remove its transform (ToTensor, Normalize)."
        )
    return item
