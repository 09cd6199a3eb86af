"""For testing code that uses dnm_sklearn: an encoder without weights, data, contract checks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
