"""What a stream is: the arrays of a method on a device, and its state, numpy in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

# The state of a base detector's stream, within that of a plug-in's.
BASE_STATE = "base_state_"
# More than any stream of images needs. A state is copied several times.
_LARGEST_RING = 2**31


def check_ring(name: str, length: int, width: int) -> None:
    """Refuse a memory of rows that would take all of the machine's; `name` is the parameter's."""
    size = 8 * length * width
    if size > _LARGEST_RING:
        raise ValueError(
            f"{name}={length} rows of width {width} would take {size / 1e9:.0f} GB; give at most "
            f"{_LARGEST_RING // (8 * width)}."
        )


class Stream(Protocol):
    """A method that learns from the test images it scores; **higher scores = more ID**.

    The state is a dict of numpy arrays and numbers, its keys the module's ``STATE_NAMES``. Each
    stream also has a method ``start``, which makes the first state.
    """

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose arrays are copied."""

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Go on from what several states have learned that all grew from `start`, in any order."""

    def state(self) -> dict[str, Any]:
        """Return the state; its arrays may share memory with the stream."""

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score unit rows (b, D), at least one, and learn from them; float64 of shape (b,)."""

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D) with what was learned so far, learning nothing; float64 (n,)."""


class TransformedStream:
    """A stream whose scores another one reads on another scale."""

    def __init__(self, stream: Any, transform: Callable[[np.ndarray], np.ndarray]) -> None:
        self._stream, self._transform = stream, transform
        self.load, self.state, self.merge = stream.load, stream.state, stream.merge

    @property
    def confident_id(self) -> np.ndarray | None:
        """Images of the last batch that are surely ID; None for a method that does not say so."""
        return getattr(self._stream, "confident_id", None)

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score a batch and learn from it."""
        return self._transform(self._stream.advance(batch))

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score rows, learning nothing."""
        return self._transform(self._stream.frozen(rows))


class StaticStream:
    """A method that learns nothing, as a stream without a state."""

    def __init__(self, score: Callable[[np.ndarray], np.ndarray]) -> None:
        self.frozen = self.advance = score

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, which is empty."""

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Merge states, which are empty."""

    def state(self) -> dict[str, Any]:
        """Return the state, which is empty."""
        return {}
