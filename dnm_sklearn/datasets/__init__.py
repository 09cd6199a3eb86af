"""Benchmark data: suites of images or precomputed embeddings, image folders, the shipped pictures.

Importing this package is cheap: each name is imported at first access.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
