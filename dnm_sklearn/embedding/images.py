"""What an image may be: telling inputs apart, and turning each into an RGB picture."""

from __future__ import annotations

import os
import re
import sys
import warnings
from io import BytesIO
from typing import Any, Literal

import numpy as np

__all__ = ["UnreadableImageError", "describe", "embedding_rows", "input_kind", "read_rgb", "to_rgb"]

_IMAGE_FIX = (
    "give a list of image paths, PIL images or uint8 arrays, a torch Dataset, a uint8 array of shape "
    "(n, height, width[, 3]), or a 2-D numeric array of embeddings (any dtype but uint8)"
)
_CHUNK = 1 << 16
_ORIENTATION = 0x0112
_TURNED = range(2, 9)
_IN_MEMORY = re.compile(r" ?<_io\.BytesIO object at 0x[0-9a-fA-F]+>")


class UnreadableImageError(ValueError):
    """An image that could not be read or decoded; the message says why."""


def _is_pil(x: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    kind = getattr(module, "Image", None)  # another thread may be importing the module right now
    return kind is not None and isinstance(x, kind)


def _is_torch(x: Any, name: str) -> bool:
    if name == "Tensor":
        module = sys.modules.get("torch")
        return module is not None and isinstance(x, module.Tensor)
    module = sys.modules.get("torch.utils.data")
    return module is not None and isinstance(x, module.Dataset)


def is_one_image(x: Any) -> bool:
    """Tell whether `x` is something that one image can be: a path, a PIL image or a uint8 array.

    Parameters
    ----------
    x : object
        One item of a list of images.

    Returns
    -------
    bool
        True for a ``str`` or path, a PIL image, and a uint8 array of two or three dimensions.
    """
    if isinstance(x, (str, os.PathLike)) or _is_pil(x):
        return True
    return isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (2, 3)


def _array_kind(X: np.ndarray) -> Literal["embeddings", "images"]:
    if X.dtype.kind in "USO" and X.ndim == 1:
        return "images"
    if X.dtype == np.uint8:
        if X.ndim == 4 and X.shape[-1] in (1, 3, 4):
            return "images"
        if X.ndim == 3 and (X.shape[-1] not in (3, 4) or min(X.shape[1:]) > 4):
            return "images"
        if X.ndim in (2, 3):
            raise ValueError(
                f"A uint8 array of shape {X.shape} is one image, not many: give a list [image] or an "
                f"array of "
                "shape (1, height, width[, 3]). Embeddings quantised to uint8 must be given as floats."
            )
        raise ValueError(f"A uint8 array of shape {X.shape} holds no images: {_IMAGE_FIX}.")
    if X.ndim > 2 and X.dtype.kind in "fiub":
        raise ValueError(
            f"Images as an array must be uint8 of shape (n, height, width[, 3]), got {X.dtype} of shape "
            f"{X.shape}: "
            "convert with (255 * X).round().astype('uint8') if the values are in [0, 1]."
        )
    return "embeddings"


def input_kind(X: Any) -> Literal["embeddings", "images"]:
    """Tell whether `X` holds images to be encoded or embeddings ready-made.

    A 2-D numeric array (also a data frame or a list of numeric rows) of any dtype but uint8 is
    embeddings. Everything that an image can be is images: paths, PIL images, uint8 arrays, a torch
    Dataset. What is neither is left to the validation of embeddings, whose errors are
    scikit-learn's.

    Parameters
    ----------
    X : object
        What a user gave as X.

    Returns
    -------
    {"embeddings", "images"}
        The kind.

    Raises
    ------
    ValueError
        If `X` is a uint8 or many-dimensional array that holds neither.
    TypeError
        If `X` is one image instead of a sequence of images.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.embedding import input_kind
    >>> input_kind(np.ones((3, 512))), input_kind(["cat.png"])
    ('embeddings', 'images')
    """
    if isinstance(X, (str, bytes, os.PathLike)) or _is_pil(X):
        raise TypeError(f"X must hold several images, got one ({describe(X)}): give a list, [image].")
    if isinstance(X, np.ndarray):
        return _array_kind(X)
    if _is_torch(X, "Tensor"):
        if X.ndim == 2:
            return "embeddings"
        raise TypeError(
            f"A torch tensor of shape {tuple(X.shape)} is not taken as images, since its layout and scale "
            f"are "
            f"unknown: {_IMAGE_FIX}."
        )
    if _is_torch(X, "Dataset"):
        return "images"
    if isinstance(X, (list, tuple)):
        return "images" if len(X) == 0 or is_one_image(X[0]) else "embeddings"
    if hasattr(X, "__array__") or hasattr(X, "__dataframe__") or hasattr(X, "toarray"):
        dtype = getattr(X, "dtype", None)
        one_column = len(getattr(X, "shape", ())) == 1
        return "images" if one_column and getattr(dtype, "kind", "O") in "OUST" else "embeddings"
    if hasattr(X, "__len__") and hasattr(X, "__getitem__") and not isinstance(X, dict):
        return "images"
    return "embeddings"


def describe(item: Any) -> str:
    """Name an image in a message: its path, or what kind of object it is.

    Parameters
    ----------
    item : object
        One image.

    Returns
    -------
    str
        The path of a file, else a short description.
    """
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item) if not isinstance(item, str) else item
    if _is_pil(item):
        return f"PIL image {item.mode} {item.size[0]}x{item.size[1]}"
    if isinstance(item, np.ndarray):
        return f"{item.dtype} array of shape {item.shape}"
    return type(item).__name__


def _from_wide(image: Any) -> Any:
    """Bring a picture of 16-bit or float values to 8 bits, as a viewer shows it."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadableImageError("it holds NaN or infinite pixel values")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255.0
    elif image.mode != "F" and low >= 0 and (image.mode.startswith("I;16") or 255 < high <= 65535):
        values = values / 257.0
    elif low < 0 or high > 255:
        values = (values - low) * (255.0 / max(high - low, np.finfo(np.float64).tiny))
    return Image.fromarray(np.round(values).astype(np.uint8))


def to_rgb(image: Any) -> Any:
    """Convert a PIL image or uint8 array to RGB as an image viewer would show it.

    EXIF orientation is applied, transparency is laid on white, palettes are resolved, 16-bit and
    float greys are scaled to 8 bits (16 bits by 1/257, floats in [0, 1] by 255, other ranges
    stretched), CMYK and other colour spaces are converted. Of an animation the first frame is
    taken.

    Parameters
    ----------
    image : PIL.Image.Image or uint8 ndarray of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)
        The picture; four channels are RGBA.

    Returns
    -------
    PIL.Image.Image
        The picture in mode "RGB".

    Raises
    ------
    UnreadableImageError
        If it cannot be decoded.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.embedding.images import to_rgb
    >>> to_rgb(np.zeros((4, 6), dtype="uint8")).size
    (6, 4)
    """
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
            raise UnreadableImageError(f"an image array must be uint8 (h, w[, 1, 3 or 4]), got {describe(image)}")
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3 and image.shape[2] not in (3, 4):
            raise UnreadableImageError(f"an image has 1, 3 or 4 channels, got {describe(image)}")
        image = Image.fromarray(np.ascontiguousarray(image))
    image.load()
    if image.getexif().get(_ORIENTATION, 1) in _TURNED:  # asked to turn nothing, Pillow copies the picture
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;"):
        return _from_wide(image).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def read_rgb(item: Any, content: bytes | None = None) -> Any:
    """Read one image, whatever it is given as, to RGB.

    Parameters
    ----------
    item : str, path, PIL.Image.Image, or uint8 ndarray
        The image; a ``str`` is always a file.
    content : bytes, optional
        The file's bytes where the caller has them already.

    Returns
    -------
    PIL.Image.Image
        The picture in mode "RGB".

    Raises
    ------
    UnreadableImageError
        If the file is missing, or is no image, or is damaged.
    TypeError
        If `item` is nothing that an image can be.
    """
    from PIL import Image

    if not is_one_image(item):
        raise TypeError(f"An image must be a path, a PIL image or a uint8 array, got {describe(item)}: {_IMAGE_FIX}.")
    try:
        if isinstance(item, (str, os.PathLike)):
            with Image.open(item if content is None else BytesIO(content)) as image:
                return to_rgb(image)
        return to_rgb(item)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        if isinstance(error, FileNotFoundError):
            raise UnreadableImageError("no such file") from error
        said = _IN_MEMORY.sub("", str(error))  # the address of a buffer says nothing, and differs from run to run
        raise UnreadableImageError(f"{type(error).__name__}: {said}") from error


def unwrap_item(item: Any) -> Any:
    """Take the image out of a Dataset's item, which may be ``(image, target)`` or a mapping.

    Parameters
    ----------
    item : object
        What ``dataset[i]`` returned.

    Returns
    -------
    object
        The image.

    Raises
    ------
    TypeError
        If the dataset gives tensors, which open_clip's preprocessing does not take.
    """
    if isinstance(item, (tuple, list)) and item:
        item = item[0]
    elif isinstance(item, dict) and ("image" in item or "img" in item):
        item = item["image"] if "image" in item else item["img"]
    if _is_torch(item, "Tensor"):
        raise TypeError(
            "The dataset gives tensors; the embedder resizes and normalises images itself. Make the "
            "dataset give PIL "
            "images: remove its transform (ToTensor, Normalize)."
        )
    return item


def embedding_rows(X: Any, *, width: int | None = None, name: str = "X") -> np.ndarray:
    """Check a 2-D numeric array and give its rows length one.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings, any numeric dtype.
    width : int, optional
        The d that is wanted.
    name : str, default="X"
        What the array is called in messages.

    Returns
    -------
    ndarray of shape (n, d), float32
        Unit rows; computed in float64. A row of zeros in an array of integers (where rounding may
        have made it) stays one, with a warning.

    Raises
    ------
    ValueError
        If the array is not 2-D and numeric, has another width, or a row holds NaN or infinity, or is
        all zero in an array of floats.

    Examples
    --------
    >>> from dnm_sklearn.embedding.images import embedding_rows
    >>> embedding_rows([[3.0, 4.0]])
    array([[0.6, 0.8]], dtype=float32)
    """
    if _is_torch(X, "Tensor"):
        X = X.detach().cpu().float().numpy()
    X = np.asarray(X)
    if X.dtype.kind == "O":
        X = X.astype(np.float64)
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be a 2-D numeric array of embeddings, got {X.dtype} of shape {X.shape}.")
    if width is not None and X.shape[1] != width:
        raise ValueError(
            f"{name} has rows of {X.shape[1]} numbers, but this encoder's embeddings have {width}: were "
            f"they made by "
            "another model?"
        )
    rows = np.empty(X.shape, dtype=np.float32)
    for start in range(0, len(X), _CHUNK):
        part = X[start : start + _CHUNK].astype(np.float64)
        largest = np.abs(part).max(axis=1, initial=0.0)
        if not np.isfinite(largest).all():
            row = start + int(np.flatnonzero(~np.isfinite(largest))[0])
            raise ValueError(f"{name} holds NaN or infinity (first in row {row}): remove those rows.")
        if not largest.all():
            row = start + int(np.flatnonzero(largest == 0)[0])
            message = f"{name} holds a row of zeros (first: row {row}), which has no direction: remove it."
            if X.dtype.kind == "f":
                raise ValueError(message)
            warnings.warn(f"{message} Its cosine to every name is taken as 0.", UserWarning, stacklevel=3)
            largest[largest == 0] = 1.0
        part /= largest[:, None]
        part /= np.maximum(np.sqrt(np.einsum("ij,ij->i", part, part)), 0.5)[:, None]
        rows[start : start + _CHUNK] = part
    return rows


def as_image_sequence(X: Any) -> Any:
    """Make what `input_kind` calls images indexable by position.

    Parameters
    ----------
    X : list, tuple, ndarray, series or Dataset
        Images.

    Returns
    -------
    sequence
        Something with ``len`` and integer indexing.

    Raises
    ------
    TypeError
        If it has no length (an iterable dataset).
    """
    if isinstance(X, (list, tuple, np.ndarray)):
        return X
    if hasattr(X, "__array__") and not _is_torch(X, "Dataset"):
        return np.asarray(X, dtype=object)
    try:
        len(X)
    except TypeError as error:
        raise TypeError("X must have a length: an iterable dataset cannot be scored, give a map-style one.") from error
    return X
