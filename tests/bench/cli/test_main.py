"""The command itself: quick help, and completion in a shell."""

import os
import subprocess
import sys


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
