"""Orders in which a test-time method sees the images of an ID and an OOD set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

Order = Literal["shuffled", "id-first", "ood-first", "rare-ood", "single-kind"]
ORDERS: tuple[Order, ...] = get_args(Order)

# OOD images per ID image in the stream "rare-ood".
_RARE = 0.05

MEANING: dict[str, str] = {
    "shuffled": "ID and OOD images of a set together, in random order",
    "id-first": "all ID images of a set's stream, then its OOD images",
    "ood-first": "all OOD images of a set's stream, then the ID images",
    "rare-ood": "ID and OOD images together, in random order, with OOD images drawn to be 5 % of "
    "the ID images",
    "single-kind": "ID images in a stream of their own, and OOD images in another, from the same "
    "start",
}


def score_stream(
    score: Callable[[np.ndarray], np.ndarray],
    id_rows: np.ndarray,
    ood_rows: np.ndarray,
    order: Order,
    seed: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Score ID and OOD rows as a stream; return their scores in the order of the sets.

    Each call of `score` starts from the same state. `seed` is the run's seed and the number of the
    repeat; within a kind, the rows are always shuffled. OOD rows that were not in the stream
    ("rare-ood") get NaN.
    """
    if order not in ORDERS:
        raise ValueError(f"There is no stream {order!r}; it is one of {', '.join(ORDERS)}.")
    rng = np.random.default_rng(seed)
    n_id, n_ood = len(id_rows), len(ood_rows)

    # Positions in the two sets, one below the other.
    ids = rng.permutation(n_id)
    oods = n_id + rng.permutation(n_ood)
    if order == "rare-ood":
        oods = oods[: max(1, round(_RARE * n_id))]

    if order == "single-kind":
        streams = [ids, oods]
    elif order == "id-first":
        streams = [np.concatenate([ids, oods])]
    elif order == "ood-first":
        streams = [np.concatenate([oods, ids])]
    else:
        streams = [rng.permutation(np.concatenate([ids, oods]))]

    rows = np.concatenate([id_rows, ood_rows])
    scores = np.full(n_id + n_ood, np.nan)
    for stream in streams:
        scores[stream] = score(rows[stream])
    return scores[:n_id], scores[n_id:]
