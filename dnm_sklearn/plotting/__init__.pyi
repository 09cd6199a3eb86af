from .contact_sheet import ContactSheetDisplay
from .explanation import ExplanationDisplay
from .roc import OODRocCurveDisplay
from .scores import ScoreHistogramDisplay
from .stream import StreamDisplay
from .threshold import ThresholdDisplay

__all__ = [
    "ContactSheetDisplay",
    "ExplanationDisplay",
    "OODRocCurveDisplay",
    "ScoreHistogramDisplay",
    "StreamDisplay",
    "ThresholdDisplay",
]
