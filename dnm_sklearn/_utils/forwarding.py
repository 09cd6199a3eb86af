"""For estimators that wrap a detector: which of its methods they offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["detector_has"]


def detector_has(name: str) -> Callable[[Any], bool]:
    """Condition for scikit-learn's ``available_if``: the wrapped detector has a method of this name.

    Where it has not, the detector's own AttributeError says why.
    """

    def check(wrapper: Any) -> bool:
        getattr(_wrapped(wrapper), name)
        return True

    return check


def _wrapped(wrapper: Any) -> Any:
    """Last step of a pipeline; of an adapter the fitted detector, before fit the parameter."""
    if hasattr(wrapper, "steps"):
        return wrapper.steps[-1][1]
    return wrapper.detector_ if hasattr(wrapper, "detector_") else wrapper.detector
