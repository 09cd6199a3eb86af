"""Methods by specification: ``ENL(id_per_class=4)``, ``pyod:KNN(n_neighbors=10)``, ``sklearn:LocalOutlierFactor``."""

from __future__ import annotations

import ast
import pkgutil
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from dnm_sklearn.bench.run.registry import (
    Method,
    UnknownNameError,
    baselines,
    detectors,
    nearest,
    resolve,
)

# Outlier detectors of scikit-learn, by module; other estimators are looked up among all of them.
_SKLEARN = {
    "LocalOutlierFactor": "sklearn.neighbors",
    "IsolationForest": "sklearn.ensemble",
    "OneClassSVM": "sklearn.svm",
    "EllipticEnvelope": "sklearn.covariance",
    "SGDOneClassSVM": "sklearn.linear_model",
    "GaussianMixture": "sklearn.mixture",
    "BayesianGaussianMixture": "sklearn.mixture",
    "KernelDensity": "sklearn.neighbors",
}
_NOT_MODELS = {"base", "sklearn_base", "base_dl"}
_ID_PER_CLASS = "id_per_class"


def is_spec(text: str) -> bool:
    """Tell a specification from a plain name.

    Parameters
    ----------
    text : str
        As typed.

    Returns
    -------
    bool

    Examples
    --------
    >>> from dnm_sklearn.bench.run.specs import is_spec
    >>> is_spec("pyod:KNN"), is_spec("KNN")
    (True, False)
    """
    return text.strip().partition(":")[0].lower() in ("pyod", "sklearn") and ":" in text


def parse_spec(text: str) -> tuple[str, str, dict[str, Any]]:
    """Split a specification; nothing in it is ever evaluated but literals.

    Parameters
    ----------
    text : str
        ``library:Class`` or ``library:Class(name=literal, ...)``.

    Returns
    -------
    library : {"pyod", "sklearn"}
        Where the class comes from.
    name : str
        The class, as typed.
    params : dict
        Its parameters.

    Raises
    ------
    ValueError
        If it is not of this form.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.specs import parse_spec
    >>> parse_spec("pyod:KNN(n_neighbors=10)")
    ('pyod', 'KNN', {'n_neighbors': 10})
    """
    library, _, rest = text.strip().partition(":")
    form = f"{text!r} is not LIBRARY:CLASS(NAME=VALUE, ...) with plain values, e.g. pyod:KNN(n_neighbors=10)."
    if library.lower() not in ("pyod", "sklearn"):
        raise ValueError(form)
    return library.lower(), *_parse_call(rest, form)


def _parse_call(text: str, form: str) -> tuple[str, dict[str, Any]]:
    """Split NAME(KEY=LITERAL, ...); `form` is what to say if it is not that."""
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
                raise ValueError(
                    f"{form} The value of {keyword.arg} is not a number, string, list or None."
                ) from error
        node = node.func
    if not isinstance(node, ast.Name):
        raise ValueError(form)
    return node.id, params


def detector_of_spec(text: str) -> Method:
    """Make a detector of a name, or of a specification.

    Parameters
    ----------
    text : str
        ``NAME`` or ``NAME(parameter=literal, ...)``. ``id_per_class`` is no parameter of the class:
        it is how many ID images of each class the detector is fitted on beside the class names (0 =
        all that there are).

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        If the specification is not of that form, or the detector's score does not use ID images.
    UnknownNameError
        If there is no such detector; the message gives the nearest.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.specs import detector_of_spec
    >>> method = detector_of_spec("ENL(id_per_class=4)")
    >>> method.name, method.id_per_class
    ('ENLDetector', 4)
    """
    known = detectors()
    if "(" not in text:
        return resolve(text, known)
    form = f"{text!r} is not DETECTOR(NAME=VALUE, ...) with plain values, e.g. ENL(id_per_class=4)."
    name, params = _parse_call(text, form)
    method = resolve(name, known)
    per_class = params.pop(_ID_PER_CLASS, None)
    if per_class is not None:
        if not isinstance(per_class, int) or isinstance(per_class, bool) or per_class < 0:
            raise ValueError(
                f"{text!r}: {_ID_PER_CLASS} is a number of images, 0 = all that there are."
            )
        if not method.uses_id_images:
            able = ", ".join(key for key, m in known.items() if m.uses_id_images)
            raise ValueError(
                f"{text!r}: the score of {method.name} uses no ID images; leave {_ID_PER_CLASS} "
                f"out. It is for {able}, and baselines follow --id-per-class."
            )
    return replace(method, params=tuple(params.items()), id_per_class=per_class)


def method_of_spec(text: str) -> Method:
    """Make a baseline of a specification.

    Parameters
    ----------
    text : str
        See :func:`parse_spec`.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        If the specification is not of that form.
    UnknownNameError
        If the library has no such detector; the message gives the nearest.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.specs import method_of_spec
    >>> method_of_spec("sklearn:LocalOutlierFactor(n_neighbors=5)").name
    'sklearn:LocalOutlierFactor(n_neighbors=5)'
    """
    library, name, params = parse_spec(text)
    shown = ", ".join(f"{key}={value!r}" for key, value in params.items())
    fixed = tuple(params.items())
    if library == "pyod":
        for known in baselines().values():
            if known.name.lower() == name.lower():
                full = f"pyod:{known.name}({shown})" if shown else known.name
                return Method(
                    full,
                    known.label,
                    "baseline",
                    known.load,
                    known.summary,
                    known.batch_note,
                    fixed,
                )
        cls = _pyod_class(name)
        label, load = f"PyOD {cls.__name__}", cls
    else:
        cls = _sklearn_class(name)
        label = f"sklearn {cls.__name__}"
        load = _sign_turned(cls)
    defaults = (("novelty", True),) if cls.__name__ == "LocalOutlierFactor" else ()
    full = f"{library}:{cls.__name__}" + (f"({shown})" if shown else "")
    return Method(
        full, label, "baseline", lambda: load, label, "", fixed, defaults, check_rows=True
    )


def _pyod_class(name: str) -> type:
    import pyod.models

    modules = {
        module.name.replace("_", "").lower(): module.name
        for module in pkgutil.iter_modules(pyod.models.__path__)
        if module.name not in _NOT_MODELS
    }
    found = modules.get(name.replace("_", "").lower())
    if found is None:
        raise UnknownNameError(f"PyOD has no detector {name!r}.{nearest(name, modules)}")
    module = import_module(f"pyod.models.{found}")
    for key, value in vars(module).items():
        if isinstance(value, type) and key.lower() == found.replace("_", "").lower():
            return value
    raise UnknownNameError(f"PyOD's module {found!r} has no detector of that name.")


def _sklearn_class(name: str) -> type:
    for known, module in _SKLEARN.items():
        if known.lower() == name.lower():
            return getattr(import_module(module), known)
    from sklearn.utils.discovery import all_estimators

    scoring = {key: cls for key, cls in all_estimators() if hasattr(cls, "score_samples")}
    if name in scoring:
        return scoring[name]
    raise UnknownNameError(
        "scikit-learn has no outlier or density estimator "
        f"{name!r}.{nearest(name, [*_SKLEARN, *scoring])} For example: {', '.join(_SKLEARN)}."
    )


def _sign_turned(cls: type) -> type:
    """Make a class whose ``decision_function`` is higher for outliers, as PyOD's is."""

    def decision_function(self: Any, X: np.ndarray) -> np.ndarray:
        return -np.asarray(cls.score_samples(self, X), dtype=np.float64)  # type: ignore[attr-defined]

    return type(
        cls.__name__, (cls,), {"decision_function": decision_function, "__module__": __name__}
    )
