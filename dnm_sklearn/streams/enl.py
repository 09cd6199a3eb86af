"""A stream that shifts ENL's label weights towards labels that surely-OOD images activate (torch inside).

The expectation stays as fitted. A *static* rule, which no test image can move, admits images as
OOD; the weights follow the mean share of each label, ``r_j / E_j`` normalised over j, over the
images admitted last. So a stream of ID images changes nothing (but for the images wrongly
admitted), in any order, and no threshold is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._exponentials import Exponentials
from dnm_sklearn.scoring._products import Workers
from dnm_sklearn.scoring._tiles import Device, log_masses, resolve_device, take
from dnm_sklearn.scoring.enl import expectation_score

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "ExpectationStream"]

STATE_NAMES = ("admitted_", "share_sums_", "n_admitted_", "n_seen_")


class ExpectationStream:
    """Label banks on a device, and the state of one stream.

    Parameters
    ----------
    class_embeddings : ndarray of shape (K, D)
        ID rows (text, or text plus prototypes).
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
    background : callable, optional
        From unit rows (b, D) and their scores (b,) to the final scores: adds the background label.
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
        background: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        device: Device = "auto",
    ) -> None:
        self._class_embeddings, self._corpus_embeddings = class_embeddings, corpus_embeddings
        self._log_expectation, self._log_weights = log_expectation, log_weights
        self._temperature, self._device = temperature, resolve_device(device)
        self._admit, self._floor, self._shrinkage = admit, floor, shrinkage
        self._background = background or (lambda rows, scores: scores)
        self._id_prototypes = self._tensor(class_embeddings).T
        self._offset = self._tensor(log_weights - log_expectation)
        # Of the batch, and of images admitted before.
        self._activations, self._earlier = (
            Exponentials(self._tensor(corpus_embeddings)) for _ in range(2)
        )

    def start(self, window: int) -> None:
        """Begin with nothing admitted.

        Parameters
        ----------
        window : int
            Admitted images that the weights remember.
        """
        self._admitted = self._tensor(np.zeros((window, self._class_embeddings.shape[1])))
        self._sums = self._tensor(np.zeros(len(self._corpus_embeddings))).double()
        self._n_admitted = self._n_seen = 0

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose arrays are copied.

        Parameters
        ----------
        state : dict
            What :meth:`state` returned.
        """
        import torch

        self._admitted = torch.tensor(state["admitted_"], device=self._device)
        self._sums = torch.tensor(state["share_sums_"], device=self._device)
        self._n_admitted, self._n_seen = state["n_admitted_"], state["n_seen_"]

    def state(self) -> dict[str, Any]:
        """Return the state as numpy arrays and numbers.

        Returns
        -------
        dict
            Keys are ``STATE_NAMES``: the ring of admitted images, the sums of their label shares,
            two counts.
        """
        arrays = (self._admitted.cpu().numpy().copy(), self._sums.cpu().numpy().copy())
        values = (*arrays, self._n_admitted, self._n_seen)
        return dict(zip(STATE_NAMES, values, strict=True))

    def log_weights(self) -> np.ndarray:
        """Present log weights: static ones times ``1 - c + c (floor + (1 - floor) N h)``, c = m / (m + shrinkage).

        Returns
        -------
        ndarray of shape (N,), float64
            The factor has mean 1.
        """
        factor = self._factor()
        with np.errstate(divide="ignore"):
            return (
                self._log_weights
                if factor is None
                else self._log_weights + np.log(factor.cpu().numpy())
            )

    def _factor(self) -> torch.Tensor | None:
        """By what the static weights are multiplied, (N,); None while nothing has been admitted."""
        held = min(self._n_admitted, len(self._admitted))
        if not held:
            return None
        confidence = held / (held + self._shrinkage)
        share = self._sums.clamp(min=0)
        followed = self._floor + (1 - self._floor) * len(share) * share / share.sum()
        return 1 + confidence * (followed - 1)

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score with the present weights, learning nothing.

        Parameters
        ----------
        rows : ndarray of shape (n, D)
            Unit image embeddings.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher = more ID.
        """
        return self._score(rows, self.log_weights())

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Admit surely-OOD images of a batch, then score the batch.

        Parameters
        ----------
        batch : ndarray of shape (b, D)
            Unit image embeddings.

        Returns
        -------
        ndarray of shape (b,), float64
            Higher = more ID.
        """
        with Workers(self._device) as workers:
            features = self._tensor(batch)
            rows = self._scaled(features)
            log_id = log_masses(workers, rows, self._id_prototypes)
            log_corpus = self._activations.fill(workers, rows, self._offset)
            static = self._background(batch, self._finish(log_id, log_corpus))
            admitted = np.flatnonzero(self._admit(batch, static))
            self._n_seen += len(batch)
            if len(admitted):
                self._remember(workers, features, admitted, -log_corpus)
            factor = self._factor()
            if factor is None:
                return static
            log_corpus = self._activations.row_sums(workers, factor.float())
            return self._background(batch, self._finish(log_id, log_corpus))

    def _remember(
        self,
        workers: Workers,
        features: torch.Tensor,
        admitted: np.ndarray,
        log_weight: torch.Tensor,
    ) -> None:
        """Put admitted rows in the ring and their shares in the sums; those they push out leave both."""
        import torch

        window = len(self._admitted)
        for start in range(0, len(admitted), window):
            part = torch.from_numpy(admitted[start : start + window]).to(self._device)
            number = self._n_admitted + torch.arange(len(part), device=self._device)
            n_earlier = max(min(window - self._n_admitted, len(part)), 0)
            wrapped = (self._n_admitted % window) + len(part) >= window
            if n_earlier < len(part) and not wrapped:
                self._sums -= self._shares_of(workers, self._admitted[number[n_earlier:] % window])
            self._admitted[number % window] = features[part]
            self._n_admitted += len(part)
            if wrapped:  # Once around, the sums are taken anew, so that rounding does not add up.
                self._sums = self._shares_of(workers, self._admitted)
            else:
                of_part = torch.full_like(log_weight, -torch.inf)
                of_part[part] = log_weight[part]
                self._sums += self._shares(workers, self._activations, of_part)

    def _shares_of(self, workers: Workers, features: torch.Tensor) -> torch.Tensor:
        total = self._sums.new_zeros(self._sums.shape)
        for part in features.split(256):
            log_mass = self._earlier.fill(workers, self._scaled(part), self._offset)
            total += self._shares(workers, self._earlier, -log_mass)
        return total

    def _shares(
        self, workers: Workers, activations: Exponentials, log_weight: torch.Tensor
    ) -> torch.Tensor:
        """Sum over rows of the static label shares."""
        return activations.column_sums(workers, log_weight, [len(log_weight)])[0].double()

    def _finish(self, log_id: torch.Tensor, log_corpus: torch.Tensor) -> np.ndarray:
        return (log_id - log_corpus).cpu().numpy() + np.log(len(self._corpus_embeddings))

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        return features * (1 / self._temperature)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        import torch

        return take(array, slice(None), torch.float32, self._device)

    def _score(self, rows: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
        scores = expectation_score(
            rows,
            self._class_embeddings,
            self._corpus_embeddings,
            self._log_expectation,
            temperature=self._temperature,
            log_weights=log_weights,
            device=self._device,
        )
        return self._background(rows, scores)
