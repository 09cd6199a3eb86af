from .clip import CLIPEmbedder
from .open_clip.registry import release_models
from .protocol import Embedder
from .store import RowStore
from .table import EmbeddingTable

__all__ = [
    "CLIPEmbedder",
    "Embedder",
    "EmbeddingTable",
    "RowStore",
    "release_models",
]
