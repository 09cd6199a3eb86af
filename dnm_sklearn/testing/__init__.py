"""Helpers for testing code that uses dnm_sklearn: encoders that need no weights."""

from importlib import import_module
from typing import Any

__all__ = ["FakeEmbedder"]


def __getattr__(name: str) -> Any:
    if name == "FakeEmbedder":
        value = import_module("dnm_sklearn.testing.fake").FakeEmbedder
        globals()[name] = value
        return value
    raise AttributeError(f"module 'dnm_sklearn.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
