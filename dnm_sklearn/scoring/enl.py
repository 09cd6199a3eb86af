r"""Mean activation of every corpus label by ID images, and the score that divides by it (pure functions).

With unit rows x (image), :math:`t_k` (ID labels) and :math:`n_j` (corpus labels),

.. math:: r_j(x) = \exp\bigl(\cos(x, n_j)/T - \mathrm{LSE}_k \cos(x, t_k)/T\bigr), \qquad
          s(x) = -\log \frac1N \sum_j w_j\, r_j(x) / E_j,

with :math:`E_j` the mean of :math:`r_j` over ID images; **higher s = more ID**. A label that ID
images activate anyway (a synonym, a hypernym, a hub word) has a large :math:`E_j` and falls silent.
All arithmetic is in log space; labels are worked through in tiles, so that memory stays bounded at
any N. With :math:`E_j` estimated, :math:`r_j/E_j` is a score and no e-value;
:mod:`dnm_sklearn.calibration.conformal` has forms that guarantee something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dnm_sklearn.scoring._tiles import (
    BatchSize,
    Device,
    LogitTiles,
    check_matrix,
    check_positive,
    check_same_width,
)
from dnm_sklearn.scoring._tiles import take as take_rows
from dnm_sklearn.scoring.enl_prior import ZeroShotPrior, label_parts, log_sum

__all__ = [
    "Expectation",
    "add_background",
    "class_prototypes",
    "expectation",
    "expectation_score",
    "leave_one_out_scores",
    "log_id_mass",
]

_TILE_NUMBERS = 2**22


@dataclass(frozen=True)
class Expectation:
    """Estimated log E of every corpus label.

    Attributes
    ----------
    log_mean : ndarray of shape (N,)
        log E_j.
    shift : float
        What was added to the prior's log Z before mixing (0 without a prior).
    """

    log_mean: np.ndarray
    shift: float = 0.0


def log_id_mass(
    image: Any,
    class_embeddings: Any,
    *,
    temperature: float,
    own_class: Any = None,
    own_row: Any = None,
) -> np.ndarray:
    """Log mass of the ID labels, ``LSE_k cos(x, b_k) / T``.

    Parameters
    ----------
    image : array-like of shape (n, D)
        Unit image embeddings.
    class_embeddings : array-like of shape (K, D)
        Rows b_k: text embeddings, or text plus weighted prototypes.
    temperature : float
        T.
    own_class, own_row : array-like of shape (n,) and (n, D), optional
        For image i, row ``own_row[i]`` takes the place of row ``own_class[i]``: leave-one-out
        prototypes.

    Returns
    -------
    ndarray of shape (n,), float64

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl import log_id_mass
    >>> log_id_mass(np.eye(2)[:1], np.eye(2), temperature=1.0).round(4)
    array([1.3133])
    """
    image, bank = np.asarray(image), np.asarray(class_embeddings)
    out = np.empty(len(image))
    step = max(1, _TILE_NUMBERS // len(bank))
    for start in range(0, len(image), step):
        part = slice(start, start + step)
        logits = (image[part] @ bank.T).astype(np.float64)
        if own_class is not None:
            own = np.einsum(
                "nd,nd->n", image[part].astype(float), np.asarray(own_row[part], dtype=float)
            )
            logits[np.arange(len(logits)), own_class[part]] = own
        out[part] = log_sum(logits / temperature, axis=1)
    return out


def class_prototypes(image: Any, class_index: Any, fallback: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean image of each class, and for each image that of its class without it.

    Parameters
    ----------
    image : array-like of shape (n, D)
        Unit image embeddings.
    class_index : array-like of int of shape (n,)
        Class of each image, in 0..K-1.
    fallback : array-like of shape (K, D)
        Direction for a class without images (see
        :meth:`~dnm_sklearn.scoring.enl_prior.ZeroShotPrior.class_means`).

    Returns
    -------
    prototypes : ndarray of shape (K, D), float64
        Unit rows.
    left_out : ndarray of shape (n, D), float64
        Unit rows: the prototype of the image's class, made without the image.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl import class_prototypes
    >>> class_prototypes(np.eye(2), [0, 0], np.ones((1, 2)))[1].tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    rows, index = np.asarray(image, dtype=float), np.asarray(class_index)
    default = np.asarray(fallback, dtype=float)
    total = np.zeros_like(default)
    np.add.at(total, index, rows)
    count = np.bincount(index, minlength=len(default))
    prototypes = np.where(count[:, None] > 0, total, default)
    left_out = np.where(count[index, None] > 1, total[index] - rows, default[index])
    return _unit(prototypes), _unit(left_out)


def expectation(
    image: Any,
    log_id: Any,
    corpus_embeddings: Any,
    *,
    temperature: float,
    class_index: Any = None,
    prior: ZeroShotPrior | None = None,
) -> Expectation:
    r"""Log of the mean of r_j over ID images, for every corpus label.

    Plain (no `class_index`): the mean over the images. Stratified (`class_index` and `prior`):
    ``E_j = mean_k (n_k E_kj + n0 Z_kj) / (n_k + n0)`` over all K classes, which needs images of
    some classes only; all log Z are first shifted by the median over j of ``LSE_k log E_kj - LSE_k
    log Z_kj`` over the classes that have images.

    Parameters
    ----------
    image : array-like of shape (n, D)
        Unit embeddings of ID images.
    log_id : array-like of shape (n,)
        Their :func:`log_id_mass`.
    corpus_embeddings : array-like of shape (N, D)
        Unit text embeddings of the corpus labels.
    temperature : float
        T.
    class_index : array-like of int of shape (n,), optional
        Class of each image.
    prior : ZeroShotPrior, optional
        Needed with `class_index`.

    Returns
    -------
    Expectation

    Raises
    ------
    ValueError
        Shapes that do not fit, no image, or `class_index` without `prior`.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl import expectation, log_id_mass
    >>> image, ids = np.eye(2)[:1], np.eye(2)[:1]
    >>> mass = log_id_mass(image, ids, temperature=1.0)
    >>> expectation(image, mass, np.eye(2), temperature=1.0).log_mean.tolist()
    [0.0, -1.0]
    """
    sums = _Sums(image, log_id, corpus_embeddings, temperature, class_index, prior)
    if prior is None:
        return Expectation(
            np.concatenate([log_sum(sums.ratios(part), axis=0) for part in sums.parts]) - sums.log_n
        )
    own, guess, covered_own, covered_guess = (np.empty(sums.n_labels) for _ in range(4))
    for part in sums.parts:
        ratio, z = (
            sums.ratios(part),
            prior.log_rows(sums.corpus[part], sums.corpus_mean, temperature),
        )
        own[part] = log_sum(ratio - sums.log_image_weight[:, None], axis=0)
        guess[part] = log_sum(z + sums.log_prior_weight[:, None], axis=0)
        covered_own[part] = log_sum(ratio - np.log(sums.count[sums.index])[:, None], axis=0)
        covered_guess[part] = log_sum(z[sums.count > 0], axis=0)
    shift = float(np.median(covered_own - covered_guess))
    return Expectation(np.logaddexp(own, guess + shift), shift)


def leave_one_out_scores(
    image: Any,
    log_id: Any,
    corpus_embeddings: Any,
    *,
    temperature: float,
    class_index: Any = None,
    prior: ZeroShotPrior | None = None,
    shift: float = 0.0,
) -> np.ndarray:
    """Scores of the ID images, each with an expectation made without it.

    Parameters
    ----------
    image, log_id, corpus_embeddings, temperature, class_index, prior
        As in :func:`expectation`; at least two images, or a prior.
    shift : float, default=0.0
        The prior's shift from :func:`expectation`, kept.

    Returns
    -------
    ndarray of shape (n,), float64
        Higher = more ID.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl import leave_one_out_scores
    >>> leave_one_out_scores(np.eye(2), np.zeros(2), np.eye(2), temperature=1.0).round(3)
    array([-0.434, -0.434])
    """
    sums = _Sums(image, log_id, corpus_embeddings, temperature, class_index, prior)
    if prior is None and sums.log_n == 0:
        raise ValueError(
            "Leaving one of 1 image out leaves none: give at least two ID images, or a prior."
        )
    order = np.argsort(sums.index, kind="stable")
    firsts = np.searchsorted(sums.index[order], np.arange(sums.n_classes))
    present = sums.count > 0
    strength = 0.0 if prior is None else prior.strength
    without = np.maximum(sums.count[sums.index] - 1 + strength, 1e-300)[:, None]
    out = np.full(len(sums.index), -np.inf)
    for part in sums.parts:
        ratio = sums.ratios(part)
        z = np.full((sums.n_classes, ratio.shape[1]), -np.inf)
        if prior is not None:
            z = prior.log_rows(sums.corpus[part], sums.corpus_mean, temperature) + shift
        top = np.maximum(ratio.max(axis=0), z.max(axis=0))
        linear = np.exp(ratio - top)
        total = strength * np.exp(z - top)
        total[present] += np.add.reduceat(linear[order], firsts[present], axis=0)
        mass = total / np.maximum(sums.count + strength, 1e-300)[:, None]
        rest = np.maximum(mass.sum(axis=0) - mass[sums.index], 0)
        left = (rest + np.maximum(total[sums.index] - linear, 0) / without) / sums.n_classes
        with np.errstate(divide="ignore"):
            gain = ratio - top - np.log(np.maximum(left, 1e-280))
        out = np.logaddexp(out, log_sum(gain, axis=1))
    return np.log(sums.n_labels) - out


def expectation_score(
    image: Any,
    class_embeddings: Any,
    corpus_embeddings: Any,
    log_expectation: Any = None,
    *,
    temperature: float,
    log_weights: Any = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
) -> np.ndarray:
    """``-log mean_j w_j r_j(x) / E_j``: one product with both banks, reduced in log space.

    Parameters
    ----------
    image : array-like of shape (n, D)
        Unit image embeddings.
    class_embeddings : array-like of shape (K, D)
        Unit text embeddings of the ID labels, or text plus weighted prototypes.
    corpus_embeddings : array-like of shape (N, D)
        Unit text embeddings of the corpus labels.
    log_expectation : array-like of shape (N,), optional
        log E_j; None = 0.
    temperature : float
        T.
    log_weights : array-like of shape (N,), optional
        log w_j; None = 0. A weight may be 0 (-inf).
    batch_size : int or "auto", default="auto"
        Images in a tile of the product.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    ndarray of shape (n,), float64
        Higher = more ID; 0 where the image activates the labels as much as an ID image does on
        average.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.enl import expectation_score
    >>> labels = np.eye(3)
    >>> expectation_score(labels, labels[:1], labels[1:], temperature=0.1).round(2)
    array([10.  , -9.31, -9.31])
    """
    image = check_matrix("image", image, allow_empty=True)
    class_embeddings, corpus_embeddings = (
        check_matrix("class_embeddings", class_embeddings),
        check_matrix("corpus_embeddings", corpus_embeddings),
    )
    check_same_width(
        image=image, class_embeddings=class_embeddings, corpus_embeddings=corpus_embeddings
    )
    temperature = check_positive("temperature", temperature)
    n_labels = corpus_embeddings.shape[0]
    offset = np.zeros(n_labels)
    for name, values, sign in (
        ("log_expectation", log_expectation, -1),
        ("log_weights", log_weights, 1),
    ):
        if values is None:
            continue
        if np.shape(values) != (n_labels,):
            raise ValueError(
                f"{name} must have one number a corpus label, ({n_labels},), got "
                f"{np.shape(values)}."
            )
        offset = offset + sign * np.asarray(values, dtype=float)
    scores = np.empty(image.shape[0])
    with LogitTiles(
        (class_embeddings, corpus_embeddings), temperature, batch_size, device
    ) as tiles:
        added = take_rows(offset[:, None], slice(None), tiles.dtype, tiles.device)[:, 0]
        for rows, block in tiles.blocks(image, 2):
            log_id = tiles.group_lse(
                block, class_embeddings, slice(0, class_embeddings.shape[0]), 1
            )
            log_corpus = tiles.group_lse(
                block, corpus_embeddings, slice(0, n_labels), 1, offset=added
            )
            scores[rows] = (log_id.double() - log_corpus.double()).squeeze(1).cpu().numpy()
    return scores + np.log(n_labels)


def add_background(
    scores: Any, largest_cosine: Any, log_expectation: float, *, weight: float, temperature: float
) -> np.ndarray:
    r"""Add a background label: one that every image would activate equally, were it not for the ID labels.

    ``r_0(x) = exp(-max_k cos(x, t_k) / T)`` and its ID mean :math:`E_0` enter the mean with
    `weight` times the weight of all corpus labels together: ``-log((exp(-score) + weight r_0 / E_0)
    / (1 + weight))``. It speaks against images that are like no class and like no corpus label
    either.

    Parameters
    ----------
    scores : array-like of shape (n,)
        From :func:`expectation_score`.
    largest_cosine : array-like of shape (n,)
        Largest cosine to a class name.
    log_expectation : float or array-like of shape (n,)
        log E_0.
    weight : float
        Above 0.
    temperature : float
        T.

    Returns
    -------
    ndarray of shape (n,), float64
        Higher = more ID.

    Examples
    --------
    >>> from dnm_sklearn.scoring.enl import add_background
    >>> add_background([0.0], [0.3], -30.0, weight=1.0, temperature=0.01).round(3).tolist()
    [0.0]
    """
    log_ratio = -np.asarray(largest_cosine, dtype=float) / temperature - log_expectation
    return -np.logaddexp(-np.asarray(scores, dtype=float), np.log(weight) + log_ratio) + np.log1p(
        weight
    )


class _Sums:
    """Checked input of the two sums over ID images, and their weights."""

    def __init__(self, image, log_id, corpus_embeddings, temperature, class_index, prior) -> None:
        self.image, self.corpus = (
            check_matrix("image", image),
            check_matrix("corpus_embeddings", corpus_embeddings),
        )
        check_same_width(image=self.image, corpus_embeddings=self.corpus)
        if (class_index is None) != (prior is None):
            raise ValueError(
                "class_index and prior go together: give both (stratified) or neither (plain)."
            )
        self.temperature, self.n_labels = (
            check_positive("temperature", temperature),
            len(self.corpus),
        )
        self.log_id = np.asarray(log_id, dtype=float)
        self.log_n = float(np.log(len(self.image)))
        self.n_classes = 1 if prior is None else len(prior.class_embeddings)
        self.index = (
            np.zeros(len(self.image), dtype=int) if class_index is None else np.asarray(class_index)
        )
        self.count = np.bincount(self.index, minlength=self.n_classes)
        self.corpus_mean = self.corpus.mean(axis=0, dtype=float)
        self.parts = list(label_parts(self.n_labels, max(len(self.image), self.n_classes)))
        if prior is not None:
            whole = self.count + prior.strength
            self.log_image_weight = np.log(self.n_classes * whole[self.index])
            with np.errstate(divide="ignore"):
                self.log_prior_weight = np.log(prior.strength) - np.log(self.n_classes * whole)

    def ratios(self, part: slice) -> np.ndarray:
        """Return log r of all images and some labels, (n, c) float64."""
        return (self.image @ self.corpus[part].T).astype(
            np.float64
        ) / self.temperature - self.log_id[:, None]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
