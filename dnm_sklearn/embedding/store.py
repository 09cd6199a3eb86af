"""Content-addressed rows on disk: each image is embedded once, across folds, processes and runs.

One folder per key (a fingerprint of weights, preprocessing and precision) holds ``rows.bin``, the rows as
fixed-size records, and ``index.bin``, for the row at the same position its digest and a checksum of digest
and row. A row is committed when its index record is complete; rows are synced to disk before their records
are written. Committed rows are never rewritten or moved: readers take no lock, map the rows into memory, and
check every row they copy, so that a killed writer, a truncated file or a flipped bit costs a recomputation
and never a wrong row.

Writers hold an advisory lock (``flock``). POSIX only: Windows is not supported.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn.embedding.filehash import (
    DIGEST_BYTES,
    FileDigests,
    digest_array,
    digest_bytes,
    digest_file,
    digest_files,
)
from dnm_sklearn.embedding.recordlog import (
    HEADER_BYTES,
    CacheFormatError,
    CacheWriteWarning,
    DamagedFile,
    Header,
    SortedKeys,
    count_records,
    create_file,
    folder_lock,
    logger,
    opened,
    read_at,
    read_header,
    remove_leftovers,
    remove_own_file,
    require_locks,
    shrink_to,
    warn_unsaved,
    write_at,
)

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
INDEX_NAME = "index.bin"
ROWS_NAME = "rows.bin"
_RECORD_BYTES = DIGEST_BYTES + 8
_RECORD_WORDS = _RECORD_BYTES // 8
_CHUNK = 1024

Blocks = np.ndarray | Iterable[np.ndarray]


class _View:
    """What one reader knows of the files: committed records, and the rows mapped into memory."""

    def __init__(self, header: Header, records: np.ndarray, rows: np.ndarray) -> None:
        self.header = header
        self.records = records  # (n, 5) uint64: digest in four words, checksum
        self.rows = rows  # mapped, (<= n, width)
        self.keys = SortedKeys(records[: len(rows), 0])

    def find(self, digests: np.ndarray) -> np.ndarray:
        at = self.keys.find(digests[:, 0])
        known = at >= 0
        known[known] = (self.records[at[known], :4] == digests[known]).all(axis=1)
        return np.where(known, at, -1)


class RowStore:
    """Float rows by content digest, shared by processes through a folder.

    Parameters
    ----------
    folder : path-like
        Cache folder; the store keeps to its own sub-folder and leaves other files alone. Made at the first
        write, so that a read-only cache can be read.
    key : str
        What the rows depend on beside the content: fingerprint of weights, preprocessing and precision.
    width : int
        Numbers in a row.
    dtype : dtype, default=float32
        Type in which rows are stored and returned, bit for bit.
    max_bytes : int, optional
        Cap on the size of *all* row stores in `folder`. At the cap no more rows are added (one warning), and
        stored rows stay readable: nothing is evicted. Writers of different keys at the same time may pass it
        by one block each.

    Raises
    ------
    CacheFormatError
        At use: a file of the store is foreign, of another format version, or of another width or type.
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
        Header.new("index", self.width, self.dtype.str, key)
        self.path = self.folder / ROOT_NAME / blake2b(key.encode(), digest_size=16).hexdigest()
        self._stride = self.width * self.dtype.itemsize
        self._view: _View | None = None
        self._mutex = threading.Lock()
        self._full = False

    def __reduce__(self) -> tuple[Any, ...]:
        return RowStore, (self.folder, self.key, self.width, self.dtype, self.max_bytes)

    def __repr__(self) -> str:
        return f"RowStore({str(self.folder)!r}, key={self.key!r}, width={self.width})"

    def __len__(self) -> int:
        """Distinct digests with a committed row (rows are checked when read, or by `verify`)."""
        with self._mutex:
            view = self._refresh()
            if view is None:
                return 0
            digests = view.records[: len(view.rows), 0]
            return len(np.unique(digests[digests != 0]))

    def get_or_compute(
        self,
        digests: Sequence[bytes],
        compute: Callable[[np.ndarray], Blocks],
        *,
        chunk_size: int | None = _CHUNK,
    ) -> np.ndarray:
        """Return the rows of these digests, computing and storing those that are missing.

        Missing rows are computed while the store's lock is held, after looking again, so that processes that
        want the same rows compute each once.

        Parameters
        ----------
        digests : sequence of bytes
            One 32-byte content digest for each row; repeated ones are computed once.
        compute : callable
            ``compute(indices)`` gets positions in `digests`, shape (m,), and returns their rows, shape
            (m, width), or an iterable of consecutive blocks of them; each block is stored as it arrives.
            It must not use this store.
        chunk_size : int or None, default=1024
            Most positions given to one call of `compute`; None gives it all missing ones at once (meant for a
            `compute` that yields blocks).

        Returns
        -------
        ndarray of shape (n, width)
            Rows in the order of `digests`. Rows with a NaN or infinity are returned but never stored.

        Raises
        ------
        ValueError
            If a digest is not 32 bytes, or `compute` returns rows of another number or width.

        Warns
        -----
        CacheWriteWarning
            If rows could not be stored (disk full, folder not writable, cap reached); they are returned all
            the same.
        """
        wanted = _as_words(digests)
        out = np.empty((len(wanted), self.width), self.dtype)
        with self._mutex:
            found = np.zeros(len(wanted), bool)
            self._read_into(out, found, wanted)
            if found.all():
                return out
            with contextlib.ExitStack() as stack:
                writable = True
                try:
                    stack.enter_context(folder_lock(self.path))
                except OSError as error:
                    warn_unsaved(self.folder, error, "embedded images")
                    writable = False
                self._read_into(out, found, wanted)
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
        with self._mutex:
            if not self.path.is_dir():
                return {"rows": 0, "dropped": 0}
            self._view = None
            with folder_lock(self.path):
                lost = self._repair()
                view = self._refresh()
                if view is None:
                    return {"rows": 0, "dropped": lost}
                bad = [
                    start + np.flatnonzero(~_intact(view.records[start : start + _CHUNK], block))
                    for start in range(0, len(view.rows), _CHUNK)
                    for block in [view.rows[start : start + _CHUNK].copy()]
                ]
                dead = view.records[:, 0] == 0
                drop = [int(i) for i in np.concatenate(bad or [np.empty(0, int)]) if not dead[i]]
                with opened(self.path / INDEX_NAME, os.O_RDWR) as fd:
                    for i in drop:
                        write_at(fd, HEADER_BYTES + i * _RECORD_BYTES, bytes(_RECORD_BYTES))
                    os.fsync(fd)
                self._view = None
        return {"rows": len(self), "dropped": lost + len(drop)}

    def clear(self) -> None:
        """Remove all rows of this key; files that are not the store's stay. Safe beside readers."""
        with self._mutex:
            _clear_store(self.path)
            self._view = None
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
            "bytes": _store_bytes(self.path),
            "max_bytes": self.max_bytes,
        }

    # Reading, without a lock

    def _refresh(self) -> _View | None:
        """Bring the view up to the files' present state; None where there is nothing to read."""
        try:
            with opened(self.path / INDEX_NAME, os.O_RDONLY) as index:
                header = self._checked(read_header(index, self.path / INDEX_NAME), "index", INDEX_NAME)
                n_records = count_records(index, _RECORD_BYTES)
                view = self._view
                if view is None or view.header != header or n_records < len(view.records):
                    view = _View(header, np.empty((0, _RECORD_WORDS), np.uint64), self._no_rows())
                known = len(view.records)
                raw = read_at(
                    index, HEADER_BYTES + known * _RECORD_BYTES, (n_records - known) * _RECORD_BYTES
                )
            raw = raw[: len(raw) // _RECORD_BYTES * _RECORD_BYTES]
            new = np.frombuffer(raw, "<u8").reshape(-1, _RECORD_WORDS)
            with opened(self.path / ROWS_NAME, os.O_RDONLY) as rows:
                row_header = self._checked(read_header(rows, self.path / ROWS_NAME), "rows", ROWS_NAME)
                if row_header.uid != header.uid:
                    raise DamagedFile(f"{self.path}: index and rows do not belong together")
                n_rows = min(known + len(new), count_records(rows, self._stride))
            if len(new) or n_rows != len(view.rows):
                records = np.concatenate([view.records, new])
                view = _View(header, records, self._map_rows(n_rows))
            self._view = view
        except FileNotFoundError:
            self._view = None
        except DamagedFile as damage:
            logger.warning("cache: %s; its rows will be computed again", damage)
            self._view = None
        return self._view

    def _no_rows(self) -> np.ndarray:
        return np.empty((0, self.width), self.dtype)

    def _map_rows(self, n_rows: int) -> np.ndarray:
        if n_rows == 0:
            return self._no_rows()
        shape = (n_rows, self.width)
        mapped = np.memmap(self.path / ROWS_NAME, self.dtype, "r", offset=HEADER_BYTES, shape=shape)
        return mapped.view(np.ndarray)

    def _checked(self, header: Header, kind: str, name: str) -> Header:
        expected = Header(kind, self.width, self.dtype.str, self.key, header.uid)
        if header != expected:
            raise CacheFormatError(
                f"{self.path / name} holds {header.kind} of width {header.width}, dtype {header.dtype}, key "
                f"{header.key!r}; expected {kind} of width {self.width}, dtype {self.dtype.str}, key "
                f"{self.key!r}: the fingerprint must change with the model; clear the cache "
                "(dnm-bench cache clear) or choose another cache folder"
            )
        return header

    def _read_into(self, out: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> None:
        """Copy the rows that are stored, each checked after copying, and mark them found."""
        view = self._refresh()
        if view is None:
            return
        at = view.find(wanted)
        todo = np.flatnonzero((at >= 0) & ~found)
        for start in range(0, len(todo), _CHUNK):
            part = todo[start : start + _CHUNK]
            block = view.rows[at[part]]
            ok = _intact(view.records[at[part]], block)
            out[part] = block
            found[part] = ok

    # Writing, under the lock

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
                    f"compute() was asked for {n_rows} rows of width {self.width} and returned a block of "
                    f"shape {block.shape} that brings them to {done} rows"
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
                self._append(digests[:fits], rows[:fits])
        except OSError as error:
            warn_unsaved(self.folder, error, "embedded images")
            return False
        return fits == len(rows)

    def _room(self, n_rows: int) -> int:
        """How many of `n_rows` fit under the cap."""
        if self.max_bytes is None:
            return n_rows
        used = sum(_store_bytes(path) for path in _store_folders(self.folder))
        used += 0 if (self.path / INDEX_NAME).exists() else 2 * HEADER_BYTES
        fits = max(0, min(n_rows, (self.max_bytes - used) // (self._stride + _RECORD_BYTES)))
        if fits < n_rows and not self._full:
            self._full = True
            warnings.warn(
                f"the image cache in {self.folder} has reached its cap of {self.max_bytes} bytes; further "
                "rows are computed but not stored: raise the cap, or clear the cache (dnm-bench cache clear)",
                CacheWriteWarning,
                stacklevel=6,
            )
        return fits

    def _append(self, digests: list[bytes], rows: np.ndarray) -> None:
        records = np.zeros((len(rows), _RECORD_WORDS), "<u8")
        records[:, :4] = _as_words(digests)
        rows = np.ascontiguousarray(rows)
        records[:, 4] = _checksums(records, rows)
        self._repair()
        index_path, rows_path = self.path / INDEX_NAME, self.path / ROWS_NAME
        if not index_path.exists():
            header = Header.new("index", self.width, self.dtype.str, self.key)
            create_file(rows_path, Header("rows", header.width, header.dtype, header.key, header.uid))
            create_file(index_path, header)
        with opened(index_path, os.O_RDWR) as index_fd, opened(rows_path, os.O_RDWR) as rows_fd:
            n_committed = count_records(index_fd, _RECORD_BYTES)
            try:
                write_at(rows_fd, HEADER_BYTES + n_committed * self._stride, rows.data)
                os.fsync(rows_fd)
                write_at(index_fd, HEADER_BYTES + n_committed * _RECORD_BYTES, records.data)
                os.fsync(index_fd)
            except OSError:
                self._cut_tails(index_fd, rows_fd)
                raise

    def _cut_tails(self, index_fd: int, rows_fd: int) -> None:
        """Cut what no complete record commits; a committed row is never cut from under a reader."""
        n_committed = count_records(index_fd, _RECORD_BYTES)
        with contextlib.suppress(OSError):
            shrink_to(index_fd, HEADER_BYTES + n_committed * _RECORD_BYTES)
            shrink_to(rows_fd, HEADER_BYTES + n_committed * self._stride)

    def _repair(self) -> int:
        """Make the pair of files consistent again; return the number of committed rows found lost."""
        index_path, rows_path = self.path / INDEX_NAME, self.path / ROWS_NAME
        n_records = 0
        try:
            with opened(index_path, os.O_RDWR) as index_fd:
                n_records = count_records(index_fd, _RECORD_BYTES)
                header = self._checked(read_header(index_fd, index_path), "index", INDEX_NAME)
                with opened(rows_path, os.O_RDWR) as rows_fd:
                    row_header = self._checked(read_header(rows_fd, rows_path), "rows", ROWS_NAME)
                    if row_header.uid != header.uid:
                        raise DamagedFile(f"{self.path}: index and rows do not belong together")
                    n_kept = min(n_records, count_records(rows_fd, self._stride))
                    if n_kept < n_records:
                        shrink_to(index_fd, HEADER_BYTES + n_kept * _RECORD_BYTES)
                    return n_records - n_kept
        except (DamagedFile, FileNotFoundError):
            remove_own_file(index_path)
            remove_own_file(rows_path)
            return n_records


def list_stores(folder: str | os.PathLike[str]) -> list[RowStore]:
    """Row stores in a cache folder, in the order of their keys.

    Parameters
    ----------
    folder : path-like
        Cache folder, as given to `RowStore`.

    Returns
    -------
    list of RowStore
        Stores whose header is readable; others (damaged, of another format) are logged and left out.

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
        _clear_store(path)
    FileDigests(folder).clear()


def _store_folders(folder: Path) -> list[Path]:
    root = folder / ROOT_NAME
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if len(path.name) == 32 and path.is_dir())


def _clear_store(path: Path) -> None:
    if not path.is_dir():
        return
    with folder_lock(path):
        for name in (INDEX_NAME, ROWS_NAME):
            remove_leftovers(path / name)
            remove_own_file(path / name)


def _store_bytes(path: Path) -> int:
    total = 0
    for name in (INDEX_NAME, ROWS_NAME):
        with contextlib.suppress(FileNotFoundError):
            total += (path / name).stat().st_size
    return total


def _as_words(digests: Sequence[bytes]) -> np.ndarray:
    """Digests as an (n, 4) array of 64-bit words."""
    for i, digest in enumerate(digests):
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise ValueError(
                f"digests[{i}] must be {DIGEST_BYTES} bytes, as digest_file and digest_array make, "
                f"got {digest!r:.60}"
            )
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, DIGEST_BYTES // 8)


def _checksums(records: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each digest followed by its row."""
    crc32 = zlib.crc32
    digests = np.ascontiguousarray(records[:, :4])
    values = (crc32(row, crc32(digest)) for digest, row in zip(digests, rows, strict=True))
    return np.fromiter(values, "<u8", len(rows))


def _intact(records: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return _checksums(records, rows) == records[:, 4]
