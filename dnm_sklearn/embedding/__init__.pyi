from .base import BaseEmbedder
from .clip import CLIPEmbedder
from .open_clip.registry import release_models
from .protocol import Embedder
from .table import EmbeddingTable

__all__ = [
    "BaseEmbedder",
    "CLIPEmbedder",
    "Embedder",
    "EmbeddingTable",
    "release_models",
]
