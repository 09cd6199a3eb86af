"""Claims of rows: who computes which, for as long as that process is there."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from dnm_sklearn._utils.digest import DIGEST_BYTES

# Lock files are named host.process.random; other files of the folder are not looked at.
_NAME = re.compile(r"(.+)\.([0-9]+)\.[0-9a-f]{32}")
_ROWS_SUFFIX = ".rows"

# Locks that this process holds. Testing one of them would let it go for a moment.
_held: dict[str, FileLock] = {}

# In a forked child, the locks of its parent: giving one up would unlock the file.
_of_parent: list[FileLock] = []


class Claim:
    """Rows that one call computes: a file with their digests, beside a lock file that it holds.

    The system drops the lock when the process ends, however it ends, and the claim ends with it:
    nobody has to wait for a time to pass, or to tell a process from a later one of the same number.
    It works on Windows, and between hosts where their file system has locks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}"

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def begin(self, fingerprint: str, digests: list[bytes]) -> None:
        """Claim rows of a model. The caller holds the cache's lock, so that nobody looks yet."""
        self.folder.mkdir(exist_ok=True)
        self.end()  # of a first try, where the cache was repaired and the transaction run again
        lock = FileLock(self.path)
        lock.acquire(timeout=0)
        _held[self.path.name] = lock
        _rows_of(self.path).write_bytes(fingerprint.encode() + b"\n" + b"".join(digests))

    def end(self) -> None:
        """Give up what was claimed."""
        lock = _held.pop(self.path.name, None)
        if lock is not None:
            lock.release()
            _remove(self.path)


def claimed_digests(folder: Path, fingerprint: str) -> set[bytes]:
    """Digests of the rows of a model that somebody computes now (hold the cache's lock)."""
    claimed: set[bytes] = set()
    for path in _living(folder):
        try:
            owner, _, digests = _rows_of(path).read_bytes().partition(b"\n")
        except OSError:
            continue  # it has just ended

        if owner == fingerprint.encode():
            starts = range(0, len(digests), DIGEST_BYTES)
            claimed.update(digests[start : start + DIGEST_BYTES] for start in starts)
    return claimed


def remove_ended_claims(folder: Path) -> None:
    """Remove what killed processes left (hold the cache's lock)."""
    for _ in _living(folder):
        pass


def _living(folder: Path) -> Iterator[Path]:
    """Lock files that are held; others are removed."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name is not None and _is_locked(path) and _may_run(name[1], int(name[2])):
            yield path
        elif name is not None:
            _remove(path)


def _is_locked(path: Path) -> bool:
    if path.name in _held:
        return True
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _may_run(host: str, process: int) -> bool:
    """Whether a process may be there, as far as its number tells."""
    # A worker that was forked from the process shares its lock, and may outlive it. (Where there
    # is no fork there are no such workers, and this signal would end the process.)
    if host == socket.gethostname() and hasattr(os, "fork"):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's process
    return True


def _rows_of(path: Path) -> Path:
    return path.with_name(path.name + _ROWS_SUFFIX)


def _remove(path: Path) -> None:
    # The lock file last: whatever is left without one would never be found again. (Windows lets
    # nobody remove what another process looks at; whoever looks next removes it.)
    with contextlib.suppress(OSError):
        _rows_of(path).unlink(missing_ok=True)
        path.unlink()


def _forget_parent() -> None:
    _of_parent.extend(_held.values())
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
