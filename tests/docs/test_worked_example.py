"""docs/architecture.rst says how a detector is added; here that is done, in a copy of the
repository.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.rst").read_text(encoding="utf-8")
COPIED = ("dnm_sklearn", "tests", "docs", "README.md", "setup.cfg", "pyproject.toml")
# What runs over all detectors, of which those of the new one are chosen, and the lists of names.
FILES = (
    "tests/detectors/test_common.py",
    "tests/docs/test_docstrings.py",
    "tests/docs/test_readme.py",
    "tests/test_architecture.py",
    "tests/test_public_names.py",
)
CHOSEN = (
    "Margin or margin or every_public_name or table_of_detectors or no_import or no_circles or stub"
)


def block(kind, holding):
    """The page's code block of one kind that holds a text."""
    blocks = re.findall(
        rf"^\.\. code-block:: {kind}\n\n((?:   .*\n|\n)+)", PAGE, flags=re.MULTILINE
    )
    (found,) = (textwrap.dedent(text) for text in blocks if holding in text)
    return found


def add_lines(root, diff):
    """Put each line with + below the line before it, which stands once in its file."""
    path, above = None, None
    for line in diff.splitlines():
        if line.startswith("--- "):
            path = root / line.removeprefix("--- ")
        elif line.startswith("+"):
            lines = path.read_text(encoding="utf-8").splitlines()
            (place,) = (i for i, old in enumerate(lines) if matches(old, above))
            lines.insert(place + 1, line[1:])
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif line:
            above = line[1:]


def matches(line, shown):
    """Whether a line of a file is the one shown, which may end in dots."""
    return line.startswith(shown[:-3]) if shown.endswith("...") else line == shown


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, root / name, ignore=shutil.ignore_patterns("__pycache__", "_build")
            )
        else:
            shutil.copy(source, root / name)
    code = block("python", "class MarginDetector")
    (root / "dnm_sklearn/detectors/margin.py").write_text(code, encoding="utf-8")
    add_lines(root, block("diff", "MarginDetector"))
    return root


def run(command, repository):
    return subprocess.run(
        [sys.executable, *command],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
    )


def test_the_new_detector_passes_what_all_detectors_do(repository):
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES, "-k", CHOSEN], repository)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    # scikit-learn's checks and the library's own alone are some seventy.
    (n_passed,) = re.findall(r"^(\d+) passed", done.stdout, flags=re.MULTILINE)
    assert int(n_passed) > 60


def test_the_command_lists_it(repository):
    command = "from dnm_sklearn.bench.cli.main import main; main(['list', 'margin'])"
    assert "MarginDetector" in run(["-c", command], repository).stdout
