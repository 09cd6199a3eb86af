"""What class names alone say: how much ID images activate a corpus label, its weight, which ID images to trust.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "ZeroShotPrior",
    "names_only_weights",
    "negative_share",
    "trusted_images",
    "zero_shot_log_expectation",
]

_TILE_NUMBERS = 2**22


@dataclass(frozen=True)
class ZeroShotPrior:
    r"""What names alone say of :math:`E_{kj}`, the mean of :math:`r_j` over images of class k.

    The images of class k are taken for Gaussian with mean ``m_k = mu + slope * (t_k - mean_j n_j)``
    and standard deviation `spread` in every direction; with only :math:`t_k` in the denominator of
    :math:`r_j`,

    .. math:: \log Z_{kj} = (n_j - t_k) \cdot m_k / T + \mathrm{spread}^2 (1 - n_j \cdot t_k) / T^2 .

    Attributes
    ----------
    class_embeddings : ndarray of shape (K, D)
        Unit text embeddings of the ID labels.
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
        """Return m_k.

        Parameters
        ----------
        corpus_mean : ndarray of shape (D,)
            Mean of the corpus labels' embeddings.

        Returns
        -------
        ndarray of shape (K, D), float64
        """
        return np.asarray(self.image_mean, dtype=float) + self.slope * (
            np.asarray(self.class_embeddings, dtype=float) - corpus_mean
        )

    def log_rows(
        self, corpus_tile: np.ndarray, corpus_mean: np.ndarray, temperature: float
    ) -> np.ndarray:
        """Return log Z for some corpus labels.

        Parameters
        ----------
        corpus_tile : ndarray of shape (c, D)
            Unit text embeddings of some corpus labels.
        corpus_mean : ndarray of shape (D,)
            Mean over all corpus labels.
        temperature : float
            T.

        Returns
        -------
        ndarray of shape (K, c), float64
        """
        common = np.asarray(self.image_mean, dtype=float) - self.slope * corpus_mean
        own = np.einsum(
            "kd,kd->k",
            np.asarray(self.class_embeddings, dtype=float),
            self.class_means(corpus_mean),
        )
        cosine = (self.class_embeddings @ corpus_tile.T).astype(np.float64)
        out = (self.slope / temperature - self.spread**2 / temperature**2) * cosine
        out += (corpus_tile @ common) / temperature + self.spread**2 / temperature**2
        out -= own[:, None] / temperature
        return out if self.clip is None else np.minimum(out, self.clip, out=out)


def names_only_weights(
    class_embeddings: Any, corpus_embeddings: Any, *, level: float = 0.5
) -> np.ndarray:
    """Weights in [0, 1] that silence corpus labels as close to an ID label as ID labels are to each other.

    ``min(1, p / level)`` with p the share of ID labels whose nearest other ID label is at least as
    close as the corpus label's nearest ID label.

    Parameters
    ----------
    class_embeddings, corpus_embeddings : array-like of shape (K, D) and (N, D)
        Unit text embeddings.
    level : float, default=0.5
        Share at which the weight reaches 1.

    Returns
    -------
    ndarray of shape (N,), float64
        All 1 with a single ID label, or where every weight would be 0.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl_prior import names_only_weights
    >>> ids = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> names_only_weights(ids, np.array([[1.0, 0.0], [-1.0, 0.0]])).tolist()
    [0.0, 1.0]
    """
    if len(class_embeddings) == 1:
        return np.ones(len(corpus_embeddings))
    weights = np.minimum(1.0, _share_as_close(class_embeddings, corpus_embeddings) / level)
    return weights if weights.any() else np.ones(len(weights))


def negative_share(class_embeddings: Any, corpus_embeddings: Any, *, level: float = 0.5) -> float:
    """Share of corpus labels that are truly negative, estimated from the embeddings (Storey's estimator).

    A label that is really ID is taken to be as close to its nearest ID label as ID labels are to
    theirs. Then its p-value, the share of ID labels at least as close, is uniform; a truly negative
    label's is near 1. Labels with a p-value below `level` are counted as ID, and ``their share /
    level`` estimates the share of all ID labels.

    Parameters
    ----------
    class_embeddings, corpus_embeddings : array-like of shape (K, D) and (N, D)
        Unit text embeddings; at least 2 ID labels.
    level : float, default=0.5
        In (0, 1]. Smaller = fewer negatives are counted as ID, more variance.

    Returns
    -------
    float
        In [1 / N, 1]; 1 / N where more labels than the null explains are close to ID labels.

    Raises
    ------
    ValueError
        Fewer than 2 ID labels, no corpus label, or a `level` outside (0, 1].

    References
    ----------
    .. [1] Storey, "A direct approach to false discovery rates", JRSS B 64(3), 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl_prior import negative_share
    >>> ids = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> negative_share(ids, np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0], [-0.6, -0.8]]))
    0.5
    """
    if len(class_embeddings) < 2 or not len(corpus_embeddings):
        raise ValueError(
            "The share of true negatives is estimated from at least 2 ID labels and 1 corpus "
            f"label, got {len(class_embeddings)} and {len(corpus_embeddings)}; give the share as a "
            "number instead."
        )
    if not 0 < level <= 1:
        raise ValueError(f"level must be in (0, 1], got {level!r}.")
    contaminated = (
        float(np.mean(_share_as_close(class_embeddings, corpus_embeddings) < level)) / level
    )
    return max(1 - contaminated, 1 / len(corpus_embeddings))


def _share_as_close(class_embeddings: Any, corpus_embeddings: Any) -> np.ndarray:
    """Share of ID labels at least as close to another ID label as each corpus label is to its nearest; shape (N,)."""
    ids, corpus = np.asarray(class_embeddings), np.asarray(corpus_embeddings)
    between = ids @ ids.T
    np.fill_diagonal(between, -np.inf)
    null = np.sort(between.max(axis=1).astype(float))
    closest = np.concatenate(
        [(ids @ corpus[part].T).max(axis=0) for part in label_parts(len(corpus), len(ids))]
    )
    return (len(null) - np.searchsorted(null, closest.astype(float) - 1e-6)) / len(null)


def zero_shot_log_expectation(
    prior: ZeroShotPrior, corpus_embeddings: Any, *, temperature: float
) -> np.ndarray:
    """``log mean_k Z_kj`` without its clip: what E is taken for where there are no ID images.

    Parameters
    ----------
    prior : ZeroShotPrior
        Its `clip` and `strength` are not used.
    corpus_embeddings : array-like of shape (N, D)
        Unit text embeddings of the corpus labels.
    temperature : float
        T.

    Returns
    -------
    ndarray of shape (N,), float64

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl_prior import ZeroShotPrior, zero_shot_log_expectation
    >>> prior = ZeroShotPrior(np.eye(2, 3), np.zeros(3))
    >>> zero_shot_log_expectation(prior, np.eye(3), temperature=1.0).round(3)
    array([-0.219, -0.219, -0.499])
    """
    corpus = np.asarray(corpus_embeddings)
    free = ZeroShotPrior(prior.class_embeddings, prior.image_mean, prior.slope, prior.spread, None)
    mean = corpus.mean(axis=0, dtype=float)
    parts = label_parts(len(corpus), len(prior.class_embeddings))
    sums = [log_sum(free.log_rows(corpus[part], mean, temperature), axis=0) for part in parts]
    return np.concatenate(sums) - np.log(len(prior.class_embeddings))


def trusted_images(
    image: Any,
    class_index: Any,
    prior: ZeroShotPrior,
    corpus_embeddings: Any,
    *,
    temperature: float,
    share: float,
) -> np.ndarray:
    r"""Which images to believe to be ID: all but the least likely ones, unless their class vouches for them.

    An image of class y is judged by ``cos(x, t_y) / T - log mean_j w_j exp(cos(x, n_j) / T) /
    Z_j``, with Z and w from names alone, so that bad images cannot vouch for each other. The
    `share` of images with the lowest values is left out, but for the best third of each class
    (rounded up): where a whole class has low values, its name is to blame. Of a class above the
    median size only a third of that is spared, and the only image of a class only if no other class
    name is nearer to it.

    Parameters
    ----------
    image : array-like of shape (n, D)
        Unit image embeddings.
    class_index : array-like of int of shape (n,)
        Class of each image as given, in 0..K-1.
    prior : ZeroShotPrior
        With the mean of the images; its `clip` and `strength` are not used.
    corpus_embeddings : array-like of shape (N, D)
        Unit text embeddings of the corpus labels.
    temperature : float
        T.
    share : float
        Largest share of images to leave out, in [0, 1).

    Returns
    -------
    ndarray of bool of shape (n,)
        True = trusted.

    Raises
    ------
    ValueError
        If `share` is outside [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl_prior import ZeroShotPrior, trusted_images
    >>> text, images = np.eye(3), np.eye(3)[[0, 0, 0, 2]]
    >>> prior = ZeroShotPrior(text[:2], images.mean(axis=0))
    >>> trusted_images(images, [0, 0, 0, 0], prior, text[2:], temperature=0.1, share=0.25).tolist()
    [True, True, True, False]
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share!r}.")
    rows, index = np.asarray(image), np.asarray(class_index)
    ids, corpus = np.asarray(prior.class_embeddings), np.asarray(corpus_embeddings)
    trusted = np.ones(len(rows), dtype=bool)
    if not (n_out := int(share * len(rows) + 1e-9)):
        return trusted
    with np.errstate(divide="ignore"):
        offset = np.log(names_only_weights(ids, corpus))
    offset -= zero_shot_log_expectation(prior, corpus, temperature=temperature)
    score = np.full(len(rows), -np.inf)
    for part in label_parts(len(corpus), len(rows)):
        logits = (rows @ corpus[part].T).astype(np.float64) / temperature
        score = np.logaddexp(score, log_sum(logits + offset[part], axis=1))
    score = np.einsum("nd,nd->n", rows, ids[index], dtype=np.float64) / temperature - score
    trusted[np.argsort(score, kind="stable")[:n_out]] = False
    count = np.bincount(index)
    order = np.lexsort((-score, index))
    rank = np.empty(len(rows), dtype=int)
    rank[order] = np.arange(len(rows)) - (np.cumsum(count) - count)[index[order]]
    nearest = np.concatenate(
        [(rows[part] @ ids.T).argmax(axis=1) for part in label_parts(len(rows), len(ids))]
    )
    usual = np.minimum(count, np.median(count[count > 0]))[index]
    return trusted | ((3 * rank < usual) & ((count[index] > 1) | (nearest == index)))


def label_parts(n_labels: int, rows: int) -> Iterator[slice]:
    """Yield slices of labels such that `rows` times their number stays bounded."""
    step = max(1, _TILE_NUMBERS // rows)
    for start in range(0, n_labels, step):
        yield slice(start, min(start + step, n_labels))


def log_sum(logs: np.ndarray, axis: int) -> np.ndarray:
    """Log of the sum of exp, -inf where all are -inf."""
    top = np.maximum(logs.max(axis=axis, keepdims=True), -1e300)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logs - top).sum(axis=axis)) + top.squeeze(axis)
