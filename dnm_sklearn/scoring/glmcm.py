"""GL-MCM: maximum concept matching of the whole image and of its patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnm_sklearn._utils.validation import check_integer, check_positive
from dnm_sklearn.scoring._chunks import Device
from dnm_sklearn.scoring.class_names import mcm

__all__ = ["global_local_mcm", "patch_mcm"]


def patch_mcm(
    X: Any, class_embeddings: Any, *, temperature: float = 1.0, device: Device = "auto"
) -> np.ndarray:
    """Largest softmax probability over the class names, of the whole image and of each patch.

    X is (n, 1 + P, D): unit embeddings of images (first) and of their patches; the result (n, 1 +
    P).
    """
    X = np.asarray(X)
    if X.ndim != 3:
        raise ValueError(f"X must be 3-D (images, 1 + patches, width), got shape {X.shape}.")
    log_probability = mcm(
        X.reshape(-1, X.shape[2]), class_embeddings, temperature=temperature, device=device
    )
    return np.exp(log_probability).reshape(X.shape[:2])


def global_local_mcm(
    X: Any,
    class_embeddings: Any,
    *,
    temperature: float = 1.0,
    local_weight: float = 1.0,
    top_k: int = 1,
    device: Device = "auto",
) -> np.ndarray:
    """MCM of the image plus `local_weight` times the mean of the `top_k` largest of its patches.

    X is that of :func:`patch_mcm`. The weight is the paper's lambda, 0 = MCM's probability; one
    patch is GL-MCM.
    """
    check_positive("1 + local_weight", 1 + local_weight)
    values = patch_mcm(X, class_embeddings, temperature=temperature, device=device)
    top_k = check_integer("top_k", top_k, 1, values.shape[1] - 1, why=" (the number of patches)")
    largest = np.sort(values[:, 1:], axis=1)[:, -top_k:]
    return values[:, 0] + local_weight * largest.mean(axis=1)
