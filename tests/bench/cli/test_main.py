"""The command itself: quick help, and completion in a shell."""

import os
import subprocess
import sys

from PIL import Image


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
    assert "..." not in said.stdout


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
