"""The README says what the package does: its table is the detectors' own records, its code runs
offline.
"""

import re
from pathlib import Path

import pytest

from dnm_sklearn.detectors import all_detectors

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- needs weights -->\n)?```python\n(.*?)```", README, flags=re.DOTALL)
OFFLINE = [code for mark, code in BLOCKS if not mark]
NEED_WEIGHTS = [code for mark, code in BLOCKS if mark]


def detector_row(name, info):
    """What the README's table must say of a detector."""
    paper = f"[{info.title}]({info.url}), {info.venue}" if info.url else "this toolkit's own"
    needs, test_time = ", ".join(info.needs), "yes" if info.test_time else "no"
    return f"| `{name}` | {info.name} | {paper} | {info.year} | {needs} | {test_time} |"


def test_table_of_detectors_is_their_info():
    head = "| Class | Method | Paper | Year | Needs | Test-time |\n|---|---|---|---|---|---|\n"
    table = README.split(head)[1].split("\n\n")[0].splitlines()
    assert table == [detector_row(name, cls.info) for name, cls in all_detectors().items()]


@pytest.mark.parametrize("code", OFFLINE, ids=range(len(OFFLINE)))
@pytest.mark.usefixtures("offline_folder")
def test_python_blocks_run_offline(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("code", NEED_WEIGHTS, ids=range(len(NEED_WEIGHTS)))
def test_blocks_that_need_weights_compile_and_import(code):
    compile(code, "README.md", "exec")
    imports = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
    assert imports
    exec("\n".join(imports), {})


def test_test_command_is_one_line_where_ci_looks_for_it():
    block = README.split("<!-- test command -->")[1].split("<!-- end -->")[0]
    (command,) = [line for line in block.splitlines() if line and not line.startswith("```")]
    assert (
        command == 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" '
        "&& .venv/bin/python -m pytest -n 2"
    )


def test_links_lead_to_files():
    links = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert links
    assert [target for target in links if not (ROOT / target).exists()] == []
