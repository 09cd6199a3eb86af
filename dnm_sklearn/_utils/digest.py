"""Content digests of arrays, names and files, and what a file's times tell of a change."""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from dnm_sklearn._utils.untrusted_files import open_ordinary

PathLike = str | os.PathLike[str]

DIGEST_BYTES = 32

# Git's racy rule: a file that was younger than this when it was read may change again without its
# times showing it, as file systems count times in steps of up to two seconds (FAT).
SETTLED_NS = 2 * 10**9

# Content is read in buffers of at most this size. A small file gets a small buffer: filling one of
# a megabyte takes longer than the digest of a thumbnail.
_READ_BYTES = 1 << 20

# Files that one task of the thread pool reads, so that handing out tasks costs little.
_FILES_PER_TASK = 64

_WORD = (1 << 64) - 1
_SECOND_NS = 1_000_000_000


class DigestedFile(NamedTuple):
    """What reading a file gave; the digest is None if it could not be read."""

    digest: bytes | None
    stat: os.stat_result | None  # None also if the file changed while it was read


def digest_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Digest the content of an image file; the same as `digest_file` of that file."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def digest_array(array: Any) -> bytes:
    """Digest an array's type, shape and numbers; never the digest of a file."""
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError("cannot digest an array of Python objects; give a numeric array")

    # The person string of BLAKE2 keeps digests of arrays and of files apart.
    state = blake2b(digest_size=DIGEST_BYTES, person=b"dnm_sklearn arr")
    state.update(f"{array.dtype.str}{array.shape}".encode())
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.digest()


def digest_names(names: Iterable[str], n_bytes: int = 20) -> str:
    """Digest texts in their order, so that a cache's key need not hold them."""
    digest = blake2b(digest_size=n_bytes)
    for name in names:
        data = name.encode("utf-8", "surrogatepass")
        # The length first: ["ab", "c"] is not ["a", "bc"].
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def digest_file(path: PathLike) -> bytes:
    """Digest a file's content; an OSError says why it cannot be read."""
    return _read(path)[0]


def digest_files(paths: Sequence[PathLike], n_threads: int | None = None) -> list[DigestedFile]:
    """Digest many files, several at a time (hashing runs beside Python)."""
    n_threads = n_threads or min(8, os.cpu_count() or 1)
    starts = range(0, len(paths), _FILES_PER_TASK)
    tasks = [paths[start : start + _FILES_PER_TASK] for start in starts]

    if n_threads == 1 or len(tasks) < 2:
        return _read_several(paths)

    with ThreadPoolExecutor(n_threads) as pool:
        parts = pool.map(_read_several, tasks)
        return [found for part in parts for found in part]


def file_identity(status: os.stat_result) -> bytes:
    """Size, times, inode and device of a file: what is compared to see whether it changed."""
    # The status-change time cannot be set by programs, so that restoring the modification time
    # does not hide a change. (On Windows it is the time of creation.)
    return struct.pack(
        "<QqqQQ",
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino & _WORD,  # 128 bits on ReFS
        status.st_dev & _WORD,
    )


def last_change_ns(status: os.stat_result) -> int:
    """Time of a file's last change, content or status."""
    return max(status.st_mtime_ns, status.st_ctime_ns)


def times_tell(paths: Sequence[PathLike], statuses: Sequence[os.stat_result]) -> list[bool]:
    """Say of each file whether a change of its content must change its times.

    Images of file systems (squashfs, ISO 9660) and archives mounted as folders often give each
    file one fixed time. There another image may be mounted in the place of the first, and nothing
    but the content shows it.
    """
    files: dict[int, dict[int, tuple[PathLike, os.stat_result]]] = defaultdict(dict)
    for path, status in zip(paths, statuses, strict=True):
        files[status.st_dev][status.st_ino] = path, status

    constant = {device for device, found in files.items() if _have_one_time([*found.values()])}

    # Times in whole seconds are what such images and archives have: 0, or the date of the build.
    # A file system that counts finer gives one by accident only.
    return [
        status.st_ctime_ns % _SECOND_NS != 0 and status.st_dev not in constant
        for status in statuses
    ]


def _have_one_time(files: list[tuple[PathLike, os.stat_result]]) -> bool:
    """Whether all times of these files are the same, so that they may be a constant."""
    times = set()
    for _, status in files:
        times |= {status.st_mtime_ns, status.st_ctime_ns}

    # A single file that was written once has one time as well; its folder then helps to tell.
    if len(files) == 1:
        try:
            folder = os.stat(os.path.dirname(os.path.abspath(files[0][0])))
        except OSError:
            return True  # it has gone
        times |= {folder.st_mtime_ns, folder.st_ctime_ns}

    return len(times) == 1


def _read_several(paths: Sequence[PathLike]) -> list[DigestedFile]:
    found = []
    for path in paths:
        try:
            digest, before, after = _read(path)
        except (OSError, ValueError):  # the latter for a path that holds a zero byte
            found.append(DigestedFile(None, None))
            continue

        is_stable = file_identity(before) == file_identity(after)
        found.append(DigestedFile(digest, before if is_stable else None))
    return found


def _read(path: PathLike) -> tuple[bytes, os.stat_result, os.stat_result]:
    """Digest a file; give also its status before and after."""
    fd = open_ordinary(path)
    try:
        before = os.fstat(fd)
        # One byte more than the size: the first read then also sees the end.
        step = min(max(before.st_size + 1, 4096), _READ_BYTES)
        data = os.read(fd, step)
        state = blake2b(data, digest_size=DIGEST_BYTES)
        while data:
            data = os.read(fd, step)
            state.update(data)

        return state.digest(), before, os.fstat(fd)
    finally:
        os.close(fd)
