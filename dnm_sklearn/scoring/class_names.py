"""Scores that compare an image with the class names alone: MCM, maximal logit, energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import check_matrices, check_temperature
from dnm_sklearn.scoring._chunks import Device, reduce_products

if TYPE_CHECKING:
    import torch

__all__ = ["class_index", "energy", "max_logit", "mcm"]


def max_logit(X: Any, class_embeddings: Any, *, device: Device = "auto") -> np.ndarray:
    """Largest cosine to a class name.

    Parameters
    ----------
    X, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        In [-1, 1], higher = more ID.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import max_logit
    >>> max_logit(np.array([[0.6, 0.8]]), np.eye(2))
    array([0.8])
    """
    return _reduce(lambda cosines: cosines.amax(dim=1), X, class_embeddings, 1.0, device)


def mcm(
    X: Any, class_embeddings: Any, *, temperature: float = 1.0, device: Device = "auto"
) -> np.ndarray:
    """Log of the maximum softmax probability over the class names (maximum concept matching).

    Computed as ``-softplus(log-sum-exp of the other classes - largest)``, so that images stay
    strictly ordered where the probability itself rounds to 1.

    Parameters
    ----------
    X, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows; at least two classes.
    temperature : float, default=1.0
        Divides the cosines (1 in the paper).
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        In [-log K, 0), higher = more ID.

    Raises
    ------
    ValueError
        One class only: its softmax is 1 for every image. Shapes or widths that do not fit.

    References
    ----------
    .. [1] Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language
       Representations", NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring import mcm
    >>> np.exp(mcm(np.array([[1.0, 0.0]]), np.eye(2))).round(4)
    array([0.7311])
    """
    import torch

    temperature = check_temperature(temperature)
    X, class_embeddings = check_matrices(X=X, class_embeddings=class_embeddings)
    if class_embeddings.shape[0] == 1:
        raise ValueError(
            "mcm needs at least two class names (the softmax over one is always 1): use max_logit."
        )

    def log_largest_probability(logits: torch.Tensor) -> torch.Tensor:
        # softmax of the largest = 1 / (1 + exp(gap)), where the gap compares it with all others.
        largest, where = logits.max(dim=1, keepdim=True)
        others = logits.scatter_(1, where, -math.inf).logsumexp(dim=1, keepdim=True)
        gap = (others.double() - largest.double()).squeeze(1)

        # torch's softplus turns linear at 20 by default, where float64 still has digits to give.
        return -torch.nn.functional.softplus(gap, threshold=700)

    return _reduce(log_largest_probability, X, class_embeddings, temperature, device)


def energy(
    X: Any, class_embeddings: Any, *, temperature: float = 0.01, device: Device = "auto"
) -> np.ndarray:
    """Free energy ``T * log sum exp(cos / T)`` over the class names.

    Parameters
    ----------
    X, class_embeddings : array-like of shape (n, width) and (K, width)
        Unit rows.
    temperature : float, default=0.01
        T, divides the cosines.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (n,), float64
        Higher = more ID. It tends to the largest cosine as T -> 0.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a temperature that is not above 0.

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
    temperature = check_temperature(temperature)
    log_sum = _reduce(
        lambda logits: logits.logsumexp(dim=1), X, class_embeddings, temperature, device
    )
    return temperature * log_sum


def class_index(X: Any, class_embeddings: Any, *, device: Device = "auto") -> np.ndarray:
    """Index (n,) of the class name with the largest cosine: zero-shot classification.

    >>> import numpy as np
    >>> from dnm_sklearn.scoring import class_index
    >>> class_index(np.array([[0.6, 0.8]]), np.eye(2))
    array([1])
    """
    nearest = _reduce(lambda cosines: cosines.argmax(dim=1), X, class_embeddings, 1.0, device)
    return nearest.astype(np.int64)


def _reduce(
    function: Callable[[torch.Tensor], torch.Tensor],
    X: Any,
    class_embeddings: Any,
    temperature: float,
    device: Device,
) -> np.ndarray:
    """Reduce each image's logits with all class names to one number."""
    X, class_embeddings = check_matrices(X=X, class_embeddings=class_embeddings)
    return reduce_products(
        lambda _, logits: function(logits),
        X,
        class_embeddings,
        scale=1 / temperature,
        device=device,
    )
