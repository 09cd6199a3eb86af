"""What a run ran on: versions, revision, hardware, memory and threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "torchvision",
    "open_clip_torch",
    "pyod",
    "joblib",
)
SMALL_BANK = 1 << 23


def environment() -> dict[str, Any]:
    """Describe what a run runs on.

    Returns
    -------
    dict
        ``python``, ``platform``, ``machine``, ``cpu``, ``cpus``, ``usable_cpus``, ``memory``
        (bytes), ``gpu``, ``versions`` and ``revision`` (git commit of this package, with ``+`` if
        files were changed; None for an installed package).

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import environment
    >>> "numpy" in environment()["versions"]
    True
    """
    from dnm_sklearn import __version__

    versions = {"dnm_sklearn": __version__}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "usable_cpus": usable_cpus(),
        "memory": _memory(),
        "gpu": _gpu(),
        "versions": versions,
        "revision": git_revision(),
    }


def usable_cpus() -> int:
    """Count the processors that this process may use.

    Returns
    -------
    int

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import usable_cpus
    >>> usable_cpus() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


@cache
def git_revision() -> str | None:
    """Give the git commit that this package is run from.

    Returns
    -------
    str or None
        The commit, with ``+`` if tracked files were changed; None where the package is not in a
        repository of its own.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import git_revision
    >>> git_revision()  # doctest: +SKIP
    '1f0c...'
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *what],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            ).stdout.strip()
            for what in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def reset_peak_memory() -> None:
    """Begin a new measurement of :func:`peak_memory`, as far as the system can.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import reset_peak_memory
    >>> reset_peak_memory()
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Measure the most memory that was held since :func:`reset_peak_memory`.

    Returns
    -------
    dict of str to int
        Bytes: ``process`` (resident; where the system cannot reset it, since the process began),
        and ``device`` if a GPU is there.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import peak_memory
    >>> peak_memory()["process"] > 0
    True
    """
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        found["process"] = (
            int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
        )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["device"] = int(torch.cuda.max_memory_allocated())
    return found


def threads_for(n_words: int, width: int) -> int | None:
    """Choose how many threads the scores of a suite are worth.

    Small text banks are many short operations: with several threads each of them ends in a barrier
    at which the others spin, which costs many times the work itself wherever the processors are not
    all free. (A small model sees to its threads itself.)

    Parameters
    ----------
    n_words : int
        Candidate negative labels and class names.
    width : int
        Width of the embeddings.

    Returns
    -------
    int or None
        1 for small banks; None = leave it to the libraries.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import threads_for
    >>> threads_for(27_000, 128), threads_for(70_000, 512)
    (1, None)
    """
    return 1 if n_words * width <= SMALL_BANK else None


@contextmanager
def limited_threads(n_threads: int | None) -> Iterator[None]:
    """Limit the threads of torch, BLAS and OpenMP, and give them back afterwards.

    Parameters
    ----------
    n_threads : int or None
        None changes nothing.

    Examples
    --------
    >>> from dnm_sklearn.bench.run.machine import limited_threads
    >>> with limited_threads(1):
    ...     pass
    """
    if n_threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    from dnm_sklearn._utils.device import torch_threads

    with torch_threads(n_threads), threadpool_limits(n_threads):
        yield


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()
