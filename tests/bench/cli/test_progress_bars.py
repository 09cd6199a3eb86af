"""dnm-bench shows bars with rates on a terminal, and is silent where there is none."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from bench_suite import suite_folder
from PIL import Image

pytest.importorskip("pty", reason="no pseudo-terminals on this system")

# The work is made slow, so that bars have time to appear on any machine.
SLOW = """
import sys, time
from dnm_sklearn.bench.run import {module}
from dnm_sklearn.bench.cli.main import main
real = {module}.{name}
def slow(*given, **more):
    time.sleep(1.2)
    return real(*given, **more)
{module}.{name} = slow
main(sys.argv[1:])
"""


# Embedding: one image at a time, each of which takes a while.
SLOW_IMAGES = """
import sys, time
from dnm_sklearn.embedding import pipeline
from dnm_sklearn.bench.cli.main import main
real = pipeline.prefetch
def slow(*given, **more):
    for item in real(*given, **more):
        time.sleep(1.2)
        yield item
pipeline.prefetch = slow
main(sys.argv[1:])
"""


RATE = re.compile(r"\d+%\|.*\|\s*\d+/\d+ \[.*(it/s|s/it)\]")


def on_terminal(code, *arguments):
    """Run Python with a pseudo-terminal of 100 columns as input, output and error."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    return process.wait(), said.decode(errors="replace")


def bars(text):
    return [line for line in re.split(r"[\r\n]+", text) if RATE.search(line)]


def photos(folder):
    rng = np.random.default_rng(0)
    for sub in ("id/cat", "id/dog", "far"):
        (folder / sub).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                folder / sub / f"{i}.png"
            )
    (folder / "words.txt").write_text("\n".join(f"word {i}" for i in range(8)))
    return folder


def commands(tmp_path):
    place = photos(tmp_path / "photos")
    suite = suite_folder(tmp_path / "suite")
    runner = SLOW.format(module="runner", name="_run_task")
    scoring = SLOW.format(module="scoring_job", name="_score")
    words = ("--corpus", place / "words.txt")
    score = (
        "score",
        place / "far",
        "-n",
        "cat",
        "-n",
        "dog",
        "-d",
        "MCM",
        "--model",
        "pictoclip",
        "--chunk",
        1,
        "-o",
    )
    embed = ("--id", place / "id", "--far", f"far={place / 'far'}", "--model", "pictoclip", *words)
    return {
        "run": (runner, "run", "--suite", suite, "-d", "MCM", "-d", "Energy", "--no-baselines"),
        "score": (scoring, *score, tmp_path / "scores.csv"),
        "embed": (SLOW_IMAGES, "embed", tmp_path / "made", *embed),
    }


@pytest.mark.parametrize("name", ["run", "score", "embed"])
def test_bars_with_rates_on_a_terminal_only(tmp_path, name):
    code, *arguments = commands(tmp_path)[name]
    status, said = on_terminal(code, *arguments)
    assert status == 0, said
    assert bars(said), said
    more = ("--overwrite",) if name == "embed" else ()
    quiet = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, [*arguments, *more])],
        capture_output=True,
        text=True,
    )
    assert quiet.returncode == 0
    # A line of its own is that no image has set the threshold of `score`.
    lines = [line for line in quiet.stderr.splitlines() if "calibrate(X_id)" not in line]
    assert lines == []
    assert not bars(quiet.stdout)


def test_messages_break_between_words(tmp_path):
    code = "import sys\nfrom dnm_sklearn.bench.cli.main import main\nmain(sys.argv[1:])"
    status, said = on_terminal(code, "cache", "info", tmp_path / "there is none" / ("long" * 20))
    assert status == 2
    lines = said.replace("\r", "").splitlines()
    assert lines[-1].endswith("was given.")
    assert "there is no such folder" in " ".join(lines)
    assert all(len(line) <= 100 or " " not in line for line in lines)
