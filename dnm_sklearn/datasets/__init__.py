"""Benchmark data: what a suite is, suites of ready-made embeddings, image folders, the shipped glyphs.

Importing this package is cheap; the names below are resolved at first access (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnm_sklearn.datasets.benchmark import ImageSet, Suite
    from dnm_sklearn.datasets.definitions import benchmark_names, read_definition
    from dnm_sklearn.datasets.embeddings_io import load_embedding_suite
    from dnm_sklearn.datasets.folders import embed_image_folders, list_class_folders, list_images
    from dnm_sklearn.datasets.glyphs import extract_glyphs, glyph_corpus, load_glyphs
    from dnm_sklearn.datasets.image_lists import load_image_list, read_image_list
    from dnm_sklearn.datasets.load import load_benchmark
    from dnm_sklearn.datasets.suite_writer import write_embedding_suite
    from dnm_sklearn.datasets.torchvision import known_torchvision_sets, load_torchvision_set

_EXPORTS = {
    "ImageSet": "benchmark",
    "Suite": "benchmark",
    "benchmark_names": "definitions",
    "embed_image_folders": "folders",
    "extract_glyphs": "glyphs",
    "glyph_corpus": "glyphs",
    "list_class_folders": "folders",
    "list_images": "folders",
    "load_benchmark": "load",
    "load_embedding_suite": "embeddings_io",
    "load_glyphs": "glyphs",
    "load_image_list": "image_lists",
    "load_torchvision_set": "torchvision",
    "read_definition": "definitions",
    "read_image_list": "image_lists",
    "known_torchvision_sets": "torchvision",
    "write_embedding_suite": "suite_writer",
}

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


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
