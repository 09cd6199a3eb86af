"""What a corpus is made of, checked; and its text file."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
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


def folded(word: str) -> str:
    """Name as it is compared when case is ignored."""
    return unicodedata.normalize("NFC", word.strip()).casefold()


def checked_column(parameter: str, values: Any, n: int, *, default: str) -> np.ndarray:
    """Spread one value over n names, or check that there is one a name."""
    if values is None:
        values = default
    if isinstance(values, str):
        return np.full(n, str(values))
    column = list(values)
    if len(column) != n:
        raise ValueError(
            f"{parameter} has {len(column)} entries for {n} names; give one a name, or one for all."
        )
    column = [default if value is None else value for value in column]
    for i, value in enumerate(column):
        if not isinstance(value, str):
            raise TypeError(
                f"{parameter}[{i}] is {value!r} of type {type(value).__name__}; it must be a str."
            )
    return np.array(column, dtype=np.str_)


def read_rows(path: Path) -> list[tuple[str, str, str]]:
    """Rows (name, part of speech, lexicographer file) of a corpus file."""
    rows: list[tuple[str, str, str]] = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", _read_text(path)), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, pos, lex, *more = [cell.strip() for cell in line.split("\t")] + [""] * 2
        if not word or pos not in ("", *PARTS_OF_SPEECH) or any(more):
            raise ValueError(
                f"{path}, line {number}: a line is a name and, parted by tabs, its part of speech "
                f"{PARTS_OF_SPEECH} and lexicographer file; got {line!r}."
            )
        word = word[1:] if word.startswith(("\\#", "\\\\")) else word
        rows.append((word, pos or "noun", lex))
    if not rows:
        raise ValueError(
            f"{path} holds no names; write one a line (lines that start with '#' are comments)."
        )
    return rows


def format_rows(rows: Iterable[tuple[str, str, str]]) -> str:
    """Text of a corpus file; the columns after the name only where they say something."""
    lines = []
    for word, pos, lex in rows:
        if any(mark in cell for cell in (word, lex) for mark in "\t\n\r"):
            raise ValueError(
                f"{word!r} holds a tab or a line break and cannot be written one name a line."
            )
        cells = ["\\" + word if word.startswith(("#", "\\#", "\\\\")) else word]
        if lex:
            cells += [pos, lex]
        elif pos != "noun":
            cells += [pos]
        lines.append("\t".join(cells) + "\n")
    return "".join(lines)


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not text in UTF-8 ({error.reason} at byte {error.start}); save "
            "the file as UTF-8."
        ) from error
