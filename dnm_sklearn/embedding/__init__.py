"""Images and names to unit vectors: encoders, tables of text vectors, the cache.

Importing this package is cheap: torch and open_clip are imported when a model is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
