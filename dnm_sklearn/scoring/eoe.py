"""EOE's score: the best class name against the best name of an outlier, in one softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import check_matrices, check_positive
from dnm_sklearn.scoring._chunks import Chunks, Device

if TYPE_CHECKING:
    import torch

__all__ = ["outlier_exposure"]

# Logits of a chunk, which are copied to float64: 16 MB each.
_EXACT_NUMBERS = 2**21


def outlier_exposure(
    X: Any,
    class_embeddings: Any,
    outlier_embeddings: Any,
    *,
    temperature: float = 1.0,
    outlier_weight: float = 0.25,
    device: Device = "auto",
) -> np.ndarray:
    """Largest probability of a class name minus `outlier_weight` times that of an outlier name.

    The softmax is over both kinds of names. Float64 (n,), in [-outlier_weight, 1], higher = more
    ID.
    """
    X, class_embeddings, outlier_embeddings = check_matrices(
        X=X, class_embeddings=class_embeddings, outlier_embeddings=outlier_embeddings
    )
    scale = 1 / check_positive("temperature", temperature)
    if not 0 <= outlier_weight < np.inf:
        raise ValueError(f"outlier_weight must be a finite number >= 0, got {outlier_weight!r}.")

    with Chunks(device, class_embeddings, outlier_embeddings) as chunks:
        classes, outliers = chunks.matrix(class_embeddings), chunks.matrix(outlier_embeddings)

        def score(part: slice, logits: torch.Tensor) -> torch.Tensor:
            import torch

            # In float64: at T = 1 all probabilities are nearly equal.
            own = chunks.product(chunks.matrix(X[part]) * scale, classes).double()
            logits = logits.double()
            best, best_outlier = own.amax(dim=1), logits.amax(dim=1)
            log_sum = torch.logaddexp(own.logsumexp(dim=1), logits.logsumexp(dim=1))
            return (best - log_sum).exp() - outlier_weight * (best_outlier - log_sum).exp()

        found = chunks.products(score, X, outliers, scale, most_numbers=_EXACT_NUMBERS)
        return found.cpu().numpy()
