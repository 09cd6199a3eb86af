"""One way to warn: at the line of the user's code that led here."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from dnm_sklearn._utils.safe_text import visible

# Packages whose frames stand between the user's line and the place that warns; ``threading`` and
# ``concurrent`` run workers, ``contextlib`` and ``functools`` wrap functions.
_PACKAGES = ("dnm_sklearn", "sklearn", "imblearn", "pyod", "torch", "joblib")
_SKIPPED = {*_PACKAGES, "threading", "concurrent", "contextlib", "functools"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is neither of this package nor of those that call it.

    A number of levels would have to differ with the method called, and with the pipeline, the
    search or the decorator of scikit-learn around it. (``skip_file_prefixes`` of ``warnings.warn``
    needs Python 3.12.)
    """
    caller = sys._getframe(1)
    frame = _users_frame(caller) or caller
    warnings.warn_explicit(
        # It may quote names of files and classes.
        visible(message),
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _users_frame(frame: FrameType | None) -> FrameType | None:
    """First frame from `frame` outwards that is the user's; a worker may have none."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _SKIPPED:
        frame = frame.f_back
    return frame
