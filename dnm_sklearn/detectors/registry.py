"""The list of all detectors."""

from __future__ import annotations

from dnm_sklearn import detectors
from dnm_sklearn.detectors.base import BaseOODDetector

__all__ = ["all_detectors"]

# In the order in which tables show them: names only, a corpus too, test-time, ID images.
_NAMES = (
    "MCMDetector",
    "MaxLogitDetector",
    "EnergyDetector",
    "NegLabelDetector",
    "CSPDetector",
    "DebiasedNegMiningDetector",
    "RenyiDetector",
    "EOEDetector",
    "TANLDetector",
    "AdaNegDetector",
    "ENLDetector",
    "DictionaryDetector",
    "ReNegDetector",
    "InterNegDetector",
    "PrototypeDetector",
    "KLMatchingDetector",
    "MahalanobisDetector",
)


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
    return {name: getattr(detectors, name) for name in _NAMES}
