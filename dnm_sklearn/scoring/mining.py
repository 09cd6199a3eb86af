"""Choosing negative labels out of a corpus, as pure functions of text embeddings.

Criteria (one number a label), then :func:`select_fraction` keeps the best of them and
:func:`group_permutation` deals those into groups. Everything takes and returns numpy arrays (torch tensors
are taken too); products are cut into chunks, so that extra memory stays under 1 GB however large
the corpus. NaN embeddings give NaN criteria, which :func:`select_fraction` refuses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.scoring._neighbors import over_nearest
from dnm_sklearn.scoring._tiles import (
    Device,
    check_integer,
    check_matrix,
    compute_dtype,
    reduce_products,
    resolve_device,
    take,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "group_permutation",
    "knn_density",
    "max_similarity",
    "norm_representativeness",
    "percentile_similarity",
    "select_fraction",
]

_TINY_DISTANCE = 1e-12


def percentile_similarity(
    corpus_embeddings: Any,
    class_embeddings: Any,
    *,
    quantile: float = 0.95,
    device: Device = "auto",
) -> np.ndarray:
    """Quantile over the ID labels of each corpus label's cosine (NegLabel's criterion).

    Parameters
    ----------
    corpus_embeddings : array-like of shape (N, width)
        Unit text embeddings of the corpus.
    class_embeddings : array-like of shape (K, width)
        Unit text embeddings of the ID labels.
    quantile : float, default=0.95
        In [0, 1]; between two labels it is interpolated linearly, as ``numpy.quantile`` does.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (N,), float64
        Cosines; the labels with the **smallest** are farthest from the ID names.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a quantile outside [0, 1].

    References
    ----------
    .. [1] Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models",
       ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import percentile_similarity
    >>> percentile_similarity(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.8, 0.6]]), quantile=0.5)
    array([0.7])
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must be in [0, 1], got {quantile!r}.")

    def reduce(cosines: torch.Tensor) -> torch.Tensor:
        position = quantile * (cosines.shape[1] - 1)
        below = math.floor(position)
        if cosines.device.type == "cpu":
            low, high = _neighbouring_order(cosines, below)
        else:
            largest = cosines.topk(cosines.shape[1] - below, dim=1).values.double()
            low, high = largest[:, -1], largest[:, max(-2, -largest.shape[1])]
        return low + (high - low) * (position - below)

    return reduce_products(
        reduce,
        corpus_embeddings,
        class_embeddings,
        names=("corpus_embeddings", "class_embeddings"),
        device=device,
    )


def max_similarity(
    corpus_embeddings: Any, class_embeddings: Any, *, device: Device = "auto"
) -> np.ndarray:
    """Largest cosine of each corpus label to an ID label (CSP drops those above 0.95 as duplicates).

    Parameters
    ----------
    corpus_embeddings, class_embeddings : array-like of shape (N, width) and (K, width)
        Unit text embeddings.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (N,), float64
        Cosines.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import max_similarity
    >>> max_similarity(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.8, 0.6]]))
    array([0.8])
    """
    return reduce_products(
        lambda cosines: cosines.amax(dim=1),
        corpus_embeddings,
        class_embeddings,
        names=("corpus_embeddings", "class_embeddings"),
        device=device,
    )


def knn_density(
    corpus_embeddings: Any, *, n_neighbors: int = 100, device: Device = "auto"
) -> np.ndarray:
    """Density ``-log sum |t_y - t_j|^2`` over a label's nearest corpus labels (DNM, as in the paper).

    The label itself is left out, exactly once: other labels with the same embedding are neighbours
    at distance 0. The search is exact.

    Parameters
    ----------
    corpus_embeddings : array-like of shape (N, width)
        Unit text embeddings of the corpus.
    n_neighbors : int, default=100
        k; more than the N - 1 others warns and takes all of them.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (N,), float64
        Larger = denser; ``inf`` where all neighbours coincide with the label. DNM keeps the
        **largest**.

    Raises
    ------
    ValueError
        A shape or `n_neighbors` that does not fit.

    References
    ----------
    .. [1] "Debiased Negative Mining", arXiv 2605.23797, KDD 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import knn_density
    >>> knn_density(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), n_neighbors=1).round(4)
    array([-0.6931, -0.6931, -0.6931])
    """
    corpus_embeddings = check_matrix("corpus_embeddings", corpus_embeddings)
    n_labels = corpus_embeddings.shape[0]
    n_neighbors = _check_neighbors(n_neighbors, n_labels - 1, "other labels")
    if n_neighbors == 0:
        return np.full(n_labels, np.inf)

    def density(rows: slice, cosine: torch.Tensor) -> torch.Tensor:
        return -(2 - 2 * cosine.double()).clamp_(min=0).sum(dim=1).log_()

    return over_nearest(density, corpus_embeddings, n_neighbors, None, True, device)


def norm_representativeness(
    corpus_embeddings: Any, norms: Any, *, n_neighbors: int = 100, device: Device = "auto"
) -> np.ndarray:
    """Rank labels as DNM's released code does, which is by their raw embedding norm.

    ``-mean log(n_y + n_j - 2 cos)`` over the `n_neighbors` labels with the smallest such
    "distance", the label itself included, with raw norms n. On CLIP text it keeps the labels with
    the smallest norm (concrete, visual words). Distances below 1e-12 (possible where norms are
    about 1 or less) count as 1e-12.

    Parameters
    ----------
    corpus_embeddings : array-like of shape (N, width)
        Unit text embeddings of the corpus.
    norms : array-like of shape (N,)
        Norms of the text embeddings before normalisation (``encode_text(..., return_norm=True)``).
    n_neighbors : int, default=100
        k; more than N warns and takes all.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (N,), float64
        DNM's released code keeps the **largest**.

    Raises
    ------
    ValueError
        A shape or `n_neighbors` that does not fit, or norms that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import norm_representativeness
    >>> norm_representativeness(np.eye(2), [9.0, 8.0], n_neighbors=1).round(4)
    array([-2.7726, -2.6391])
    """
    corpus_embeddings = check_matrix("corpus_embeddings", corpus_embeddings)
    norms = np.asarray(norms, dtype=np.float64)
    if norms.shape != (corpus_embeddings.shape[0],):
        raise ValueError(
            f"norms must have shape ({corpus_embeddings.shape[0]},), one a label, got "
            f"{norms.shape}."
        )
    if not np.isfinite(norms).all():
        bad = np.flatnonzero(~np.isfinite(norms))
        raise ValueError(f"norms must be finite: {len(bad)} are not, the first at row {bad[0]}.")
    n_neighbors = _check_neighbors(n_neighbors, len(norms), "labels")
    device = resolve_device(device)
    own = take(norms, slice(None), compute_dtype(0), device)

    def representativeness(rows: slice, similarity: torch.Tensor) -> torch.Tensor:
        distance = own[rows, None] - 2 * similarity.double()
        return -distance.clamp_(min=_TINY_DISTANCE).log_().mean(dim=1)

    return over_nearest(representativeness, corpus_embeddings, n_neighbors, own / 2, False, device)


def select_fraction(
    criterion: Any,
    is_adjective: Any,
    noun_fraction: float,
    adjective_fraction: float,
    *,
    largest: bool,
) -> np.ndarray:
    """Labels with the best criterion, a fraction of the nouns and a fraction of the adjectives.

    Each part keeps ``floor(fraction * size)``. If both come to none, the one best label is kept (of
    the parts with a fraction above 0, if there is one).

    Parameters
    ----------
    criterion : array-like of shape (N,)
        One number a label; infinities are fine.
    is_adjective : array-like of shape (N,), bool
        Which labels are adjectives; the others are nouns.
    noun_fraction, adjective_fraction : float
        In [0, 1].
    largest : bool
        Whether the best are the largest (density, norm) or the smallest (percentile).

    Returns
    -------
    numpy.ndarray of shape (M,), int64
        Row numbers: nouns best first, then adjectives best first. Ties keep corpus order.

    Raises
    ------
    ValueError
        NaN, shapes that differ, an empty corpus, or a fraction outside [0, 1].

    Examples
    --------
    >>> from dnm_sklearn.scoring.mining import select_fraction
    >>> select_fraction([0.3, 0.1, 0.2, 0.4], [False, False, False, True], 0.7, 1.0, largest=False)
    array([1, 2, 3])
    """
    criterion = np.asarray(criterion, dtype=np.float64)
    is_adjective = np.asarray(is_adjective, dtype=bool)
    if criterion.ndim != 1 or criterion.size == 0 or is_adjective.shape != criterion.shape:
        raise ValueError(
            "criterion and is_adjective must be 1-D, of one length and not empty, "
            f"got shapes {criterion.shape} and {is_adjective.shape}."
        )
    for name, fraction in (
        ("noun_fraction", noun_fraction),
        ("adjective_fraction", adjective_fraction),
    ):
        if not 0 <= fraction <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {fraction!r}.")
    if np.isnan(criterion).any():
        bad = np.flatnonzero(np.isnan(criterion))
        raise ValueError(
            f"criterion is NaN for {len(bad)} of {len(criterion)} labels, the first at row "
            f"{bad[0]}: check their text embeddings for NaN."
        )
    best_first = np.argsort(-criterion if largest else criterion, kind="stable")
    parts = []
    for part, fraction in ((~is_adjective, noun_fraction), (is_adjective, adjective_fraction)):
        candidates = best_first[part[best_first]]
        # The margin keeps 0.29 * 100 at 29 although it is 28.999... in binary.
        parts.append(candidates[: math.floor(fraction * len(candidates) + 1e-9)])
    kept = np.concatenate(parts)
    if len(kept) == 0:
        wanted = np.where(is_adjective, adjective_fraction, noun_fraction)[best_first] > 0
        kept = best_first[wanted][:1] if wanted.any() else best_first[:1]
    return kept.astype(np.int64)


def group_permutation(n_labels: int, n_groups: int, random_state: Any = None) -> np.ndarray:
    """Order in which ordered labels are dealt into groups of ``Q = n_labels // n_groups``, Q at a time.

    Parameters
    ----------
    n_labels : int
        M, labels kept by mining, best first within nouns and adjectives.
    n_groups : int
        G, in 1..M.
    random_state : int, RandomState or None, default=None
        Seed of the permutation. None deals in the order given.

    Returns
    -------
    numpy.ndarray of shape (Q * G,), int64
        A permutation of 0..Q*G-1: the ``M mod G`` last labels are dropped before it is drawn.

    Raises
    ------
    ValueError
        `n_groups` outside 1..M.

    Examples
    --------
    >>> from dnm_sklearn.scoring.mining import group_permutation
    >>> group_permutation(7, 3)
    array([0, 1, 2, 3, 4, 5])
    >>> sorted(group_permutation(7, 3, random_state=0).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    n_labels = check_integer("n_labels", n_labels, 1)
    n_groups = check_integer("n_groups", n_groups, 1, n_labels, why=" (the number of labels)")
    kept = n_labels // n_groups * n_groups
    if random_state is None:
        return np.arange(kept)
    from sklearn.utils import check_random_state

    return check_random_state(random_state).permutation(kept).astype(np.int64)


def _neighbouring_order(values: torch.Tensor, below: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest value of each row but `below`, and the next; reorders `values`, which are on the CPU.

    numpy's partition is several times faster than torch's topk and sort.
    """
    import torch

    rows = values.numpy()
    rows.partition(below, axis=1)
    low = rows[:, below]
    high = np.fmin.reduce(rows[:, below + 1 :], axis=1) if below + 1 < rows.shape[1] else low
    return torch.from_numpy(low.astype(np.float64)), torch.from_numpy(high.astype(np.float64))


def _check_neighbors(n_neighbors: Any, available: int, what: str) -> int:
    n_neighbors = check_integer("n_neighbors", n_neighbors, 1)
    if n_neighbors > available:
        warn(
            f"n_neighbors={n_neighbors} is more than the corpus has: all {available} {what} are "
            "taken.",
        )
    return min(n_neighbors, available)
