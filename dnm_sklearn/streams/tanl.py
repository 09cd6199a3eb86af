"""TANL's stream: which corpus labels test images activate, learned batch by batch.

An *activation row* of a unit vector x is ``p_j(x) = exp(h_j) / (sum of exp(h) over class names and
corpus labels)`` for every corpus label j. The stream needs means of the last L rows of two queues.
Rows are not kept: at 70,000 labels they would take 170 MB. A queue keeps its *features* in a ring,
and sums of activation rows over runs of 8 consecutive rows. The mean is a sum over runs, so nothing
drifts; the one run that loses some of its rows is summed anew from its features, which ride along
in the product of the rows that come in.

Scoring needs products with the selected labels alone; only the rows that a queue takes meet the
whole corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, Device
from dnm_sklearn.scoring.tanl import (
    _ranked_log_odds,
    _score_positions,
    activation_log_odds,
    otsu_threshold,
)
from dnm_sklearn.streams import _exponentials
from dnm_sklearn.streams._exponentials import Exponentials
from dnm_sklearn.streams._merging import distinct_rows, held, merged_sum
from dnm_sklearn.streams.base import check_ring

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "ActivationStream"]

# Rows of a run. Shorter runs take more memory, longer ones more work where one loses rows.
_RUN = 8
# Rows queued at once at the start, as many as in a usual batch.
_START_ROWS = 256

_QUEUE_NAMES = (
    ("id_queue_", "id_activation_sums_", "id_queued_"),
    ("ood_queue_", "ood_activation_sums_", "ood_queued_"),
)
# What a stream has learned: for each queue the ring of features (L, D), the sums of runs (R, N) and
# the number of rows ever queued; the ring of scores, how many were ever scored, the last Otsu
# threshold, the images seen.
STATE_NAMES = (
    *_QUEUE_NAMES[0],
    *_QUEUE_NAMES[1],
    "score_queue_",
    "n_scored_",
    "otsu_threshold_",
    "n_seen_",
)


class ActivationStream:
    """TANL's label embeddings on a device, and the state of one stream.

    Parameters
    ----------
    class_embeddings : ndarray of shape (C, D)
        Unit text embeddings of the classes.
    corpus_embeddings : ndarray of shape (N, D)
        Unit text embeddings of the candidate negative labels.
    temperature : float
        Divides the cosines.
    n_activated : int
        M, labels selected, at most N.
    step, gap, alpha : int, float, float
        k, g and the weight of the queue mean; see :class:`~dnm_sklearn.detectors.TANLDetector`.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.
    """

    def __init__(
        self,
        class_embeddings: np.ndarray,
        corpus_embeddings: np.ndarray,
        *,
        temperature: float,
        n_activated: int,
        step: int,
        gap: float,
        alpha: float,
        device: Device = "auto",
    ) -> None:
        self._chunks = chunks = Chunks(
            device,
            class_embeddings,
            corpus_embeddings,
            float64_numbers=_exponentials.FLOAT64_NUMBERS,
        )
        self._class_embeddings, self._corpus_embeddings = class_embeddings, corpus_embeddings
        self._classes = chunks.matrix(class_embeddings)
        self._corpus = chunks.matrix(corpus_embeddings)
        self._activations = Exponentials(chunks, self._corpus)

        self._temperature, self._scale = temperature, 1 / temperature
        self._n_activated = n_activated
        self._step = step
        self._gap = gap
        self._alpha = alpha
        self._positions = _score_positions(n_activated, step, chunks.device)
        # Which images of the last batch were confident ID, bool (b,).
        self.confident_id: np.ndarray | None = None

    # -- state ------------------------------------------------------------------------------------

    def start(
        self, id_rows: np.ndarray, ood_rows: np.ndarray, queue_length: int, score_queue_length: int
    ) -> None:
        """Begin with ID texts and sure OOD rows, which fill their queues and the queue of scores.

        Of the unit rows (n, D) of each the last `queue_length` are queued.
        """
        check_ring("queue_length", queue_length, id_rows.shape[1])
        check_ring("score_queue_length", score_queue_length, 1)
        order = self._fill_queues(id_rows[-queue_length:], ood_rows[-queue_length:], queue_length)
        log_odds = self._static_log_odds(np.concatenate([id_rows, ood_rows]), order)
        scores = self._chunks.tensor(log_odds, double=True).sigmoid_()
        self._fill_scores(scores, score_queue_length)
        self._n_seen = 0

    def _fill_queues(
        self, id_rows: np.ndarray, ood_rows: np.ndarray, queue_length: int
    ) -> np.ndarray:
        """Make the two queues of these rows; return the labels that they activate."""
        n_labels, width = self._corpus.shape
        # The rows of a full ring touch one run more than they fill.
        n_runs = (queue_length + _RUN - 2) // _RUN + 1
        kept = [self._chunks.tensor(rows) for rows in (id_rows, ood_rows)]

        with self._chunks as chunks:
            self._queues = []
            for _ in kept:
                features, sums = self._zeros(queue_length, width), self._zeros(n_runs, n_labels)
                self._queues.append(_Queue(features, sums, 0))

            for start in range(0, max(map(len, kept)), _START_ROWS):
                parts = [rows[start : start + _START_ROWS] for rows in kept]
                log_sums = [chunks.logsumexp(rows, self._classes, self._scale) for rows in parts]
                self._take_in(parts, log_sums)
            order = self._top(*self._means())
        return order.cpu().numpy()

    def _fill_scores(self, scores: torch.Tensor, length: int) -> None:
        """Make the queue of scores of these, and the threshold."""
        with self._chunks:
            self._scores = self._zeros(length, double=True)
            self._n_scored = 0
            self._push_scores(scores)
            self._otsu = otsu_threshold(self._known_scores())

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Go on from the queues of several states, each image and score once.

        Where they are more than a queue holds, a choice of them that depends on their content
        alone. "The last L rows" has no meaning for streams that ran side by side.
        """
        queues = []
        for ring, _, count in _QUEUE_NAMES:
            length = len(states[0][ring])
            parts = [held(state[ring], state[count]) for state in states]
            queues.append(distinct_rows(parts, length))
        id_rows, ood_rows = queues
        self._fill_queues(id_rows, ood_rows, length)

        # Scores are rows of one number.
        length = len(states[0]["score_queue_"])
        parts = [held(state["score_queue_"], state["n_scored_"])[:, None] for state in states]
        scores = distinct_rows(parts, length)[:, 0]
        self._fill_scores(self._chunks.tensor(scores, double=True), length)
        self._n_seen = merged_sum("n_seen_", states, start)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; its arrays are copied."""
        tensor = self._chunks.tensor
        self._queues = []
        for ring, sums, count in _QUEUE_NAMES:
            self._queues.append(_Queue(tensor(state[ring]), tensor(state[sums]), state[count]))
        self._scores = tensor(state["score_queue_"], double=True)
        self._n_scored = state["n_scored_"]
        self._otsu = tensor(state["otsu_threshold_"], double=True)
        self._n_seen = state["n_seen_"]

    def state(self) -> dict[str, Any]:
        """Return the state by `STATE_NAMES`; its arrays may share memory with the stream."""
        state: dict[str, Any] = {}
        for queue, (ring, sums, count) in zip(self._queues, _QUEUE_NAMES, strict=True):
            state[ring] = queue.features.cpu().numpy()
            state[sums] = queue.sums.cpu().numpy()
            state[count] = queue.count
        state["score_queue_"] = self._scores.cpu().numpy()
        state["n_scored_"] = self._n_scored
        state["otsu_threshold_"] = float(self._otsu)
        state["n_seen_"] = self._n_seen
        return state

    # -- scores -----------------------------------------------------------------------------------

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Return log-odds (n,) of unit rows by the labels activated now, learning nothing."""
        return self._static_log_odds(rows, self.activated()[0])

    def activated(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the selected labels (M,), most activated first, and their activation (M,).

        The activation is the mean probability over the OOD queue minus that over the ID queue.
        """
        with self._chunks:
            id_mean, ood_mean = self._means()
            order = self._top(id_mean, ood_mean)
            activation = (ood_mean - id_mean)[order].double()
            return order.cpu().numpy(), activation.cpu().numpy()

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score one batch and learn from it; takes about ``4 * b * N`` bytes."""
        import torch

        with self._chunks as chunks:
            features = chunks.tensor(batch)
            log_sums = chunks.logsumexp(features, self._classes, self._scale)

            # First scores, with the labels that the queues activate, move the threshold.
            means = self._means()
            first = self._ranked(features, log_sums, self._top(*means)).sigmoid_()
            self._push_scores(first)
            self._otsu = threshold = otsu_threshold(self._known_scores())

            # Images far enough from the threshold (a part g of the way to 1 or 0) are queued.
            confident = (
                first > threshold + self._gap * (1 - threshold),
                first < threshold - self._gap * threshold,
            )
            self.confident_id = confident[0].cpu().numpy()
            chosen = [torch.nonzero(mask).squeeze(1) for mask in confident]
            totals = self._take_in(
                [features[index] for index in chosen], [log_sums[index] for index in chosen]
            )

            # Second scores, with labels that the confident images of this batch have moved too.
            for side, index in enumerate(chosen):
                if len(index):
                    of_batch = totals[side] / len(index)
                    means[side] = self._alpha * means[side] + (1 - self._alpha) * of_batch
            second = self._ranked(features, log_sums, self._top(*means))

        self._n_seen += len(batch)
        return second.cpu().numpy()

    # -- parts of a batch -------------------------------------------------------------------------

    def _ranked(
        self, features: torch.Tensor, log_sums: torch.Tensor, order: torch.Tensor
    ) -> torch.Tensor:
        """Log-odds of images with the corpus labels `order`."""
        ranked = self._chunks.take(self._corpus, order)
        return _ranked_log_odds(
            self._chunks, features, self._scale, log_sums, ranked, self._positions
        )

    def _means(self) -> list[torch.Tensor]:
        """Mean activation rows of the two queues."""
        return [queue.mean() for queue in self._queues]

    def _take_in(self, new: list[torch.Tensor], log_sums: list[torch.Tensor]) -> list[torch.Tensor]:
        """Queue features (n, D), a tensor per queue; return sums of their activation rows (N,).

        `log_sums` (n, 1) are their log-sum-exps over the class names. The oldest run of a queue,
        where it loses rows by that, is summed anew.
        """
        import torch

        stale, sizes = [], []
        for queue, features in zip(self._queues, new, strict=True):
            stale.append(queue.rows_to_sum_anew(features))
            sizes.append(_run_sizes(len(features), queue.count % _RUN))
        for features in stale:
            sizes.append(_run_sizes(len(features), 0))

        # One product with the corpus for all of them.
        rows = torch.cat([*new, *stale]) * self._scale
        stale_sums = self._chunks.logsumexp(torch.cat(stale), self._classes, self._scale)
        over_classes = torch.cat([*log_sums, stale_sums]).squeeze(1)
        over_corpus = self._activations.fill(rows)
        log_weight = -torch.logaddexp(over_classes, over_corpus)
        runs = self._activations.column_sums(log_weight, np.concatenate(sizes))
        new_runs = runs.split([len(part) for part in sizes])

        totals = []
        for side, queue in enumerate(self._queues):
            anew = new_runs[2 + side]
            if len(new[side]):
                queue.push(new[side], new_runs[side])
            if len(anew):
                queue.replace_oldest(anew[0])
            totals.append(new_runs[side].sum(dim=0))
        return totals

    def _top(self, id_mean: torch.Tensor, ood_mean: torch.Tensor) -> torch.Tensor:
        """Return the M labels with the largest activation, descending; ties keep corpus order."""
        import torch

        activation = ood_mean - id_mean
        # topk keeps any of equal labels: it finds the smallest value, a stable sort the order.
        smallest = activation.topk(self._n_activated, sorted=False).values.min()
        candidates = torch.nonzero(activation >= smallest).squeeze(1)
        order = torch.sort(activation[candidates], descending=True, stable=True).indices
        return candidates[order[: self._n_activated]]

    def _static_log_odds(self, rows: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Log-odds of rows with the corpus labels `order`, nothing learned."""
        return activation_log_odds(
            rows,
            self._class_embeddings,
            self._corpus_embeddings[order],
            temperature=self._temperature,
            step=self._step,
            device=self._chunks.device,
        )

    def _push_scores(self, scores: torch.Tensor) -> None:
        """Put scores in their ring, the last ones where there are too many."""
        import torch

        length = len(self._scores)
        kept = scores[-length:]
        self._n_scored += len(scores)
        numbers = torch.arange(self._n_scored - len(kept), self._n_scored, device=scores.device)
        self._scores[numbers % length] = kept

    def _known_scores(self) -> torch.Tensor:
        return self._scores[: min(self._n_scored, len(self._scores))]

    def _zeros(self, *shape: int, double: bool = False) -> torch.Tensor:
        import torch

        dtype = torch.float64 if double else self._chunks.dtype
        return torch.zeros(shape, dtype=dtype, device=self._chunks.device)


def _run_sizes(n_rows: int, offset: int) -> np.ndarray:
    """Rows of each run when `n_rows` go on from a run that holds `offset` rows."""
    if not n_rows:
        return np.empty(0, dtype=int)
    ends = [*range(_RUN - offset, n_rows, _RUN), n_rows]
    return np.diff([0, *ends])


class _Queue:
    """The last L rows: a ring of features, and a ring of sums of their activation rows over runs.

    Row i ever queued has the ring place ``i mod L`` and belongs to run ``i // _RUN``, whose sum has
    the place ``i // _RUN mod R``. Sums of runs that hold no row any more are zero.
    """

    def __init__(self, features: torch.Tensor, sums: torch.Tensor, count: int) -> None:
        self.features = features
        self.sums = sums
        self.count = count

    @property
    def _oldest(self) -> int:
        """Number of the oldest row that is still in the queue."""
        return max(self.count - len(self.features), 0)

    def mean(self) -> torch.Tensor:
        """Mean activation row (N,)."""
        return self.sums.sum(dim=0) / (self.count - self._oldest)

    def rows_to_sum_anew(self, new: torch.Tensor) -> torch.Tensor:
        """Features of the run that is oldest once `new` rows are in, if it lost rows by then."""
        import torch

        count = self.count + len(new)
        oldest = max(count - len(self.features), 0)
        # Nothing was lost, or the run begins with the oldest row.
        if oldest == self._oldest or oldest % _RUN == 0:
            return new[:0]

        # What is left of the run lies in the ring, in the new rows, or in both.
        stop = min(oldest + _RUN - oldest % _RUN, count)
        held = self.features[self._places(oldest, min(stop, self.count))]
        return torch.cat([held, new[max(oldest - self.count, 0) : max(stop - self.count, 0)]])

    def replace_oldest(self, total: torch.Tensor) -> None:
        """Set the sum of the oldest run."""
        self.sums[self._oldest // _RUN % len(self.sums)] = total

    def push(self, features: torch.Tensor, sums: torch.Tensor) -> None:
        """Append rows and their sums over runs; the first run goes on with the one left open."""
        first_run, was_open = self.count // _RUN, self.count % _RUN > 0
        oldest_run = self._oldest // _RUN

        self.count += len(features)
        kept = features[-len(self.features) :]
        self.features[self._places(self.count - len(kept), self.count)] = kept

        # Runs that have lost all their rows, of those that were there before.
        first_live = self._oldest // _RUN
        last_old = first_run if was_open else first_run - 1
        self.sums[self._runs(oldest_run, min(first_live, last_old + 1))] = 0

        # Of the new runs, those that were not pushed out by the rows after them.
        live = self._runs(max(first_run, first_live), first_run + len(sums))
        new = sums[max(first_live - first_run, 0) :]
        if was_open and first_live <= first_run:
            new = new.clone()
            new[0] += self.sums[live[0]]
        self.sums[live] = new

    def _places(self, start: int, stop: int) -> torch.Tensor:
        """Ring places of rows start..stop-1."""
        import torch

        return torch.arange(start, max(start, stop), device=self.features.device) % len(
            self.features
        )

    def _runs(self, start: int, stop: int) -> torch.Tensor:
        """Ring places of the sums of runs start..stop-1."""
        import torch

        return torch.arange(start, max(start, stop), device=self.sums.device) % len(self.sums)
