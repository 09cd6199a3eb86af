"""What X may be: images or precomputed embeddings, and how to tell them apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from dnm_sklearn._utils.tensors import is_tensor
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn._utils.y_column import is_missing
from dnm_sklearn.exceptions import EmbeddingNormWarning

IMAGE_FIX = (
    "give a list of image paths, PIL images or uint8 arrays, a torch Dataset, a uint8 array of "
    "shape (n, height, width[, 3]), or a 2-D numeric array of embeddings (any dtype but uint8)"
)
# Numbers that are normalised at a time, 8 MB of float64: they stay in the processor's cache, and
# the float64 copy of all rows would be twice the result.
_CHUNK_NUMBERS = 1 << 20
# Rows whose length is looked at: enough for a median, and no pass over a large table.
_MOST_ROWS = 1000
# Within a factor of 2, rows were meant to be unit rows. Raw outputs of an image tower are outside,
# as standardised features are; the message tells the two apart.
_NEAR_UNIT = (0.5, 2.0)
# Whether this process has been warned of other lengths.
_norms_warned = False


def is_pil(x: Any) -> bool:
    """Tell a PIL image, without importing Pillow."""
    # Another thread may be importing the module right now, so that it has no class yet.
    image_class = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return image_class is not None and isinstance(x, image_class)


def _is_dataset(x: Any) -> bool:
    """Tell a map-style torch Dataset, without importing torch; an iterable one is refused."""
    data = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(x, data.Dataset):
        return False
    # It may have a length, but no positions.
    if isinstance(x, data.IterableDataset):
        raise TypeError(
            "X is an iterable dataset, which gives no image by its position: give a map-style one, "
            "or list(...) of it."
        )
    return True


def is_path(x: Any) -> bool:
    """Tell what names a file."""
    return isinstance(x, (str, os.PathLike))


def is_one_image(x: Any) -> bool:
    """Tell what one image can be: a path, a PIL image, or a uint8 array of 2 or 3 dimensions."""
    if is_path(x) or is_pil(x):
        return True
    return isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (2, 3)


def _has_image(x: Any) -> bool:
    """Tell an image, and a row that holds one, as datasets give it."""
    return is_one_image(x) or (isinstance(x, dict) and len(_images_in(x)) == 1)


def _images_in(row: dict[Any, Any]) -> list[Any]:
    """Give the images in a row: the one of the usual name, else all values that are images.

    An image that is not decoded, in Hugging Face's form a dict of bytes and path, comes as either.
    """
    for name in ("image", "img"):
        if name in row:
            return [_not_decoded(row[name])]
    if isinstance(row.get("bytes"), bytes) or is_path(row.get("path")):
        return [_not_decoded(row)]

    # A string in a row is a caption as often as a path.
    values = map(_not_decoded, row.values())
    return [x for x in values if isinstance(x, bytes) or (is_one_image(x) and type(x) is not str)]


def _not_decoded(value: Any) -> Any:
    """Give the bytes or the path of an image that was not decoded, all else as it is."""
    if not isinstance(value, dict) or not {"bytes", "path"} & set(value):
        return value
    return value.get("path") if value.get("bytes") is None else value["bytes"]


def unwrap_item(item: Any) -> Any:
    """Take the image out of a dataset's item, which may be ``(image, target)`` or a mapping.

    Also bytes, those of a file that was not decoded.
    """
    if isinstance(item, (tuple, list)) and item:
        item = item[0]
    if isinstance(item, dict):
        images = _images_in(item)
        if len(images) != 1:
            raise TypeError(
                f"A row is a dict with the keys {list(item)}, of whose values "
                f"{len(images) or 'none'} are images: give the image alone, or name it 'image'."
            )
        (item,) = images
    if is_tensor(item):
        raise TypeError(
            "The dataset gives tensors; the embedder resizes and normalises images itself. Make "
            "the dataset give PIL images: remove its transform (ToTensor, Normalize)."
        )
    return item


def _column(X: Any) -> Any:
    """Give the one column of a table of images, as objects (n,); None of anything else."""
    shape: Any = getattr(X, "shape", ())
    is_array = isinstance(X, np.ndarray) and X.dtype.kind in "UTO"
    is_table = hasattr(X, "columns") and hasattr(X, "__array__")
    if len(shape) != 2 or shape[1] != 1 or not (is_array or is_table):
        return None
    column: Any = np.asarray(X, dtype=object)[:, 0]
    return column if len(column) and _first_is_image(column) else None


def _first_is_image(X: Iterable[Any]) -> bool:
    """Whether the first entry that is not missing is an image; the others are checked when read."""
    return next((_has_image(x) for x in X if not is_missing(x)), all(x is None for x in X))


def _array_type(X: np.ndarray) -> Literal["embeddings", "images"]:
    """Tell images from embeddings among arrays, by dtype and shape."""
    # Strings and objects (U, S, T, O): paths or PIL images.
    if X.dtype.kind in "USTO" and (X.ndim == 1 or _column(X) is not None):
        return "images"

    if X.dtype == np.uint8:
        if X.ndim == 4 and X.shape[-1] in (1, 3, 4):
            return "images"
        # (n, height, width) of grey images, unless it looks like (height, width, channels).
        if X.ndim == 3 and (X.shape[-1] not in (3, 4) or min(X.shape[1:]) > 4):
            return "images"
        if X.ndim in (2, 3):
            raise ValueError(
                f"A uint8 array of shape {X.shape} is one image, not many: give a list [image] or "
                "an array of shape (1, height, width[, 3]). Embeddings quantised to uint8 must be "
                "given as floats."
            )
        raise ValueError(f"A uint8 array of shape {X.shape} holds no images: {IMAGE_FIX}.")

    # Numbers of any kind: floats, integers, unsigned, booleans.
    if X.ndim > 2 and X.dtype.kind in "fiub":
        raise ValueError(
            f"Images as an array must be uint8 of shape (n, height, width[, 3]), got {X.dtype} of "
            f"shape {X.shape}: convert with (255 * X).round().astype('uint8') if the values are "
            "in [0, 1]."
        )
    return "embeddings"


def infer_input_type(X: Any) -> Literal["embeddings", "images"]:
    """Tell whether `X` holds images to be encoded or precomputed embeddings.

    A 2-D numeric array (also a data frame or a list of numeric rows) of any dtype but uint8 holds
    embeddings; all that an image can be is images, and so is a table of one column of them. What is
    neither is left to the validation of embeddings, whose errors are scikit-learn's.
    """
    if isinstance(X, np.ndarray):
        return _array_type(X)
    if isinstance(X, (str, bytes, os.PathLike)) or is_pil(X):
        raise TypeError(
            f"X must hold several images, got one ({describe(X)}): give a list, [image]."
        )
    if is_tensor(X):
        if X.ndim == 2:
            return "embeddings"
        raise TypeError(
            f"A torch tensor of shape {tuple(X.shape)} is not taken as images, since its layout "
            f"and scale are unknown: {IMAGE_FIX}."
        )
    if _is_dataset(X):
        return "images"

    _check_collection(X)

    if isinstance(X, (list, tuple)):
        return "images" if _first_is_image(X) else "embeddings"
    if _column(X) is not None:
        return "images"
    # Series and data frames of any library, sparse matrices, columns of strings.
    if hasattr(X, "__array__") or hasattr(X, "__dataframe__") or hasattr(X, "toarray"):
        dtype = getattr(X, "dtype", None)
        one_column = len(getattr(X, "shape", ())) == 1
        return "images" if one_column and getattr(dtype, "kind", "O") in "OUST" else "embeddings"
    # Any map-style dataset.
    if hasattr(X, "__len__") and hasattr(X, "__getitem__"):
        return "images"
    return "embeddings"


def _check_collection(X: Any) -> None:
    """Raise for what holds images, or nothing, in a way that says what to give instead."""
    if X is None:
        raise TypeError(f"X is None: {IMAGE_FIX}.")
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once: give list(...) of it."
        )
    # A sparse matrix can be a mapping too, and is refused as sparse elsewhere.
    if isinstance(X, Mapping) and not hasattr(X, "toarray"):
        raise TypeError("X is a dict, whose values may be images: give list(X.values()).")
    if isinstance(X, (set, frozenset)):
        raise TypeError("X is a set, whose order differs from run to run: give sorted(...) of it.")
    if hasattr(X, "dataset") and hasattr(X, "batch_sampler"):
        raise TypeError(
            "X is a torch DataLoader: give its dataset, X.dataset; batches are made here "
            "(batch_size=)."
        )

    if isinstance(X, (list, tuple)) and len(X):
        if isinstance(X[0], bytes):
            raise TypeError(
                "X holds bytes: open images with PIL.Image.open(io.BytesIO(...)), decode paths to "
                "strings."
            )
        if not is_one_image(X[0]) and getattr(X[0], "ndim", 0) > 1:
            raise TypeError(
                f"X[0] is {X[0].dtype} of shape {tuple(X[0].shape)}, whose layout and scale as an "
                f"image are unknown: {IMAGE_FIX}."
            )


def describe(item: Any) -> str:
    """Name an image in a message: its path, or what kind of object it is."""
    if is_path(item):
        return os.fsdecode(item)
    if is_missing(item):
        return "missing"
    if is_pil(item):
        return f"PIL image {item.mode} {item.size[0]}x{item.size[1]}"
    if isinstance(item, np.ndarray):
        return f"{item.dtype} array of shape {item.shape}"
    return type(item).__name__


def to_unit_rows(X: Any, *, width: int | None = None, name: str = "X") -> np.ndarray:
    """Check a 2-D numeric array, and give its rows length one: float32, computed in float64.

    A row of zeros is an error; in an array of integers, where rounding may have made it, it stays
    one, with a warning.
    """
    X = np.asarray(X)
    if X.dtype.kind == "O":
        X = X.astype(np.float64)
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must be a 2-D numeric array of embeddings, got {X.dtype} of shape {X.shape}."
        )
    if width is not None and X.shape[1] != width:
        raise ValueError(
            f"{name} has rows of {X.shape[1]} numbers, but this encoder's embeddings have {width}: "
            "were they made by another model?"
        )

    rows = np.empty(X.shape, dtype=np.float32)
    step = max(1, _CHUNK_NUMBERS // max(1, X.shape[1]))
    for start in range(0, len(X), step):
        chunk = X[start : start + step].astype(np.float64)
        largest = np.abs(chunk).max(axis=1, initial=0.0)

        # The maximum of a row with NaN is NaN, so it tells NaN, infinity and zeros at once.
        if not np.isfinite(largest).all():
            row = start + int(np.flatnonzero(~np.isfinite(largest))[0])
            raise ValueError(
                f"{name} holds NaN or infinity (first in row {row}): remove those rows."
            )
        if not largest.all():
            row = start + int(np.flatnonzero(largest == 0)[0])
            message = (
                f"{name} holds a row of zeros (first: row {row}), which has no direction: remove "
                "it."
            )
            if X.dtype.kind == "f":
                raise ValueError(message)
            warn(f"{message} Its cosine to every name is taken as 0.")
            largest[largest == 0] = 1.0

        # Divided by its largest number first, a row's squares neither overflow nor vanish. Its
        # length is then at least 1, or 0 for a row of zeros, which the 0.5 leaves as it is.
        chunk /= largest[:, None]
        chunk /= np.maximum(np.sqrt(np.einsum("ij,ij->i", chunk, chunk)), 0.5)[:, None]
        rows[start : start + step] = chunk
    return rows


def warn_far_from_unit(rows: np.ndarray) -> None:
    """Warn, once per process, when the median length of the user's rows (n, D) is far from 1.

    Rows are normalised, so the length itself does no harm; but it shows that embeddings were
    standardised, which changes their directions.
    """
    global _norms_warned
    if _norms_warned:
        return
    lengths = np.linalg.norm(np.asarray(rows[:_MOST_ROWS], dtype=np.float64), axis=1)
    # Rows of zeros are an error, or a warning, of their own.
    lengths = lengths[lengths > 0]
    if not len(lengths) or _NEAR_UNIT[0] <= np.median(lengths) <= _NEAR_UNIT[1]:
        return

    _norms_warned = True
    warn(
        f"The embeddings have a median length of {np.median(lengths):.3g}, far from 1. Rows are "
        "normalised here, so raw outputs of the image tower are fine; but features that were "
        "standardised (StandardScaler, or PyOD's EmbeddingOD with its default standardize=True) "
        "have other cosines, and detection suffers: pass standardize=False, and scale nothing "
        "before the detector. This is said once.",
        EmbeddingNormWarning,
    )


def as_image_sequence(X: Any) -> Any:
    """Make what `infer_input_type` calls images indexable by position."""
    column = _column(X)
    if column is not None:
        return column
    if isinstance(X, (list, tuple, np.ndarray)):
        return X
    if hasattr(X, "__array__") and not _is_dataset(X):
        # A series: its own index is of labels, not of positions.
        return np.asarray(X, dtype=object)
    try:
        len(X)
    except TypeError as error:
        raise TypeError("X must have a length: give a map-style dataset.") from error
    return X
