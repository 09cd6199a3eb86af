"""Paragraphs on parameters that several classes share: written once, filled into each docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from textwrap import dedent, indent
from typing import TypeVar

T = TypeVar("T", bound=type)

# A line of a docstring that holds names in braces and nothing else: ``{classes, embedder}``.
_PLACEHOLDER = re.compile(r"^(?P<margin> *)\{(?P<names>\w+(?:, \w+)*)\}$", flags=re.MULTILINE)


def fill_parameters(paragraphs: str) -> Callable[[T], T]:
    """Decorate a class: a docstring's line ``{name, name}`` becomes paragraphs on these parameters.

    Deeper indented lines after it go on with the last paragraph. ``{default}`` in a paragraph is
    the default in the constructor's signature. An editor that reads the source shows the
    placeholder, ``help()`` and the documentation show the paragraphs, which are in numpydoc's form
    with an empty line between them. Without docstrings (``python -OO``) nothing is done.

    Examples
    --------
    >>> import inspect
    >>> from dnm_sklearn._utils.docs import fill_parameters
    >>> paragraph = "height : float, default={default}{0}    In metres.".replace("{0}", chr(10))
    >>> @fill_parameters(paragraph)
    ... class Tower:
    ...     '''A tower.
    ...
    ...     {height}
    ...         Without the aerial.
    ...     '''
    ...     def __init__(self, height=3.5):
    ...         self.height = height
    >>> print(inspect.getdoc(Tower))
    A tower.
    <BLANKLINE>
    height : float, default=3.5
        In metres.
        Without the aerial.
    """
    by_name = {}
    for paragraph in dedent(paragraphs).strip().split("\n\n"):
        by_name[paragraph.partition(" ")[0]] = paragraph

    def decorate(cls: T) -> T:
        if cls.__doc__ is not None:
            cls.__doc__ = _PLACEHOLDER.sub(lambda match: _filled(match, cls, by_name), cls.__doc__)
        return cls

    return decorate


def _filled(match: re.Match[str], cls: type, by_name: dict[str, str]) -> str:
    """The paragraphs that a placeholder stands for, as far to the right as it."""
    parameters = inspect.signature(cls).parameters
    filled = []
    for name in match["names"].split(", "):
        if name not in by_name:
            raise ValueError(
                f"The docstring of {cls.__name__} names {name!r} in a placeholder, but there is no "
                f"paragraph on it. There are: {', '.join(by_name)}."
            )
        default = parameters[name].default
        shown = f'"{default}"' if isinstance(default, str) else repr(default)
        filled.append(by_name[name].replace("{default}", shown))

    return indent("\n".join(filled), match["margin"])
