"""Detectors of other packages, whose metadata say what they are called and where they are."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["GROUP", "foreign_detector", "foreign_detectors", "foreign_name"]

# The group of entry points: ``my-detector = "my_package.my_module:MyDetector"``.
GROUP = "dnm_sklearn.detectors"


@lru_cache(maxsize=1)
def foreign_detectors() -> dict[str, EntryPoint]:
    """Entry points of detectors by the name of their class; nothing is imported."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        # A class inside another one is no detector that a file or a command line can name.
        found.setdefault(point.attr, point)
    return found


def foreign_detector(name: str) -> Any:
    """Import the class of an entry point; None where there is no such one."""
    point = foreign_detectors().get(name)
    return None if point is None else point.load()


def foreign_name(cls: type) -> str | None:
    """Name by which an entry point gives exactly this class, or None."""
    point = foreign_detectors().get(cls.__name__)
    if point is None or point.module != cls.__module__:
        return None
    return cls.__name__
