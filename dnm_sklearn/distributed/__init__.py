"""Image collections of any size, on Ray Data; needs ``pip install "dnm_sklearn[ray]"``."""

from importlib.util import find_spec

import lazy_loader

if find_spec("ray") is None or find_spec("pyarrow") is None:
    raise ImportError("dnm_sklearn.distributed needs Ray: pip install 'dnm_sklearn[ray]'.")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
