"""AdaNeg's stream: a few confident test images remembered beside each label's text.

A label's slots are its text and up to `memory_length` image features. The *proxy* of a label stands
in for its text in a second grouped score: ``"task"`` = the mean over its slots, ``"sample"`` =
their mean weighted by ``exp(-beta * (1 - cos(image, slot)))``, both renormalised. Labels without
images keep their text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._chunks import BLOCK_NUMBERS, Chunks, Device
from dnm_sklearn.scoring.negative_labels import _log_probability_sums
from dnm_sklearn.streams._merging import merged_sum

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "LabelMemoryStream"]

# What a stream has learned: features (S, D) of remembered images, the label each belongs to (-1 =
# free place), the entropy it was stored with, the images seen. Labels are numbered ID first, then
# negatives in their order of groups.
STATE_NAMES = ("memory_features_", "memory_label_", "memory_entropy_", "n_seen_")

# The score that parts ID from OOD in the paper; `gap` widens it to a band without confidence.
_SPLIT = 0.5
# Places of the first store; a full one doubles.
_LEAST_PLACES = 64
# Slots of some labels, and their cosines to some images, held at once by a thread: 8 MB each.
_SLOT_NUMBERS = BLOCK_NUMBERS // 4


class LabelMemoryStream:
    """AdaNeg's label embeddings on a device, and the memory of one stream.

    Parameters
    ----------
    class_embeddings : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_embeddings : ndarray of shape (Q * G, D)
        Unit text embeddings of the negative labels, in the order in which they are dealt into
        groups.
    temperature : float
        Divides the cosines.
    n_groups, memory_length, proxy, beta, static_weight, gap
        See :class:`~dnm_sklearn.detectors.AdaNegDetector`.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.
    """

    def __init__(
        self,
        class_embeddings: np.ndarray,
        negative_embeddings: np.ndarray,
        *,
        temperature: float,
        n_groups: int,
        memory_length: int,
        proxy: str,
        beta: float,
        static_weight: float,
        gap: float,
        device: Device = "auto",
    ) -> None:
        self._chunks = Chunks(device, class_embeddings, negative_embeddings)
        self._text = self._chunks.tensor(np.concatenate([class_embeddings, negative_embeddings]))
        self._n_classes = len(class_embeddings)
        self._scale = 1 / temperature
        self._n_groups = n_groups
        self._length = memory_length
        self._proxy = proxy
        self._beta = beta
        self._log_weight = math.log(static_weight) if static_weight else -math.inf
        self._confident_id = _SPLIT + gap * (1 - _SPLIT)
        self._confident_ood = _SPLIT - gap * _SPLIT

    # -- state ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with an empty memory."""
        width = self._text.shape[1]
        empty = {
            "memory_features_": np.empty((0, width), np.float32),
            "memory_label_": np.empty(0, np.int64),
            "memory_entropy_": np.empty(0),
            "n_seen_": 0,
        }
        self.load(empty)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; its arrays are copied."""
        import torch

        def tensor(name: str, dtype: type) -> torch.Tensor:
            return torch.from_numpy(np.array(state[name], dtype)).to(self._chunks.device)

        self._features = tensor("memory_features_", np.float32)
        self._label = tensor("memory_label_", np.int64)
        self._entropy = tensor("memory_entropy_", np.float64)
        self._n_seen = state["n_seen_"]

    def merge(self, states: Sequence[dict[str, Any]], start: dict[str, Any]) -> None:
        """Go on from the images that several states remember: per label those of lowest entropy.

        That is what one memory would hold that had met all of them.
        """
        import torch

        entries = []
        for state in states:
            live = state["memory_label_"] >= 0
            label, entropy = state["memory_label_"][live], state["memory_entropy_"][live]
            entries.append(np.column_stack([label, entropy, state["memory_features_"][live]]))
        # An image that two states have in common counts once.
        rows = np.unique(np.concatenate(entries), axis=0)

        labels = torch.from_numpy(rows[:, 0].astype(np.int64))
        stays = (self._rank(labels, torch.from_numpy(rows[:, 1].copy())) < self._length).numpy()
        self.load(
            {
                "memory_features_": rows[stays, 2:],
                "memory_label_": rows[stays, 0],
                "memory_entropy_": rows[stays, 1],
                "n_seen_": merged_sum("n_seen_", states, start),
            }
        )

    def state(self) -> dict[str, Any]:
        """Return the state by `STATE_NAMES`; its arrays may share memory with the stream."""
        return {
            "memory_features_": self._features.cpu().numpy(),
            "memory_label_": self._label.cpu().numpy(),
            "memory_entropy_": self._entropy.cpu().numpy(),
            "n_seen_": self._n_seen,
        }

    # -- scores -----------------------------------------------------------------------------------

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score rows with the memory as it is."""
        with self._chunks as chunks:
            out = chunks.empty(len(rows), double=True)
            for block in chunks.blocks(rows, len(self._text)):
                images = chunks.tensor(rows[block])
                out[block] = self._mixed(images, *self._score_statically(images))
            return out.cpu().numpy()

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Remember the confident images of a batch, then score it."""
        with self._chunks as chunks:
            images = chunks.tensor(batch)
            logits, static = self._score_statically(images)
            self._remember(images, logits, static[:, 0].exp())
            scores = self._mixed(images, logits, static)

        self._n_seen += len(batch)
        return scores.cpu().numpy()

    def _score_statically(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits of all labels (b, K + Q * G), and the grouped score's log probabilities."""
        logits = images.new_empty(len(images), len(self._text))

        def score(part: slice, found: torch.Tensor) -> torch.Tensor:
            logits[part] = found
            return self._log_probabilities(found)

        static = self._chunks.products(score, images, self._text, self._scale, shape=(2,))
        return logits, static

    def _log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log of the grouped score p and of 1 - p, float64 (b, 2)."""
        import torch

        log_id = logits[:, : self._n_classes].logsumexp(dim=1, keepdim=True).double()
        groups = logits[:, self._n_classes :].unflatten(1, (self._n_groups, -1))
        log_negative = groups.logsumexp(dim=2).double()

        log_sums = _log_probability_sums(log_negative - log_id)
        return torch.stack(log_sums, dim=1) - math.log(self._n_groups)

    def _mixed(
        self, images: torch.Tensor, logits: torch.Tensor, static: torch.Tensor
    ) -> torch.Tensor:
        """Log-odds of ``(S_ada + weight * S_nl) / (1 + weight)``; overwrites logits."""
        import torch

        self._put_proxies(images, logits)

        def mix(logits: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
            adapted = self._log_probabilities(logits)
            inside, outside = torch.logaddexp(adapted, static + self._log_weight).unbind(dim=1)
            return inside - outside

        return self._chunks.by_rows(mix, logits, static)

    # -- memory -----------------------------------------------------------------------------------

    def _remember(
        self, images: torch.Tensor, logits: torch.Tensor, confidence: torch.Tensor
    ) -> None:
        """Store the confident images: a label holds those of lowest entropy, earlier ones on a tie.

        That is what storing them one by one comes to, where a full label gives up its feature of
        highest entropy for one of lower entropy.
        """
        import torch

        sides = (
            (confidence > self._confident_id, slice(0, self._n_classes)),
            (confidence < self._confident_ood, slice(self._n_classes, logits.shape[1])),
        )
        index, label, entropy = [], [], []
        for mask, columns in sides:
            # Each image belongs to the nearest label of its side, with the entropy over that side.
            rows = torch.nonzero(mask).squeeze(1)
            log_probability = logits[rows, columns].double().log_softmax(dim=1)
            index.append(rows)
            label.append(log_probability.argmax(dim=1) + columns.start)
            entropy.append(-(log_probability.exp() * log_probability).sum(dim=1))
        rows, new_label, new_entropy = torch.cat(index), torch.cat(label), torch.cat(entropy)
        if not len(rows):
            return

        # Old entries come first, so that they win ties. Those that stay are the first
        # `memory_length` of their label.
        n_old = len(self._label)
        labels = torch.cat([self._label, new_label])
        entropies = torch.cat([self._entropy, new_entropy])
        stays = (self._rank(labels, entropies) < self._length) & (labels >= 0)

        self._label[~stays[:n_old]] = -1
        stored = stays[n_old:]
        self._write(images[rows[stored]].float(), new_label[stored], new_entropy[stored])

    @staticmethod
    def _rank(labels: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
        """Rank of each entry within its label, lowest entropy first."""
        import torch

        # Sorted by label, and by entropy within a label: two stable sorts, the last one first.
        order = entropies.sort(stable=True).indices
        order = order[labels[order].sort(stable=True).indices]
        ordered = labels[order]

        # An entry's place, less the place of the first of its label.
        place = torch.arange(len(order), device=order.device)
        rank = torch.empty_like(order)
        rank[order] = place - torch.searchsorted(ordered, ordered)
        return rank

    def _write(self, features: torch.Tensor, label: torch.Tensor, entropy: torch.Tensor) -> None:
        """Put entries into free places; the store doubles when it is full."""
        import torch

        free = torch.nonzero(self._label < 0).squeeze(1)
        if len(free) < len(label):
            grown = max(_LEAST_PLACES, len(self._label), len(label) - len(free))
            width = self._features.shape[1]
            self._features = torch.cat([self._features, self._features.new_zeros(grown, width)])
            self._label = torch.cat([self._label, self._label.new_full((grown,), -1)])
            self._entropy = torch.cat([self._entropy, self._entropy.new_zeros(grown)])
            free = torch.nonzero(self._label < 0).squeeze(1)

        places = free[: len(label)]
        self._features[places] = features
        self._label[places] = label
        self._entropy[places] = entropy

    def _slots(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels that hold images, and their places (labels, slots) or -1.

        As many slots as the fullest label holds: `memory_length` may be far more.
        """
        import torch

        live = torch.nonzero(self._label >= 0).squeeze(1)
        labels, row = self._label[live].unique(return_inverse=True)
        rank = self._rank(self._label[live], self._entropy[live])
        n_slots = int(rank.max()) + 1 if len(rank) else 0
        places = torch.full((len(labels), n_slots), -1, device=live.device)
        places[row, rank] = live
        return labels, places

    def _put_proxies(self, images: torch.Tensor, logits: torch.Tensor) -> None:
        """Overwrite the logits of the labels that hold images, a few labels at a time."""
        import torch

        proxies = self._task_proxies if self._proxy == "task" else self._sample_proxies
        labels, places = self._slots()
        n_numbers = (places.shape[1] + 1) * max(images.shape)
        step = max(1, _SLOT_NUMBERS // n_numbers)

        def put(some: tuple[torch.Tensor, torch.Tensor]) -> None:
            labels, places = some
            # Empty slots are zero rows: whatever their weight, they add nothing.
            is_held = (places >= 0)[:, :, None]
            held = self._features[places.clamp(min=0)].to(images.dtype) * is_held
            slots = torch.cat([self._text[labels, None, :], held], dim=1)
            logits[:, labels] = proxies(images, slots).mul_(self._scale)

        tasks = list(zip(labels.split(step), places.split(step), strict=True))
        n_slots = len(labels) * (self._length + 1)
        self._chunks.map(put, tasks, n_slots * images.numel())

    def _task_proxies(self, images: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Cosines (b, labels) with the mean of each label's slots (labels, slots, D)."""
        proxies = slots.sum(dim=1)
        proxies /= proxies.norm(dim=1, keepdim=True).clamp_(min=1e-12)
        return self._chunks.product(images, proxies)

    def _sample_proxies(self, images: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Cosines (b, labels) with the mean of each label's slots, weighted for each image."""
        import torch

        cosine = self._chunks.product(images, slots.flatten(0, 1)).unflatten(1, slots.shape[:2])
        weight = torch.exp(self._beta * (cosine - 1))

        # |sum_s w_s slot_s|^2 = w' G w with the products G of a label's slots with each other: no
        # proxy per image and label is ever made.
        gram = slots @ slots.mT
        square = ((weight.transpose(0, 1) @ gram).transpose(0, 1) * weight).sum(dim=2)
        length = square.clamp_(min=1e-24).sqrt_()
        return (weight * cosine).sum(dim=2).div_(length)
