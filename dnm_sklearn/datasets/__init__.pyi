from .benchmark import ImageSet, Suite
from .definitions import benchmark_names, read_definition
from .embeddings_io import load_embedding_suite, write_embedding_suite
from .folders import embed_image_folders, list_images
from .load import load_benchmark
from .pictures import extract_pictures, load_pictures

__all__ = [
    "ImageSet",
    "Suite",
    "benchmark_names",
    "embed_image_folders",
    "extract_pictures",
    "list_images",
    "load_benchmark",
    "load_embedding_suite",
    "load_pictures",
    "read_definition",
    "write_embedding_suite",
]
