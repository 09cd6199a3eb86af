"""Content digests: of an image file's bytes, and of an array."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Any

import numpy as np

from dnm_sklearn.embedding.recordlog import opened

__all__ = ["DIGEST_BYTES", "digest_array", "digest_bytes", "digest_file", "digest_open_file"]

DIGEST_BYTES = 32
PathLike = str | os.PathLike[str]
_READ_BYTES = 1 << 20


def digest_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE2b digest of an image file's bytes, equal to `digest_file` of that file.

    Parameters
    ----------
    data : bytes-like
        Content of the file.

    Returns
    -------
    bytes
        32 bytes.

    Examples
    --------
    >>> from dnm_sklearn.embedding.store import digest_bytes
    >>> digest_bytes(b"").hex()[:8]
    '0e5751c0'
    """
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def digest_file(path: PathLike) -> bytes:
    """BLAKE2b digest of a file's bytes.

    Parameters
    ----------
    path : path-like
        A readable file.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from dnm_sklearn.embedding.store import digest_bytes, digest_file
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"pixels"), file.flush()
    ...     digest_file(file.name) == digest_bytes(b"pixels")
    True
    """
    with opened(path, os.O_RDONLY) as fd:
        return digest_open_file(fd)


def digest_array(array: Any) -> bytes:
    """BLAKE2b digest of an array's type, shape and numbers.

    Parameters
    ----------
    array : array-like
        For example one image as uint8, shape (height, width, channels).

    Returns
    -------
    bytes
        32 bytes; never equal to a file's digest.

    Raises
    ------
    TypeError
        If the array holds Python objects.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.embedding.store import digest_array
    >>> digest_array(np.zeros(4, "uint8")) == digest_array(np.zeros((2, 2), "uint8"))
    False
    """
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError("cannot digest an array of Python objects; give a numeric array")
    state = blake2b(digest_size=DIGEST_BYTES, person=b"dnm_sklearn arr")
    state.update(f"{array.dtype.str}{array.shape}".encode())
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.digest()


def digest_open_file(fd: int, size: int = _READ_BYTES) -> bytes:
    """Digest what an open file holds from its present position on; `size` is a guess at how much that is."""
    # Each read is given a buffer of what it may return: one of a megabyte takes longer than a small
    # file's digest.
    step = min(max(size + 1, 4096), _READ_BYTES)
    data = os.read(fd, step)
    state = blake2b(data, digest_size=DIGEST_BYTES)
    while len(data):
        data = os.read(fd, step)
        state.update(data)
    return state.digest()
