"""Helpers for testing code that uses dnm_sklearn: encoders that need no weights, and the contract as checks."""

from dnm_sklearn._utils.lazy import lazy_exports

# Public name -> module that defines it. Resolved at first access (PEP 562).
_EXPORTS = {
    "EmbeddingWorld": "dnm_sklearn.testing.data",
    "FakeEmbedder": "dnm_sklearn.testing.mock_embedder",
    "check_ood_detector": "dnm_sklearn.testing.runner",
    "make_detectors": "dnm_sklearn.testing.instances",
    "make_embedding_world": "dnm_sklearn.testing.data",
    "make_estimators": "dnm_sklearn.testing.instances",
    "parametrize_with_ood_checks": "dnm_sklearn.testing.runner",
    "sklearn_exemptions": "dnm_sklearn.testing.instances",
    "yield_ood_checks": "dnm_sklearn.testing.runner",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
