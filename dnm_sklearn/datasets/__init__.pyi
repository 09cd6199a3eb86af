from .benchmark import ImageSet, Suite
from .definitions import benchmark_names, read_definition
from .embed_folders import embed_image_folders
from .folders import list_images
from .load import load_benchmark
from .pictures import extract_pictures, load_pictures
from .suite_reader import load_embedding_suite
from .suite_writer import write_embedding_suite

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
