"""The text bank of a corpus: encoded whole, once, kept, and shared by all lists of class names."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from dnm_sklearn._utils.caching import AUTO, cache_folder, user_memory
from dnm_sklearn.embedding.base import BaseEmbedder


def bank_keeper(embedder: Any, memory: Any) -> BaseEmbedder | None:
    """A copy of a detector's encoder that keeps text banks on disk; None where none are kept.

    With the detector's ``memory="auto"`` an encoder without a folder of its own keeps them in the
    user's, if its fingerprint can be relied on.
    """
    if not isinstance(embedder, BaseEmbedder):
        return None
    folder = embedder.memory
    is_auto = isinstance(memory, str) and memory == AUTO
    if folder is None and is_auto and embedder._has_fixed_weights():
        folder = user_memory()
    if cache_folder(folder) is None:
        return None

    keeper = copy(embedder)
    keeper._bank_memory = folder
    return keeper


def encode_part(
    embedder: BaseEmbedder,
    keeper: BaseEmbedder,
    names: Sequence[str],
    prompt: str | Sequence[str],
    bank: Sequence[str],
    title: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (m, d) and raw norms (m,) of names; `title` is what a bar calls the bank.

    If all are part of the bank, `keeper` encodes it whole: what is kept then does not depend on the
    names that a user has left out. Else `embedder` encodes the names.
    """
    position = {name: i for i, name in enumerate(bank)}
    if not all(name in position for name in names):
        rows, norms = embedder.encode_text(names, prompt, return_norm=True)
        return rows, norms

    keeper._bank_title = title
    rows, norms = keeper.encode_text(bank, prompt, return_norm=True)
    if list(names) == list(bank):
        return rows, norms  # nothing is left out: no copy of what may be 140 MB
    index = np.fromiter((position[name] for name in names), np.intp, len(names))
    return rows[index], norms[index]
