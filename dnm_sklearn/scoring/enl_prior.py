"""What class names alone say about ENL: a guess of E, weights of corpus labels, images to trust.

Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnm_sklearn.scoring._chunks import Chunks, Device
from dnm_sklearn.scoring.class_names import class_index as nearest_class
from dnm_sklearn.scoring.mining import _proportion_as_close

__all__ = [
    "ZeroShotPrior",
    "names_only_weights",
    "trusted_images",
    "zero_shot_log_expectation",
]


@dataclass(frozen=True)
class ZeroShotPrior:
    r"""What names alone say of :math:`E_{kj}`, the mean of :math:`r_j` over images of class k.

    The images of class k are taken for Gaussian with mean ``m_k = mu + slope * (t_k - mean_j n_j)``
    and standard deviation `spread` in every direction; with only :math:`t_k` in the denominator of
    :math:`r_j`,

    .. math:: \log Z_{kj} = (n_j - t_k) \cdot m_k / T
        + \mathrm{spread}^2 (1 - n_j \cdot t_k) / T^2 .

    Attributes
    ----------
    class_embeddings : ndarray of shape (K, D)
        Unit text embeddings of the class names.
    image_mean : ndarray of shape (D,)
        mu, the mean embedding of images (not normalised).
    slope, spread : float
        Found on 512-dimensional CLIP embeddings.
    clip : float or None
        Upper bound on :math:`\log Z_{kj}`; None = no bound.
    strength : float
        n0: how many images of each class the prior counts as.
    """

    class_embeddings: np.ndarray
    image_mean: np.ndarray
    slope: float = 0.5
    spread: float = 0.035
    clip: float | None = 5.0
    strength: float = 1.0

    def class_means(self, corpus_mean: np.ndarray) -> np.ndarray:
        """Return m_k (K, D), float64, from the mean embedding of the corpus labels (D,)."""
        text = np.asarray(self.class_embeddings, dtype=float)
        return np.asarray(self.image_mean, dtype=float) + self.slope * (text - corpus_mean)

    def log_z_terms(
        self, corpus_embeddings: np.ndarray, temperature: float
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what makes up log Z before its clip: ``scale * cosine + per_label + per_class``.

        The cosine is that of a corpus label and a class name; `per_label` is (N,), `per_class`
        (K,).
        """
        corpus_mean = corpus_embeddings.mean(axis=0, dtype=float)
        variance = (self.spread / temperature) ** 2

        # m_k = common + slope * t_k, so that n_j . m_k is slope times a cosine and one number per
        # label. The corpus keeps its precision: a float64 copy of it can take 300 MB.
        common = np.asarray(self.image_mean, dtype=float) - self.slope * corpus_mean
        towards_common = corpus_embeddings @ common.astype(corpus_embeddings.dtype)
        scale = self.slope / temperature - variance
        per_label = towards_common.astype(float) / temperature + variance

        text = np.asarray(self.class_embeddings, dtype=float)
        towards_mean = np.einsum("kd,kd->k", text, self.class_means(corpus_mean))
        return scale, per_label, -towards_mean / temperature


def names_only_weights(
    class_embeddings: Any, corpus_embeddings: Any, *, level: float = 0.5, device: Device = "auto"
) -> np.ndarray:
    """Weights (N,) in [0, 1] that silence corpus labels as near to a class as classes to others.

    ``min(1, p / level)`` with p the proportion of class names whose nearest other class name is at
    least as close as the corpus label's nearest class name. All are 1 with a single class name, or
    where every weight would be 0.
    """
    # One name has no other that could be near: nothing to compare with.
    if len(class_embeddings) == 1:
        return np.ones(len(corpus_embeddings))

    p = _proportion_as_close(class_embeddings, corpus_embeddings, device=device)
    weights = np.minimum(1.0, p / level)
    return weights if weights.any() else np.ones(len(weights))


def zero_shot_log_expectation(
    prior: ZeroShotPrior, corpus: Any, *, temperature: float, device: Device = "auto"
) -> np.ndarray:
    """``log mean_k Z_kj`` (N,) without its clip: what E is taken for without ID images."""
    scale, per_label, per_class = prior.log_z_terms(corpus, temperature)

    # The corpus labels are the rows here, and the class names the bank that is summed over.
    with Chunks(device, corpus) as chunks:
        offset = chunks.tensor(per_class)
        classes = chunks.matrix(prior.class_embeddings)
        sums = chunks.logsumexp(corpus, classes, scale, offset=offset)
        return sums.squeeze(1).cpu().numpy() + per_label - np.log(len(classes))


def trusted_images(
    X: Any,
    class_index: Any,
    prior: ZeroShotPrior,
    corpus: Any,
    *,
    temperature: float,
    proportion: float,
    device: Device = "auto",
) -> np.ndarray:
    r"""Which images to believe to be ID: all but the least likely ones, unless their class helps.

    An image of class y is judged by

    ``cos(x, t_y) / T - log mean_j w_j exp(cos(x, n_j) / T) / Z_j``,

    with Z and w from names alone, so that bad images cannot vouch for each other. The `proportion`
    of images with the lowest values is left out, but for the best third of each class (rounded up):
    where a whole class has low values, its name is to blame. Of a class above the median size only
    a third of that is spared, and the only image of a class only if no other class name is nearer
    to it.
    """
    text, index = prior.class_embeddings, np.asarray(class_index)

    # The margin keeps 0.29 * 100 at 29 although it is 28.999... in binary.
    n_out = int(proportion * len(X) + 1e-9)
    if not n_out:
        return np.ones(len(X), dtype=bool)

    weights = names_only_weights(text, corpus, device=device)
    log_z = zero_shot_log_expectation(prior, corpus, temperature=temperature, device=device)
    against = _weighted_logsumexp(X, corpus, weights, log_z, temperature, device)
    score = np.einsum("nd,nd->n", X, text[index], dtype=np.float64) / temperature - against

    trusted = np.ones(len(X), dtype=bool)
    trusted[np.argsort(score, kind="stable")[:n_out]] = False

    # Rank of each image within its class, 0 = best: its place in the order (class, -score), less
    # the place of the first of its class.
    count = np.bincount(index)
    order = np.lexsort((-score, index))
    rank = np.empty(len(X), dtype=int)
    rank[order] = np.arange(len(X)) - (np.cumsum(count) - count)[index[order]]

    # The best third is spared, of a large class a third of the median size.
    usual = np.minimum(count, np.median(count[count > 0]))[index]
    in_best_third = 3 * rank < usual
    # An image that is the only one of its class would always be its best third.
    in_company = count[index] > 1
    named_rightly = nearest_class(X, text, device=device) == index
    return trusted | (in_best_third & (in_company | named_rightly))


def _weighted_logsumexp(
    X: Any,
    corpus: np.ndarray,
    weights: np.ndarray,
    log_z: np.ndarray,
    temperature: float,
    device: Device,
) -> np.ndarray:
    """Return ``log sum_j w_j exp(cos(x, n_j) / T) / Z_j`` of each image, (n,)."""
    with np.errstate(divide="ignore"):  # a weight may be 0
        log_weights = np.log(weights)

    with Chunks(device, corpus) as chunks:
        offset = chunks.tensor(log_weights - log_z)
        sums = chunks.logsumexp(X, chunks.matrix(corpus), 1 / temperature, offset=offset)
        return sums.squeeze(1).cpu().numpy()
