"""What a run ran on: versions, revision, hardware, memory and threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from joblib import cpu_count
from threadpoolctl import threadpool_limits

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

# Text embeddings of at most so many numbers are scored with one thread: they are many short
# operations, and with several threads each of them ends in a barrier at which the others spin,
# which costs many times the work itself wherever the processors are not all free.
_SMALL_TEXT = 2**23


def environment() -> dict[str, Any]:
    """Describe software and hardware; `memory` is in bytes, `gpu` and `revision` may be None."""
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
        "usable_cpus": cpu_count(),
        "memory": _memory(),
        "gpu": _gpu(),
        "versions": versions,
        "revision": git_revision(),
    }


@cache
def git_revision() -> str | None:
    """Give the git commit of this package, with ``+`` if tracked files were changed.

    None where the package is installed, or git is not.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def reset_peak_memory() -> None:
    """Begin a new measurement of :func:`peak_memory`, as far as the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Measure the most bytes held since :func:`reset_peak_memory` by process and GPU (device).

    Where the system cannot reset its count, the process is measured from its start.
    """
    found = {}
    try:
        status = Path("/proc/self/status").read_text()
        found["process"] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        # Not Linux. Windows has no `resource` either.
        with suppress(ImportError):
            import resource

            unit = 1 if sys.platform == "darwin" else 1024
            found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    if (cuda := _cuda()) is not None:
        found["device"] = int(cuda.max_memory_allocated())
    return found


def limited_threads(n_texts: int, width: int) -> AbstractContextManager[Any]:
    """Score with one thread where there are few texts, else with as many as the libraries take."""
    return threadpool_limits(1) if n_texts * width <= _SMALL_TEXT else nullcontext()


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _cuda() -> Any:
    """Return torch.cuda if torch is in use and there is a GPU; torch is not imported for this."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _gpu() -> str | None:
    cuda = _cuda()
    return None if cuda is None else cuda.get_device_name()


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
