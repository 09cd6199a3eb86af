"""For estimators that wrap a detector: which of its methods they offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.utils.metaestimators import available_if

Method = TypeVar("Method", bound=Callable[..., Any])


def available_if_detector_has(name: str) -> Callable[[Method], Method]:
    """Offer a method only where the wrapped detector has one of this name.

    scikit-learn's ``available_if``, with a type. Where the detector has it not, its own
    AttributeError says why.
    """

    def check(wrapper: Any) -> bool:
        getattr(_wrapped(wrapper), name)
        return True

    return available_if(check)


def _wrapped(wrapper: Any) -> Any:
    """Last step of a pipeline; of an adapter the fitted detector, before fit the parameter."""
    if hasattr(wrapper, "steps"):
        return wrapper.steps[-1][1]
    return wrapper.detector_ if hasattr(wrapper, "detector_") else wrapper.detector
