"""Processes that are forked: locks that are free in them, and whether this is one.

A forked process has only the thread that forked it. A lock that another thread held stays taken
there for ever, and torch waits for ever for the OpenMP threads that it had in its parent.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from weakref import WeakSet

_locks: WeakSet[ForkSafeLock] = WeakSet()
_torch_was_forked = False


class ForkSafeLock:
    """A lock that is free in a forked process, whoever held it in the parent.

    What it guards must be whole at each moment, since the thread that held it is not there to
    finish its work. `lock` is the present process's own.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> ForkSafeLock:
        self.lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        # In a forked process it may be free already, where a block of the parent's is left.
        with suppress(RuntimeError):
            self.lock.release()


def torch_was_forked() -> bool:
    """Whether this process was forked from one that had torch: only one thread of it works here."""
    return _torch_was_forked


def _begin_child() -> None:
    global _torch_was_forked
    _torch_was_forked = _torch_was_forked or "torch" in sys.modules
    for lock in list(_locks):
        lock.lock = threading.Lock()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
