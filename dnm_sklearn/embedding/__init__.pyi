from .check import check_embedder, encoder_identity
from .clip import CLIPEmbedder
from .inputs import input_kind
from .open_clip.registry import release_models
from .store import RowStore
from .table import EmbeddingTable

__all__ = [
    "CLIPEmbedder",
    "EmbeddingTable",
    "RowStore",
    "check_embedder",
    "encoder_identity",
    "input_kind",
    "release_models",
]
