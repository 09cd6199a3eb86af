"""Content digests of many files, and a cache of the digests of unchanged ones."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dnm_sklearn.embedding.digest import DIGEST_BYTES, PathLike, digest_open_file
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
    warn_unsaved,
    write_at,
)
from dnm_sklearn.exceptions import CacheFormatError

__all__ = ["FileDigests", "digest_files"]

# A file younger than this when it was hashed may change again without its times showing it.
_SETTLED_NS = 2_000_000_000
# Files are hashed in pieces of this many. The first piece shows whether threads are worth it: they
# are if its files are larger than this on average (only the digest itself runs beside Python), or
# if each was waited for this long.
_PIECE = 64
_SMALL_BYTES = 8192
_WAIT_SECONDS = 2e-4
FOLDER_NAME = "file_digests"
FILE_NAME = "digests.bin"
_KEY_WORDS = 5  # size, mtime, ctime, inode, device
_Key = tuple[int, int, int, int, int]
_RECORD_WORDS = _KEY_WORDS + DIGEST_BYTES // 8 + 1
_RECORD_BYTES = 8 * _RECORD_WORDS
# Odd constants that mix the five words of a key into one.
_MIX = np.array(
    [
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xA0761D6478BD642F,
    ],
    np.uint64,
)


def digest_files(
    paths: Sequence[PathLike],
    *,
    unreadable: Literal["raise", "none"] = "raise",
    n_threads: int | None = None,
) -> list[bytes | None]:
    """BLAKE2b digests of many files, each read in full.

    Parameters
    ----------
    paths : sequence of path-like
        Files to read.
    unreadable : {"raise", "none"}, default="raise"
        What to do about a file that cannot be read: raise its OSError, or return None in its place.
    n_threads : int, optional
        Files read at a time, at most; the default is the number of CPUs, at most 8. Small files
        that are read without waiting for a disk take one thread: Python's own work on them, which
        threads cannot share, is most of it.

    Returns
    -------
    list of bytes (or None)
        Digests in the order of `paths`.

    Examples
    --------
    >>> import tempfile
    >>> from dnm_sklearn.embedding.store import digest_files
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     digests = digest_files([file.name, file.name])
    >>> digests[0] == digests[1]
    True
    """
    return [digest for digest, _ in _hash_all(paths, unreadable, n_threads)]


class FileDigests:
    """Content digests of files, remembered while the files stay unchanged.

    A file counts as unchanged when its size, modification time, status-change time (both in ns),
    inode and device are those recorded. The record is made only for a file that was older than two
    seconds when it was read: a younger one could change again within the clock's grain, so it is
    read again next time. Restoring the modification time does not fool it: the status-change time
    cannot be set.

    Parameters
    ----------
    folder : path-like
        Cache folder, shared with `RowStore`; made at the first write.

    Examples
    --------
    >>> import os, tempfile
    >>> from dnm_sklearn.embedding.store import FileDigests, digest_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "image.bin")
    ...     with open(path, "wb") as file:
    ...         _ = file.write(b"pixels")
    ...     FileDigests(folder).digests([path]) == [digest_file(path)]
    True
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FOLDER_NAME
        self._file = self.path / FILE_NAME
        self._header: Header | None = None
        self._records = np.empty((0, _RECORD_WORDS), np.uint64)
        self._keys = SortedKeys(self._records[:, 0])

    def digests(
        self,
        paths: Sequence[PathLike],
        *,
        unreadable: Literal["raise", "none"] = "raise",
        n_threads: int | None = None,
    ) -> list[bytes | None]:
        """Digest files, reading only those that are new or changed.

        Parameters
        ----------
        paths : sequence of path-like
            Files, as for `digest_files`.
        unreadable : {"raise", "none"}, default="raise"
            What to do about a file that cannot be read: raise its OSError, or return None in its
            place.
        n_threads : int, optional
            Files read at a time, at most; the default is the number of CPUs, at most 8. Small files
            that are read without waiting for a disk take one thread, as most of the time is
            Python's own work on them, which threads cannot share.

        Returns
        -------
        list of bytes (or None)
            Digests in the order of `paths`.

        Warns
        -----
        CacheWriteWarning
            If new digests could not be saved; they are still returned.
        """
        self._refresh()
        keys, exists = _file_keys(paths)
        at = np.where(exists, self._keys.find(_mixed(keys)), -1)
        hit = at >= 0
        hit[hit] = (self._records[at[hit], :_KEY_WORDS] == keys[hit]).all(axis=1)
        hit[hit] = _intact(self._records[at[hit]])
        raw = np.ascontiguousarray(self._records[at[hit], _KEY_WORDS:-1]).tobytes()
        known = (raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES))
        result = [next(known) if is_hit else None for is_hit in hit.tolist()]
        misses = np.flatnonzero(~hit)
        if len(misses):
            hashed = _hash_all([paths[i] for i in misses.tolist()], unreadable, n_threads)
            for i, (digest, _) in zip(misses, hashed, strict=True):
                result[i] = digest
            self._save(
                [(key, digest) for digest, key in hashed if digest is not None and key is not None]
            )
        return result

    def __len__(self) -> int:
        """Count the records, those of files that have changed since included."""
        self._refresh()
        return len(self._records)

    def info(self) -> dict[str, Any]:
        """Describe the cache: path, records, bytes on disk.

        Returns
        -------
        dict
            With keys ``path``, ``records``, ``bytes``.
        """
        size = self._file.stat().st_size if self._file.exists() else 0
        return {"path": str(self.path), "records": len(self), "bytes": size}

    def verify(self) -> dict[str, int]:
        """Check every record and rewrite the file without those that fail.

        Returns
        -------
        dict
            ``records``: good ones that remain; ``dropped``: damaged ones.
        """
        if not self.path.is_dir():
            return {"records": 0, "dropped": 0}
        with folder_lock(self.path):
            self._header = None
            self._refresh()
            good = _intact(self._records)
            dropped = int((~good).sum())
            if dropped:
                kept = self._records[good]
                remove_own_file(self._file)
                self._append(kept)
        self._refresh()
        return {"records": int(good.sum()), "dropped": dropped}

    def clear(self) -> None:
        """Forget all files. Safe beside readers."""
        if self.path.is_dir():
            with folder_lock(self.path):
                remove_leftovers(self._file)
                remove_own_file(self._file)
        self._refresh()

    def _refresh(self) -> None:
        """Read the records added since the last look."""
        try:
            with opened(self._file, os.O_RDONLY) as fd:
                header = _checked(read_header(fd, self._file), self._file)
                n_records = count_records(fd, _RECORD_BYTES)
                if header != self._header or n_records < len(self._records):
                    self._records = self._records[:0]
                start = len(self._records)
                raw = read_at(
                    fd, HEADER_BYTES + start * _RECORD_BYTES, (n_records - start) * _RECORD_BYTES
                )
        except (DamagedFile, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                logger.warning("cache: %s; files will be read again", error)
            header, raw = None, b""
            self._records = self._records[:0]
        new = np.frombuffer(raw[: len(raw) // _RECORD_BYTES * _RECORD_BYTES], "<u8")
        if len(new) or header != self._header:
            self._records = np.concatenate([self._records, new.reshape(-1, _RECORD_WORDS)])
            self._keys = SortedKeys(_mixed(self._records[:, :_KEY_WORDS]))
        self._header = header

    def _save(self, found: list[tuple[_Key, bytes]]) -> None:
        if not found:
            return
        records = np.zeros((len(found), _RECORD_WORDS), "<u8")
        records[:, :_KEY_WORDS] = _as_uint64((key for key, _ in found), len(found))
        digests = np.frombuffer(b"".join(digest for _, digest in found), "<u8")
        records[:, _KEY_WORDS:-1] = digests.reshape(len(found), -1)
        records[:, -1] = _checksums(records)
        try:
            with folder_lock(self.path):
                self._append(records)
        except OSError as error:
            warn_unsaved(self.folder, error, "digests of image files")

    def _append(self, records: np.ndarray) -> None:
        """Append records (lock held); a failed write leaves only complete ones."""
        try:
            with opened(self._file, os.O_RDONLY) as fd:
                _checked(read_header(fd, self._file), self._file)
        except (FileNotFoundError, DamagedFile):
            remove_own_file(self._file)
            create_file(self._file, Header.new("digests", _KEY_WORDS, "<u8", ""))
        with opened(self._file, os.O_RDWR) as fd:
            offset = HEADER_BYTES + count_records(fd, _RECORD_BYTES) * _RECORD_BYTES
            try:
                write_at(fd, offset, np.ascontiguousarray(records).data)
                os.fsync(fd)
            except OSError:
                shrink_to(fd, HEADER_BYTES + count_records(fd, _RECORD_BYTES) * _RECORD_BYTES)
                raise


def _checked(header: Header, path: Path) -> Header:
    if (header.kind, header.width) != ("digests", _KEY_WORDS):
        raise CacheFormatError(
            f"{path} is a cache file of kind {header.kind!r}, width {header.width}, not of file "
            "digests; clear the cache (dnm-bench cache clear) or choose another cache folder"
        )
    return header


def _stat_key(stat: os.stat_result) -> _Key:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def _as_uint64(values: Iterable[tuple[int, ...]], n_rows: int) -> np.ndarray:
    mask = 0xFFFFFFFFFFFFFFFF  # times before 1970 are negative
    flat = (value & mask for row in values for value in row)
    return np.fromiter(flat, np.uint64, n_rows * _KEY_WORDS).reshape(n_rows, _KEY_WORDS)


def _file_keys(paths: Sequence[PathLike]) -> tuple[np.ndarray, np.ndarray]:
    """Stat every file: (n, 5) words and whether the file could be looked at."""
    stat, nothing = os.stat, (0, 0, 0, 0, 0)
    keys = []
    for path in paths:
        try:
            keys.append(_stat_key(stat(path)))
        except OSError:
            keys.append(nothing)
    words = _as_uint64(keys, len(keys))
    return words, np.asarray(words.any(axis=1))


def _hash_settled(path: PathLike) -> tuple[bytes, _Key | None]:
    """Digest, and the key under which it may be remembered (None: the file is too young or moving)."""
    with opened(path, os.O_RDONLY) as fd:
        now = time.time_ns()
        before = os.fstat(fd)
        digest = digest_open_file(fd, before.st_size)
        after = os.fstat(fd)
    young = max(before.st_mtime_ns, before.st_ctime_ns) > now - _SETTLED_NS
    if young or _stat_key(before) != _stat_key(after):
        return digest, None
    return digest, _stat_key(before)


def _hash_all(
    paths: Sequence[PathLike], unreadable: str, n_threads: int | None
) -> list[tuple[bytes | None, _Key | None]]:
    def one(path: PathLike) -> tuple[bytes | None, _Key | None]:
        try:
            return _hash_settled(path)
        except OSError:
            if unreadable == "raise":
                raise
            return None, None

    def several(part: Sequence[PathLike]) -> list[tuple[bytes | None, _Key | None]]:
        return [one(path) for path in part]

    if unreadable not in ("raise", "none"):
        raise ValueError(f'unreadable must be "raise" or "none", got {unreadable!r}')
    n_threads = n_threads or min(8, os.cpu_count() or 1)
    wall, cpu = time.perf_counter(), time.thread_time()
    first, rest = several(paths[:_PIECE]), paths[_PIECE:]
    waited = (time.perf_counter() - wall) - (time.thread_time() - cpu)
    small = _file_keys(paths[:_PIECE])[0][:, 0].sum() < _SMALL_BYTES * len(first)
    if n_threads == 1 or not rest or (small and waited < _WAIT_SECONDS * len(first)):
        return first + several(rest)
    with ThreadPoolExecutor(n_threads) as pool:
        pieces = [rest[i : i + _PIECE] for i in range(0, len(rest), _PIECE)]
        return first + [item for piece in pool.map(several, pieces) for item in piece]


def _mixed(keys: np.ndarray) -> np.ndarray:
    """One 64-bit word for each row of five."""
    mixed = np.zeros(len(keys), np.uint64)
    for column, factor in zip(keys.T, _MIX, strict=True):
        mixed = (mixed ^ column) * factor
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _checksums(records: np.ndarray) -> np.ndarray:
    return np.fromiter(
        (zlib.crc32(row) for row in np.ascontiguousarray(records[:, :-1])), "<u8", len(records)
    )


def _intact(records: np.ndarray) -> np.ndarray:
    return _checksums(records) == records[:, -1]
