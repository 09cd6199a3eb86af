"""AdaNeg's stream: a few confident test images remembered beside each label's text (torch inside).

A label's slots are its text and up to `memory_length` image features. The *proxy* of a label stands
in for its text in a second grouped score: ``"task"`` = the mean over its slots, ``"sample"`` =
their mean weighted by ``exp(-beta * (1 - cos(image, slot)))``, both renormalised. Labels without
images keep their text.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._tiles import (
    BLOCK_NUMBERS,
    Device,
    compute_dtype,
    log_shares,
    resolve_device,
    take,
)

if TYPE_CHECKING:
    import torch

__all__ = ["STATE_NAMES", "LabelMemoryStream"]

# What a stream has learned: features (S, D) of remembered images, the label each belongs to (-1 =
# free place), the entropy it was stored with, the images seen. Labels are numbered ID first, then
# negatives in their order of groups.
STATE_NAMES = ("memory_features_", "memory_label_", "memory_entropy_", "n_seen_")

_SPLIT = 0.5
_LEAST_PLACES = 64


class LabelMemoryStream:
    """Label banks on a device, and the memory of one stream.

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
        import torch

        self._device = resolve_device(device)
        self._n_classes = len(class_embeddings)
        n_numbers = (len(class_embeddings) + len(negative_embeddings)) * class_embeddings.shape[1]
        self._dtype = compute_dtype(n_numbers)
        banks = (
            take(bank, slice(None), self._dtype, self._device)
            for bank in (class_embeddings, negative_embeddings)
        )
        self._text = torch.cat(list(banks))
        self._scale = 1 / temperature
        self._n_groups = n_groups
        self._length = memory_length
        self._proxy = proxy
        self._beta = beta
        self._log_weight = math.log(static_weight) if static_weight else -math.inf
        self._confident_id = _SPLIT + gap * (1 - _SPLIT)
        self._confident_ood = _SPLIT - gap * _SPLIT

    # -- state ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with an empty memory."""
        width = self._text.shape[1]
        empty = {
            "memory_label_": np.empty(0, np.int64),
            "memory_entropy_": np.empty(0),
            "n_seen_": 0,
        }
        self.load({"memory_features_": np.empty((0, width), np.float32), **empty})

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state; its arrays are copied."""
        import torch

        def tensor(name: str, dtype: torch.dtype) -> torch.Tensor:
            return torch.from_numpy(state[name].copy()).to(device=self._device, dtype=dtype)

        self._features = tensor("memory_features_", torch.float32)
        self._label = tensor("memory_label_", torch.int64)
        self._entropy = tensor("memory_entropy_", torch.float64)
        self._n_seen = state["n_seen_"]

    def state(self) -> dict[str, Any]:
        """Return the state as numpy arrays and numbers, by `STATE_NAMES`.

        Returns
        -------
        dict
            Its arrays may share memory with the stream: `load` it before going on.
        """
        arrays = (
            self._features.cpu().numpy(),
            self._label.cpu().numpy(),
            self._entropy.cpu().numpy(),
        )
        return dict(zip(STATE_NAMES, (*arrays, self._n_seen), strict=True))

    # -- scores ---------------------------------------------------------------------------------------

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score rows with the memory as it is.

        Parameters
        ----------
        rows : ndarray of shape (n, D)
            Unit rows.

        Returns
        -------
        ndarray of shape (n,), float64
            Log-odds, higher = more ID.
        """
        step = max(1, BLOCK_NUMBERS // len(self._text))
        parts = []
        for start in range(0, len(rows), step):
            images, logits = self._logits(rows[start : start + step])
            parts.append(self._mixed(images, logits, self._log_shares(logits)))
        return np.concatenate(parts) if parts else np.empty(0)

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Remember the confident images of a batch, then score it.

        Parameters
        ----------
        batch : ndarray of shape (b, D)
            Unit rows, at least one.

        Returns
        -------
        ndarray of shape (b,), float64
            Log-odds, higher = more ID.
        """
        images, logits = self._logits(batch)
        static = self._log_shares(logits)
        self._remember(images, logits, static[0].exp())
        self._n_seen += len(batch)
        return self._mixed(images, logits, static)

    def _logits(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        images = take(rows, slice(None), self._dtype, self._device)
        return images, (images @ self._text.T).mul_(self._scale)

    def _log_shares(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log of the grouped score p and of 1 - p, both float64 (b,)."""
        log_id = logits[:, : self._n_classes].logsumexp(dim=1, keepdim=True).double()
        groups = logits[:, self._n_classes :].reshape(len(logits), self._n_groups, -1)
        inside, outside = log_shares(groups.logsumexp(dim=2).double() - log_id)
        log_groups = math.log(self._n_groups)
        return inside - log_groups, outside - log_groups

    def _mixed(
        self, images: torch.Tensor, logits: torch.Tensor, static: tuple[torch.Tensor, torch.Tensor]
    ) -> np.ndarray:
        """Log-odds of ``(S_ada + weight * S_nl) / (1 + weight)``; overwrites `logits` with those of the proxies."""
        import torch

        touched, places = self._slots()
        if len(touched):
            logits[:, touched] = self._proxy_logits(images, logits, touched, places)
        adapted = self._log_shares(logits)
        inside, outside = (
            torch.logaddexp(a, s + self._log_weight) for a, s in zip(adapted, static, strict=True)
        )
        return (inside - outside).cpu().numpy()

    # -- memory -----------------------------------------------------------------------------------------

    def _remember(
        self, images: torch.Tensor, logits: torch.Tensor, confidence: torch.Tensor
    ) -> None:
        """Store the confident images: in the end a label holds those of lowest entropy, earlier ones on a tie.

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
            rows = torch.nonzero(mask).squeeze(1)
            log_share = logits[rows, columns].double().log_softmax(dim=1)
            index.append(rows)
            label.append(log_share.argmax(dim=1) + columns.start)
            entropy.append(-(log_share.exp() * log_share).sum(dim=1))
        rows, new_label, new_entropy = (torch.cat(parts) for parts in (index, label, entropy))
        if not len(rows):
            return
        n_old = len(self._label)
        labels, entropies = (
            torch.cat([self._label, new_label]),
            torch.cat([self._entropy, new_entropy]),
        )
        alive = (self._rank(labels, entropies) < self._length) & (labels >= 0)
        self._label[~alive[:n_old]] = -1
        stored = alive[n_old:]
        self._write(images[rows[stored]].float(), new_label[stored], new_entropy[stored])

    @staticmethod
    def _rank(labels: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
        """Rank of each entry within its label, lowest entropy first."""
        import torch

        order = entropies.sort(stable=True).indices
        order = order[labels[order].sort(stable=True).indices]
        ordered = labels[order]
        position = torch.arange(len(order), device=order.device)
        rank = torch.empty_like(order)
        rank[order] = position - torch.searchsorted(ordered, ordered)
        return rank

    def _write(self, features: torch.Tensor, label: torch.Tensor, entropy: torch.Tensor) -> None:
        """Put entries into free places; the store doubles when it is full."""
        import torch

        free = torch.nonzero(self._label < 0).squeeze(1)
        if len(free) < len(label):
            grown = max(_LEAST_PLACES, len(self._label), len(label) - len(free))
            self._features = torch.cat(
                [self._features, self._features.new_zeros(grown, self._features.shape[1])]
            )
            self._label = torch.cat([self._label, self._label.new_full((grown,), -1)])
            self._entropy = torch.cat([self._entropy, self._entropy.new_zeros(grown)])
            free = torch.nonzero(self._label < 0).squeeze(1)
        places = free[: len(label)]
        self._features[places], self._label[places], self._entropy[places] = (
            features,
            label,
            entropy,
        )

    def _slots(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels that hold images, and their places (labels, memory_length), -1 where there is none."""
        import torch

        live = torch.nonzero(self._label >= 0).squeeze(1)
        touched, row = self._label[live].unique(return_inverse=True)
        places = torch.full((len(touched), self._length), -1, device=self._device)
        places[row, self._rank(self._label[live], self._entropy[live])] = live
        return touched, places

    def _proxy_logits(
        self,
        images: torch.Tensor,
        logits: torch.Tensor,
        touched: torch.Tensor,
        places: torch.Tensor,
    ) -> torch.Tensor:
        """Logits (b, labels) of the labels that hold images, a few labels at a time."""
        import torch

        n_slots = self._length + 1
        step = max(1, BLOCK_NUMBERS // (n_slots * max(images.shape)))
        parts = []
        for labels, at in zip(touched.split(step), places.split(step), strict=True):
            held = self._features[at.clamp(min=0)].to(self._dtype) * (at >= 0)[:, :, None]
            slots = torch.cat([self._text[labels, None, :], held], dim=1)
            if self._proxy == "task":
                proxies = slots.sum(dim=1)
                proxies /= proxies.norm(dim=1, keepdim=True).clamp_(min=1e-12)
                parts.append((images @ proxies.T).mul_(self._scale))
                continue
            cosine = (images @ slots.flatten(0, 1).T).view(len(images), *slots.shape[:2])
            # Empty slots are zero rows: whatever their weight, they add nothing.
            weight = torch.exp(self._beta * (cosine - 1))
            gram = slots @ slots.mT
            length = (
                ((weight.transpose(0, 1) @ gram).transpose(0, 1) * weight)
                .sum(dim=2)
                .clamp_(min=1e-24)
                .sqrt_()
            )
            parts.append((weight * cosine).sum(dim=2).div_(length).mul_(self._scale))
        return torch.cat(parts, dim=1)
