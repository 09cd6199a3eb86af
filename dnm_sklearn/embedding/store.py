"""Content-addressed rows on disk: each image is embedded once, across folds, processes and runs.

One folder per key (a fingerprint of weights, preprocessing and precision) holds ``rows.bin``, the
rows as fixed-size records, and ``index.bin``, for the row at the same position its digest and a
checksum of digest and row. A row is committed when its index record is complete; rows are synced to
disk before their records are written. Committed rows are never rewritten or moved: readers take no
lock, map the rows into memory, and check every row they copy, so that a killed writer, a truncated
file or a flipped bit costs a recomputation and never a wrong row.

Writers hold an advisory lock (``flock``). POSIX only: Windows is not supported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding.digest import digest_array, digest_bytes, digest_file
from dnm_sklearn.embedding.filehash import FileDigests, digest_files
from dnm_sklearn.embedding.recordlog import (
    HEADER_BYTES,
    DamagedFile,
    folder_lock,
    logger,
    opened,
    read_header,
    require_locks,
    warn_unsaved,
)
from dnm_sklearn.embedding.rowfiles import (
    INDEX_NAME,
    RECORD_BYTES,
    RowFiles,
    as_words,
    clear_store,
    store_bytes,
)
from dnm_sklearn.exceptions import CacheFormatError, CacheWriteWarning

__all__ = [
    "CacheFormatError",
    "CacheWriteWarning",
    "FileDigests",
    "RowStore",
    "clear_cache",
    "digest_array",
    "digest_bytes",
    "digest_file",
    "digest_files",
    "list_stores",
]

ROOT_NAME = "image_rows"

Blocks = np.ndarray | Iterable[np.ndarray]


class RowStore:
    """Float rows by content digest, shared by processes through a folder.

    Parameters
    ----------
    folder : path-like
        Cache folder; the store keeps to its own sub-folder and leaves other files alone. Made at
        the first write, so that a read-only cache can be read.
    key : str
        What the rows depend on beside the content: fingerprint of weights, preprocessing and
        precision.
    width : int
        Numbers in a row.
    dtype : dtype, default=float32
        Type in which rows are stored and returned, bit for bit.
    max_bytes : int, optional
        Cap on the size of *all* row stores in `folder`. At the cap no more rows are added (one
        warning), and stored rows stay readable: nothing is evicted. Writers of different keys at
        the same time may pass it by one block each.

    Raises
    ------
    CacheFormatError
        At use: a file of the store is foreign, of another format version, or of another width or
        type.
    RuntimeError
        On a platform without POSIX file locks (Windows).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from dnm_sklearn.embedding.store import RowStore, digest_array
    >>> images = np.arange(12.0, dtype="float32").reshape(3, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = RowStore(folder, key="doubling", width=4)
    ...     rows = store.get_or_compute([digest_array(i) for i in images], lambda index: 2 * images[index])
    ...     len(store)
    3
    >>> rows[2]
    array([16., 18., 20., 22.], dtype=float32)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        key: str,
        width: int,
        dtype: Any = np.float32,
        max_bytes: int | None = None,
    ) -> None:
        require_locks()
        self.folder = Path(folder)
        self.key = key
        self.width = int(width)
        if self.width < 1:
            raise ValueError(f"width of a row must be at least 1, got {width}")
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if self.dtype.kind != "f":
            raise ValueError(f"rows are floating point, got dtype {self.dtype}")
        self.max_bytes = max_bytes
        self.path = self.folder / ROOT_NAME / blake2b(key.encode(), digest_size=16).hexdigest()
        self._files = RowFiles(self.path, key, self.width, self.dtype)
        self._full = False

    def __reduce__(self) -> tuple[Any, ...]:
        return RowStore, (self.folder, self.key, self.width, self.dtype, self.max_bytes)

    def __repr__(self) -> str:
        return f"RowStore({str(self.folder)!r}, key={self.key!r}, width={self.width})"

    def __len__(self) -> int:
        """Distinct digests with a committed row (rows are checked when read, or by `verify`)."""
        return self._files.count()

    def get_or_compute(
        self,
        digests: Sequence[bytes],
        compute: Callable[[np.ndarray], Blocks],
        *,
        chunk_size: int | None = 1024,
    ) -> np.ndarray:
        """Return the rows of these digests, computing and storing those that are missing.

        Missing rows are computed while the store's lock is held, after looking again, so that
        processes that want the same rows compute each once.

        Parameters
        ----------
        digests : sequence of bytes
            One 32-byte content digest for each row; repeated ones are computed once.
        compute : callable
            ``compute(indices)`` gets positions in `digests`, shape (m,), and returns their rows,
            shape (m, width), or an iterable of consecutive blocks of them; each block is stored as
            it arrives. It must not use this store.
        chunk_size : int or None, default=1024
            Most positions given to one call of `compute`; None gives it all missing ones at once
            (meant for a `compute` that yields blocks).

        Returns
        -------
        ndarray of shape (n, width)
            Rows in the order of `digests`. Rows with a NaN or infinity are returned but never
            stored.

        Raises
        ------
        ValueError
            If a digest is not 32 bytes, or `compute` returns rows of another number or width.

        Warns
        -----
        CacheWriteWarning
            If rows could not be stored (disk full, folder not writable, cap reached); they are
            returned all the same.
        """
        wanted = as_words(digests)
        out = np.empty((len(wanted), self.width), self.dtype)
        found = np.zeros(len(wanted), bool)
        self._files.read_into(out, found, wanted)
        if found.all():
            return out
        with contextlib.ExitStack() as stack:
            writable = True
            try:
                stack.enter_context(folder_lock(self.path))
                self._files.repair()
            except OSError as error:
                warn_unsaved(self.folder, error, "embedded images")
                writable = False
            self._files.read_into(out, found, wanted)
            self._compute_missing(out, found, digests, compute, chunk_size, writable)
        return out

    def verify(self) -> dict[str, int]:
        """Check every row against its checksum and drop those that fail.

        Returns
        -------
        dict
            ``rows``: good rows that remain; ``dropped``: rows that were damaged or cut off.

        Raises
        ------
        CacheFormatError
            If a file of the store is foreign or of another format.
        """
        if not self.path.is_dir():
            return {"rows": 0, "dropped": 0}
        with folder_lock(self.path):
            dropped = self._files.repair() + self._files.drop_bad()
        return {"rows": len(self), "dropped": dropped}

    def clear(self) -> None:
        """Remove all rows of this key; files that are not the store's stay. Safe beside readers."""
        clear_store(self.path)
        self._full = False

    def info(self) -> dict[str, Any]:
        """Describe the store: key, path, rows, width, dtype, bytes on disk and the cap.

        Returns
        -------
        dict
            With keys ``key``, ``path``, ``rows``, ``width``, ``dtype``, ``bytes``, ``max_bytes``.
        """
        return {
            "key": self.key,
            "path": str(self.path),
            "rows": len(self),
            "width": self.width,
            "dtype": self.dtype.name,
            "bytes": store_bytes(self.path),
            "max_bytes": self.max_bytes,
        }

    def _compute_missing(
        self,
        out: np.ndarray,
        found: np.ndarray,
        digests: Sequence[bytes],
        compute: Callable[[np.ndarray], Blocks],
        chunk_size: int | None,
        writable: bool,
    ) -> None:
        first: dict[bytes, int] = {}
        missing = np.flatnonzero(~found)
        for i in missing.tolist():
            first.setdefault(digests[i], i)
        todo = np.fromiter(first.values(), int, len(first))
        for start in range(0, len(todo), chunk_size or max(1, len(todo))):
            part = todo[start : start + chunk_size] if chunk_size else todo
            done = 0
            for block in self._blocks(compute(part), len(part)):
                index = part[done : done + len(block)]
                out[index] = block
                done += len(block)
                if writable:
                    writable = self._save([digests[i] for i in index.tolist()], out[index])
        out[missing] = out[[first[digests[i]] for i in missing.tolist()]]

    def _blocks(self, result: Blocks, n_rows: int) -> Iterator[np.ndarray]:
        done = 0
        for block in [result] if isinstance(result, np.ndarray) else result:
            block = np.asarray(block)
            done += len(block)
            if block.shape[1:] != (self.width,) or done > n_rows:
                raise ValueError(
                    f"compute() was asked for {n_rows} rows of width {self.width} and returned a "
                    f"block of shape {block.shape} that brings them to {done} rows"
                )
            yield block
        if done != n_rows:
            raise ValueError(f"compute() was asked for {n_rows} rows and returned {done}")

    def _save(self, digests: list[bytes], rows: np.ndarray) -> bool:
        """Append the finite rows; False (after a warning) when nothing more can be stored."""
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            digests = [digest for digest, ok in zip(digests, finite, strict=True) if ok]
            rows = rows[finite]
        fits = self._room(len(rows))
        try:
            if fits:
                self._files.append(digests[:fits], rows[:fits])
        except OSError as error:
            warn_unsaved(self.folder, error, "embedded images")
            return False
        return fits == len(rows)

    def _room(self, n_rows: int) -> int:
        """How many of `n_rows` fit under the cap."""
        if self.max_bytes is None:
            return n_rows
        used = sum(store_bytes(path) for path in _store_folders(self.folder))
        used += 0 if (self.path / INDEX_NAME).exists() else 2 * HEADER_BYTES
        fits = max(0, min(n_rows, (self.max_bytes - used) // (self._files.stride + RECORD_BYTES)))
        if fits < n_rows and not self._full:
            self._full = True
            warn(
                f"the image cache in {self.folder} has reached its cap of {self.max_bytes} bytes; "
                "further rows are computed but not stored: raise the cap, or clear the cache "
                "(dnm-bench cache clear)",
                CacheWriteWarning,
            )
        return fits


def list_stores(folder: str | os.PathLike[str]) -> list[RowStore]:
    """Row stores in a cache folder, in the order of their keys.

    Parameters
    ----------
    folder : path-like
        Cache folder, as given to `RowStore`.

    Returns
    -------
    list of RowStore
        Stores whose header is readable; others (damaged, of another format) are logged and left
        out.

    Examples
    --------
    >>> import tempfile
    >>> from dnm_sklearn.embedding.store import list_stores
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     list_stores(folder)
    []
    """
    stores = []
    for path in _store_folders(Path(folder)):
        try:
            with opened(path / INDEX_NAME, os.O_RDONLY) as fd:
                header = read_header(fd, path / INDEX_NAME)
        except FileNotFoundError:
            continue
        except (DamagedFile, CacheFormatError) as error:
            logger.warning("cache: %s", error)
            continue
        stores.append(RowStore(folder, header.key, header.width, header.dtype))
    return sorted(stores, key=lambda store: store.key)


def clear_cache(folder: str | os.PathLike[str]) -> None:
    """Remove all row stores and file digests of a cache folder, of whatever format version.

    Parameters
    ----------
    folder : path-like
        Cache folder, as given to `RowStore`. Files that are not ours stay.

    Raises
    ------
    CacheFormatError
        If a foreign file stands under one of our names; it is left alone.

    Examples
    --------
    >>> import tempfile
    >>> from dnm_sklearn.embedding.store import clear_cache
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clear_cache(folder)
    """
    for path in _store_folders(Path(folder)):
        clear_store(path)
    FileDigests(folder).clear()


def _store_folders(folder: Path) -> list[Path]:
    root = folder / ROOT_NAME
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if len(path.name) == 32 and path.is_dir())
