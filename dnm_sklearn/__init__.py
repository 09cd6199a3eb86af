"""Zero-shot out-of-distribution detection with pre-trained vision-language models.

Give class *names*; a detector flags the images that those names do not cover.
Importing this package is cheap: torch, open_clip and PyOD are imported at first use.
"""

from dnm_sklearn._utils.lazy import lazy_exports

__version__ = "0.1.0"

# Public name -> module that defines it. Resolved at first access (PEP 562).
_EXPORTS = {
    "AdaNegDetector": "dnm_sklearn.detectors",
    "CLIPEmbedder": "dnm_sklearn.embedding",
    "CSPDetector": "dnm_sklearn.detectors",
    "DebiasedNegMiningDetector": "dnm_sklearn.detectors",
    "ENLDetector": "dnm_sklearn.detectors",
    "EmbeddingTable": "dnm_sklearn.embedding",
    "EnergyDetector": "dnm_sklearn.detectors",
    "LeaveOneOODSetOut": "dnm_sklearn.model_selection",
    "MCMDetector": "dnm_sklearn.detectors",
    "MaxLogitDetector": "dnm_sklearn.detectors",
    "NegLabelDetector": "dnm_sklearn.detectors",
    "OODClassifier": "dnm_sklearn.adapters",
    "SklearnOutlierAdapter": "dnm_sklearn.adapters",
    "StratifiedBySourceKFold": "dnm_sklearn.model_selection",
    "TANLDetector": "dnm_sklearn.detectors",
    "load": "dnm_sklearn.persistence",
    "make_ood_pipeline": "dnm_sklearn.pipeline",
}
_SUBMODULES = (
    "adapters", "bench", "calibration", "corpus", "datasets", "detectors", "embedding", "metrics",
    "model_selection", "persistence", "pipeline", "scoring", "streams", "testing",
)  # fmt: skip

__all__ = ["__version__", *_EXPORTS]

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS, _SUBMODULES)
