"""The formats of images that are read: one list for folders, decoders and hints."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from importlib import import_module

# Decoders that Pillow has, by its names, and the endings of their files. None of them starts a
# program, as Pillow's EPS does, or hands the file to the system, as WMF does. TGA comes last: its
# files do not begin with anything that tells them, so that it is tried on all that is left.
_SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "HEIF": (".heic", ".heif", ".heics", ".heifs", ".hif"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
}

# All endings, whether or not the decoder is installed.
IMAGE_SUFFIXES = tuple(sorted(suffix for group in _SUFFIXES_OF.values() for suffix in group))


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Give Pillow's names of the formats that are read here."""
    from PIL import Image

    # Photographs of iPhones. Pillow has no decoder of its own; installed, this one is meant.
    with suppress(ImportError, AttributeError):
        import_module("pillow_heif").register_heif_opener()

    Image.init()
    return tuple(name for name in _SUFFIXES_OF if name in Image.OPEN)


def readable_suffixes() -> tuple[str, ...]:
    """Give the endings of files that are read here, in lower case with the dot."""
    suffixes = [suffix for name in readable_formats() for suffix in _SUFFIXES_OF[name]]
    return tuple(sorted(suffixes))
