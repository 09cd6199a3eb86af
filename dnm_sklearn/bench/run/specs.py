"""Methods by specification: ``ENL(id_per_class=4)``, ``package.module:Class``, ``pyod:KNN``."""

from __future__ import annotations

import ast
import pkgutil
import re
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn.bench.results.rows import name_key
from dnm_sklearn.bench.run.registry import (
    Method,
    baselines,
    detectors,
    detectors_of_others,
    foreign_method,
    resolve,
)
from dnm_sklearn.exceptions import UnknownNameError

_LIBRARIES = ("pyod", "sklearn")

# What stands before the class of somebody else.
_MODULE = re.compile(r"([A-Za-z_][\w.]*):(?=[A-Za-z_])")

# Modules of PyOD that hold no detector of their name.
_NOT_MODELS = {"base", "sklearn_base", "base_dl"}

# What a specification may hold beside the parameters of a class: ID images per class at fit.
_ID_PER_CLASS = "id_per_class"


def is_spec(text: str) -> bool:
    """Tell a specification of a baseline from a plain name."""
    library, colon, _ = text.strip().partition(":")
    return bool(colon) and library.lower() in _LIBRARIES


def parse_spec(text: str) -> tuple[str, str, dict[str, Any]]:
    """Split ``library:Class(name=literal, ...)``; nothing in it is evaluated but literals."""
    # What is wrong with a text that has another form is said once, with an example.
    library, _, rest = text.strip().partition(":")
    form = (
        f"{text!r} is not LIBRARY:CLASS(NAME=VALUE, ...) with plain values, e.g. "
        "pyod:KNN(n_neighbors=10)."
    )
    if library.lower() not in _LIBRARIES:
        raise ValueError(form)
    return library.lower(), *_parse_call(rest, form)


def detector_of_spec(text: str) -> Method:
    """Make a detector of ``NAME`` or ``NAME(parameter=value, ...)``.

    ``package.module:CLASS`` names a detector of somebody else, which is imported. A value is a
    literal, or the specification of a detector: ``ReNeg(base=TANL(step=0))``. ``id_per_class`` is
    no parameter of the class: it is how many ID images of each class the detector is fitted on
    beside the class names (0 = all that there are).
    """
    # A plain name may also be a label, which can hold blanks.
    methods = {**detectors(), **detectors_of_others()}
    module, rest = _module_of(text)
    if "(" not in text:
        return _foreign(module, rest) if module else resolve(text, methods)

    form = (
        f"{text!r} is not DETECTOR(NAME=VALUE, ...) with plain values or detectors, e.g. "
        "ENL(id_per_class=4) or ReNeg(base=TANL)."
    )
    name, params = _parse_call(rest, form, with_detectors=True)
    method = _foreign(module, name) if module else resolve(name, methods)
    per_class = params.pop(_ID_PER_CLASS, None)
    if per_class is not None:
        _check_id_per_class(text, per_class, method, methods)
    return replace(method, params=tuple(params.items()), id_per_class=per_class)


def baseline_of_spec(text: str) -> Method:
    """Make a baseline of ``library:Class(name=literal, ...)``."""
    library, name, params = parse_spec(text)
    shown = ", ".join(f"{key}={value!r}" for key, value in params.items())
    fixed = tuple(params.items())

    if library == "pyod":
        # The baselines of the list have names and notes of their own.
        for method in baselines().values():
            if method.name.lower() == name.lower():
                full = f"pyod:{method.name}({shown})" if shown else method.name
                return replace(method, name=full, params=fixed)
        cls = loaded = _pyod_class(name)
        label = f"PyOD {cls.__name__}"
    else:
        cls = _sklearn_class(name)
        loaded = _higher_for_outliers(cls)
        label = f"sklearn {cls.__name__}"

    # Without novelty, scikit-learn's LOF scores only the rows that it was fitted on.
    defaults = (("novelty", True),) if cls.__name__ == "LocalOutlierFactor" else ()
    return Method(
        name=f"{library}:{cls.__name__}" + (f"({shown})" if shown else ""),
        label=label,
        kind="baseline",
        load=lambda: loaded,
        summary=label,
        params=fixed,
        defaults=defaults,
        check_rows=True,
    )


def literal_or_text(text: str) -> Any:
    """Read the value of a parameter: a Python literal, or else the text as it is."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def _module_of(text: str) -> tuple[str, str]:
    """Split the module off ``package.module:CLASS(...)``; empty where there is none."""
    match = _MODULE.match(text.strip())
    return ("", text) if match is None else (match[1], text.strip()[match.end() :])


def _foreign(module: str, name: str) -> Method:
    """Import a detector of somebody else."""
    try:
        cls = getattr(import_module(module), name.strip(), None)
    except ImportError as error:
        raise UnknownNameError(
            f"The module {module!r} cannot be imported ({error}): install it, or name its folder "
            "in PYTHONPATH."
        ) from error
    if cls is None:
        raise UnknownNameError(f"The module {module!r} has no {name!r}.")
    return foreign_method(cls, f"{module}:{name.strip()}")


def _parse_call(
    text: str, form: str, *, with_detectors: bool = False
) -> tuple[str, dict[str, Any]]:
    """Split NAME(KEY=VALUE, ...); `form` is what to say if it is not that.

    Values are literals, and if `with_detectors` also detectors.
    """
    # The text is parsed as Python, but never run.
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(form) from error

    params: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f"{form} Give every parameter by its name.")
        for keyword in node.keywords:
            try:
                params[str(keyword.arg)] = ast.literal_eval(keyword.value)
            except ValueError as error:
                if with_detectors and isinstance(keyword.value, (ast.Name, ast.Call)):
                    params[str(keyword.arg)] = _inner_detector(ast.unparse(keyword.value))
                    continue
                raise ValueError(
                    f"{form} The value of {keyword.arg} is not a number, string, list or None."
                ) from error
        node = node.func

    if not isinstance(node, ast.Name):
        raise ValueError(form)
    return node.id, params


def _inner_detector(text: str) -> Any:
    """Make the detector, unfitted, that a specification names inside another one."""
    method = detector_of_spec(text)
    if method.id_per_class is not None:
        raise ValueError(
            f"{text!r} stands inside another detector, which is what is fitted on ID images: give "
            f"{_ID_PER_CLASS} to that one."
        )
    return method.load()(**dict(method.params))


def _check_id_per_class(
    text: str, per_class: Any, method: Method, methods: dict[str, Method]
) -> None:
    if not isinstance(per_class, int) or isinstance(per_class, bool) or per_class < 0:
        raise ValueError(
            f"{text!r}: {_ID_PER_CLASS} is a number of images, 0 = all that there are."
        )
    if not method.uses_id_images:
        able = ", ".join(name for name, other in methods.items() if other.uses_id_images)
        raise ValueError(
            f"{text!r}: the score of {method.name} uses no ID images; leave {_ID_PER_CLASS} out. "
            f"It is for {able}, and baselines follow --id-per-class."
        )


def _pyod_class(name: str) -> type:
    """Find a detector of PyOD: a class that is named like its module."""
    import pyod.models

    modules = {}
    for module in pkgutil.iter_modules(pyod.models.__path__):
        if module.name not in _NOT_MODELS:
            modules[module.name.replace("_", "").lower()] = module.name

    # Module names have underscores where class names have capitals: auto_encoder, AutoEncoder.
    wanted = name.replace("_", "").lower()
    if wanted not in modules:
        hint = did_you_mean(name, modules, key=name_key)
        raise UnknownNameError(f"PyOD has no detector {name!r}.{hint}")
    for key, value in vars(import_module(f"pyod.models.{modules[wanted]}")).items():
        if isinstance(value, type) and key.lower() == wanted:
            return value
    raise UnknownNameError(f"PyOD's module {modules[wanted]!r} has no detector of that name.")


def _sklearn_class(name: str) -> type:
    """Find an estimator of scikit-learn that scores rows."""
    from sklearn.utils.discovery import all_estimators

    scoring = {key.lower(): cls for key, cls in all_estimators() if hasattr(cls, "score_samples")}
    if name.lower() not in scoring:
        known = [cls.__name__ for cls in scoring.values()]
        raise UnknownNameError(
            f"scikit-learn has no outlier or density estimator {name!r}."
            f"{did_you_mean(name, known)} It has: {', '.join(known)}."
        )
    return scoring[name.lower()]


def _higher_for_outliers(cls: type) -> type:
    """Make a class whose ``decision_function`` is higher for outliers, as PyOD's is."""

    def decision_function(self: Any, X: np.ndarray) -> np.ndarray:
        return -np.asarray(cls.score_samples(self, X), dtype=np.float64)  # type: ignore[attr-defined]

    return type(
        cls.__name__, (cls,), {"decision_function": decision_function, "__module__": __name__}
    )
