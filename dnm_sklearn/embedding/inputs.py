"""What X may be: embeddings ready-made, or images, and how to tell them apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dnm_sklearn._utils.warnings import warn

__all__ = [
    "as_image_sequence",
    "describe",
    "embedding_rows",
    "input_kind",
    "is_one_image",
    "on_host",
]

IMAGE_FIX = (
    "give a list of image paths, PIL images or uint8 arrays, a torch Dataset, a uint8 array of "
    "shape (n, height, width[, 3]), or a 2-D numeric array of embeddings (any dtype but uint8)"
)
_CHUNK = 1 << 16


def is_pil(x: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    kind = getattr(module, "Image", None)  # another thread may be importing the module right now
    return kind is not None and isinstance(x, kind)


def is_torch(x: Any, name: str) -> bool:
    if name == "Tensor":
        module = sys.modules.get("torch")
        return module is not None and isinstance(x, module.Tensor)
    module = sys.modules.get("torch.utils.data")
    return module is not None and isinstance(x, module.Dataset)


def on_host(X: Any) -> Any:
    """Give a torch tensor, of any device and dtype, with or without gradients, as an array; all else as it is.

    Parameters
    ----------
    X : object
        What a user gave as X.

    Returns
    -------
    object
        Of a tensor an array, of a bfloat16 one, which numpy lacks, in float32; else `X`.
    """
    if not is_torch(X, "Tensor"):
        return X
    here = X.detach().cpu()
    return (here.float() if here.dtype == sys.modules["torch"].bfloat16 else here).numpy()


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
    if isinstance(x, (str, os.PathLike)) or is_pil(x):
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
                f"A uint8 array of shape {X.shape} is one image, not many: give a list [image] or "
                "an array of shape (1, height, width[, 3]). Embeddings quantised to uint8 must be "
                "given as floats."
            )
        raise ValueError(f"A uint8 array of shape {X.shape} holds no images: {IMAGE_FIX}.")
    if X.ndim > 2 and X.dtype.kind in "fiub":
        raise ValueError(
            f"Images as an array must be uint8 of shape (n, height, width[, 3]), got {X.dtype} of "
            f"shape {X.shape}: convert with (255 * X).round().astype('uint8') if the values are in "
            "[0, 1]."
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
        If `X` is one image instead of a sequence of images, or can be read only once, or is a
        collection of images that has no order or no rows of one image.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.embedding import input_kind
    >>> input_kind(np.ones((3, 512))), input_kind(["cat.png"])
    ('embeddings', 'images')
    """
    if isinstance(X, (str, bytes, os.PathLike)) or is_pil(X):
        raise TypeError(
            f"X must hold several images, got one ({describe(X)}): give a list, [image]."
        )
    if isinstance(X, np.ndarray):
        return _array_kind(X)
    if is_torch(X, "Tensor"):
        if X.ndim == 2:
            return "embeddings"
        raise TypeError(
            f"A torch tensor of shape {tuple(X.shape)} is not taken as images, since its layout "
            f"and scale are unknown: {IMAGE_FIX}."
        )
    if is_torch(X, "Dataset"):
        return "images"
    _refuse_collections(X)
    if isinstance(X, (list, tuple)):
        return "images" if len(X) == 0 or is_one_image(X[0]) else "embeddings"
    if hasattr(X, "__array__") or hasattr(X, "__dataframe__") or hasattr(X, "toarray"):
        dtype = getattr(X, "dtype", None)
        one_column = len(getattr(X, "shape", ())) == 1
        return "images" if one_column and getattr(dtype, "kind", "O") in "OUST" else "embeddings"
    if hasattr(X, "__len__") and hasattr(X, "__getitem__"):
        return "images"
    return "embeddings"


def _refuse_collections(X: Any) -> None:
    """Raise for what holds images, or nothing, in a way that says what to give instead."""
    if X is None:
        raise TypeError(f"X is None: {IMAGE_FIX}.")
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is a {type(X).__name__}, which can be read only once: give list(...) of it."
        )
    if isinstance(X, Mapping) and not hasattr(
        X, "toarray"
    ):  # a sparse matrix can be a mapping, and is refused as sparse
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
    columns: Sequence[Any] = getattr(X, "columns", ())
    if len(columns) == 1 and len(X) and is_one_image(np.asarray(X, dtype=object)[0, 0]):
        raise TypeError(
            f"X is a table with one column of images or paths: give the column, X[{columns[0]!r}]."
        )


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
    if is_pil(item):
        return f"PIL image {item.mode} {item.size[0]}x{item.size[1]}"
    if isinstance(item, np.ndarray):
        return f"{item.dtype} array of shape {item.shape}"
    return type(item).__name__


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
        If the array is not 2-D and numeric, has another width, or a row holds NaN or infinity, or
        is all zero in an array of floats.

    Examples
    --------
    >>> from dnm_sklearn.embedding.inputs import embedding_rows
    >>> embedding_rows([[3.0, 4.0]])
    array([[0.6, 0.8]], dtype=float32)
    """
    X = np.asarray(on_host(X))
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
    for start in range(0, len(X), _CHUNK):
        part = X[start : start + _CHUNK].astype(np.float64)
        largest = np.abs(part).max(axis=1, initial=0.0)
        if not np.isfinite(largest).all():
            row = start + int(np.flatnonzero(~np.isfinite(largest))[0])
            raise ValueError(
                f"{name} holds NaN or infinity (first in row {row}): remove those rows."
            )
        if not largest.all():
            row = start + int(np.flatnonzero(largest == 0)[0])
            message = f"{name} holds a row of zeros (first: row {row}), which has no direction: remove it."
            if X.dtype.kind == "f":
                raise ValueError(message)
            warn(f"{message} Its cosine to every name is taken as 0.")
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
    if hasattr(X, "__array__") and not is_torch(X, "Dataset"):
        return np.asarray(X, dtype=object)
    try:
        len(X)
    except TypeError as error:
        raise TypeError(
            "X must have a length: an iterable dataset cannot be scored, give a map-style one."
        ) from error
    return X
