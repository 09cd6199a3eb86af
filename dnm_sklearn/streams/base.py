"""What a test-time method's stream is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

__all__ = ["Stream"]


class Stream(Protocol):
    """A method's label embeddings on a device, and a copy of what it has learned from test images.

    Opened on fitted arrays, given a state, and asked for scores; numpy goes in and out.
    """

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose arrays are copied."""

    def state(self) -> dict[str, Any]:
        """Return the state as numpy arrays and numbers."""

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score unit rows (b, D), higher = more ID, and learn from them."""

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D), higher = more ID, learning nothing."""
