"""Sphinx configuration; needs only the ``docs`` extra and no network."""

import csv
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import dnm_sklearn  # noqa: E402
from dnm_sklearn.detectors import all_detectors  # noqa: E402

project = "dnm_sklearn"
author = "The dnm_sklearn developers"
version = release = dnm_sklearn.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "generated/*.csv"]
nitpicky = False

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "dnm_sklearn"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False


def write_detector_table(app):
    """Write what each detector's ``info`` record says, for the table in detectors.rst."""
    folder = HERE / "generated"
    folder.mkdir(exist_ok=True)
    with open(folder / "detectors.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Detector", "Method", "Paper", "Year", "Needs", "Test-time"])
        for name, detector in all_detectors().items():
            info = detector.info
            paper = (
                f"`{info.title} <{info.url}>`__, {info.venue}" if info.url else "this toolkit's own"
            )
            needs, test_time = ", ".join(info.needs), "yes" if info.test_time else "no"
            rows.writerow(
                [f":class:`~dnm_sklearn.{name}`", info.name, paper, info.year, needs, test_time]
            )


def markdown_to_rst(app, relative_path, parent_docname, content):
    """Turn the changelog's Markdown (headings, lists, code spans) into reStructuredText."""
    if Path(relative_path).suffix != ".md":
        return
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", content[0])
    text = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r"`\1 <\2>`__", text)
    for level, mark in ((3, "^"), (2, "-"), (1, "=")):
        heading = re.compile(rf"^#{{{level}}} (.+)$", flags=re.MULTILINE)
        text = heading.sub(lambda found, mark=mark: f"{found[1]}\n{mark * len(found[1])}\n", text)
    content[0] = text


def setup(app):
    """Connect the two small generators above."""
    app.connect("builder-inited", write_detector_table)
    app.connect("include-read", markdown_to_rst)
