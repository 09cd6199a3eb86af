"""Results that are kept: on disk by ``joblib.Memory``, and the last few in this process."""

from __future__ import annotations

import contextlib
import copy
import os
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import update_wrapper
from pathlib import Path
from types import FunctionType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import platformdirs
from joblib.memory import FileSystemStoreBackend
from sklearn.utils.validation import check_memory

from dnm_sklearn._utils.checked_store import CheckedStore, warn_unsaved
from dnm_sklearn._utils.forks import ForkSafeLock
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.exceptions import CacheWriteWarning

# The ``memory=`` of detectors that keeps text banks of shipped corpora, in the user's cache folder.
AUTO = "auto"
_CACHE_VARIABLE = "DNM_SKLEARN_CACHE"

# What nobody asked for by name must not fill a disk: about a dozen banks of 70,794 labels.
_USER_CACHE_BYTES = 2 * 10**9

Result = TypeVar("Result")


def cache_folder(memory: Any) -> str | None:
    """Give the folder that a parameter ``memory`` names; None where nothing is kept."""
    if memory is None:
        return None
    if isinstance(memory, str) and memory == AUTO:
        raise ValueError(
            'memory="auto" is for detectors, and keeps text banks of shipped corpora: give an '
            'embedder the name of a folder, or None. (A folder of that name is "./auto".)'
        )
    folder = memory if isinstance(memory, (str, os.PathLike)) else memory.location
    return None if folder is None else os.path.expanduser(folder)


def as_memory(memory: Any) -> Any:
    """Give the ``joblib.Memory`` that a parameter ``memory`` stands for: a folder, a cache or None.

    A folder that cannot be made or written to costs a warning; then nothing is kept.
    """
    # scikit-learn's own function refuses a pathlib.Path, and takes a tilde as it is.
    if isinstance(memory, (str, os.PathLike)) and os.fspath(memory):
        memory = cache_folder(memory)

        # joblib keeps pickles: whoever may write here may run code. A folder that exists keeps its
        # mode, and one that cannot be made is told by joblib.
        with contextlib.suppress(OSError):
            os.makedirs(memory, mode=0o700, exist_ok=True)
    try:
        return check_memory(memory)
    except OSError as error:
        warn_unsaved(memory, error, "Embeddings of texts")
        return check_memory(None)


def own_memory(memory: Any) -> Any:
    """Give what a detector's ``memory`` says of the user's own texts: nothing, where "auto"."""
    return None if isinstance(memory, str) and memory == AUTO else memory


def user_cache_folder() -> Path:
    """Give the folder of ``memory="auto"``: ``DNM_SKLEARN_CACHE``, else the system's for caches."""
    given = os.environ.get(_CACHE_VARIABLE)
    if given:
        return user_path(given).absolute()
    # Without an author Windows has no folder of that name around it.
    return platformdirs.user_cache_path("dnm_sklearn", appauthor=False)


def user_memory() -> Any:
    """Give the ``joblib.Memory`` of ``memory="auto"``; one that keeps nothing where it cannot.

    A folder that is not the user's alone to write is not used, for what joblib reads can run code.
    """
    folder = user_cache_folder()
    fault = _why_not_private(folder)
    if fault:
        warn(
            f"{fault}, so that text banks are not kept there. Point {_CACHE_VARIABLE} to a folder "
            "of your own, or give memory= one (memory=None keeps nothing).",
            CacheWriteWarning,
        )
        return as_memory(None)

    memory = as_memory(folder)
    if memory.store_backend is not None:
        memory.store_backend.bytes_limit = _USER_CACHE_BYTES
    return memory


def _why_not_private(folder: Path) -> str:
    """Say why a folder of pickles that is used unasked cannot be trusted; "" if it can."""
    # A user without a home: the system's answer would lie in the working directory.
    if not folder.is_absolute():
        return f"The user's cache folder {folder} has no place: this user has no home"

    # What cannot be made is told by who uses it.
    with contextlib.suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    if not hasattr(os, "geteuid") or not folder.is_dir():
        return ""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return f"The user's cache folder {folder} belongs to somebody else"
    return f"Others may write to the user's cache folder {folder}" if status.st_mode & 0o022 else ""


def cached(memory: Any, function: Any, ignore: Sequence[str]) -> Callable[..., Any]:
    """Cache a module's function in a folder, whatever other folders it was cached in before.

    joblib keeps in a process which functions' code it has recorded, not where. In a second folder
    the record is therefore missing, and the next process takes the results there for those of other
    code and computes them again. A copy of the function is new to joblib in every folder.

    A cache that cannot be read or written to costs a warning, as does a result that is damaged.
    The function has no closure; parameters in `ignore` are no part of the key.
    """
    own = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    own.__kwdefaults__ = function.__kwdefaults__
    update_wrapper(own, function)
    own.__dict__.pop("__wrapped__")
    memory = _checked(memory)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return memory.cache(own, ignore=list(ignore))(*args, **kwargs)
        except Exception as error:
            if _came_from(own, error):
                raise
            fault = error

        # Outside the handler, so that an error of the function is not told as one of the cache.
        warn_unsaved(memory.location, fault, "Embeddings of texts and mined labels")
        return function(*args, **kwargs)

    return call


def _checked(memory: Any) -> Any:
    """Give the same cache with digests; a store that is not joblib's folder stays as it is."""
    if type(getattr(memory, "store_backend", None)) is not FileSystemStoreBackend:
        return memory
    store = CheckedStore()
    store.__dict__.update(memory.store_backend.__dict__)
    memory = copy.copy(memory)
    memory.store_backend = store
    return memory


def _came_from(function: FunctionType, error: Exception) -> bool:
    """Whether an error was raised in a function, not in the cache around it."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is function.__code__ for frame, _ in frames)


# Results in memory, so that all of them can be forgotten at once.
_all_recent: WeakSet[Any] = WeakSet()


def forget_recent_results() -> None:
    """Free what is kept in this process."""
    for recent in list(_all_recent):
        recent.forget()


class RecentResults(Generic[Result]):
    """The last few results of some work in this process, by key; safe to use from many threads."""

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        _all_recent.add(self)
        self._results: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = ForkSafeLock()

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Give the result of a key, computed now if it is not among the last few that were used."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]

        # Without the lock, so that threads with other keys need not wait. Two threads with one key
        # may both compute it; they get equal results.
        result = compute()
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > self.max_items:
                self._results.popitem(last=False)

        return result

    def forget(self) -> None:
        """Keep nothing of what was computed."""
        with self._lock:
            self._results.clear()
