"""Scores that compare an image with the class names alone: maximal concept matching, maximal logit, energy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.scoring._tiles import (
    BatchSize,
    Device,
    check_matrix,
    check_positive,
    reduce_products,
)

if TYPE_CHECKING:
    import torch

__all__ = ["class_index", "energy", "max_logit", "mcm"]


def max_logit(
    image: Any, class_embeddings: Any, *, batch_size: BatchSize = "auto", device: Device = "auto"
) -> np.ndarray:
    """Largest cosine to an ID label.

    Parameters
    ----------
    image, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        In [-1, 1], higher = more ID.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import max_logit
    >>> max_logit(np.array([[0.6, 0.8]]), np.eye(2))
    array([0.8])
    """
    return _over_classes(
        lambda cosines: cosines.amax(dim=1), image, class_embeddings, 1.0, batch_size, device
    )


def mcm(
    image: Any,
    class_embeddings: Any,
    *,
    temperature: float = 1.0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    """Log of the maximum softmax probability over the ID labels (maximum concept matching).

    Computed as ``-softplus(LSE of the other labels - largest)``, so that images stay strictly
    ordered where the probability itself rounds to 1.

    Parameters
    ----------
    image, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows; at least two ID labels.
    temperature : float, default=1.0
        Divides the cosines (1 in the paper).
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        In [-log K, 0), higher = more ID.

    Raises
    ------
    ValueError
        One ID label only: its softmax is 1 for every image.

    References
    ----------
    .. [1] Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language Representations",
       NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import mcm
    >>> np.exp(mcm(np.array([[1.0, 0.0]]), np.eye(2))).round(4)
    array([0.7311])
    """
    import torch

    temperature = check_positive("temperature", temperature)
    if check_matrix("class_embeddings", class_embeddings).shape[0] == 1:
        raise ValueError(
            "mcm needs at least two ID labels (the softmax over one is always 1): use max_logit."
        )

    def log_softmax_of_largest(logits: torch.Tensor) -> torch.Tensor:
        largest, where = logits.max(dim=1, keepdim=True)
        rest = logits.scatter_(1, where, -math.inf).logsumexp(dim=1, keepdim=True)
        gap = (rest.double() - largest.double()).squeeze(1)
        return -torch.nn.functional.softplus(gap, threshold=700)

    return _over_classes(
        log_softmax_of_largest, image, class_embeddings, temperature, batch_size, device
    )


def energy(
    image: Any,
    class_embeddings: Any,
    *,
    temperature: float = 0.01,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    """Free energy ``T * log sum exp(cos / T)`` over the ID labels.

    Parameters
    ----------
    image, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows.
    temperature : float, default=0.01
        T, divides the cosines.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        Higher = more ID. It tends to the largest cosine as T -> 0.

    References
    ----------
    .. [1] Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import energy
    >>> energy(np.array([[0.6, 0.8]]), np.eye(2), temperature=0.1).round(4)
    array([0.8127])
    """
    temperature = check_positive("temperature", temperature)
    log_mass = _over_classes(
        lambda logits: logits.logsumexp(dim=1),
        image,
        class_embeddings,
        temperature,
        batch_size,
        device,
    )
    return temperature * log_mass


def class_index(
    image: Any, class_embeddings: Any, *, batch_size: BatchSize = "auto", device: Device = "auto"
) -> np.ndarray:
    """Index of the ID label with the largest cosine: zero-shot classification.

    Parameters
    ----------
    image, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows.
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), int64
        In 0..K-1.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import class_index
    >>> class_index(np.array([[0.6, 0.8]]), np.eye(2))
    array([1])
    """
    winner = _over_classes(
        lambda cosines: cosines.argmax(dim=1), image, class_embeddings, 1.0, batch_size, device
    )
    return winner.astype(np.int64)


def _over_classes(
    reduce: Any,
    image: Any,
    class_embeddings: Any,
    temperature: float,
    batch_size: BatchSize,
    device: Device,
) -> np.ndarray:
    return reduce_products(
        reduce,
        image,
        class_embeddings,
        names=("image", "class_embeddings"),
        temperature=temperature,
        batch_size=batch_size,
        device=device,
    )
