"""Every Python block of every page of the documentation runs, offline; a fake encoder stands for
downloaded weights.
"""

import doctest
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dnm_sklearn
from dnm_sklearn import EmbeddingTable, MCMDetector
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.testing import FakeEmbedder

DOCS = Path(__file__).resolve().parents[2] / "docs"
# What is written by hand; the build makes pages of its own beside them.
FILES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("guide/*.rst")])
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
# Also those inside of another directive, a column of a grid for example.
BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1   .*\n|\n)+)", flags=re.MULTILINE)
BLOCKS = {
    f"{page}:{text[: found.start()].count(chr(10)) + 1}": textwrap.dedent(found[3])
    for page, text in PAGES.items()
    for found in BLOCK.finditer(text + "\n")
    if found[2] == "python"
}

# The pages without their code blocks: an example in a block belongs to the file that it shows.
PROSE = {page: BLOCK.sub("\n", text + "\n") for page, text in PAGES.items()}


@pytest.fixture
def weights(monkeypatch):
    """A fake encoder in the place of every model that would be downloaded."""

    def embedder(model="downloaded", **options):
        shipped = model == "pictoclip"
        return CLIPEmbedder(model, **options) if shipped else FakeEmbedder(**options)

    # Where blocks take it from, and where a detector makes one of a model's name.
    for module in ("dnm_sklearn", "dnm_sklearn.embedding.clip", "dnm_sklearn.embedding.check"):
        monkeypatch.setattr(f"{module}.CLIPEmbedder", embedder)


@pytest.fixture
def names(offline_folder):
    """What blocks take for given: images beside the reader, and data of the reader's own."""
    rng = np.random.default_rng(0)
    paths = [Path(name) for name in ("a.jpg", "b.jpg", *(f"photos/{i}.jpg" for i in range(8)))]
    Path("photos").mkdir(exist_ok=True)
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    table = EmbeddingTable(["cat", "dog"], np.eye(2))
    return {
        **{
            "names": ["cat", "dog"],
            "images": paths,
            "MyDetector": lambda: MCMDetector(["cat", "dog"]),
        },
        **{
            "detector": MCMDetector(["cat", "dog"], embedder=table),
            "grid": {"temperature": [0.1, 1.0]},
        },
        **{
            "X": rng.standard_normal((40, 2)),
            "y": np.repeat([0, 1], 20),
            "sources": np.repeat(list("iiab"), 10),
        },
    }


def test_blocks_are_found():
    written = sum(text.count(".. code-block:: python") for text in PAGES.values())
    assert len(BLOCKS) == written > 5


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.filterwarnings("ignore")
def test_block_runs(block, names, request):
    if "MyDetector" not in BLOCKS[block]:  # its checks pickle the embedder's class
        request.getfixturevalue("weights")
    exec(compile(BLOCKS[block], block, "exec"), names)


@pytest.mark.parametrize("page", [page for page, text in PROSE.items() if ">>>" in text])
def test_doctests_of_a_page_run(page, names):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    examples = doctest.DocTestParser().get_doctest(PROSE[page], {}, page, str(DOCS / page), 0)
    result = doctest.DocTestRunner(optionflags=flags).run(examples)
    assert result.attempted
    assert not result.failed


def test_names_of_the_library_on_the_pages_exist():
    """``:class:`` and ``:func:`` roles lead somewhere."""
    wrong = []
    for page, text in PAGES.items():
        for target in re.findall(r":(?:class|func|mod|meth):`~?(dnm_sklearn[\w.]*)`", text):
            value = dnm_sklearn
            for part in target.split(".")[1:]:
                value = getattr(value, part, None) or __import__(
                    f"{value.__name__}.{part}", fromlist=[part]
                )
            if value is None:
                wrong.append(f"{page}: {target}")
    assert wrong == []
