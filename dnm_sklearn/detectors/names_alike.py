"""Notice class names that are two as strings and one to the model."""

from __future__ import annotations

import html
import unicodedata
from collections import defaultdict

import numpy as np

from dnm_sklearn._utils.warnings import warn

# Quotes that tokenizers write straight.
_STRAIGHT = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f", "''''\"\"\"\"")
# Of one text in two batches; other texts differ in the second or third digit.
_EQUAL = 1 - 1e-5


def warn_of_one_name(names: np.ndarray, embeddings: np.ndarray) -> None:
    """Warn if the tokenizer reads several class names (K,) alike; their unit rows are (K, D)."""
    alike = defaultdict(list)
    for i, name in enumerate(names.tolist()):
        alike[_plain(name)].append(i)

    pairs = []
    for first, *others in alike.values():
        # A tokenizer that minds the case reads two names.
        pairs += [(first, i) for i in others if embeddings[first] @ embeddings[i] > _EQUAL]
    if pairs:
        first, second = pairs[0]
        warn(
            f"The class names {names[first]!r} and {names[second]!r} are one name to the model "
            f"({len(pairs)} such pairs): each takes half of what the class would get. Give one of "
            "them, or names that say what tells them apart."
        )


def _plain(name: str) -> str:
    """A name without what tokenizers take away: case, form of characters, blanks, curly quotes."""
    text = unicodedata.normalize("NFKC", html.unescape(name)).translate(_STRAIGHT)
    return " ".join(text.casefold().split())
