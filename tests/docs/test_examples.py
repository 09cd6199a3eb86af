"""Each example of the gallery is a page with a picture; the documentation's build runs them."""

import ast
import re
from pathlib import Path

import pytest

from dnm_sklearn import plotting

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples").glob("*.py"))


def displays_drawn(tree):
    """Names of the displays that a script draws."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    drawn = set()
    for call in calls:
        if isinstance(call, ast.Attribute) and call.attr in ("from_estimator", "from_predictions"):
            drawn.add(ast.unparse(call.value))
    return drawn


def test_all_are_there():
    assert len(FILES) >= 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestPage:
    @pytest.fixture
    def text(self, file):
        return file.read_text(encoding="utf-8")

    @pytest.fixture
    def tree(self, text):
        return ast.parse(text)

    def test_title(self, tree):
        """A title, its underline, and a sentence that says what for."""
        title, underline, blank, *rest = ast.get_docstring(tree).splitlines()
        assert underline == "=" * len(title)
        assert blank == ""
        assert rest

    def test_cells_have_headings(self, text):
        headings = re.findall(r"^# %%\n# (.+)\n# (-+)$", text, flags=re.MULTILINE)
        assert len(headings) >= 2
        assert all(len(heading) == len(line) for heading, line in headings)

    def test_picture(self, tree):
        drawn = displays_drawn(tree)
        assert drawn
        assert drawn <= set(plotting.__all__)

    def test_offline(self, text):
        """The model and the pictures are those that ship."""
        assert "load_pictures" in text or "extract_pictures" in text
        code = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        assert "openai" not in code


def test_pages_that_are_pointed_to_exist():
    pages = [*(ROOT / "docs").glob("*.rst"), *(ROOT / "docs/guide").glob("*.rst"), *FILES]
    found = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"sphx_glr_auto_examples_(\w+)\.py", found))
    named |= set(re.findall(r"sphx_glr_(\w+)_0\d\d\.png", found))
    assert named
    assert named <= {file.stem for file in FILES}
