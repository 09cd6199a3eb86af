"""Words: an immutable :class:`Corpus`, and the WordNet 3.0 list of the negative-label methods.

Importing this package is cheap; the shipped list is read when :func:`load_corpus` is first called.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
