from .benchmark import ImageSet, Suite
from .definitions import benchmark_names, read_definition
from .embeddings_io import load_embedding_suite, write_embedding_suite
from .folders import embed_image_folders, list_images
from .glyphs import extract_glyphs, load_glyphs
from .load import load_benchmark

__all__ = [
    "ImageSet",
    "Suite",
    "benchmark_names",
    "embed_image_folders",
    "extract_glyphs",
    "list_images",
    "load_benchmark",
    "load_embedding_suite",
    "load_glyphs",
    "read_definition",
    "write_embedding_suite",
]
