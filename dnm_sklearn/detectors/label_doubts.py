"""What the embeddings say of the names and labels given: doubles, and a y read the wrong way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from dnm_sklearn._utils.labels import ResolvedLabels
from dnm_sklearn._utils.warnings import warn

__all__ = ["first_doubles", "warn_if_misread"]

# Two rows whose squared distance is below this are one. Half precision leaves less between the
# vectors of one text out of two batches; of 3,000 names of characters, in the smallest model that
# ships, the nearest two are 8e-3 apart.
_SAME = 1e-6
# Rows that are looked at, evenly spread: to tell which of two readings is meant, they are plenty.
_LOOKED_AT = 1000
# Proportion of rows of each kind that must be nearest to "their" class to look like class indices,
# and AUROC above which the rows marked OOD look like the ID ones.
_AGREEING = 0.8


def first_doubles(class_embeddings: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """For each class the index of the first with the same embedding (K,), most often its own.

    The model does not tell such names apart (case, quotes, white space, Unicode forms, which a
    tokenizer takes away), so each image would share its probability among them.
    """
    first = np.arange(len(class_embeddings))
    if class_embeddings.shape[1] == 1:
        return first  # of width 1 all unit vectors are 1 or -1, whatever the names

    # In one random direction equal rows are neighbours: there are few pairs to compare.
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(class_embeddings.shape[1])
    along = class_embeddings @ direction
    order = np.argsort(along, kind="stable")
    reach = np.sqrt(_SAME) * np.linalg.norm(direction)
    last = np.searchsorted(along[order], along[order] + reach, side="right")
    for place, i in enumerate(order):
        near = order[place + 1 : last[place]]
        if not len(near):
            continue
        distance = np.square(class_embeddings[near] - class_embeddings[i]).sum(axis=1)
        for j in near[distance < _SAME]:
            low, high = sorted((first[i], first[j]))
            first[first == high] = low

    doubled = np.flatnonzero(first != np.arange(len(first)))
    if len(doubled):
        pairs = [f"{names[j]!r} as {names[first[j]]!r}" for j in doubled[:5]]
        warn(
            "The model reads some class names like others, and they are one class with them: "
            f"{', '.join(pairs)}{', ...' if len(doubled) > 5 else ''}. Keep one of each."
        )
    return first


def warn_if_misread(rows: np.ndarray, labels: ResolvedLabels, class_embeddings: np.ndarray) -> None:
    """Warn where numbers in {0, 1} were read as ID and OOD, and the images speak against it."""
    if not labels.is_zero_or_one or labels.is_ood is None or not labels.is_ood.any():
        return

    chosen = np.unique(np.linspace(0, len(rows) - 1, _LOOKED_AT).astype(int))
    is_ood = labels.is_ood[chosen]
    cosines = rows[chosen] @ class_embeddings.T
    explicit = "To be explicit give bool (True = OOD) or class names."

    # As class indices: rows with 0 near class 0, rows with 1 near class 1.
    nearest = cosines.argmax(axis=1)
    agreeing = [np.mean(nearest[is_ood == i] == i) for i in (0, 1) if (is_ood == i).any()]
    if len(class_embeddings) > 1 and min(agreeing) >= _AGREEING:
        warn(
            "y holds 0 and 1 only, read as 0 = ID and 1 = OOD, but the images look as if they "
            f"were class indices: most are nearest to the class of that number. {explicit}"
        )
        return

    # The other way round: rows with 1 nearer to the class names than rows with 0.
    if is_ood.all():
        return
    if roc_auc_score(~is_ood, cosines.max(axis=1)) < 1 - _AGREEING:
        warn(
            "y is read as 0 = ID and 1 = OOD, but the images with 1 are nearer to the class names "
            f"than those with 0: is it the other way round? {explicit}"
        )
