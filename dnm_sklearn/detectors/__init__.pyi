from .adaneg import AdaNegDetector
from .base import BaseOODDetector
from .csp import CSPDetector
from .dictionary import DictionaryDetector
from .dnm import DebiasedNegMiningDetector
from .enl import ENLDetector
from .eoe import EOEDetector
from .few_images import KLMatchingDetector, MahalanobisDetector, PrototypeDetector
from .glmcm import GLMCMDetector
from .info import DetectorInfo
from .interneg import InterNegDetector
from .negative_label import NegativeLabelDetector
from .neglabel import NegLabelDetector
from .registry import all_detectors
from .reneg import ReNegDetector
from .renyi import RenyiDetector
from .streaming import StreamingDetector
from .tanl import TANLDetector
from .unknown_image import UnknownImageDetector
from .zero_shot import EnergyDetector, MaxLogitDetector, MCMDetector

__all__ = [
    "AdaNegDetector",
    "BaseOODDetector",
    "CSPDetector",
    "DebiasedNegMiningDetector",
    "DetectorInfo",
    "DictionaryDetector",
    "ENLDetector",
    "EOEDetector",
    "EnergyDetector",
    "GLMCMDetector",
    "InterNegDetector",
    "KLMatchingDetector",
    "MCMDetector",
    "MahalanobisDetector",
    "MaxLogitDetector",
    "NegLabelDetector",
    "NegativeLabelDetector",
    "PrototypeDetector",
    "ReNegDetector",
    "RenyiDetector",
    "StreamingDetector",
    "TANLDetector",
    "UnknownImageDetector",
    "all_detectors",
]
