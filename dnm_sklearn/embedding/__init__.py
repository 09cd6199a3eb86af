"""Images and names to unit vectors: encoders, text tables and the row store.

Importing this package is cheap: torch and open_clip are imported when a model is first used.
"""

from importlib import import_module
from typing import Any

# Public name -> module that defines it. Resolved at first access (PEP 562).
_EXPORTS = {
    "CLIPEmbedder": "dnm_sklearn.embedding.clip",
    "EmbeddingTable": "dnm_sklearn.embedding.table",
    "RowStore": "dnm_sklearn.embedding.store",
    "check_embedder": "dnm_sklearn.embedding.check",
    "encoder_identity": "dnm_sklearn.embedding.check",
    "input_kind": "dnm_sklearn.embedding.inputs",
    "release_models": "dnm_sklearn.embedding.models",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'dnm_sklearn.embedding' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
