"""A change of fitted objects that happens as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def all_or_nothing(*objects: Any) -> Iterator[None]:
    """Give objects back the attributes that they had, if the block ends with an error.

    Attributes must be replaced, not changed in place; only lists may be.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from dnm_sklearn._utils.all_or_nothing import all_or_nothing
    >>> thing = SimpleNamespace(a=1)
    >>> try:
    ...     with all_or_nothing(thing):
    ...         thing.a, thing.b = 2, 1 / 0
    ... except ZeroDivisionError:
    ...     print(thing)
    namespace(a=1)
    """
    before = [dict(vars(one)) for one in objects]
    lists = [value for state in before for value in state.values() if type(value) is list]
    contents = [list(value) for value in lists]
    try:
        yield
    except BaseException:  # an interrupt, too
        for value, content in zip(lists, contents, strict=True):
            value[:] = content
        for one, state in zip(objects, before, strict=True):
            vars(one).clear()
            vars(one).update(state)
        raise
