"""The two files of one row store: reading without a lock, appending and repairing under it."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dnm_sklearn.embedding.digest import DIGEST_BYTES
from dnm_sklearn.embedding.recordlog import (
    HEADER_BYTES,
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
    shrink_to,
    write_at,
)
from dnm_sklearn.exceptions import CacheFormatError

INDEX_NAME = "index.bin"
ROWS_NAME = "rows.bin"
_DIGEST_WORDS = DIGEST_BYTES // 8
_RECORD_WORDS = _DIGEST_WORDS + 1
RECORD_BYTES = 8 * _RECORD_WORDS
_CHUNK = 1024


def as_words(digests: Sequence[bytes]) -> np.ndarray:
    """Digests as an (n, 4) array of 64-bit words."""
    for i, digest in enumerate(digests):
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise ValueError(
                f"digests[{i}] must be {DIGEST_BYTES} bytes, as digest_file and digest_array make, "
                f"got {digest!r:.60}"
            )
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, _DIGEST_WORDS)


def _checksums(records: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each digest followed by its row."""
    crc32 = zlib.crc32
    digests = np.ascontiguousarray(records[:, :_DIGEST_WORDS])
    values = (crc32(row, crc32(digest)) for digest, row in zip(digests, rows, strict=True))
    return np.fromiter(values, "<u8", len(rows))


def _intact(records: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return _checksums(records, rows) == records[:, _DIGEST_WORDS]


class _View:
    """What a reader knows of the files: committed records, and the rows mapped into memory. Immutable."""

    def __init__(self, header: Header, records: np.ndarray, rows: np.ndarray) -> None:
        self.header = header
        self.records = records  # (n, 5) uint64: digest in four words, checksum
        self.rows = rows  # mapped, (<= n, width)
        self.keys = SortedKeys(records[: len(rows), 0])

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Position of each digest's row, -1 where there is none."""
        at = self.keys.find(digests[:, 0])
        known = at >= 0
        known[known] = (self.records[at[known], :_DIGEST_WORDS] == digests[known]).all(axis=1)
        return np.where(known, at, -1)


class RowFiles:
    """``index.bin`` and ``rows.bin`` of one key; see `dnm_sklearn.embedding.store` for the format."""

    def __init__(self, path: Path, key: str, width: int, dtype: np.dtype) -> None:
        self.path = path
        self.header = Header.new("index", width, dtype.str, key)  # refuses a key that is too long
        self.dtype = dtype
        self.width = width
        self.stride = width * dtype.itemsize
        self._index = path / INDEX_NAME
        self._rows = path / ROWS_NAME
        self._view: _View | None = None

    # Reading, without a lock

    def read_into(self, out: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> None:
        """Copy the stored rows not found so far, each checked after copying, and mark them found."""
        view = self._refresh()
        if view is None:
            return
        at = view.find(wanted)
        todo = np.flatnonzero((at >= 0) & ~found)
        for start in range(0, len(todo), _CHUNK):
            part = todo[start : start + _CHUNK]
            block = view.rows[at[part]]
            out[part] = block
            found[part] = _intact(view.records[at[part]], block)

    def count(self) -> int:
        """Distinct digests with a committed row."""
        view = self._refresh()
        if view is None:
            return 0
        digests = view.records[: len(view.rows), :_DIGEST_WORDS]
        return len(np.unique(digests[digests[:, 0] != 0], axis=0))

    def _refresh(self) -> _View | None:
        """Bring the view up to the files' present state; None where there is nothing to read."""
        view = self._view
        try:
            with opened(self._index, os.O_RDONLY) as index:
                header = self._checked(read_header(index, self._index), "index", self._index)
                n_records = count_records(index, RECORD_BYTES)
                if view is None or view.header != header or n_records < len(view.records):
                    empty = np.empty((0, _RECORD_WORDS), np.uint64)
                    view = _View(header, empty, np.empty((0, self.width), self.dtype))
                known = len(view.records)
                raw = read_at(
                    index, HEADER_BYTES + known * RECORD_BYTES, (n_records - known) * RECORD_BYTES
                )
            new = np.frombuffer(raw[: len(raw) // RECORD_BYTES * RECORD_BYTES], "<u8")
            new = new.reshape(-1, _RECORD_WORDS)
            with opened(self._rows, os.O_RDONLY) as rows:
                self._check_pair(header, rows)
                n_rows = min(known + len(new), count_records(rows, self.stride))
                if len(new) or n_rows != len(view.rows):
                    mapped = self._map_rows(rows, n_rows)
                    view = _View(header, np.concatenate([view.records, new]), mapped)
        except FileNotFoundError:
            view = None
        except (DamagedFile, OSError) as error:
            logger.warning("cache: %s; its rows will be computed again", error)
            view = None
        self._view = view
        return view

    def _map_rows(self, fd: int, n_rows: int) -> np.ndarray:
        shape = (n_rows, self.width)
        if n_rows == 0:
            return np.empty(shape, self.dtype)
        with os.fdopen(os.dup(fd), "rb") as file:
            return np.memmap(file, self.dtype, "r", offset=HEADER_BYTES, shape=shape).view(
                np.ndarray
            )

    def _checked(self, header: Header, kind: str, path: Path) -> Header:
        own = self.header
        if header != Header(kind, own.width, own.dtype, own.key, header.uid):
            raise CacheFormatError(
                f"{path} holds {header.kind} of width {header.width}, dtype {header.dtype}, key "
                f"{header.key!r}; expected {kind} of width {own.width}, dtype {own.dtype}, key "
                f"{own.key!r}: a store's key must change with the model; clear the cache "
                "(dnm-bench cache clear) or choose another cache folder"
            )
        return header

    def _check_pair(self, index_header: Header, rows_fd: int) -> None:
        if (
            self._checked(read_header(rows_fd, self._rows), "rows", self._rows).uid
            != index_header.uid
        ):
            raise DamagedFile(f"{self.path}: index and rows do not belong together")

    # Writing: the caller holds the folder's lock

    def append(self, digests: list[bytes], rows: np.ndarray) -> None:
        """Add rows; on an OSError nothing half-written remains."""
        records = np.zeros((len(rows), _RECORD_WORDS), "<u8")
        records[:, :_DIGEST_WORDS] = as_words(digests)
        rows = np.ascontiguousarray(rows)
        records[:, _DIGEST_WORDS] = _checksums(records, rows)
        self.repair()
        if not self._index.exists():
            self._create()
        with opened(self._index, os.O_RDWR) as index_fd, opened(self._rows, os.O_RDWR) as rows_fd:
            n_committed = count_records(index_fd, RECORD_BYTES)
            try:
                write_at(rows_fd, HEADER_BYTES + n_committed * self.stride, rows.data)
                os.fsync(rows_fd)
                write_at(index_fd, HEADER_BYTES + n_committed * RECORD_BYTES, records.data)
                os.fsync(index_fd)
            except OSError:
                # Complete records stand: a reader may have seen them, and their rows are on disk.
                n_committed = count_records(index_fd, RECORD_BYTES)
                with contextlib.suppress(OSError):
                    shrink_to(index_fd, HEADER_BYTES + n_committed * RECORD_BYTES)
                    shrink_to(rows_fd, HEADER_BYTES + n_committed * self.stride)
                raise

    def _create(self) -> None:
        own = self.header
        header = Header.new("index", own.width, own.dtype, own.key)
        try:
            create_file(self._rows, Header("rows", own.width, own.dtype, own.key, header.uid))
            create_file(self._index, header)
        except OSError:
            clear_files(self.path)
            raise

    def repair(self) -> int:
        """Make the two files consistent again; return the number of committed rows found lost."""
        n_records = 0
        try:
            with opened(self._index, os.O_RDWR) as index_fd:
                n_records = count_records(index_fd, RECORD_BYTES)
                header = self._checked(read_header(index_fd, self._index), "index", self._index)
                with opened(self._rows, os.O_RDWR) as rows_fd:
                    self._check_pair(header, rows_fd)
                    n_kept = min(n_records, count_records(rows_fd, self.stride))
                if n_kept < n_records:
                    shrink_to(index_fd, HEADER_BYTES + n_kept * RECORD_BYTES)
                return n_records - n_kept
        except (DamagedFile, FileNotFoundError):
            clear_files(self.path)
            return n_records

    def drop_bad(self) -> int:
        """Check all rows; blank the records of those that fail, and return how many."""
        self._view = None
        view = self._refresh()
        if view is None:
            return 0
        n_dropped = 0
        with opened(self._index, os.O_RDWR) as fd:
            for start in range(0, len(view.rows), _CHUNK):
                records = view.records[start : start + _CHUNK]
                bad = ~_intact(records, view.rows[start : start + _CHUNK]) & records.any(axis=1)
                for i in np.flatnonzero(bad).tolist():
                    write_at(fd, HEADER_BYTES + (start + i) * RECORD_BYTES, bytes(RECORD_BYTES))
                n_dropped += int(bad.sum())
            os.fsync(fd)
        self._view = None
        return n_dropped


def clear_files(path: Path) -> None:
    """Remove the store's own files from its folder (lock held)."""
    for name in (INDEX_NAME, ROWS_NAME):
        remove_leftovers(path / name)
        remove_own_file(path / name)


def clear_store(path: Path) -> None:
    """Remove the store's own files, under its lock."""
    if path.is_dir():
        with folder_lock(path):
            clear_files(path)


def store_bytes(path: Path) -> int:
    """Size of a store's files."""
    total = 0
    for name in (INDEX_NAME, ROWS_NAME):
        with contextlib.suppress(FileNotFoundError):
            total += (path / name).stat().st_size
    return total
