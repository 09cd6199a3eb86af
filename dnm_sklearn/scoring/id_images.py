"""Scores against labelled ID images: prototypes with text, KL matching, Mahalanobis distance.

**Higher = more in-distribution (ID).** Each fit also gives the scores of its own images with each
left out, which are those of new images about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.validation import unit_rows
from dnm_sklearn.scoring._chunks import Device, reduce_products, whole_product

if TYPE_CHECKING:
    import torch

__all__ = [
    "Gaussians",
    "Prototypes",
    "fit_gaussians",
    "fit_prototypes",
    "kl_divergence",
    "kl_left_out",
    "log_softmax",
    "mahalanobis",
    "mahalanobis_left_out",
    "mean_probabilities",
    "prototype_left_out",
    "prototype_score",
]

# Probabilities of a template below this count as this: an image can be infinitely far from none.
_LEAST_PROBABILITY = 1e-12
# A divergence below this is rounding, and counts as none.
_LEAST_DIVERGENCE = 1e-10
# Variances below this count as this: of two equal images nothing varies.
_LEAST_VARIANCE = 1e-100
# What is left of a direction without the one image that spans it is rounding.
_LEAST_REST = 1e-9


def _sums(X: np.ndarray, index: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows of each class (K, D), and their number (K,)."""
    sums = np.zeros((n_classes, X.shape[1]))
    np.add.at(sums, index, X)
    return sums, np.bincount(index, minlength=n_classes)


# -- prototypes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prototypes:
    """Rows (K, D) to compare images with, and the image mean (D,) that is taken off first."""

    rows: np.ndarray
    mean: np.ndarray


def fit_prototypes(
    X: np.ndarray, index: np.ndarray, text: np.ndarray, text_weight: float
) -> Prototypes:
    """Prototypes of the classes: centred mean image and centred name, the name as so many images.

    Images and names lie apart in CLIP's space, each about a mean of its own: both are centred. A
    class without images has its name alone.
    """
    X, text = np.asarray(X, dtype=np.float64), np.asarray(text, dtype=np.float64)
    mean = X.mean(axis=0)
    sums, _ = _sums(unit_rows(X - mean), index, len(text))
    return Prototypes(unit_rows(sums + text_weight * _centred_names(text)), mean)


def _centred_names(text: np.ndarray) -> np.ndarray:
    # Of one name there would be nothing left.
    return unit_rows(text - text.mean(axis=0)) if len(text) > 1 else text


def prototype_score(X: Any, fitted: Prototypes, *, device: Device = "auto") -> np.ndarray:
    """Largest cosine of centred images (n,) to a prototype."""
    centred = unit_rows(np.asarray(X, dtype=np.float64) - fitted.mean)
    return reduce_products(lambda _, c: c.amax(dim=1), centred, fitted.rows, device=device)


def prototype_left_out(
    X: np.ndarray, index: np.ndarray, text: np.ndarray, text_weight: float, fitted: Prototypes
) -> np.ndarray:
    """The score of each image without itself in the prototype of its class (n,)."""
    centred = unit_rows(np.asarray(X, dtype=np.float64) - fitted.mean)
    sums, _ = _sums(centred, index, len(text))
    names = text_weight * _centred_names(np.asarray(text, dtype=np.float64))
    own = unit_rows(sums[index] - centred + names[index])

    cosines = centred @ fitted.rows.T
    cosines[np.arange(len(X)), index] = np.einsum("nd,nd->n", centred, own)
    return cosines.max(axis=1)


# -- KL matching ----------------------------------------------------------------------------------


def log_softmax(
    X: Any, class_embeddings: Any, temperature: float, *, device: Device = "auto"
) -> np.ndarray:
    """Log-probabilities of the class names, (n, K) float64."""
    logits = whole_product(X, class_embeddings, scale=1 / temperature, device=device)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def mean_probabilities(
    log_p: np.ndarray, index: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability row of each class that has images, and which classes these are."""
    sums, counts = _sums(np.exp(log_p), index, n_classes)
    known = np.flatnonzero(counts)
    return sums[known] / counts[known, None], known


def kl_divergence(
    X: Any,
    class_embeddings: Any,
    templates: np.ndarray,
    *,
    temperature: float,
    device: Device = "auto",
) -> np.ndarray:
    """Minus the smallest KL divergence of an image's probabilities from a template row, (n,)."""
    log_templates = np.log(np.maximum(templates, _LEAST_PROBABILITY))

    def smallest(_: slice, logits: torch.Tensor) -> torch.Tensor:
        import torch

        log_p = torch.log_softmax(logits.double(), dim=1)
        p = log_p.exp()
        cross = p @ torch.as_tensor(log_templates, device=logits.device).T
        minus = cross.amax(dim=1) - (p * log_p).sum(dim=1)
        return torch.where(minus > -_LEAST_DIVERGENCE, 0.0, minus)

    return reduce_products(
        smallest, X, class_embeddings, scale=1 / temperature, most_numbers=2**21, device=device
    )


def kl_left_out(log_p: np.ndarray, index: np.ndarray, n_classes: int) -> np.ndarray:
    """The score of each image without itself in the template of its class (n,)."""
    p = np.exp(log_p)
    sums, counts = _sums(p, index, n_classes)
    known = np.flatnonzero(counts)
    templates = sums[known] / counts[known, None]
    cross = p @ np.log(np.maximum(templates, _LEAST_PROBABILITY)).T

    # An image that is alone in its class leaves no template there.
    column = np.searchsorted(known, index)
    others = counts[index] - 1
    own = (sums[index] - p) / np.maximum(others, 1)[:, None]
    left = np.einsum("nk,nk->n", p, np.log(np.maximum(own, _LEAST_PROBABILITY)))
    cross[np.arange(len(p)), column] = np.where(others > 0, left, -np.inf)
    minus = cross.max(axis=1) - np.einsum("nk,nk->n", p, log_p)
    return np.where(minus > -_LEAST_DIVERGENCE, 0.0, minus)


# -- Mahalanobis distance -------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussians:
    """Class means in whitened coordinates (C, R), and the matrix (D, R) that leads there."""

    means: np.ndarray
    whitening: np.ndarray


def fit_gaussians(
    X: np.ndarray, index: np.ndarray, n_classes: int, shrinkage: float | None
) -> tuple[Gaussians, np.ndarray, float]:
    """Gaussians of one covariance about the mean of each class that has images.

    `shrinkage` in [0, 1] is towards a multiple of the identity, None = Ledoit and Wolf's. Also
    returns which classes have images, and the shrinkage used.
    """
    from sklearn.covariance import ShrunkCovariance, ledoit_wolf

    X = np.asarray(X, dtype=np.float64)
    sums, counts = _sums(X, index, n_classes)
    known = np.flatnonzero(counts)
    means = sums[known] / counts[known, None]
    residuals = X - means[np.searchsorted(known, index)]

    if shrinkage is None:
        covariance, used = ledoit_wolf(residuals, assume_centered=True)
    else:
        model = ShrunkCovariance(shrinkage=shrinkage, assume_centered=True).fit(residuals)
        covariance, used = model.covariance_, float(shrinkage)

    # Directions in which nothing varies have no scale: without shrinkage they are left out.
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0) * 1e-10
    whitening = vectors[:, kept] / np.sqrt(values[kept])
    return Gaussians(means @ whitening, whitening), known, float(used)


def mahalanobis(X: Any, fitted: Gaussians) -> np.ndarray:
    """Minus the squared Mahalanobis distance to the nearest class mean, (n,)."""
    rows = np.asarray(X, dtype=np.float64) @ fitted.whitening
    return -_squared_distances(rows, fitted.means).min(axis=1)


def mahalanobis_left_out(
    X: np.ndarray, index: np.ndarray, known: np.ndarray, fitted: Gaussians, shrinkage: float
) -> np.ndarray:
    """Scores (n,) of images, each left out of the mean of its class and of the covariance.

    `shrinkage` is that of the fit, and stays. Minus infinity where nothing is left to compare with.
    """
    # In the directions in which the covariance is diagonal, and X as it is measured.
    lengths = np.linalg.norm(fitted.whitening, axis=0)
    rows = np.asarray(X, dtype=np.float64) @ (fitted.whitening / lengths)
    means = fitted.means / lengths

    column = np.searchsorted(known, index)
    own = np.arange(len(rows)), column
    n = np.bincount(column, minlength=len(known))[column]
    residuals = rows - means[column]

    # Without an image the mean of n is n / (n - 1) times as far from it, and the sum of squares S
    # of all residuals r is S - n / (n - 1) r r'. So the covariance is a diagonal one, A, less
    # part * r r' (part: 1 - shrinkage of it), and its inverse by Sherman and Morrison
    # A^-1 + part A^-1 r r' A^-1 / (1 - part r' A^-1 r).
    factor = n / np.maximum(n - 1, 1)
    n_left = len(rows) - 1
    sums = (residuals**2).sum(axis=0)
    spread = (sums.sum() - factor * (residuals**2).sum(axis=1)) / (len(fitted.whitening) * n_left)
    variances = (1 - shrinkage) * sums / n_left + shrinkage * spread[:, None]
    inverse = 1 / np.maximum(variances, _LEAST_VARIANCE)
    part = (1 - shrinkage) * factor / n_left

    weighted = inverse * residuals
    size = (weighted * residuals).sum(axis=1)
    squared = (inverse * rows**2).sum(axis=1)[:, None] - 2 * (inverse * rows) @ means.T
    squared += inverse @ (means**2).T
    along = (weighted * rows).sum(axis=1)[:, None] - weighted @ means.T
    squared[own], along[own] = factor**2 * size, factor * size

    rest = 1 - part * size
    has_rest = rest > _LEAST_REST
    squared += (part / np.where(has_rest, rest, 1))[:, None] * along**2
    squared[own] = np.where(n > 1, squared[own], np.inf)
    return np.where(has_rest, -np.maximum(squared, 0).min(axis=1), -np.inf)


def _squared_distances(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
    squares = (rows**2).sum(axis=1)[:, None] + (means**2).sum(axis=1) - 2 * rows @ means.T
    return np.maximum(squares, 0)
