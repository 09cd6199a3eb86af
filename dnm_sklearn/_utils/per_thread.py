"""Results of calls that threads make at the same time on one object."""

from __future__ import annotations

import threading
import weakref
from typing import Any


class PerThread:
    """An attribute of which each thread reads what it has set last.

    A thread that has set nothing reads what any thread set last, which is also what is pickled.

    Examples
    --------
    >>> from threading import Thread
    >>> from dnm_sklearn._utils.per_thread import PerThread
    >>> class Worker:
    ...     result_ = PerThread()
    >>> worker = Worker()
    >>> worker.result_ = "mine"
    >>> thread = Thread(target=setattr, args=(worker, "result_", "another's"))
    >>> thread.start(); thread.join()
    >>> worker.result_
    'mine'
    """

    def __init__(self) -> None:
        self._of_thread = _Values()

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        known, value = self._of_thread.values.get(id(instance), (None, None))
        # The number may be that of an object that is gone.
        if known is not None and known() is instance:
            return value
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(
                f"{type(instance).__name__!r} object has no attribute {self._name!r} yet"
            ) from None

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value
        # By number, as objects that compare by value cannot be keys.
        values, key = self._of_thread.values, id(instance)
        values[key] = (weakref.ref(instance, lambda _: values.pop(key, None)), value)


class _Values(threading.local):
    """By number of the object, the object and the value that this thread has set."""

    def __init__(self) -> None:
        self.values: dict[int, tuple[weakref.ref[Any], Any]] = {}
