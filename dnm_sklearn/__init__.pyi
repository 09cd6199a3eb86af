from . import (
    adapters,
    bench,
    calibration,
    corpus,
    datasets,
    detectors,
    embedding,
    exceptions,
    metrics,
    model_selection,
    persistence,
    pipeline,
    plotting,
    scoring,
    streams,
    testing,
)
from .adapters import OODClassifier, SklearnOutlierAdapter
from .detectors import (
    AdaNegDetector,
    CSPDetector,
    DebiasedNegMiningDetector,
    EnergyDetector,
    ENLDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    TANLDetector,
    UnknownImageDetector,
)
from .embedding import CLIPEmbedder, EmbeddingTable
from .model_selection import LeaveOneOODSetOut, StratifiedBySourceKFold
from .persistence import load
from .pipeline import make_ood_pipeline

__version__: str

__all__ = [
    "AdaNegDetector",
    "CLIPEmbedder",
    "CSPDetector",
    "DebiasedNegMiningDetector",
    "ENLDetector",
    "EmbeddingTable",
    "EnergyDetector",
    "LeaveOneOODSetOut",
    "MCMDetector",
    "MaxLogitDetector",
    "NegLabelDetector",
    "OODClassifier",
    "SklearnOutlierAdapter",
    "StratifiedBySourceKFold",
    "TANLDetector",
    "UnknownImageDetector",
    "adapters",
    "bench",
    "calibration",
    "corpus",
    "datasets",
    "detectors",
    "embedding",
    "exceptions",
    "load",
    "make_ood_pipeline",
    "metrics",
    "model_selection",
    "persistence",
    "pipeline",
    "plotting",
    "scoring",
    "streams",
    "testing",
]
