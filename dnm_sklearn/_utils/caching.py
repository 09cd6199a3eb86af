"""One way to cache a function with ``joblib.Memory``, and what may stand for one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import update_wrapper
from types import FunctionType
from typing import Any

from sklearn.utils.validation import check_memory

__all__ = ["LastResult", "as_memory", "cached"]


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
    return check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)


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
    >>> from dnm_sklearn.embedding.base import names_digest
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


class LastResult:
    """The last result of a costly function, kept in this process under a key. Safe in threads.

    Examples
    --------
    >>> from dnm_sklearn._utils.caching import LastResult
    >>> last = LastResult()
    >>> last.get("key", lambda: [1, 2]) is last.get("key", lambda: [3])
    True
    """

    def __init__(self) -> None:
        # Key and result in one tuple, which is replaced as a whole: a thread sees the old pair or
        # the new one, never the key of one with the result of the other.
        self._entry: tuple[Any, Any] = (None, None)

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result kept under `key`; made, and kept in place of the last one, if it is another's."""
        known, result = self._entry
        if known != key:
            result = make()
            self._entry = (key, result)
        return result
