"""Text of others made harmless where people see it: on terminals, in spreadsheets, on pages.

Names of sets, classes, files and errors come from data, and data may come from anybody. All writers
of this package pass such text through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# What stands in the place of each character that is taken out.
_MARK = "\ufffd"

# Control characters but tab and line end (terminals obey the others), both halves of surrogate
# pairs and the non-characters (files may not hold them), and line ends that only some programs see.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"

# Marks that turn the direction of the text behind them, so that it reads as something else; and
# tags, which carry text that nobody sees.
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f"
_HARMFUL = re.compile(f"[{_CONTROLS}{_DIRECTIONS}]")

# How Python reads the bytes 0x80 to 0xff of a file's name that is not in UTF-8.
_UNDECODED = re.compile("[\udc80-\udcff]")

# A spreadsheet runs a cell that starts like this (the full-width forms included) as a formula.
_FORMULA = re.compile("[=+\\-@\t\r\n|\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|nan)")

_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def visible(text: object) -> str:
    r"""Return a text with a mark for each character that a terminal or a page might obey.

    Examples
    --------
    >>> from dnm_sklearn._utils.safe_text import visible
    >>> visible("cat\x1b[2J"), visible("two\nlines")
    ('cat�[2J', 'two\nlines')
    """
    return _HARMFUL.sub(_MARK, str(text))


def file_name_text(name: str) -> str:
    r"""Return a file's name or path as text, with ``\xNN`` for each byte that is no UTF-8.

    Python stands such bytes, of old archives and disks, for halves of characters that no file may
    hold.

    Examples
    --------
    >>> from dnm_sklearn._utils.safe_text import file_name_text
    >>> print(file_name_text("caf\udce9.png"))
    caf\xe9.png
    """
    return _UNDECODED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)


def one_line(text: object) -> str:
    """Return `visible` text with each run of white space as one blank."""
    return " ".join(visible(text).split())


def markdown_text(text: object) -> str:
    r"""Escape what Markdown would read as its own, and put all on one line.

    Examples
    --------
    >>> from dnm_sklearn._utils.safe_text import markdown_text
    >>> print(markdown_text("a_b | <c>"))
    a\_b \| \<c\>
    """
    text = one_line(text)
    # The backslash first: the others are escaped with it. "&" starts a character's name.
    for char in "\\`*_[]<>|&":
        text = text.replace(char, "\\" + char)
    return text


def latex_text(text: object) -> str:
    r"""Escape what LaTeX would read as its own, and put all on one line.

    Examples
    --------
    >>> from dnm_sklearn._utils.safe_text import latex_text
    >>> print(latex_text("95 % of a_b"))
    95 \% of a\_b
    """
    return "".join(_LATEX.get(char, char) for char in one_line(text))


def _csv_cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return value
    text = visible(value)
    # A blank before it does not stop a spreadsheet.
    is_formula = _FORMULA.match(text) or _FORMULA.match(text.lstrip())
    return f"'{text}" if is_formula and not _NUMBER.fullmatch(text) else text


def csv_row(values: Iterable[object]) -> list[object]:
    """Return cells that no spreadsheet runs: text that looks like a formula gets a "'" in front.

    Numbers stay what they are, also those that are written as text.

    Examples
    --------
    >>> from dnm_sklearn._utils.safe_text import csv_row
    >>> csv_row(["=1+1", "-0.5", None, True])
    ["'=1+1", '-0.5', '', True]
    """
    return [_csv_cell(value) for value in values]
