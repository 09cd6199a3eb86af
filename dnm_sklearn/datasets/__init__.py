"""Benchmark data: what a suite is, suites of ready-made embeddings, image folders, the shipped glyphs.

Importing this package is cheap; the names below are resolved at first access (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnm_sklearn.datasets.embedding_suite import load_embedding_suite
    from dnm_sklearn.datasets.folders import embed_image_folders, list_class_folders, list_images
    from dnm_sklearn.datasets.glyphs import extract_glyphs, glyph_corpus, load_glyphs
    from dnm_sklearn.datasets.suite import ImageSet, Suite
    from dnm_sklearn.datasets.suite_writer import write_embedding_suite

_EXPORTS = {
    "ImageSet": "suite",
    "Suite": "suite",
    "embed_image_folders": "folders",
    "extract_glyphs": "glyphs",
    "glyph_corpus": "glyphs",
    "list_class_folders": "folders",
    "list_images": "folders",
    "load_embedding_suite": "embedding_suite",
    "load_glyphs": "glyphs",
    "write_embedding_suite": "suite_writer",
}

__all__ = [
    "ImageSet",
    "Suite",
    "embed_image_folders",
    "extract_glyphs",
    "glyph_corpus",
    "list_class_folders",
    "list_images",
    "load_embedding_suite",
    "load_glyphs",
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
