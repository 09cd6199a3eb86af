"""Zero-shot OOD detectors with the PyOD / scikit-learn interface, one method a file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnm_sklearn.detectors.base import BaseOODDetector

# Detector -> module, in the order in which tables show them. Resolved at first access (PEP 562).
_DETECTORS = {
    "MCMDetector": "zero_shot",
    "MaxLogitDetector": "zero_shot",
    "EnergyDetector": "zero_shot",
    "NegLabelDetector": "neglabel",
    "CSPDetector": "csp",
    "DebiasedNegMiningDetector": "dnm",
    "TANLDetector": "tanl",
    "AdaNegDetector": "adaneg",
    "ENLDetector": "enl",
}
_OTHER = {
    "BaseOODDetector": "base",
    "NegativeLabelDetector": "negative_label",
    "StreamingDetector": "streaming",
    "DetectorInfo": "info",
}

__all__ = ["all_detectors", *_DETECTORS, *_OTHER]


def all_detectors() -> dict[str, type[BaseOODDetector]]:
    """Every detector class of the toolkit by name, in the order of the tables.

    Returns
    -------
    dict of str to type

    Examples
    --------
    >>> from dnm_sklearn.detectors import all_detectors
    >>> "NegLabelDetector" in all_detectors()
    True
    """
    return {
        name: getattr(import_module(f"{__name__}.{module}"), name)
        for name, module in _DETECTORS.items()
    }


def __getattr__(name: str) -> Any:
    module = _DETECTORS.get(name) or _OTHER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
