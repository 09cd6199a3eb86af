"""For estimators that wrap a detector: which of its methods they offer, and those methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sklearn.utils.metaestimators import available_if

Method = TypeVar("Method", bound=Callable[..., Any])
Params = ParamSpec("Params")
Result = TypeVar("Result")


def available_if_detector_has(name: str) -> Callable[[Method], Method]:
    """Offer a method only where the wrapped detector has one of this name.

    scikit-learn's ``available_if``, with a type. Where the detector has it not, its own
    AttributeError says why.
    """

    def check(wrapper: Any) -> bool:
        getattr(_wrapped(wrapper), name)
        return True

    return available_if(check)


def forwarded(
    method: Callable[Concatenate[Any, Params], Result], *, rows: bool = True, fitted: bool = True
) -> Callable[Concatenate[Any, Params], Result]:
    """A detector's method, with its documentation, as one of an estimator that wraps a detector.

    The wrapper has ``_fitted_detector()``, with ``fitted=False`` ``_own_detector()``; and with
    `rows` ``_rows(X)``, which makes of the first argument what the detector takes.
    """
    name = method.__name__

    @wraps(method)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        detector = self._fitted_detector() if fitted else self._own_detector()
        own = getattr(detector, name)
        call = inspect.signature(own).bind(*args, **kwargs)
        if rows:
            first = next(iter(call.arguments))
            call.arguments[first] = self._rows(call.arguments[first])
        result = own(*call.args, **call.kwargs)
        # Of a frozen detector the method is that of the one inside.
        return self if result is own.__self__ else result

    return available_if_detector_has(name)(forward)


def _wrapped(wrapper: Any) -> Any:
    """Last step of a pipeline; of an adapter the fitted detector, before fit the parameter."""
    if hasattr(wrapper, "steps"):
        return wrapper.steps[-1][1]
    return wrapper.detector_ if hasattr(wrapper, "detector_") else wrapper.detector
