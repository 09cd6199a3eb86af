"""States of one method that grew apart, put together in a way that their order plays no part in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np


def held(ring: np.ndarray, count: int) -> np.ndarray:
    """Rows of a ring that are in use, of which `count` were ever written."""
    return ring[: min(count, len(ring))]


def distinct_rows(parts: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Rows of all parts, each once; where there are more than `limit`, an arbitrary choice of them.

    The choice is by a digest of the row, so that it depends neither on the order of the parts nor
    on what the row means. What the states had in common from the start counts once.
    """
    rows = np.unique(np.concatenate(parts), axis=0)
    if len(rows) <= limit:
        return rows
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    chosen = sorted(range(len(rows)), key=digests.__getitem__)[:limit]
    return rows[np.sort(chosen)]


def merged_sum(name: str, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> Any:
    """Sum of what each state has added to a sum or a count since all of them started."""
    total = start[name]
    for state in states:
        total = total + (state[name] - start[name])
    return total
