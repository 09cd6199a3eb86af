"""What a corpus says of each name: part of speech and lexicographer file."""

from __future__ import annotations

import lzma
import unicodedata
from importlib import resources
from typing import Any

import numpy as np

PARTS_OF_SPEECH = ("noun", "adjective")

_NOUN_TOPICS = (
    "Tops act animal artifact attribute body cognition communication event feeling food group "
    "location motive object person phenomenon plant possession process quantity relation shape "
    "state substance time"
)
# WordNet's lexicographer files in the order of a corpus: nouns first, then adjectives, each by
# WordNet's file number.
LEXICOGRAPHER_FILES = (
    *(f"noun.{topic}" for topic in _NOUN_TOPICS.split()),
    "adj.all",
    "adj.pert",
    "adj.ppl",
)


def folded(name: str) -> str:
    """A name as it is compared when case is ignored."""
    # NFC: the same letter may come as one character or as a letter and an accent.
    return unicodedata.normalize("NFC", name.strip()).casefold()


def shipped_blocks(file: str) -> list[list[str]]:
    """Lines of the blocks of a shipped file, which have a blank line between them."""
    try:
        packed = resources.files(__package__).joinpath("data").joinpath(file).read_bytes()
        text = lzma.decompress(packed).decode("utf-8")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise RuntimeError(
            f"The shipped file {file} cannot be read ({error}); reinstall dnm_sklearn."
        ) from error
    return [block.split("\n") for block in text.strip("\n").split("\n\n")]


def checked_column(parameter: str, values: Any, n: int, *, default: str) -> np.ndarray:
    """Strings of shape (n,): one value for all names, or one per name; None is `default`."""
    if values is None:
        values = default

    if isinstance(values, str):
        return np.full(n, str(values))

    column = [default if value is None else value for value in values]
    if len(column) != n:
        raise ValueError(
            f"{parameter} has {len(column)} entries for {n} names; give one per name, or one for "
            "all."
        )

    for i, value in enumerate(column):
        if not isinstance(value, str):
            raise TypeError(
                f"{parameter}[{i}] is {value!r} of type {type(value).__name__}; it must be a str."
            )

    return np.array(column, dtype=np.str_)
