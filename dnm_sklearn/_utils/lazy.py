"""Public names that are imported at first access (PEP 562), so that importing a package is cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, exports: Mapping[str, str], submodules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    exports : mapping of str to str
        Public name -> full name of the module that defines it.
    submodules : iterable of str
        Modules of the package that are imported as they are asked for.

    Returns
    -------
    tuple of two functions
        ``__getattr__`` and ``__dir__``.

    Examples
    --------
    >>> from dnm_sklearn._utils.lazy import lazy_exports
    >>> get, names = lazy_exports("dnm_sklearn._utils.lazy", {"Corpus": "dnm_sklearn.corpus"})
    >>> get("Corpus").__name__, "Corpus" in names()
    ('Corpus', True)
    """

    def get(name: str) -> Any:
        if name in exports:
            value = getattr(import_module(exports[name]), name)
            setattr(sys.modules[package], name, value)
            return value
        if name in submodules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exports, *submodules})

    return get, names
