"""Every command in the documentation parses with the real command line, and names what exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dnm_sklearn.bench.cli.choice import parse_overrides
from dnm_sklearn.bench.cli.main import main
from dnm_sklearn.bench.run import registry
from dnm_sklearn.bench.run.specs import detector_of_spec
from dnm_sklearn.datasets import benchmark_names, read_definition

ROOT = Path(__file__).parents[2]
OWN_SUITES = {"my-suite", "imagenet1k-csp.toml"}  # made by a command above them, on the same page


def console_lines(file):
    """Commands of the page's console blocks, continued lines joined."""
    text = file.read_text(encoding="utf-8")
    blocks = re.findall(
        r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", text, flags=re.MULTILINE
    )
    joined = re.sub(r"\\\n\s*", " ", "\n".join(blocks))
    return [line.strip() for line in joined.splitlines() if line.strip()]


COMMANDS = [
    pytest.param(line, id=f"{file.stem}-{number}")
    for file in sorted([*(ROOT / "docs").glob("*.rst"), *(ROOT / "docs" / "guide").glob("*.rst")])
    for number, line in enumerate(console_lines(file))
    if line.startswith("dnm-bench")
]


def parsed(line, folder):
    """The click context of a command line, options checked and nothing run; paths that must exist
    are made.
    """
    words = shlex.split(line, comments=True)[1:]
    context, command = click.Context(main, info_name="dnm-bench"), main
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, parent=context, info_name=name)
    for option in command.params:
        if isinstance(option.type, click.Path) and option.type.exists:
            for word in words:
                if not word.startswith("-"):
                    (folder / word).mkdir(parents=True, exist_ok=True)
    return command.make_context(context.info_name, words, parent=context.parent)


def test_the_pages_hold_commands():
    assert len(COMMANDS) > 20
    assert sum("reproduction" in str(command.id) for command in COMMANDS) > 8


@pytest.mark.parametrize("line", COMMANDS)
def test_command_parses_and_names_what_exists(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = parsed(line, tmp_path)
    given = context.params
    if context.command.name != "run":
        return
    assert given["suite_name"] in {*registry.suites(), *benchmark_names(), *OWN_SUITES}
    detectors = registry.detectors()
    for name in given["detector_names"]:
        assert detector_of_spec(name)
    for name, values in parse_overrides(given["params"], detectors.values()).items():
        made = detectors[name].load()()
        assert set(values) <= set(made.get_params())
        made.set_params(**values)
    if given["model"] is not None:
        import open_clip

        assert tuple(given["model"].split("/")) in open_clip.list_pretrained()


def test_a_wrong_command_would_be_told(tmp_path):
    with pytest.raises(click.UsageError, match="No such option"):
        parsed("dnm-bench run --sutie pictures", tmp_path)
    with pytest.raises(click.UsageError, match="No such command"):
        parsed("dnm-bench rnu", tmp_path)


def test_the_definition_for_csp_is_made_as_the_page_says(tmp_path):
    lines = console_lines(ROOT / "docs" / "reproduction.rst")
    find = next(line for line in lines if line.startswith("python -c"))
    edit = next(line for line in lines if line.startswith("sed "))
    words = [sys.executable, *shlex.split(find)[1:]]
    path = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()
    subprocess.run(
        edit.replace("THE_PATH_PRINTED", shlex.quote(path)), shell=True, check=True, cwd=tmp_path
    )
    made, shipped = (
        read_definition(tmp_path / "imagenet1k-csp.toml"),
        read_definition("imagenet1k-four-ood"),
    )
    assert (made.name, made.corpus) == ("imagenet1k-csp", "wordnet-csp")
    assert made.sets == shipped.sets


def test_the_page_names_models_that_open_clip_has():
    import open_clip

    page = (ROOT / "docs" / "reproduction.rst").read_text(encoding="utf-8")
    named = set(re.findall(r"``([\w-]+/[\w-]+)``", page)) - {"results/records"}
    assert len(named) >= 5
    assert {tuple(name.split("/")) for name in named} <= set(open_clip.list_pretrained())
