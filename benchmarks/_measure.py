"""Side-by-side timing, peak memory in a child process, and growth exponents, for this folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PAUSE = 0.3


def interleaved(
    functions: dict[str, Callable[[], object]],
    repeats: int = 9,
    *,
    cpu_time: bool = False,
    warm: bool = False,
) -> dict[str, float]:
    """Median seconds of each function: warmed up, then run in turn `repeats` times.

    `warm` runs each once more, untimed, right before it is timed: what a batch costs in a stream of
    batches.

    `cpu_time` counts the seconds this process computed instead of those that passed: on a machine
    that others use too, with one thread, ratios stay right. Each call follows a pause: OpenBLAS's
    threads spin for some 100 ms after a product and would take a core from the next arm.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            time.sleep(_PAUSE)
            if warm:
                function()
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_ratios(seconds: dict[str, float], memory: dict[str, float] | None = None) -> None:
    """Print the time of each arm, and its ratio to the fastest bare product of numpy and of torch.

    The products are the arms whose names begin with "product, numpy" and "product, torch".
    """
    bare = {}
    for library in ("numpy", "torch"):
        times = [value for name, value in seconds.items() if name.startswith(f"product, {library}")]
        if times:
            bare[library] = min(times)

    for name, value in seconds.items():
        line = f"{name:34s} {1e3 * value:10.2f} ms"
        for library, product in bare.items():
            line += f"  {value / product:5.2f}x {library}'s product"
        if memory and name in memory:
            line += f"  {memory[name]:6.0f} MB"
        print(line)


def add_timing_options(parser: argparse.ArgumentParser, repeats: int = 7) -> None:
    """Add the options that all benchmarks share."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds on one thread: for a machine that is busy",
    )
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)


def set_threads(args: argparse.Namespace) -> None:
    """Give torch the wanted number of threads, and numpy's product too where it can be told."""
    import torch

    n_threads = 1 if args.cpu_time else args.threads
    torch.set_num_threads(n_threads)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(n_threads)


def peak_extra_mb(module: str, **parameters: object) -> Any:
    """MB by which `python -m module --peak JSON` says its work, or each step, raised its peak.

    Call it before this process grows: a child's peak starts at its parent's size.
    """
    command = [sys.executable, "-m", module, "--peak", json.dumps(parameters)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(done.stdout)


def reset_peak() -> None:
    """Forget this process's peak so far, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log size: 1 = linear."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def unit_rows(n: int, width: int, seed: int):
    """Random float32 unit rows, made without temporaries of their size."""
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = np.empty((n, width), dtype=np.float32)
    for start in range(0, n, 1024):
        part = rng.standard_normal((min(1024, n - start), width), dtype=np.float32)
        rows[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def machine(device: str = "cpu") -> str:
    """Describe what the numbers were measured on."""
    import numpy as np
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0].split(":")[1].strip() if models else name
    if device != "cpu":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = f"torch {torch.__version__}, numpy {np.__version__}"
    return f"{name}, {torch.get_num_threads()} threads, {versions}{load}"
