"""OODD's stream: a queue of the most suspicious test images, and how near to them an image is.

The queue holds the images of lowest ID confidence b seen so far. The score of an image is b less
its cosine to the k-th nearest image in the queue. A batch is queued before it is scored, so that
its own rows are among those that it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, Device
from dnm_sklearn.streams._merging import merged_sum
from dnm_sklearn.streams.base import BASE_STATE, Stream

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "SuspiciousImagesStream"]

# What a stream has learned: the queue's images (q, D) in order of arrival and their confidence, the
# sum of all images, the images seen.
STATE_NAMES = ("queue_images_", "queue_confidence_", "image_sum_", "n_seen_")


class SuspiciousImagesStream:
    """OODD's queue on a device, and the base that fills it.

    Parameters
    ----------
    base : Stream
        The base detector's; its scores are ID confidences from 0 to 1.
    width : int
        D.
    queue_length, n_neighbors : int
        Images kept, and k.
    largest_confidence : float
        Only images of lower confidence may be queued; infinity = all, as released.
    exclude_self : bool
        Do not compare an image with itself.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.
    """

    def __init__(
        self,
        base: Stream,
        width: int,
        *,
        queue_length: int,
        n_neighbors: int,
        largest_confidence: float = np.inf,
        exclude_self: bool = False,
        device: Device = "auto",
    ) -> None:
        self._base = base
        self._width = width
        self._length = queue_length
        self._k = n_neighbors
        self._largest_confidence = largest_confidence
        self._exclude_self = exclude_self
        self._device = device

    # -- state ------------------------------------------------------------------------------------

    def start(self, base_state: Any) -> None:
        """Begin with an empty queue, and the base's state."""
        state = {
            "queue_images_": np.zeros((0, self._width), np.float32),
            "queue_confidence_": np.zeros(0),
            "image_sum_": np.zeros(self._width),
            "n_seen_": 0,
        }
        self.load({**state, BASE_STATE: base_state})

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; its arrays are not written to."""
        self._base.load(state[BASE_STATE])
        self._state = {name: state[name] for name in STATE_NAMES}

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Go on from the queues of several states: the images of lowest confidence, each once.

        That is the queue of one stream that met all of their images, in some order, over a base
        that does not learn.
        """
        entries = []
        for state in states:
            entries.append(np.column_stack([state["queue_confidence_"], state["queue_images_"]]))
        # Sorted by confidence, and equal ones by the images' own numbers.
        rows = np.unique(np.concatenate(entries), axis=0)[: self._length]
        sums = {name: merged_sum(name, states, start) for name in ("image_sum_", "n_seen_")}

        self._base.merge([state[BASE_STATE] for state in states], start[BASE_STATE])
        self._state = {
            "queue_images_": rows[:, 1:].astype(np.float32),
            "queue_confidence_": rows[:, 0],
            **sums,
        }

    def state(self) -> dict[str, Any]:
        """Return the state as numpy arrays and numbers, by `STATE_NAMES`, and the base's."""
        return {**self._state, BASE_STATE: self._base.state()}

    # -- scores -----------------------------------------------------------------------------------

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score rows with the queue as it is; float64 (n,), higher = more ID."""
        queued = np.zeros(len(rows), dtype=bool)
        return self._base.frozen(rows) - self.nearness(rows, queued)

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Queue the suspicious images of a batch, then score it; float64 (b,), higher = more ID."""
        confidence = self._base.advance(batch)
        queued = self._queue(batch, confidence)
        self._state["image_sum_"] = self._state["image_sum_"] + batch.sum(axis=0, dtype=float)
        self._state["n_seen_"] += len(batch)
        return confidence - self.nearness(batch, queued & self._exclude_self)

    def nearness(self, rows: np.ndarray, queued: np.ndarray) -> np.ndarray:
        """Cosine (n,) to the k-th nearest image in the queue.

        Rows that are `queued` are not compared with themselves. As long as the queue holds too few
        images, it is the mean cosine between two images of the stream.
        """
        import torch

        queue = self._state["queue_images_"]
        k = self._k + int(self._exclude_self)
        if len(queue) < k:
            return np.full(len(rows), self._mean_cosine())

        def nearest(part: slice, cosines: torch.Tensor) -> torch.Tensor:
            largest = cosines.topk(k, dim=1).values
            own = torch.from_numpy(queued[part]).to(largest.device)
            # The nearest to a queued image is that image itself.
            return torch.where(own, largest[:, -1], largest[:, self._k - 1])

        with Chunks(self._device, queue) as chunks:
            return chunks.products(nearest, rows, chunks.matrix(queue)).cpu().numpy()

    def _mean_cosine(self) -> float:
        """Mean cosine between two different images of the stream, of unit length."""
        n, total = self._state["n_seen_"], self._state["image_sum_"]
        return 0.0 if n < 2 else float((total @ total - n) / (n * (n - 1)))

    def _queue(self, batch: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Keep the images of lowest confidence, of equal ones the earlier; say which are kept."""
        suspicious = np.flatnonzero(confidence < self._largest_confidence)
        n_old = len(self._state["queue_confidence_"])
        confidences = np.concatenate([self._state["queue_confidence_"], confidence[suspicious]])
        kept = np.sort(np.argsort(confidences, kind="stable")[: self._length])

        images = np.concatenate([self._state["queue_images_"], batch[suspicious]])
        self._state["queue_images_"] = images[kept]
        self._state["queue_confidence_"] = confidences[kept]
        queued = np.zeros(len(batch), dtype=bool)
        queued[suspicious[kept[kept >= n_old] - n_old]] = True
        return queued
