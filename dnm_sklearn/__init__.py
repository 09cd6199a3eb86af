"""Zero-shot out-of-distribution detection with pre-trained vision-language models.

Give class *names*; a detector flags the images that those names do not cover.
Importing this package is cheap: torch, open_clip and PyOD are imported at first use.
"""

import lazy_loader

__version__ = "0.1.0"

# The public names stand in __init__.pyi, which editors and type checkers read too. Each is imported
# at first access.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
