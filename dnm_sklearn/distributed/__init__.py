"""Image collections of any size, on Ray Data; needs ``pip install "dnm_sklearn[ray]"``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
