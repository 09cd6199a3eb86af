"""Results that are kept: on disk by ``joblib.Memory``, and the last few in this process."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import update_wrapper
from threading import Lock
from types import FunctionType
from typing import Any, Generic, TypeVar

from sklearn.utils.validation import check_memory

__all__ = ["RecentResults", "as_memory", "cached"]

Result = TypeVar("Result")


def as_memory(memory: Any) -> Any:
    """Give the ``joblib.Memory`` that a parameter ``memory`` stands for: a folder, a cache or None.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn._utils.caching import as_memory
    >>> as_memory(Path("cache")).location, as_memory(None).location
    ('cache', None)
    """
    # scikit-learn's own function refuses a pathlib.Path.
    folder = os.fspath(memory) if isinstance(memory, os.PathLike) else memory

    # joblib keeps pickles: whoever may write here may run code. A folder that exists keeps its
    # mode, and one that cannot be made is told by joblib.
    if isinstance(folder, str) and folder:
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
    return check_memory(folder)


def cached(memory: Any, function: Any, ignore: Sequence[str]) -> Callable[..., Any]:
    """Cache a module's function in a folder, whatever other folders it was cached in before.

    joblib keeps in a process which functions' code it has recorded, not where. In a second folder
    the record is therefore missing, and the next process takes the results there for those of other
    code and computes them again. A copy of the function is new to joblib in every folder.

    Parameters
    ----------
    memory : joblib.Memory
        The cache.
    function : function
        A function of a module, without closure.
    ignore : sequence of str
        Parameters that are no part of the key.

    Returns
    -------
    callable
        The function, cached.

    Examples
    --------
    >>> from joblib import Memory
    >>> from dnm_sklearn._utils.caching import cached
    >>> from dnm_sklearn.embedding.text import names_digest
    >>> cached(Memory(None), names_digest, [])(["cat"]) == names_digest(["cat"])
    True
    """
    own = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    own.__kwdefaults__ = function.__kwdefaults__
    update_wrapper(own, function)
    own.__dict__.pop("__wrapped__")

    return memory.cache(own, ignore=list(ignore))


class RecentResults(Generic[Result]):
    """The last few results of some work in this process, by key; safe to use from many threads.

    Examples
    --------
    >>> from dnm_sklearn._utils.caching import RecentResults
    >>> squares = RecentResults(max_items=2)
    >>> squares.get(3, lambda: 3**2), squares.get(3, lambda: 1 / 0)
    (9, 9)
    """

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self._results: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = Lock()

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
