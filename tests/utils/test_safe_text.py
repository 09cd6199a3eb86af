"""Text of others cannot steer a terminal, run in a spreadsheet, or read as something else."""

import csv
import io
import warnings

import numpy as np
import pytest

from dnm_sklearn._utils.safe_text import csv_row, latex_text, markdown_text, one_line, visible
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.bench.cli.common import BadInput
from dnm_sklearn.bench.results.formats import Table, to_latex, to_markdown
from dnm_sklearn.bench.results.terminal import make_tables
from dnm_sklearn.bench.run import job_files

HARMFUL = [*map(chr, range(9)), "\x0b", "\x1b", "\r", "\x7f", "\x85", "\x9b", "\u200e", "\u200f"]
HARMFUL += [
    "\u061c",
    "\u202a",
    "\u202e",
    "\u2066",
    "\u2069",
    "\u2028",
    "\ud800",
    "\udcff",
    "\uffff",
]
EVIL = "\x1b]0;owned\x07\u202egnp.exe"


@pytest.mark.parametrize("write", [visible, one_line, markdown_text, latex_text])
def test_harmful_characters_leave_a_mark(write):
    for char in HARMFUL:
        written = write(f"a{char}b")
        assert char not in written
        assert "\ufffd" in written
        assert written.encode("utf-8")


def test_ordinary_text_stays():
    text = "sea lion\té 中文 😀 \u200d \u05d0 <b>\nline"
    assert visible(text) == text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "|", "\n=", "＝"])
def test_formulas_are_text_in_spreadsheets(start):
    (cell,) = csv_row([f"{start}cmd()"])
    assert cell == f"'{start}cmd()"


def test_numbers_stay_numbers():
    numbers = ["-0.5", "+1", "1e-300", "-1.5e10", "-inf", "nan", -2, -0.5, True, "7"]
    assert csv_row(numbers) == numbers
    assert csv_row([None, "", "cat"]) == ["", "", "cat"]
    assert csv_row(["-1+1", "-a"]) == ["'-1+1", "'-a"]


def test_tables_of_hostile_names():
    table = Table(EVIL, [EVIL, EVIL], [[EVIL, EVIL]], [EVIL])
    for text in (to_markdown(table), to_latex(table)):
        assert "\x1b" not in text
        assert "\u202e" not in text

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    console.print(*make_tables(EVIL, [EVIL], [(EVIL, [EVIL])], 120))
    for char in ("\x1b]", "\x07", "\u202e"):
        assert char not in out.getvalue()


def test_messages_on_the_terminal():
    assert "\x1b" not in BadInput(f"{EVIL} is missing").format_message()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(f"{EVIL} is missing")
    assert "\x1b" not in str(caught[0].message)


def test_scores_of_files_with_hostile_names(tmp_path):
    lines = [["=cmd()|x.png", "-0.5", "False", "@cat", "@cat", "+oak", ""]]
    part, target = tmp_path / "0.csv", tmp_path / "scores.csv"
    job_files.write_chunk(part, lines)
    job_files.write_lines(target, job_files.COLUMNS, job_files.read_chunk(part))
    with open(target, newline="", encoding="utf-8") as file:
        row = list(csv.reader(file))[1]
    assert row == ["'=cmd()|x.png", "-0.5", "False", "'@cat", "'@cat", "'+oak", ""]
    assert np.isfinite(float(row[1]))
