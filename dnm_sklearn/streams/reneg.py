"""ReNeg's stream: which near-OOD names the test images show, as an image score beside a base's.

Each name of the pool *catches* the images that are nearer to it than to any class name and any
other name. What it has caught says how far to believe that it is in the stream (its weight), and
the sum of its images is a prototype of it; confident ID images make a prototype of each class. The
image score of a row compares its likeness to the two kinds of prototypes. A row is scored with what
rows before its batch have taught, never with itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, Device
from dnm_sklearn.scoring.reneg import PRIOR_WEIGHT, name_weights, otsu_of_log_odds
from dnm_sklearn.streams._merging import distinct_rows, merged_sum
from dnm_sklearn.streams.base import BASE_STATE, Stream

__all__ = ["STATE_NAMES", "GroundedNamesStream"]

# What a stream has learned. Per name of the pool: images caught, sum of their margins, votes,
# weight. Of the C names that have caught something: their numbers, and the sums of their images
# (C, D). Sum of squares of all margins. Per class: sum of its images (K, D), and their number. Sum
# of all images, the last log-odds of the base, the images seen.
STATE_NAMES = (
    "caught_counts_",
    "margin_sums_",
    "vote_sums_",
    "name_weights_",
    "caught_names_",
    "caught_image_sums_",
    "margin_square_sum_",
    "class_image_sums_",
    "class_image_counts_",
    "image_sum_",
    "base_log_odds_",
    "n_seen_",
)

# Those that are sums over images.
_SUMS = (
    "caught_counts_",
    "margin_sums_",
    "vote_sums_",
    "margin_square_sum_",
    "class_image_sums_",
    "class_image_counts_",
    "image_sum_",
    "n_seen_",
)

# A name counts among the prototypes from this many images and this weight on.
_LEAST_CAUGHT = 2
_LEAST_WEIGHT = 1e-4
# Softmax over the class names from which an image stands for its class.
_CONFIDENT = 0.5
# Log-odds of the base that are remembered for Otsu's threshold.
_HISTORY = 20_000
# "max": the mean image is surrounded by random rows of this length.
_BACKGROUND_SCALE = 0.25
# Guards, and what the released code has in their place. One caught image has a standard deviation
# of 0 and would be believed at once; a stream of one kind has no two sides to vote for.
_LEAST_DEVIATION = {True: 1e-3, False: 1e-6}
_LEAST_GAP = {True: 2.0, False: 0.0}


class GroundedNamesStream:
    """ReNeg's arrays on a device, and the state of one stream.

    Parameters
    ----------
    class_embeddings : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    pool_embeddings : ndarray of shape (J, D)
        Unit text embeddings of the near-OOD names; J may be 0.
    cluster : ndarray of int of shape (J,)
        Cluster of each name, 0..G-1.
    base : Stream
        The base detector's, its scores in log-odds. Where it has an attribute ``confident_id``, the
        images of its last batch that are surely ID, only these may stand for a class.
    mode : {"balanced", "max", "safe"}
        The image score; see :class:`~dnm_sklearn.detectors.ReNegDetector`.
    omega : float
        Weight of the image score.
    temperature : float
        Divides the cosines.
    background : ndarray of shape (B, D) or None
        Unit rows of noise around the mean image, for "max".
    guard : bool
        False = as released.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.
    """

    def __init__(
        self,
        class_embeddings: np.ndarray,
        pool_embeddings: np.ndarray,
        cluster: np.ndarray,
        base: Stream,
        *,
        mode: str,
        omega: float,
        temperature: float,
        background: np.ndarray | None = None,
        guard: bool = True,
        device: Device = "auto",
    ) -> None:
        self._chunks = Chunks(device, class_embeddings, pool_embeddings)
        self._classes = self._chunks.matrix(class_embeddings)
        self._pool = self._chunks.matrix(pool_embeddings)
        self._cluster = cluster
        self._base = base
        self._mode = mode
        self._votes = mode != "max"
        self._omega = omega
        self._scale = 1 / temperature
        self._background = background
        self._guard = guard

    # -- state ------------------------------------------------------------------------------------

    def start(
        self, class_image_sums: np.ndarray, class_image_counts: np.ndarray, base_state: Any
    ) -> None:
        """Begin with sums (K, D) and numbers (K,) of labelled ID images, and the base's state."""
        n_names, width = self._pool.shape
        state: dict[str, Any] = {
            **dict.fromkeys(("caught_counts_", "margin_sums_", "vote_sums_"), np.zeros(n_names)),
            "name_weights_": np.full(n_names, PRIOR_WEIGHT),
            "caught_names_": np.zeros(0, np.int64),
            "caught_image_sums_": np.zeros((0, width), np.float32),
            "margin_square_sum_": 0.0,
            "class_image_sums_": class_image_sums,
            "class_image_counts_": class_image_counts,
            "image_sum_": class_image_sums.sum(axis=0),
            "base_log_odds_": np.zeros(0),
            "n_seen_": 0,
            BASE_STATE: base_state,
        }
        self.load(state)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; its arrays are copied."""
        self._base.load(state[BASE_STATE])
        self._state = {}
        for name in STATE_NAMES:
            value = state[name]
            self._state[name] = value.copy() if isinstance(value, np.ndarray) else value

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Go on from the sums of what several states have caught since `start`.

        All of them are sums over images, but for the base's log-odds, of which a choice is kept
        that depends on their values alone, and the base's own state, which its stream merges.
        """
        self._base.merge([state[BASE_STATE] for state in states], start[BASE_STATE])
        self._state = {name: merged_sum(name, states, start) for name in _SUMS}

        # Names that any of them has caught, each with its sum.
        known = np.unique(np.concatenate([state["caught_names_"] for state in states]))
        dense = [_at_names(known, state) for state in states]
        of_start = _at_names(known, start)
        self._state["caught_names_"] = known
        total = of_start + sum(rows - of_start for rows in dense)
        self._state["caught_image_sums_"] = total.astype(np.float32)

        log_odds = [state["base_log_odds_"][:, None] for state in states]
        self._state["base_log_odds_"] = distinct_rows(log_odds, _HISTORY)[:, 0]
        self._weigh()

    def state(self) -> dict[str, Any]:
        """Return the state by `STATE_NAMES`, and the base's; arrays may be the stream's own."""
        return {**self._state, BASE_STATE: self._base.state()}

    # -- scores -----------------------------------------------------------------------------------

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score rows with what was learned so far, learning nothing."""
        catchers = self._nearest(rows)[0] if self._mode == "safe" else None
        return self._fused(rows, self._base.frozen(rows), catchers)

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score one batch with what was learned before, then learn from it."""
        log_odds = self._base.advance(batch)
        names, margins = self._nearest(batch)
        scores = self._fused(batch, log_odds, names)

        voted_ood = self._vote(log_odds)
        self._catch(batch, names, margins, voted_ood)
        self._weigh()
        self._admit(batch, voted_ood)
        self._state["n_seen_"] += len(batch)
        return scores

    def image_scores(self, rows: np.ndarray) -> np.ndarray:
        """Log-odds of rows (n, D) against prototypes: of the classes against those of the names.

        At most 0 unless the mode is "max"; 0 where there is nothing to compare with.
        """
        names, log_weights = self._prototypes()
        classes = self._class_prototypes()
        if not len(classes) or not (len(names) or self._mode == "max"):
            return np.zeros(len(rows))

        inside = self._log_sums(rows, classes)
        outside = np.full(len(rows), -np.inf)
        if len(names):
            outside = self._log_sums(rows, names, log_weights)
        if self._mode == "max":
            return inside - np.logaddexp(outside, self._log_sums(rows, self._around_the_mean()))
        return np.minimum(inside - outside, 0.0)

    def nearest_names(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Name of the pool whose images rows (n, D) are most like, -1 = none; and cosines to them.

        Names count by weight, as in the image score.
        """
        import torch

        names, log_weights = self._prototypes()
        if not len(names):
            return np.full(len(rows), -1), np.zeros(len(rows))

        def best(_: slice, logits: torch.Tensor) -> torch.Tensor:
            weighted, index = (logits * self._scale + offset).max(dim=1)
            return torch.stack([index.double(), (weighted - offset[index]) / self._scale], dim=1)

        with self._chunks as chunks:
            offset = chunks.tensor(log_weights)
            found = chunks.products(best, rows, chunks.matrix(names), shape=(2,)).cpu().numpy()
        return self._prototype_index()[found[:, 0].astype(int)], found[:, 1]

    def prototype_names(self) -> np.ndarray:
        """Numbers of the names that have a prototype, the most believed first."""
        names = self._prototype_index()
        return names[np.argsort(-self._state["name_weights_"][names], kind="stable")]

    def _fused(
        self, rows: np.ndarray, log_odds: np.ndarray, catchers: np.ndarray | None
    ) -> np.ndarray:
        """Log-odds of the base and image scores of rows, which some names catch (-1 = none)."""
        # As released, the base alone scores until a class has a prototype, which puts the first
        # batch on another scale than the rest.
        if not self._guard and not self._state["class_image_counts_"].any():
            return log_odds
        image_scores = self.image_scores(rows)
        if self._mode == "safe":
            # What no name catches has weight 0, the last.
            image_scores *= np.append(self._state["name_weights_"], 0.0)[catchers]
        return (1 - self._omega) * log_odds + self._omega * image_scores

    # -- prototypes -------------------------------------------------------------------------------

    def _prototype_index(self) -> np.ndarray:
        """Numbers of the names that have a prototype."""
        names = self._state["caught_names_"]
        return names[self._is_prototype(names)]

    def _is_prototype(self, names: np.ndarray) -> np.ndarray:
        often = self._state["caught_counts_"][names] >= _LEAST_CAUGHT
        return often & (self._state["name_weights_"][names] > _LEAST_WEIGHT)

    def _prototypes(self) -> tuple[np.ndarray, np.ndarray]:
        """Prototypes of names (P, D), and the logs of their weights (P,)."""
        names = self._state["caught_names_"]
        chosen = self._is_prototype(names)
        weights = self._state["name_weights_"][names[chosen]]
        return _unit(self._state["caught_image_sums_"][chosen]), np.log(weights)

    def _class_prototypes(self) -> np.ndarray:
        """Prototypes (C, D) of the classes that have one."""
        return _unit(self._state["class_image_sums_"][self._state["class_image_counts_"] >= 1])

    def _around_the_mean(self) -> np.ndarray:
        """Rows (B, D) around the mean image, what an image looks like in general."""
        assert self._background is not None
        return _unit(_unit(self._state["image_sum_"]) + _BACKGROUND_SCALE * self._background)

    def _log_sums(
        self, rows: np.ndarray, bank: np.ndarray, offset: np.ndarray | None = None
    ) -> np.ndarray:
        """Log-sum-exp of scaled cosines (n,), with an offset per row of the bank."""
        with self._chunks as chunks:
            added = None if offset is None else chunks.tensor(offset)
            sums = chunks.logsumexp(rows, chunks.matrix(bank), self._scale, offset=added)
            return sums.squeeze(1).cpu().numpy()

    # -- learning ---------------------------------------------------------------------------------

    def _nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Name that catches each row (n,), -1 = none; its margin over the nearest class (n,)."""
        import torch

        def largest(_: slice, cosines: torch.Tensor) -> torch.Tensor:
            value, index = cosines.max(dim=1)
            return torch.stack([value.double(), index.double()], dim=1)

        if not len(self._pool):
            return np.full(len(rows), -1), np.zeros(len(rows))
        with self._chunks as chunks:
            of_class, of_name = (
                chunks.products(largest, rows, bank, shape=(2,)).cpu().numpy()
                for bank in (self._classes, self._pool)
            )
        margin = of_name[:, 0] - of_class[:, 0]
        return np.where(margin > 0, of_name[:, 1].astype(np.int64), -1), margin

    def _vote(self, log_odds: np.ndarray) -> np.ndarray:
        """Which images of a batch the base takes for OOD, by Otsu's threshold of its log-odds."""
        history = np.concatenate([self._state["base_log_odds_"], log_odds])[-_HISTORY:]
        self._state["base_log_odds_"] = history
        return log_odds < otsu_of_log_odds(history, least_gap=_LEAST_GAP[self._guard])

    def _catch(
        self, batch: np.ndarray, name: np.ndarray, margin: np.ndarray, voted_ood: np.ndarray
    ) -> None:
        """Add the images that a name catches to what is known of it."""
        rows = np.flatnonzero(name >= 0)
        name, margin = name[rows], margin[rows]
        state = self._state
        np.add.at(state["caught_counts_"], name, 1)
        np.add.at(state["margin_sums_"], name, margin)
        np.add.at(state["vote_sums_"], name, voted_ood[rows])
        state["margin_square_sum_"] += float(margin @ margin)

        # Names that catch something for the first time get a row of their own.
        new = np.setdiff1d(name, state["caught_names_"])
        known = np.concatenate([state["caught_names_"], new])
        sums = state["caught_image_sums_"]
        sums = np.concatenate([sums, np.zeros((len(new), sums.shape[1]), np.float32)])
        place = np.full(len(self._pool), -1)
        place[known] = np.arange(len(known))
        np.add.at(sums, place[name], batch[rows])
        state["caught_names_"], state["caught_image_sums_"] = known, sums

    def _weigh(self) -> None:
        """Weigh the names anew."""
        state = self._state
        state["name_weights_"] = name_weights(
            state["caught_counts_"],
            state["margin_sums_"],
            state["margin_square_sum_"],
            state["vote_sums_"] if self._votes else None,
            self._cluster,
            least_deviation=_LEAST_DEVIATION[self._guard],
        )

    def _admit(self, batch: np.ndarray, voted_ood: np.ndarray) -> None:
        """Let confident ID images stand for their classes; looser rules take in near-OOD ones."""
        import torch

        def largest(_: slice, logits: torch.Tensor) -> torch.Tensor:
            probability, index = logits.double().softmax(dim=1).max(dim=1)
            return torch.stack([probability, index.double()], dim=1)

        with self._chunks as chunks:
            found = chunks.products(largest, batch, self._classes, self._scale, shape=(2,))
            probability, label = found.cpu().numpy().T

        agreed = getattr(self._base, "confident_id", None)
        admitted = (probability >= _CONFIDENT) & (~voted_ood if agreed is None else agreed)
        label = label[admitted].astype(np.int64)
        np.add.at(self._state["class_image_sums_"], label, batch[admitted])
        np.add.at(self._state["class_image_counts_"], label, 1)
        self._state["image_sum_"] += batch.sum(axis=0)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; one of zeros stays."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(lengths, math.ulp(1.0))


def _at_names(names: np.ndarray, state: dict[str, Any]) -> np.ndarray:
    """Image sums (C, D) of a state at these names, zeros where it has caught nothing."""
    rows = np.zeros((len(names), state["caught_image_sums_"].shape[1]))
    rows[np.searchsorted(names, state["caught_names_"])] = state["caught_image_sums_"]
    return rows
