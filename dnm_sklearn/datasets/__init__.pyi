from .benchmark import ImageSet, Suite
from .definitions import benchmark_names, read_definition
from .embeddings_io import load_embedding_suite
from .folders import embed_image_folders, list_class_folders, list_images
from .glyphs import extract_glyphs, glyph_corpus, load_glyphs
from .image_lists import load_image_list, read_image_list
from .load import load_benchmark
from .suite_writer import write_embedding_suite
from .torchvision import known_torchvision_sets, load_torchvision_set

__all__ = [
    "ImageSet",
    "Suite",
    "benchmark_names",
    "embed_image_folders",
    "extract_glyphs",
    "glyph_corpus",
    "known_torchvision_sets",
    "list_class_folders",
    "list_images",
    "load_benchmark",
    "load_embedding_suite",
    "load_glyphs",
    "load_image_list",
    "load_torchvision_set",
    "read_definition",
    "read_image_list",
    "write_embedding_suite",
]
