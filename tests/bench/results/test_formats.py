"""Tables as Markdown and LaTeX, and numbers in them."""

import pytest

from dnm_sklearn.bench.results.formats import Table, to_latex, to_markdown
from dnm_sklearn.bench.results.rows import deviation, mean, percent


def test_markdown():
    table = Table("t", ["a", "b"], [["x|y", "1"]], ["a *note*"])
    assert to_markdown(table).splitlines() == [
        "**t**", "", "| a | b |", "|---|--:|", r"| x\|y | 1 |", "", r"a \*note\*",
    ]  # fmt: skip


def test_latex():
    text = to_latex(Table("100 %", ["a", "b"], [["x_1", "50.0 ± 1"]], ["note"]))
    assert r"x\_1 & 50.0 $\pm$ 1 \\" in text
    assert r"\caption{100 \%. note}" in text


def test_mean_and_deviation_of_runs():
    assert (mean([]), deviation([]), deviation([1.0])) == (None, None, None)
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert [percent([0.5]), percent([0.5, 0.6]), percent([])] == ["50.0", "55.0±7.1", "-"]
