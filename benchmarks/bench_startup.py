"""CPU seconds of ``import dnm_sklearn`` and ``dnm-bench --help`` in fresh processes on a warm disk.

Beside them a bare interpreter and the libraries that the package leaves for later. Run from the
project's root: python -m benchmarks.bench_startup [--repeats 9]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

WAYS = {
    "bare interpreter": "pass",
    "import dnm_sklearn": "import dnm_sklearn",
    "dnm-bench --help": "from dnm_sklearn.bench.cli.main import main; main(['--help'])",
    "from dnm_sklearn import NegLabelDetector": "from dnm_sklearn import NegLabelDetector",
    "import sklearn.pipeline": "import sklearn.pipeline",
    "import pyod.models.base": "import pyod.models.base",
    "import torch": "import torch",
    "import open_clip": "import open_clip",
}
GOALS = {"import dnm_sklearn": 0.3, "dnm-bench --help": 0.6}
HEAVY = ("torch", "open_clip", "pyod", "scipy.stats", "matplotlib")


def child_seconds(code):
    """CPU seconds, user and system, of a fresh interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1]
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def heavy_modules(code):
    """Names of the heavy libraries loaded after `code`."""
    report = (
        "import atexit, sys; "
        f"atexit.register(lambda: print(*(m for m in {HEAVY!r} if m in sys.modules))); "
    )
    done = subprocess.run(
        [sys.executable, "-c", report + code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return done.stdout.splitlines()[-1] or "none"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    seconds = {way: [] for way in WAYS}
    for repeat in range(args.repeats + 1):
        for way, code in WAYS.items():
            value = child_seconds(code)
            if repeat:  # the first round warms the disk
                seconds[way].append(value)
    for way, values in seconds.items():
        goal = f"  (goal <= {GOALS[way]} s)" if way in GOALS else ""
        print(
            f"{way:42s} {statistics.median(values):6.3f} s CPU{goal}  heavy: "
            f"{heavy_modules(WAYS[way])}"
        )


if __name__ == "__main__":
    main()
