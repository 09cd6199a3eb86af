"""TANL's stream: which corpus labels test images activate, learned batch by batch (torch inside).

An *activation row* of a unit vector x is ``p_j(x) = exp(h_j) / (sum of exp(h) over ID and corpus
labels)`` for every corpus label j. The stream needs means of the last L rows of two queues. Rows
are not kept: at 70,000 labels they would take 170 MB. A queue keeps its *features* in a ring, and
sums of activation rows over runs of 8 consecutive rows. The mean is a sum over runs, so nothing
drifts; the one run that loses some of its rows is summed anew from its features, which ride along
in the product of the rows that come in.

Scoring needs products with the selected labels alone; only the rows that a queue takes meet the
whole corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dnm_sklearn.scoring._exponentials import Exponentials
from dnm_sklearn.scoring._products import Workers
from dnm_sklearn.scoring._tiles import Device, log_masses, resolve_device, take
from dnm_sklearn.scoring.tanl import activation_log_odds, otsu, ranked_products, score_positions

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "ActivationStream"]

_RUN = 8
_START_ROWS = 256
_QUEUE_NAMES = tuple(
    tuple(f"{side}_{part}_" for part in ("queue", "activation_sums", "queued"))
    for side in ("id", "ood")
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
    """Label banks on a device, and the state of one stream.

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
    dtype : {"float32", "float64"}, default="float32"
        Of the product and the activation rows; scores are float64 from the selected logits on.
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
        dtype: Literal["float32", "float64"] = "float32",
        device: Device = "auto",
    ) -> None:
        import torch

        self._device = resolve_device(device)
        self._dtype = torch.float64 if dtype == "float64" else torch.float32
        self._arrays = (class_embeddings, corpus_embeddings)
        self._class_embeddings, self._corpus_embeddings = (
            take(b, slice(None), self._dtype, self._device) for b in self._arrays
        )
        self._temperature, self._scale = temperature, 1 / temperature
        self._n_activated = n_activated
        self._step = step
        self._gap = gap
        self._alpha = alpha
        self._positions = score_positions(n_activated, step, self._device)
        self._activations = Exponentials(self._corpus_embeddings)
        self._selected = self._zeros(n_activated, class_embeddings.shape[1])

    # -- state --------------------------------------------------------------------------------------

    def start(
        self, id_rows: np.ndarray, ood_rows: np.ndarray, queue_length: int, score_queue_length: int
    ) -> None:
        """Begin with ID texts and sure OOD rows: both fill their queues, and the score queue with their scores.

        Parameters
        ----------
        id_rows, ood_rows : ndarray of shape (n, D)
            Unit rows; the last `queue_length` of each are queued.
        queue_length, score_queue_length : int
            Sizes of the queues.
        """
        self._queues = [self._empty_queue(queue_length) for _ in range(2)]
        kept = [self._tensor(rows[-queue_length:]) for rows in (id_rows, ood_rows)]
        with Workers(self._device) as workers:
            for start in range(0, max(map(len, kept)), _START_ROWS):
                parts = [rows[start : start + _START_ROWS] for rows in kept]
                log_id = [
                    log_masses(workers, rows * self._scale, self._class_embeddings.T)
                    for rows in parts
                ]
                self._take_in(workers, parts, log_id)
        order = self._top(*(queue.mean() for queue in self._queues)).cpu().numpy()
        self._scores = self._zeros(score_queue_length, double=True)
        self._n_scored = 0
        log_odds = self._static_log_odds(np.concatenate([id_rows, ood_rows]), order)
        self._push_scores(self._tensor(log_odds, double=True).sigmoid())
        self._otsu = otsu(self._known_scores())
        self._n_seen = 0

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; its arrays are copied."""
        self._queues = [
            _Queue(
                self._tensor(state[ring]).clone(), self._tensor(state[sums]).clone(), state[count]
            )
            for ring, sums, count in _QUEUE_NAMES
        ]
        self._scores = self._tensor(state["score_queue_"], double=True).clone()
        self._n_scored = state["n_scored_"]
        self._otsu = self._tensor(np.array(state["otsu_threshold_"]), double=True)
        self._n_seen = state["n_seen_"]

    def state(self) -> dict[str, Any]:
        """Return the state as numpy arrays and numbers, by `STATE_NAMES`.

        Returns
        -------
        dict
            Its arrays may share memory with the stream: `load` it before going on.
        """
        state: dict[str, Any] = {}
        for queue, names in zip(self._queues, _QUEUE_NAMES, strict=True):
            state.update(
                zip(
                    names,
                    (queue.features.cpu().numpy(), queue.sums.cpu().numpy(), queue.count),
                    strict=True,
                )
            )
        state["score_queue_"] = self._scores.cpu().numpy()
        state["n_scored_"] = self._n_scored
        state["otsu_threshold_"] = float(self._otsu)
        state["n_seen_"] = self._n_seen
        return state

    # -- scores -------------------------------------------------------------------------------------

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score rows with the labels activated at present, learning nothing.

        Parameters
        ----------
        rows : ndarray of shape (n, D)
            Unit rows.

        Returns
        -------
        ndarray of shape (n,), float64
            Log-odds, higher = more ID.
        """
        return self._static_log_odds(rows, self.activated()[0])

    def activated(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the selected labels, most activated first, and their activation.

        Returns
        -------
        index : ndarray of int of shape (M,)
            Rows of the corpus.
        activation : ndarray of shape (M,), float64
            Mean probability over the OOD queue minus that over the ID queue.
        """
        id_mean, ood_mean = (queue.mean() for queue in self._queues)
        order = self._top(id_mean, ood_mean)
        return order.cpu().numpy(), (ood_mean - id_mean)[order].double().cpu().numpy()

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score one batch and learn from it.

        Parameters
        ----------
        batch : ndarray of shape (b, D)
            Unit rows, at least one. Takes about ``4 * b * N`` bytes.

        Returns
        -------
        ndarray of shape (b,), float64
            Log-odds, higher = more ID.
        """
        import torch

        with Workers(self._device) as workers:
            features = self._tensor(batch)
            rows = features * self._scale
            log_id = log_masses(workers, rows, self._class_embeddings.T)
            means = self._means(workers)
            first = self._ranked(workers, rows, log_id, self._top(*means)).sigmoid_()
            self._push_scores(first)
            self._otsu = threshold = otsu(self._known_scores())
            confident = (
                first > threshold + self._gap * (1 - threshold),
                first < threshold - self._gap * threshold,
            )
            chosen = [torch.nonzero(mask).squeeze(1) for mask in confident]
            new = [features[index] for index in chosen]
            sums = self._take_in(workers, new, [log_id[index] for index in chosen])
            for side, (rows_in, total) in enumerate(zip(new, sums, strict=True)):
                if len(rows_in):
                    means[side] = self._alpha * means[side] + (1 - self._alpha) * (
                        total / len(rows_in)
                    )
            second = self._ranked(workers, rows, log_id, self._top(*means))
        self._n_seen += len(batch)
        return second.cpu().numpy()

    # -- parts of a batch -----------------------------------------------------------------------------

    def _ranked(
        self, workers: Workers, rows: torch.Tensor, log_id: torch.Tensor, order: torch.Tensor
    ) -> torch.Tensor:
        import torch

        torch.index_select(self._corpus_embeddings, 0, order, out=self._selected)
        return ranked_products(workers, rows, log_id, self._selected.T, self._positions)

    def _means(self, workers: Workers) -> list[torch.Tensor]:
        """Mean activation rows of the two queues."""
        means: list[Any] = [None, None]

        def work(left: Iterator[int]) -> None:
            for side in left:
                means[side] = self._queues[side].mean()

        workers.share(work, range(2), sum(queue.sums.numel() for queue in self._queues))
        return means

    def _take_in(
        self, workers: Workers, new: list[torch.Tensor], log_id: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Queue features (n, D) and their log ID masses (n,), a tensor for each queue; return the activation sums (N,).

        The queues' oldest runs, where they lose rows by that, are summed anew.
        """
        import torch

        stale = [
            queue.rows_to_sum_anew(rows) for queue, rows in zip(self._queues, new, strict=True)
        ]
        features = torch.cat([*new, *stale])
        stale_log_id = log_masses(workers, torch.cat(stale) * self._scale, self._class_embeddings.T)
        sizes = [
            _run_sizes(len(rows), queue.count % _RUN)
            for queue, rows in zip(self._queues, new, strict=True)
        ]
        sizes += [_run_sizes(len(rows), 0) for rows in stale]
        log_mass = self._activations.fill(workers, features * self._scale)
        log_mass = torch.logaddexp(log_mass, torch.cat([*log_id, stale_log_id]))
        sums = self._activations.column_sums(workers, -log_mass, np.concatenate(sizes))
        sums = sums.split([len(part) for part in sizes])
        totals: list[Any] = [None, None]

        def queue_up(left: Iterator[int]) -> None:
            for side in left:
                queue, rows, new_sums, anew = (
                    self._queues[side],
                    new[side],
                    sums[side],
                    sums[2 + side],
                )
                if len(rows):
                    queue.push(rows, new_sums)
                if len(anew):
                    queue.replace_oldest(anew[0])
                totals[side] = new_sums.sum(dim=0)

        workers.share(queue_up, range(2), sum(part.numel() for part in sums))
        return totals

    def _top(self, id_mean: torch.Tensor, ood_mean: torch.Tensor) -> torch.Tensor:
        """Return the M labels with the largest activation in descending order; ties keep corpus order."""
        import torch

        activation = ood_mean - id_mean
        smallest = activation.topk(self._n_activated, sorted=False).values.min()
        candidates = torch.nonzero(activation >= smallest).squeeze(1)
        order = torch.sort(activation[candidates], descending=True, stable=True).indices
        return candidates[order[: self._n_activated]]

    def _static_log_odds(self, rows: np.ndarray, order: np.ndarray) -> np.ndarray:
        class_embeddings, corpus_embeddings = self._arrays
        return activation_log_odds(
            rows,
            class_embeddings,
            corpus_embeddings[order],
            temperature=self._temperature,
            step=self._step,
            device=self._device,
        )

    def _empty_queue(self, queue_length: int) -> _Queue:
        n_labels, width = self._corpus_embeddings.shape
        n_runs = (queue_length + _RUN - 2) // _RUN + 1
        return _Queue(self._zeros(queue_length, width), self._zeros(n_runs, n_labels), 0)

    def _push_scores(self, scores: torch.Tensor) -> None:
        import torch

        length = len(self._scores)
        kept = scores[-length:]
        self._n_scored += len(scores)
        slots = (
            torch.arange(self._n_scored - len(kept), self._n_scored, device=self._device) % length
        )
        self._scores[slots] = kept

    def _known_scores(self) -> torch.Tensor:
        return self._scores[: min(self._n_scored, len(self._scores))]

    # -- tensors ----------------------------------------------------------------------------------------

    def _tensor(self, array: np.ndarray, *, double: bool = False) -> torch.Tensor:
        import torch

        return torch.as_tensor(array).to(
            device=self._device, dtype=torch.float64 if double else self._dtype
        )

    def _zeros(self, *shape: int, double: bool = False) -> torch.Tensor:
        import torch

        return torch.zeros(
            shape, dtype=torch.float64 if double else self._dtype, device=self._device
        )


def _run_sizes(n_rows: int, offset: int) -> np.ndarray:
    """Rows of each run when `n_rows` go on from a run that holds `offset` rows."""
    return (
        np.diff([0, *range(_RUN - offset, n_rows, _RUN), n_rows])
        if n_rows
        else np.empty(0, dtype=int)
    )


class _Queue:
    """The last L rows: a ring of features, and a ring of sums of their activation rows over runs of `_RUN`.

    Row i ever queued has the ring place ``i mod L`` and belongs to run ``i // _RUN``. Sums of dead
    runs are zero.
    """

    def __init__(self, features: torch.Tensor, sums: torch.Tensor, count: int) -> None:
        self.features = features
        self.sums = sums
        self.count = count

    @property
    def _oldest(self) -> int:
        return max(self.count - len(self.features), 0)

    def mean(self) -> torch.Tensor:
        """Mean activation row (N,)."""
        return self.sums.sum(dim=0) / (self.count - self._oldest)

    def rows_to_sum_anew(self, new: torch.Tensor) -> torch.Tensor:
        """Features of the run that is the oldest once `new` rows are in, if it has lost some of its rows by then."""
        import torch

        count = self.count + len(new)
        oldest = max(count - len(self.features), 0)
        if oldest == self._oldest or oldest % _RUN == 0:
            return new[:0]
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
        first_live = self._oldest // _RUN
        last_old = first_run if was_open else first_run - 1
        dead = self._runs(oldest_run, min(first_live, last_old + 1))
        self.sums[dead] = 0
        live = self._runs(max(first_run, first_live), first_run + len(sums))
        new = sums[max(first_live - first_run, 0) :]
        if was_open and first_live <= first_run:
            new = new.clone()
            new[0] += self.sums[live[0]]
        self.sums[live] = new

    def _places(self, start: int, stop: int) -> torch.Tensor:
        import torch

        return torch.arange(start, max(start, stop), device=self.features.device) % len(
            self.features
        )

    def _runs(self, start: int, stop: int) -> torch.Tensor:
        import torch

        return torch.arange(start, max(start, stop), device=self.sums.device) % len(self.sums)
