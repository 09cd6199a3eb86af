"""What a stream is: the arrays of a method on a device, and its state, numpy in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Stream(Protocol):
    """A method that learns from the test images it scores; **higher scores = more ID**.

    The state is a dict of numpy arrays and numbers, its keys the module's ``STATE_NAMES``. Each
    stream also has a method ``start``, which makes the first state.
    """

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose arrays are copied."""

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what several states have learned; their order plays no part."""

    def state(self) -> dict[str, Any]:
        """Return the state; its arrays may share memory with the stream."""

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score unit rows (b, D), at least one, and learn from them; float64 of shape (b,)."""

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D) with what was learned so far, learning nothing; float64 (n,)."""
