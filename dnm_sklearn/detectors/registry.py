"""The list of all detectors."""

from __future__ import annotations

from dnm_sklearn.detectors.adaneg import AdaNegDetector
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.csp import CSPDetector
from dnm_sklearn.detectors.dictionary import DictionaryDetector
from dnm_sklearn.detectors.dnm import DebiasedNegMiningDetector
from dnm_sklearn.detectors.enl import ENLDetector
from dnm_sklearn.detectors.eoe import EOEDetector
from dnm_sklearn.detectors.few_images import (
    KLMatchingDetector,
    MahalanobisDetector,
    PrototypeDetector,
)
from dnm_sklearn.detectors.interneg import InterNegDetector
from dnm_sklearn.detectors.neglabel import NegLabelDetector
from dnm_sklearn.detectors.reneg import ReNegDetector
from dnm_sklearn.detectors.renyi import RenyiDetector
from dnm_sklearn.detectors.tanl import TANLDetector
from dnm_sklearn.detectors.zero_shot import EnergyDetector, MaxLogitDetector, MCMDetector

__all__ = ["all_detectors"]

# In the order in which tables show them: names only, a corpus too, test-time, ID images.
_DETECTORS: tuple[type[BaseOODDetector], ...] = (
    MCMDetector,
    MaxLogitDetector,
    EnergyDetector,
    NegLabelDetector,
    CSPDetector,
    DebiasedNegMiningDetector,
    RenyiDetector,
    EOEDetector,
    TANLDetector,
    AdaNegDetector,
    ENLDetector,
    DictionaryDetector,
    ReNegDetector,
    InterNegDetector,
    PrototypeDetector,
    KLMatchingDetector,
    MahalanobisDetector,
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
    return {detector.__name__: detector for detector in _DETECTORS}
