"""ENL's stream: label weights that shift towards labels which surely-OOD images activate.

The expectation stays as fitted. A *static* rule, which no test image can move, admits images as
OOD; the weights follow the mean probability of each label, ``r_j / E_j`` normalised over j, over
the images admitted last. So a stream of ID images changes nothing (but for the images wrongly
admitted), in any order, and no threshold is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, Device
from dnm_sklearn.scoring.enl import expectation_score
from dnm_sklearn.streams import _exponentials
from dnm_sklearn.streams._exponentials import Exponentials
from dnm_sklearn.streams._merging import distinct_rows, held, merged_sum

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "ExpectationStream"]

# The ring of admitted images, the sums of their label probabilities, images admitted and seen.
STATE_NAMES = ("admitted_", "probability_sums_", "n_admitted_", "n_seen_")

# Images whose exponentials are held at once where the sums are taken anew.
_ANEW_ROWS = 256


class ExpectationStream:
    """ENL's label embeddings on a device, and the state of one stream.

    Parameters
    ----------
    class_embeddings : ndarray of shape (K, D)
        Rows of the classes (text, or text plus prototypes).
    corpus_embeddings : ndarray of shape (N, D)
        Unit text embeddings of the corpus labels.
    log_expectation, log_weights : ndarray of shape (N,)
        log E and the static log weights.
    temperature : float
        T.
    admit : callable
        From unit rows (b, D) and their static scores (b,), higher = more ID, to the mask (b,) of
        admitted images. It must not change.
    floor : float
        Part of each weight that does not follow the stream.
    shrinkage : float
        Admitted images at which the weights are halfway between static and followed.
    margin : callable
        From unit rows (b, D) to what is added to their scores (b,), whatever the label weights. It
        must not change.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.
    """

    def __init__(
        self,
        class_embeddings: np.ndarray,
        corpus_embeddings: np.ndarray,
        *,
        log_expectation: np.ndarray,
        log_weights: np.ndarray,
        temperature: float,
        admit: Callable[[np.ndarray, np.ndarray], np.ndarray],
        floor: float,
        shrinkage: float,
        margin: Callable[[np.ndarray], np.ndarray],
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
        # Of the batch, and of images admitted before.
        corpus = chunks.matrix(corpus_embeddings)
        self._activations, self._earlier = (
            Exponentials(chunks, corpus),
            Exponentials(chunks, corpus),
        )

        self._log_expectation, self._log_weights = log_expectation, log_weights
        self._offset = chunks.tensor(log_weights - log_expectation)
        self._temperature = temperature
        self._admit, self._floor, self._shrinkage = admit, floor, shrinkage
        self._margin = margin

    def start(self, window: int) -> None:
        """Begin with nothing admitted; the weights remember `window` admitted images."""
        n_labels, width = self._corpus_embeddings.shape
        self._admitted = self._chunks.tensor(np.zeros((window, width)))
        self._sums = self._chunks.tensor(np.zeros(n_labels), double=True)
        self._n_admitted = self._n_seen = 0

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned; arrays are copied."""
        self._admitted = self._chunks.tensor(state["admitted_"])
        self._sums = self._chunks.tensor(state["probability_sums_"], double=True)
        self._n_admitted, self._n_seen = state["n_admitted_"], state["n_seen_"]

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Go on from the images that several states have admitted, each image once.

        Where they are more than the window holds, a choice of them that depends on their content
        alone. Up to rounding and that choice, the weights are those of one stream that admitted
        the same images.
        """
        window = len(states[0]["admitted_"])
        parts = [held(state["admitted_"], state["n_admitted_"]) for state in states]
        rows = distinct_rows(parts, window)

        admitted = np.zeros_like(states[0]["admitted_"])
        admitted[: len(rows)] = rows
        self._admitted = self._chunks.tensor(admitted)
        with self._chunks:
            self._sums = self._probability_sums(self._admitted[: len(rows)])
        self._n_admitted = len(rows)
        self._n_seen = merged_sum("n_seen_", states, start)

    def state(self) -> dict[str, Any]:
        """Return the state by ``STATE_NAMES``; its arrays may share memory with the stream."""
        arrays = (self._admitted.cpu().numpy(), self._sums.cpu().numpy())
        return dict(zip(STATE_NAMES, (*arrays, self._n_admitted, self._n_seen), strict=True))

    def log_weights(self) -> np.ndarray:
        """Present log weights (N,): static ones times ``1 - c + c (floor + (1 - floor) N h)``.

        h is a label's mean probability over the m admitted images, and c = m / (m + shrinkage). The
        factor has mean 1.
        """
        with self._chunks:
            factor = self._factor()
        if factor is None:
            return self._log_weights
        with np.errstate(divide="ignore"):
            return self._log_weights + np.log(factor.cpu().numpy())

    def _factor(self) -> torch.Tensor | None:
        """By what the static weights are multiplied, (N,); None while nothing has been admitted."""
        held = min(self._n_admitted, len(self._admitted))
        if not held:
            return None

        confidence = held / (held + self._shrinkage)
        # Rounding may leave a sum of probabilities just below 0.
        sums = self._sums.clamp(min=0)
        followed = self._floor + (1 - self._floor) * len(sums) * sums / sums.sum()
        return 1 + confidence * (followed - 1)

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score with the present weights, learning nothing."""
        scores = expectation_score(
            rows,
            self._class_embeddings,
            self._corpus_embeddings,
            self._log_expectation,
            temperature=self._temperature,
            log_weights=self.log_weights(),
            device=self._chunks.device,
        )
        return scores + self._margin(rows)

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Admit surely-OOD images of a batch, then score the batch."""
        features, added = self._chunks.tensor(batch), self._margin(batch)
        with self._chunks as chunks:
            rows = features / self._temperature
            over_classes = chunks.logsumexp(rows, self._classes).squeeze(1)
            over_corpus = self._activations.fill(rows, self._offset)
            static = self._finish(over_classes, over_corpus) + added

        admitted = np.flatnonzero(self._admit(batch, static))
        self._n_seen += len(batch)

        with self._chunks:
            if len(admitted):
                self._remember(features, admitted, -over_corpus)
            factor = self._factor()
            if factor is None:
                return static
            # The exponentials of the batch are still there: new weights need no new product.
            over_corpus = self._activations.row_sums(factor.to(self._chunks.dtype))
            return self._finish(over_classes, over_corpus) + added

    def _remember(
        self, features: torch.Tensor, admitted: np.ndarray, log_weight: torch.Tensor
    ) -> None:
        """Put admitted rows in the ring and their probabilities in the sums; the oldest leave.

        `log_weight` (b,) is minus the log of each image's sum over the corpus.
        """
        import torch

        window, device = len(self._admitted), features.device
        for start in range(0, len(admitted), window):
            part = torch.from_numpy(admitted[start : start + window]).to(device)
            number = self._n_admitted + torch.arange(len(part), device=device)
            # So many go to places that were never used.
            n_free = max(min(window - self._n_admitted, len(part)), 0)
            wrapped = (self._n_admitted % window) + len(part) >= window

            if n_free < len(part) and not wrapped:
                self._sums -= self._probability_sums(self._admitted[number[n_free:] % window])
            self._admitted[number % window] = features[part]
            self._n_admitted += len(part)

            if wrapped:
                # Once around, the sums are taken anew, so that rounding does not add up.
                self._sums = self._probability_sums(self._admitted)
            else:
                of_part = torch.full_like(log_weight, -torch.inf)
                of_part[part] = log_weight[part]
                self._sums += self._sum_over_images(self._activations, of_part)

    def _probability_sums(self, features: torch.Tensor) -> torch.Tensor:
        """Sum over images of the static label probabilities, from their features; float64 (N,)."""
        total = self._chunks.tensor(np.zeros(len(self._log_weights)), double=True)
        for part in features.split(_ANEW_ROWS):
            log_sum = self._earlier.fill(part / self._temperature, self._offset)
            total += self._sum_over_images(self._earlier, -log_sum)
        return total

    def _sum_over_images(
        self, exponentials: Exponentials, log_weight: torch.Tensor
    ) -> torch.Tensor:
        return exponentials.column_sums(log_weight, [len(log_weight)])[0].double()

    def _finish(self, over_classes: torch.Tensor, over_corpus: torch.Tensor) -> np.ndarray:
        """Scores of :func:`expectation_score` from the two log-sum-exps."""
        return (over_classes - over_corpus).cpu().numpy() + np.log(len(self._log_weights))
