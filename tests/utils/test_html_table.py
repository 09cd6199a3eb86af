"""What notebooks show of the library's objects is a table, with all text escaped."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from dnm_sklearn import EmbeddingTable
from dnm_sklearn._utils.html_table import html_table, thumbnails
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import ImageSet, Suite
from dnm_sklearn.plotting import ExplanationDisplay

NAMES = ["<b>cat</b>", "dog & co"]
IMAGES = np.zeros((20, 9, 9, 3), np.uint8)


def read(html):
    """The elements of a table; malformed HTML is an error."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def texts(html, tag):
    return ["".join(element.itertext()) for element in read(html).iter(tag)]


def test_cells_are_escaped_and_numbers_grouped():
    html = html_table("a < b", ("x", "y"), [(1234, "<i>\x1b[2J")])
    assert texts(html, "caption") == ["a < b"]
    first, second = texts(html, "td")
    assert first == "1,234"
    assert second.startswith("<i>")
    assert "\x1b" not in second


def test_thumbnails_are_of_pixels_only():
    assert len(read(thumbnails(IMAGES)).findall("img")) == 8
    assert len(read(thumbnails(IMAGES[:1])).findall("img")) == 1
    assert thumbnails(IMAGES[:0]) == thumbnails(["a.png"]) == thumbnails(np.zeros((3, 4))) == ""


def objects():
    corpus = Corpus([*NAMES, "red"], ["noun", "noun", "adjective"])
    table = EmbeddingTable(NAMES, np.eye(2))
    ood = [ImageSet("<far>", IMAGES, "far")]
    suite = Suite("s", ["a"], ImageSet("id", IMAGES[:3], "id"), ood, table, corpus)
    display = ExplanationDisplay(NAMES, ["id", "negative"], [0.25, 0.75], image=IMAGES[0])
    return [corpus, table, suite, display]


@pytest.mark.parametrize("value", objects(), ids=lambda value: type(value).__name__)
def test_objects_are_whole_tables(value):
    html = value._repr_html_()
    assert len(read(html).findall("table")) == 1
    assert not read(html).findall(".//b")


def test_what_the_tables_say():
    corpus, table, suite, display = objects()
    rows = texts(corpus._repr_html_(), "td")
    assert rows == ["noun", "2", "<b>cat</b>, dog & co", "adjective", "1", "red"]
    assert "100.0" in texts(table._repr_html_(), "td")
    assert texts(suite._repr_html_(), "td")[:3] == ["id", "id", "3"]
    assert len(read(suite._repr_html_()).findall(".//img")) == 3 + 8
    assert texts(display._repr_html_(), "td")[-1] == "75.0%"
    assert len(read(display._repr_html_()).findall(".//img")) == 1
