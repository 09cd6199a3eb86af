from .data import make_ood_blobs
from .fake_embedder import FakeEmbedder
from .runner import check_ood_detector, parametrize_with_ood_checks

__all__ = [
    "FakeEmbedder",
    "check_ood_detector",
    "make_ood_blobs",
    "parametrize_with_ood_checks",
]
