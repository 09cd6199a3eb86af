from .data import OODBlobs, make_ood_blobs
from .fake_embedder import FakeEmbedder
from .instances import make_detectors, make_estimators, sklearn_exemptions
from .runner import check_ood_detector, parametrize_with_ood_checks, yield_ood_checks

__all__ = [
    "FakeEmbedder",
    "OODBlobs",
    "check_ood_detector",
    "make_detectors",
    "make_estimators",
    "make_ood_blobs",
    "parametrize_with_ood_checks",
    "sklearn_exemptions",
    "yield_ood_checks",
]
