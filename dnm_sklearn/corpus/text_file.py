r"""The text file of a corpus: one name per line, with more columns where they say something.

After the name may follow, separated by tabs, the part of speech and the lexicographer file. Lines
that start with ``#`` are comments; a name that starts with ``#`` is written ``\#``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dnm_sklearn._utils.untrusted_files import read_text, split_lines
from dnm_sklearn.corpus.columns import PARTS_OF_SPEECH
from dnm_sklearn.exceptions import FileContentError

Row = tuple[str, str, str]  # name, part of speech, lexicographer file


def read_rows(path: Path) -> list[Row]:
    """Rows of a corpus file; errors name the line."""
    rows = []
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            rows.append(_read_row(line, f"{path}, line {number}"))

    if not rows:
        raise FileContentError(
            f"{path} holds no names; write one per line (lines that start with '#' are comments)."
        )

    return rows


def format_rows(rows: Iterable[Row]) -> str:
    """Text of a corpus file that `read_rows` reads back."""
    lines = []
    for name, pos, lexname in rows:
        if any(mark in cell for cell in (name, lexname) for mark in "\t\n\r"):
            raise ValueError(
                f"{name!r} holds a tab or a line break and cannot be written one name per line."
            )
        # Escape what would be read as a comment, and what would be read as such an escape.
        cells = ["\\" + name if name.startswith(("#", "\\#", "\\\\")) else name]
        if lexname:
            cells += [pos, lexname]
        elif pos != "noun":
            cells.append(pos)
        lines.append("\t".join(cells) + "\n")

    return "".join(lines)


def _read_row(line: str, place: str) -> Row:
    """The columns of one line; `place` names it in errors."""
    cells = [cell.strip() for cell in line.split("\t")]
    name, pos, lexname, *more = [*cells, "", ""]  # columns that are not written are empty
    if not name or pos not in ("", *PARTS_OF_SPEECH) or any(more):
        raise FileContentError(
            f"{place}: a line is a name and, separated by tabs, its part of speech "
            f"{PARTS_OF_SPEECH} and lexicographer file; got {line!r}."
        )

    if name.startswith(("\\#", "\\\\")):
        name = name[1:]

    return name, pos or "noun", lexname
