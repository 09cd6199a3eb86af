"""The HTML report: one page that holds everything and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dnm_sklearn import __version__
from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.bench.html import figures, table
from dnm_sklearn.bench.html.gallery import SIDE, Gallery
from dnm_sklearn.bench.html.plots import style_of
from dnm_sklearn.bench.results.run_groups import RunGroup


@dataclass(frozen=True)
class LegendEntry:
    """A method with the line that stands for it in the plots."""

    label: str
    colour: str
    dashes: str


def make_page(
    groups: Sequence[RunGroup],
    galleries: Sequence[Gallery | None],
    *,
    title: str = "OOD detection",
) -> str:
    """Make the page of some run groups, each with its gallery or None."""
    environment = Environment(
        loader=PackageLoader("dnm_sklearn.bench.html", ""),
        # Every text of a record is escaped where it enters the page; a forgotten name is an error.
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    # The template sees finished tables and plots, and only lays them out.
    sections = [_section(*pair) for pair in zip(groups, galleries, strict=True)]

    style, script = _own_file("report.css"), _own_file("report.js")
    return environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        sections=sections,
        ranks=figures.rank_figures(groups),
        side=SIDE,
        style=style,
        script=script,
        policy=_policy(style, script),
    )


def _section(group: RunGroup, gallery: Gallery | None) -> dict[str, Any]:
    """Collect what the template shows of one run group."""
    rows, first = group.rows, group.records[0]
    histograms = []
    for row in rows:
        plots = figures.histogram_figures(group, row)
        if plots:
            histograms.append((row.label, plots))

    return {
        "title": group.title,
        "model": first.model.get("name") or first.model["fingerprint"],
        "corpus": first.corpus,
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
        "gallery": gallery,
    }


def _legend(group: RunGroup) -> list[LegendEntry]:
    """List the methods that have lines, each with its style in all plots."""
    entries = []
    for number, row in enumerate(group.rows):
        if not row.error:
            colour, dashes = style_of(number)
            entries.append(LegendEntry(row.label, colour, " ".join(map(str, dashes))))
    return entries


def _finalize(value: Any) -> Any:
    """Clean a value that enters the template of what HTML may not hold; plots stay as they are."""
    return value if isinstance(value, Markup) else visible(value)


def _policy(style: str, script: str) -> Markup:
    """Say what the page may use: its style sheet and script by their digests, and its images."""
    digests = []
    for text in (style, script):
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        digests.append(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")
    # Neither a form nor a base address of a text that slipped in could lead anywhere.
    return Markup(
        f"default-src 'none'; img-src data:; style-src {digests[0]}; script-src {digests[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


def _own_file(name: str) -> Markup:
    """Read a file of this package, which needs no escaping."""
    return Markup((resources.files("dnm_sklearn.bench.html") / name).read_text(encoding="utf-8"))
