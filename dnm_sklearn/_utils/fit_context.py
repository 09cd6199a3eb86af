"""scikit-learn's decorator of ``fit``, with a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context

Method = TypeVar("Method", bound=Callable[..., Any])


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]:
    """Validate the parameters before ``fit``; see ``sklearn.base._fit_context``.

    scikit-learn ships no types, and under its decorator a type checker would lose those of ``fit``.
    """
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)
