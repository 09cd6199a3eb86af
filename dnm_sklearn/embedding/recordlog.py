"""Files that survive killed writers: a checked header, fixed-size records appended under a lock.

The row store and the file-digest cache are built from these parts. Readers take no lock: a record
counts only once it is complete, and its owner checks its checksum before trusting it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.exceptions import CacheFormatError, CacheWriteWarning

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["CacheFormatError", "CacheWriteWarning"]

logger = logging.getLogger("dnm_sklearn")

MAGIC = b"DNMSKLRN"
VERSION = 1
HEADER_BYTES = 512
# magic, version, width, kind, dtype, unique id of the file (pair), length of the key
_FIXED = struct.Struct("<8sII8s8s16sI")
_KEY_BYTES = HEADER_BYTES - _FIXED.size - 4
LOCK_NAME = "lock"


class DamagedFile(Exception):
    """One of our own files lost its header; what it held is treated as missing."""


@dataclass(frozen=True)
class Header:
    """First 512 bytes of every file; ``uid`` ties the files of one store together."""

    kind: str
    width: int
    dtype: str
    key: str
    uid: bytes

    @classmethod
    def new(cls, kind: str, width: int, dtype: str, key: str) -> Header:
        if len(key.encode()) > _KEY_BYTES:
            raise ValueError(
                f"a cache key is at most {_KEY_BYTES} bytes of UTF-8, got {len(key.encode())} "
                f"({key[:40]!r}...); pass a hash of it instead"
            )
        return cls(kind, width, dtype, key, uuid.uuid4().bytes)

    def pack(self) -> bytes:
        key = self.key.encode()
        fixed = _FIXED.pack(
            MAGIC, VERSION, self.width, self.kind.encode(), self.dtype.encode(), self.uid, len(key)
        )
        body = (fixed + key).ljust(HEADER_BYTES - 4, b"\0")
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def unpack(cls, raw: bytes, path: Path) -> Header:
        if raw[:8] != MAGIC[: len(raw)]:
            raise CacheFormatError(
                f"{path} is not a dnm_sklearn cache file (wrong magic bytes); move it away, or "
                "choose another cache folder"
            )
        if len(raw) < HEADER_BYTES:
            raise DamagedFile(f"{path}: header cut short")
        _, version, width, kind, dtype, uid, key_bytes = _FIXED.unpack_from(raw)
        if version != VERSION:
            raise CacheFormatError(
                f"{path} has cache format {version}, this dnm_sklearn reads format {VERSION}; "
                "clear the cache (dnm-bench cache clear) or choose another cache folder"
            )
        if zlib.crc32(raw[:-4]) != struct.unpack("<I", raw[-4:])[0]:
            raise DamagedFile(f"{path}: header checksum does not match")
        key = raw[_FIXED.size : _FIXED.size + key_bytes].decode()
        return cls(kind.rstrip(b"\0").decode(), width, dtype.rstrip(b"\0").decode(), key, uid)


def read_header(fd: int, path: Path) -> Header:
    """Read and check the header of an open file."""
    return Header.unpack(os.pread(fd, HEADER_BYTES, 0), path)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], flags: int) -> Iterator[int]:
    """Open a file descriptor that the block owns."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def write_at(fd: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` at ``offset``, or raise."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Read up to ``length`` bytes at ``offset`` (fewer where the file ends)."""
    parts = []
    while length > 0 and (part := os.pread(fd, length, offset)):
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def count_records(fd: int, stride: int) -> int:
    """Complete records of ``stride`` bytes behind the header; a torn tail does not count."""
    return max(0, os.fstat(fd).st_size - HEADER_BYTES) // stride


def shrink_to(fd: int, size: int) -> None:
    """Cut a file to ``size`` bytes; never makes it longer."""
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)


def create_file(path: Path, header: Header) -> None:
    """Put a new file holding only ``header`` at ``path`` in one step (lock held)."""
    remove_leftovers(path)
    temporary = path.with_name(f"{path.name}.{header.uid.hex()}.tmp")
    try:
        with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            write_at(fd, 0, header.pack())
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    with opened(path.parent, os.O_RDONLY) as folder:
        os.fsync(folder)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that a killed `create_file` left beside ``path`` (lock held)."""
    for leftover in path.parent.glob(f"{path.name}.{'[0-9a-f]' * 32}.tmp"):
        leftover.unlink(missing_ok=True)


def remove_own_file(path: Path) -> None:
    """Unlink one of our files, whatever its version or damage; refuse a foreign one (lock held)."""
    with contextlib.suppress(FileNotFoundError):
        with opened(path, os.O_RDONLY) as fd:
            raw = os.pread(fd, len(MAGIC), 0)
        if raw != MAGIC[: len(raw)]:
            raise CacheFormatError(
                f"{path} is not a dnm_sklearn cache file; it was left alone, remove it by hand"
            )
        path.unlink()


_held_locks: set[int] = set()


def _drop_locks_in_child() -> None:
    # A forked worker shares the lock's open file: left open, it would keep the lock after its
    # parent died.
    for fd in _held_locks:
        os.close(fd)
    _held_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_locks_in_child)


def require_locks() -> None:
    """Refuse platforms without POSIX file locks."""
    if fcntl is None:
        raise RuntimeError(
            "the image cache needs POSIX file locks (fcntl), which this platform (Windows) does "
            "not have; use memory=None"
        )


def _release(fd: int) -> None:
    _held_locks.discard(fd)
    os.close(fd)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's advisory lock (``flock``); the kernel frees it when the holder dies.

    Waits for another holder. The folder is made where it is missing.
    """
    require_locks()
    path = folder / LOCK_NAME
    owner = os.getpid()
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _held_locks.add(fd)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process that is filling the cache %s", folder)
                fcntl.flock(fd, fcntl.LOCK_EX)
            held, there = os.fstat(fd), os.stat(path)
        except FileNotFoundError:  # the folder was removed while we waited
            _release(fd)
            continue
        except BaseException:
            _release(fd)
            raise
        if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
            break
        _release(fd)
    try:
        yield
    finally:
        if os.getpid() == owner:
            _release(fd)


def warn_unsaved(folder: Path, error: OSError, what: str) -> None:
    """Say that results are right but not cached."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    warn(
        f"{what} could not be saved in the cache folder {folder} ({reason}); results are complete "
        "but will be computed again next time: free some space, make the folder writable, or "
        "point memory= elsewhere",
        CacheWriteWarning,
    )


class SortedKeys:
    """Vectorised lookup of 64-bit keys, the last of equal keys winning."""

    def __init__(self, keys: np.ndarray) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def find(self, queries: np.ndarray) -> np.ndarray:
        """Index of each query's key, -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(queries), -1)
        at = np.searchsorted(self._sorted, queries, side="right") - 1
        return np.where((at >= 0) & (self._sorted[at] == queries), self._order[at], -1)
