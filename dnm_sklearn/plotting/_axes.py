"""What all displays share: colours, axes, and text that is shown as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnm_sklearn._utils.safe_text import visible

# The two kinds of images and the threshold between them; they stay apart for colour-blind readers.
ID_COLOUR, OOD_COLOUR, THRESHOLD_COLOUR = "#0b5fa5", "#c1440e", "#111111"
# What is neither, or beside the point.
QUIET_COLOUR = "#8a93a3"

# Of a text that is drawn as it is: a "$" in the name of a file starts no formula.
PLAIN = {"parse_math": False}


def get_axes(ax: Any = None) -> Any:
    """Give the axes that the user named, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def draw_legend(ax: Any, **options: Any) -> Any:
    """Draw the legend, with its texts as they are."""
    legend = ax.legend(**options)
    for text in legend.get_texts():
        text.set(**PLAIN)
    return legend


def shown(text: Any) -> str:
    """Give a text of the user's as it can be drawn, without characters that steer a terminal."""
    return visible(str(text))


def check_scores(scores: Any, what: str) -> np.ndarray:
    """Read scores (n,), of which the finite ones can be drawn; there must be one."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise ValueError(f"{what} must be one score per image, shape (n,), got {scores.shape}.")
    if not np.isfinite(scores).any():
        raise ValueError(
            f"{what} holds no finite score to draw (n={len(scores)}): were the images unreadable?"
        )
    return scores
