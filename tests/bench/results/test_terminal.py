"""Tables on a terminal."""

import io

import pytest
from bench_suite import records_of
from rich.console import Console

from dnm_sklearn.bench.results.terminal import print_results
from dnm_sklearn.bench.run.registry import detectors, resolve


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_part_of_a_cut_table_names_its_rows(embedded, width):
    methods = [resolve(name, detectors()) for name in ("NegLabel", "AdaNeg")]
    records = records_of(embedded, methods)
    terminal = Console(width=width, record=True, file=io.StringIO())
    print_results(records, terminal)
    text = terminal.export_text()
    n_parts = text.count("Detector")
    assert n_parts > 1
    assert sum(line.split()[:1] == ["NegLabel"] for line in text.splitlines()) == n_parts
    assert "…" not in text
