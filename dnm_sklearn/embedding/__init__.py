"""Images and names to unit vectors: what an encoder is, CLIP, tables of text vectors, the cache.

Importing this package is cheap: torch and open_clip are imported when a model is first used.
"""

from dnm_sklearn._utils.lazy import lazy_exports

# Public name -> module that defines it. Resolved at first access (PEP 562).
_EXPORTS = {
    "CLIPEmbedder": "dnm_sklearn.embedding.clip",
    "Embedder": "dnm_sklearn.embedding.protocol",
    "EmbeddingTable": "dnm_sklearn.embedding.table",
    "RowStore": "dnm_sklearn.embedding.store",
    "release_models": "dnm_sklearn.embedding.open_clip.registry",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
