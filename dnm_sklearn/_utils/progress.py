"""One progress bar for all long work."""

from __future__ import annotations

from typing import Any

__all__ = ["progress"]


def progress(total: int, verbose: bool, what: str) -> Any:
    """Make a bar (a context manager) that shows only on a terminal and only if the work is long."""
    from tqdm import tqdm

    # tqdm's disable=None means: disabled where the output is no terminal.
    return tqdm(total=total, desc=what, disable=None if verbose else True, delay=1.0, leave=False)
