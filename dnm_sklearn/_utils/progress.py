"""One progress bar for all long work."""

from __future__ import annotations

import sys
import warnings
from typing import Any

_LONGEST_TITLE = 30


def progress(total: int, verbose: bool, what: str) -> Any:
    """Make a bar (a context manager) that shows only if the work is long.

    On a terminal and in a notebook, whose output is no terminal; never in a log file.
    """
    with warnings.catch_warnings():
        # Without ipywidgets a notebook gets the bar of a terminal, and a warning each time.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    # Of a line that is too long the end is cut: the numbers come before a title that explains.
    wide = "{percentage:3.0f}%|{bar:10}| {elapsed}<{remaining} {desc}"
    in_notebook = _in_notebook()
    layout = wide if len(what) > _LONGEST_TITLE and not in_notebook else None

    # tqdm's disable=None means: disabled where the output is no terminal.
    shown = False if in_notebook else None
    return tqdm(
        total=total,
        desc=what,
        disable=shown if verbose else True,
        delay=1.0,
        leave=False,
        bar_format=layout,
    )


def _in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
