"""Sphinx configuration; needs only the ``docs`` extra and no network."""

import atexit
import csv
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

HERE = Path(__file__).resolve().parent
# Figures with their spread and their neighbours: "99.0 +- 0.1 / 3.8", "0.3 [0.1, 0.5]".
NUMBERS = re.compile(r"[-+\d.,/ ()\[\]±%]*\d[-+\d.,/ ()\[\]±%]*")
sys.path[:0] = [str(HERE.parent), str(HERE)]
# The examples of the gallery run offline, whatever is installed beside them.
os.environ["HF_HUB_OFFLINE"] = "1"
# Text banks are kept for this build only, not in the user's own cache.
_cache = tempfile.mkdtemp(prefix="dnm_sklearn-docs-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["DNM_SKLEARN_CACHE"] = _cache

import dnm_sklearn  # noqa: E402
from dnm_sklearn.detectors import all_detectors  # noqa: E402

project = "dnm_sklearn"
author = "The dnm_sklearn developers"
version = release = dnm_sklearn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "generated/*.csv"]
nitpicky = False
html_math_renderer = "mathml"
# The Markdown files of the repository link to each other by path, which leads nowhere here.
suppress_warnings = ["myst.xref_missing"]

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# "fit()", not "UnknownImageDetector.fit()", which the contents of a page have no room for.
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Every file is run.
    "filename_pattern": "/",
    "within_subsection_order": "gallery_order.FirstStepsFirst",
    "capture_repr": ("_repr_html_",),
    "image_scrapers": ("matplotlib",),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
}
html_theme = "pydata_sphinx_theme"
html_title = "dnm_sklearn"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "cite": []}
copyright = f"The dnm_sklearn developers. Version {release}"
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


def check_pictures(app, exception):
    """Warn of a page of the gallery that shows no picture."""
    if exception is not None:
        return
    pictures = Path(app.outdir) / "_images"
    for example in sorted((HERE.parent / "examples").glob("*.py")):
        if not list(pictures.glob(f"sphx_glr_{example.stem}_0*")):
            logging.getLogger(__name__).warning("%s has made no picture", example.name)


def set_tables(app, doctree):
    """Keep numbers of a cell on one line, and warn of a row whose text went on below it."""
    for table in doctree.findall(nodes.table):
        if any(NUMBERS.fullmatch(cell.astext()) for cell in table.findall(nodes.entry)):
            table["classes"] += ["figures"]
    for row in doctree.findall(nodes.row):
        cells = [entry.astext().strip() for entry in row.findall(nodes.entry)]
        if len(cells) > 2 and cells[0] and not any(cells[1:]):
            logging.getLogger(__name__).warning("torn row of a table: %s", cells[0], location=row)
    for entry in doctree.findall(nodes.entry):
        if NUMBERS.fullmatch(entry.astext()):
            for text in list(entry.findall(nodes.Text)):
                one_line = text.replace("+-", "±").replace(" ", "\N{NO-BREAK SPACE}")
                text.parent.replace(text, nodes.Text(one_line))


def setup(app):
    """Connect the generator and the checks above."""
    app.connect("builder-inited", write_detector_table)
    app.connect("doctree-read", set_tables)
    app.connect("build-finished", check_pictures)
