"""The HTML report: one page that holds everything and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dnm_sklearn.bench.html import figures, summary, table
from dnm_sklearn.bench.html.gallery import Gallery
from dnm_sklearn.bench.html.images import SIDE
from dnm_sklearn.bench.html.plots import style_of
from dnm_sklearn.bench.html.rendering import render
from dnm_sklearn.bench.results.rows import MEANINGS
from dnm_sklearn.bench.results.run_groups import RunGroup


@dataclass(frozen=True)
class LegendEntry:
    """A method with the line that stands for it in the plots."""

    label: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Part:
    """A part of a section in the contents: its heading, its anchor, and what it shows."""

    title: str
    anchor: str
    holds: str


_PARTS = (
    Part("Results", "results", "rows"),
    Part("Methods in the plots", "legend", "legend"),
    Part("ROC curves", "roc", "rocs"),
    Part("FPR95 against cost", "cost", "costs"),
    Part("Sensitivity", "sensitivity", "sensitivity"),
    Part("Score histograms", "histograms", "histograms"),
    Part("Most confident errors", "errors", "galleries"),
)


def make_page(
    groups: Sequence[RunGroup],
    galleries: Sequence[Sequence[Gallery]],
    *,
    title: str = "OOD detection",
) -> str:
    """Make the page of some run groups, each with its galleries."""
    # The template sees finished tables and plots, and only lays them out.
    sections = [_section(*pair) for pair in zip(groups, galleries, strict=True)]

    return render(
        "page.html.j2",
        "report.js",
        title=title,
        sections=sections,
        meanings=MEANINGS,
        ranks=figures.rank_figures(groups),
        side=SIDE,
    )


def _section(group: RunGroup, galleries: Sequence[Gallery]) -> dict[str, Any]:
    """Collect what the template shows of one run group."""
    # Tables, legend and plots all have the best row first.
    group = summary.best_first(group)
    rows, first = group.rows, group.records[0]
    histograms = []
    for row in rows:
        plots = figures.histogram_figures(group, row)
        if plots:
            histograms.append((row.label, plots))

    section = {
        "title": group.title,
        "facts": summary.facts(group),
        "sentences": summary.sentences(group),
        "note": first.suite.get("note"),
        "rows": rows,
        "kinds": list(dict.fromkeys(row.kind for row in rows)),
        "columns": table.result_columns(group),
        "paper_tables": table.paper_tables(group),
        "legend": _legend(group),
        "rocs": figures.roc_figures(group),
        "costs": figures.cost_figures(group),
        "sensitivity": figures.sensitivity_figures(group),
        "histograms": histograms,
        "galleries": galleries,
    }
    # Contents: the parts that this section has.
    section["parts"] = [part for part in _PARTS if section[part.holds]]
    return section


def _legend(group: RunGroup) -> list[LegendEntry]:
    """List the methods that have lines, each with its style in all plots."""
    entries = []
    for number, row in enumerate(group.rows):
        if not row.error:
            colour, dashes = style_of(number)
            entries.append(LegendEntry(row.label, colour, " ".join(map(str, dashes))))
    return entries
