"""Orders in which a test-time method sees the images of an ID and an OOD set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Order = Literal["shuffled", "id-first", "ood-first", "rare-ood", "single-kind"]
ORDERS: tuple[Order, ...] = get_args(Order)
RARE = 0.05
MEANING: dict[str, str] = {
    "shuffled": "ID and OOD images of a set together, in random order",
    "id-first": "all ID images of a set's stream, then its OOD images",
    "ood-first": "all OOD images of a set's stream, then the ID images",
    "rare-ood": "ID and OOD images together, in random order, with OOD images drawn to be 5 % of the ID images",
    "single-kind": "ID images in a stream of their own, and OOD images in another, from the same start",
}


@dataclass(frozen=True)
class StreamScores:
    """Scores of one order.

    Parameters
    ----------
    id : ndarray of shape (n_id,), float64
        Of the ID rows, in the set's order; higher = more OOD.
    ood : ndarray of shape (n_ood,), float64
        Of the OOD rows, in the set's order; NaN where a row was not in the stream ("rare-ood").
    seen : ndarray of int, optional
        Positions of the OOD rows that were in the stream; None = all.
    """

    id: np.ndarray
    ood: np.ndarray
    seen: np.ndarray | None = None


def score_stream(
    score: Callable[[np.ndarray], np.ndarray],
    id_rows: np.ndarray,
    ood_rows: np.ndarray,
    order: Order,
    seed: tuple[int, int],
) -> StreamScores:
    """Score ID and OOD rows as a stream.

    Parameters
    ----------
    score : callable
        Rows in stream order to OOD scores, each call from the same start.
    id_rows : ndarray of shape (n_id, d)
        ID rows.
    ood_rows : ndarray of shape (n_ood, d)
        OOD rows.
    order : {"shuffled", "id-first", "ood-first", "rare-ood", "single-kind"}
        See :data:`MEANING`. Within a kind the rows are shuffled.
    seed : tuple of int
        Seed of the run, and number of the order.

    Returns
    -------
    StreamScores
        In the order of the sets.

    Raises
    ------
    ValueError
        If the order is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.run.orders import score_stream
    >>> place = lambda rows: np.arange(float(len(rows)))
    >>> scores = score_stream(place, np.zeros((3, 2)), np.ones((2, 2)), "ood-first", (0, 0))
    >>> bool(scores.ood.max() < scores.id.min())
    True
    """
    if order not in ORDERS:
        raise ValueError(f"There is no stream {order!r}; it is one of {', '.join(ORDERS)}.")
    rng = np.random.default_rng(seed)
    n_id, n_ood = len(id_rows), len(ood_rows)
    ids, oods = rng.permutation(n_id), rng.permutation(n_ood)
    if order == "rare-ood":
        oods = oods[: max(1, round(RARE * n_id))]
    if order == "single-kind":
        streams = [ids, n_id + oods]
    elif order == "id-first":
        streams = [np.concatenate([ids, n_id + oods])]
    elif order == "ood-first":
        streams = [np.concatenate([n_id + oods, ids])]
    else:
        streams = [rng.permutation(np.concatenate([ids, n_id + oods]))]
    rows = np.concatenate([id_rows, ood_rows])
    found = np.full(n_id + n_ood, np.nan)
    for stream in streams:
        found[stream] = score(rows[stream])
    return StreamScores(found[:n_id], found[n_id:], np.sort(oods))
