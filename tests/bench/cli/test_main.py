"""The command itself: quick help, and completion in a shell."""

import os
import subprocess
import sys

import click
import numpy as np
from bench_suite import invoke
from PIL import Image

from dnm_sklearn.bench.cli.common import UserPath
from dnm_sklearn.bench.cli.main import main


def test_help_is_cheap():
    code = (
        "import sys\nfrom dnm_sklearn.bench.cli.main import main\nfor a in ['--help'], ['run', "
        "'--help'], ['list', 'suites'], ['embed', '--help'], ['score', '--help']:\n    try: "
        "main(a)\n    except SystemExit as e: assert not e.code\nheavy = ('torch', 'open_clip', "
        "'pyod', 'scipy.stats', 'matplotlib', 'sklearn')\nprint([m for m in heavy if m in "
        "sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_help_of_the_commands_is_not_cut():
    code = "from dnm_sklearn.bench.cli.main import main; main(['--help'])"
    env = {**os.environ, "COLUMNS": "80"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert said.returncode == 0
    commands = said.stdout.partition("Commands:")[2]
    assert "score" in commands
    assert "..." not in commands


def test_shell_completion():
    import subprocess

    code = "from dnm_sklearn.bench.cli.main import main; main(prog_name='dnm-bench')"
    env = {
        **os.environ,
        "_DNM_BENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "dnm-bench ta",
        "COMP_CWORD": "1",
    }
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert out.stdout.split() == ["plain,table"]


def commands(group, context):
    """All commands, those in groups of commands too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, context)
        else:
            yield command


def test_every_path_may_begin_with_a_tilde():
    types = []
    for command in commands(main, click.Context(main)):
        types += [param.type for param in command.params if isinstance(param.type, click.Path)]
    assert len(types) > 20
    assert {type(found) for found in types} == {UserPath}


def test_a_tilde_that_the_shell_left(folder, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (home / "tiny").symlink_to(folder)
    np.save(home / "rows.npy", np.eye(3, dtype=np.float32))
    np.savez(home / "texts.npz", name=np.array(["cat", "dog"]), embedding=np.eye(2, 3))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)

    run = invoke("run", "--suite", "~/tiny", "-d", "MCM", "--no-baselines", "--output=~/run")
    assert run.exit_code == 0, run.output
    table = invoke("table", "~/run", "-f", "csv", "--output=~/table.csv")
    assert table.exit_code == 0, table.output
    assert "MCM" in (home / "table.csv").read_text(encoding="utf-8")
    given = ["-n", "cat", "-n", "dog", "-d", "MaxLogit", "--texts=~/texts.npz"]
    score = invoke("score", "~/rows.npy", *given, "-o", "~/scores.csv")
    assert score.exit_code == 0, score.output
    assert len((home / "scores.csv").read_text(encoding="utf-8").splitlines()) == 4
    assert not list(here.iterdir())


def test_warnings_are_told_without_a_line_of_click(tmp_path):
    """The user's line is the command."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "fine.png")
    code = "from dnm_sklearn.bench.cli.main import main; main()"
    options = ["-n", "cat", "-n", "dog", "-d", "MCM", "--model", "pictoclip", "-o", "scores.csv"]
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(tmp_path), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "\nWarning: 1 of 2 images could not be read" in "\n" + done.stderr
    assert "callback" not in done.stderr
