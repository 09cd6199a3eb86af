from .data import EmbeddingWorld, make_embedding_world
from .fake_embedder import FakeEmbedder
from .instances import make_detectors, make_estimators, sklearn_exemptions
from .runner import check_ood_detector, parametrize_with_ood_checks, yield_ood_checks

__all__ = [
    "EmbeddingWorld",
    "FakeEmbedder",
    "check_ood_detector",
    "make_detectors",
    "make_embedding_world",
    "make_estimators",
    "parametrize_with_ood_checks",
    "sklearn_exemptions",
    "yield_ood_checks",
]
