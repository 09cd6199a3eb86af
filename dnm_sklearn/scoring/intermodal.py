"""Negative labels far from the *images* of the classes (InterNeg, TINS): functions of embeddings.

CLIP is trained on distances between images and texts; other minings measure text against text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import unit_rows
from dnm_sklearn.scoring._chunks import Device, reduce_products

if TYPE_CHECKING:
    import torch

__all__ = ["class_images", "select_separated", "separation"]

# Two cosines closer than float32 can tell apart count as equal.
_SAME_COSINE = 1e-6


def class_images(X: Any, class_index: Any, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit mean (K, D) of the images of each class, 0 without any, and their number (K,)."""
    sums = np.zeros((n_classes, np.shape(X)[1]))
    np.add.at(sums, class_index, np.asarray(X, dtype=np.float64))
    return unit_rows(sums), np.bincount(class_index, minlength=n_classes)


def separation(
    corpus_embeddings: Any,
    class_embeddings: Any,
    image_embeddings: Any,
    *,
    device: Device = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """How much farther than its name each corpus label is from the images of a class.

    With ``b_k = cos(t_k, mu_k)`` of name and mean image of class k (unit rows, one per class), a
    label y is separated from it by ``b_k - cos(y, mu_k)``, and passes there if that is above 0.
    Returned are the mean separation over the classes, in cosines (the papers keep the labels with
    the **largest**), and the proportion of classes in which the label passes (the papers ask for
    1); float64 (N,).
    """
    own = np.einsum("kd,kd->k", class_embeddings, image_embeddings, dtype=float)

    def separate(_: slice, cosines: torch.Tensor) -> torch.Tensor:
        import torch

        gap = torch.as_tensor(own, device=cosines.device) - cosines.double()
        return torch.stack([gap.mean(dim=1), (gap > _SAME_COSINE).double().mean(dim=1)], dim=1)

    found = reduce_products(
        separate, corpus_embeddings, image_embeddings, shape=(2,), device=device
    )
    return found[:, 0].copy(), found[:, 1].copy()


def select_separated(
    mean_separation: Any, passes: Any, is_adjective: Any, n_labels: int
) -> np.ndarray:
    """Row numbers of the `n_labels` labels with the largest separation among those that pass.

    First adjectives by falling separation (``floor(M * their share of those that pass)``), then
    nouns. Ties keep corpus order.
    """
    passes, is_adjective = np.asarray(passes, dtype=bool), np.asarray(is_adjective, dtype=bool)
    best_first = np.argsort(-np.asarray(mean_separation, dtype=np.float64), kind="stable")
    best_first = best_first[passes[best_first]]

    adjectives = best_first[is_adjective[best_first]]
    nouns = best_first[~is_adjective[best_first]]
    if len(best_first) <= n_labels:
        return np.concatenate([adjectives, nouns])
    n_adjectives = n_labels * len(adjectives) // len(best_first)
    return np.concatenate([adjectives[:n_adjectives], nouns[: n_labels - n_adjectives]])
