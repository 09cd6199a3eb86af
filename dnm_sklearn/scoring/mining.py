"""Choosing negative labels out of a corpus, as pure functions of text embeddings.

Criteria (one number per label), then :func:`select_fraction` keeps the best of them and
:func:`group_permutation` deals those into groups. Everything takes and returns numpy arrays (torch
tensors are taken too). Extra memory stays under 1 GB however large the corpus. NaN embeddings give
NaN criteria, which :func:`select_fraction` refuses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

from dnm_sklearn._utils.validation import check_integer, check_matrices, check_matrix
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.scoring._chunks import Chunks, Device, reduce_products
from dnm_sklearn.scoring.class_names import max_logit

if TYPE_CHECKING:
    import torch

__all__ = [
    "group_permutation",
    "knn_density",
    "negative_proportion",
    "norm_representativeness",
    "percentile_similarity",
    "select_fraction",
]

# Smaller "distances" of norm_representativeness count as this: the logarithm of 0 is -inf.
_TINY_DISTANCE = 1e-12
# The k largest of a row are searched in 5 k groups of columns: with fewer, more numbers are left to
# select from; with 8 k, selecting the bound costs four times as much. In groups of less than 4
# columns it costs as much as selecting from the whole row. 64 rows stay in a core's cache.
_GROUPS = 5
_SMALLEST_GROUP = 4
_ROWS = 64
# Cosines of whole rows of a corpus held by the neighbour search: 256 MB, so hundreds of rows.
_SEARCH_NUMBERS = 2**26
# Two cosines closer than float32 can tell apart count as equal.
_SAME_COSINE = 1e-6


def percentile_similarity(
    corpus_embeddings: Any,
    class_embeddings: Any,
    *,
    quantile: float = 0.95,
    device: Device = "auto",
) -> np.ndarray:
    """Quantile over the class names of each corpus label's cosine (NegLabel's criterion).

    Parameters
    ----------
    corpus_embeddings : array-like of shape (N, width)
        Unit text embeddings of the corpus.
    class_embeddings : array-like of shape (K, width)
        Unit text embeddings of the class names.
    quantile : float, default=0.95
        In [0, 1]; between two class names it is interpolated linearly, as ``numpy.quantile`` does.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    numpy.ndarray of shape (N,), float64
        Cosines; the labels with the **smallest** are farthest from the class names.

    Raises
    ------
    ValueError
        Shapes or widths that do not fit, or a quantile outside [0, 1].

    References
    ----------
    .. [1] Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language
       Models", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import percentile_similarity
    >>> corpus, classes = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.8, 0.6]])
    >>> percentile_similarity(corpus, classes, quantile=0.5)
    array([0.7])
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must be in [0, 1], got {quantile!r}.")
    corpus_embeddings, class_embeddings = check_matrices(
        corpus_embeddings=corpus_embeddings, class_embeddings=class_embeddings
    )
    # The quantile lies between the value with so many values below it, and the next.
    position = quantile * (class_embeddings.shape[0] - 1)
    below = math.floor(position)

    def interpolate(_: slice, cosines: torch.Tensor) -> torch.Tensor:
        largest = _largest(cosines, cosines.shape[1] - below).double()
        lowest = largest.topk(min(2, largest.shape[1]), dim=1, largest=False).values
        low, high = lowest[:, 0], lowest[:, -1]
        return low + (high - low) * (position - below)

    return reduce_products(interpolate, corpus_embeddings, class_embeddings, device=device)


def knn_density(
    corpus_embeddings: Any, *, n_neighbors: int = 100, device: Device = "auto"
) -> np.ndarray:
    """Density ``-log sum |t_y - t_j|^2`` over a label's nearest corpus labels, as in DNM.

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
        largest.

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
    corpus = check_matrix("corpus_embeddings", corpus_embeddings)
    n_neighbors = _check_neighbors(n_neighbors, corpus.shape[0] - 1, "other labels")
    if n_neighbors == 0:
        return np.full(corpus.shape[0], np.inf)

    def density(part: slice, cosines: torch.Tensor) -> torch.Tensor:
        cosines[:, part].fill_diagonal_(-math.inf)  # the label itself
        nearest = _largest(cosines, n_neighbors).double()
        # |t_y - t_j|^2 of unit vectors, not below 0 by rounding.
        distance = (2 - 2 * nearest).clamp_(min=0)
        return -distance.sum(dim=1).log_()

    return reduce_products(density, corpus, corpus, most_numbers=_SEARCH_NUMBERS, device=device)


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

    References
    ----------
    .. [1] "Debiased Negative Mining", arXiv 2605.23797, KDD 2026: its released code.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import norm_representativeness
    >>> norm_representativeness(np.eye(2), [9.0, 8.0], n_neighbors=1).round(4)
    array([-2.7726, -2.6391])
    """
    corpus = check_matrix("corpus_embeddings", corpus_embeddings)
    norms = np.asarray(norms, dtype=np.float64)
    if norms.shape != (corpus.shape[0],):
        raise ValueError(
            f"norms must have shape ({corpus.shape[0]},), one per label, got {norms.shape}."
        )
    if not np.isfinite(norms).all():
        bad = np.flatnonzero(~np.isfinite(norms))
        raise ValueError(f"norms must be finite: {len(bad)} are not, the first at row {bad[0]}.")
    n_neighbors = _check_neighbors(n_neighbors, len(norms), "labels")

    with Chunks(device, corpus) as chunks:
        own = chunks.tensor(norms, double=True)
        penalty = chunks.tensor(norms / 2)

        def representativeness(part: slice, cosines: torch.Tensor) -> torch.Tensor:
            # The smallest n_y + n_j - 2 cos is n_y - 2 times the largest (cos - n_j / 2).
            nearest = _largest(cosines.sub_(penalty), n_neighbors).double()
            distance = own[part, None] - 2 * nearest
            return -distance.clamp_(min=_TINY_DISTANCE).log_().mean(dim=1)

        bank = chunks.matrix(corpus)
        found = chunks.products(representativeness, bank, bank, most_numbers=_SEARCH_NUMBERS)
        return found.cpu().numpy()


def negative_proportion(
    class_embeddings: Any, corpus_embeddings: Any, *, level: float = 0.5, device: Device = "auto"
) -> float:
    """Proportion of corpus labels that are truly negative, estimated from the embeddings (Storey).

    A label that is really ID is taken to be as close to its nearest class name as class names are
    to theirs. Then its p-value, the proportion of class names at least as close, is uniform; a
    truly negative label's is near 1. Labels with a p-value below `level` are counted as ID, and
    ``their proportion / level`` estimates that of all ID labels.

    Parameters
    ----------
    class_embeddings, corpus_embeddings : array-like of shape (K, D) and (N, D)
        Unit text embeddings; at least 2 class names.
    level : float, default=0.5
        In (0, 1]. Smaller = fewer negatives are counted as ID, more variance.
    device : str or torch.device, default="auto"
        "auto" = the GPU if there is one.

    Returns
    -------
    float
        In [1 / N, 1]; 1 / N where more labels than the null explains are close to class names.

    Raises
    ------
    ValueError
        Fewer than 2 class names, no corpus label, or a `level` outside (0, 1].

    References
    ----------
    .. [1] Storey, "A direct approach to false discovery rates", JRSS B 64(3), 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.scoring.mining import negative_proportion
    >>> ids = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> negative_proportion(ids, np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0], [-0.6, -0.8]]))
    0.5
    """
    if len(class_embeddings) < 2 or not len(corpus_embeddings):
        raise ValueError(
            "The proportion of true negatives is estimated from at least 2 class names and 1 "
            f"corpus label, got {len(class_embeddings)} and {len(corpus_embeddings)}; give the "
            "proportion as a number instead."
        )
    if not 0 < level <= 1:
        raise ValueError(f"level must be in (0, 1], got {level!r}.")

    p = _proportion_as_close(class_embeddings, corpus_embeddings, device=device)
    id_proportion = float(np.mean(p < level)) / level
    return max(1 - id_proportion, 1 / len(corpus_embeddings))


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
        One number per label; infinities are fine.
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
    fractions = {"noun_fraction": noun_fraction, "adjective_fraction": adjective_fraction}
    for name, fraction in fractions.items():
        if not 0 <= fraction <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {fraction!r}.")
    if np.isnan(criterion).any():
        bad = np.flatnonzero(np.isnan(criterion))
        raise ValueError(
            f"criterion is NaN for {len(bad)} of {len(criterion)} labels, the first at row "
            f"{bad[0]}: check their text embeddings for NaN."
        )

    best_first = np.argsort(-criterion if largest else criterion, kind="stable")
    kept = []
    for chosen, fraction in ((~is_adjective, noun_fraction), (is_adjective, adjective_fraction)):
        candidates = best_first[chosen[best_first]]
        # The margin keeps 0.29 * 100 at 29 although it is 28.999... in binary.
        kept.append(candidates[: math.floor(fraction * len(candidates) + 1e-9)])

    rows = np.concatenate(kept)
    if len(rows) == 0:
        # The best label, of the parts that were wanted at all.
        wanted = np.where(is_adjective, adjective_fraction, noun_fraction)[best_first] > 0
        rows = best_first[wanted][:1] if wanted.any() else best_first[:1]
    return rows.astype(np.int64)


def group_permutation(n_labels: int, n_groups: int, random_state: Any = None) -> np.ndarray:
    """Order in which labels are dealt into groups of ``Q = n_labels // n_groups``, Q at a time.

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

    # The last labels are dropped before the draw, so that the seed decides the groups alone.
    kept = n_labels // n_groups * n_groups
    if random_state is None:
        return np.arange(kept)
    return check_random_state(random_state).permutation(kept).astype(np.int64)


def _proportion_as_close(
    class_embeddings: Any, corpus_embeddings: Any, *, device: Device
) -> np.ndarray:
    """Proportion of class names as close to another as a corpus label is to its nearest; (N,)."""
    classes, corpus = check_matrices(
        class_embeddings=class_embeddings, corpus_embeddings=corpus_embeddings
    )

    def nearest_other(part: slice, cosines: torch.Tensor) -> torch.Tensor:
        cosines[:, part].fill_diagonal_(-math.inf)
        return cosines.amax(dim=1)

    null = np.sort(reduce_products(nearest_other, classes, classes, device=device))
    nearest = max_logit(corpus, classes, device=device)
    n_less = np.searchsorted(null, nearest - _SAME_COSINE)
    return (len(null) - n_less) / len(null)


def _largest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k largest of each row, in no order; on a CPU, rows may be reordered in place."""
    import torch

    if values.device.type != "cpu":
        return values.topk(k, dim=1, sorted=False).values

    n_columns = values.shape[1]
    group_size = n_columns // (_GROUPS * k)
    if group_size < _SMALLEST_GROUP:
        values.numpy().partition(n_columns - k, axis=1)
        return values[:, n_columns - k :]

    largest = torch.empty(len(values), k, dtype=values.dtype)
    for some, out in zip(values.split(_ROWS), largest.split(_ROWS), strict=True):
        _largest_by_groups(some.numpy(), k, group_size, out.numpy())
    return largest


def _largest_by_groups(values: np.ndarray, k: int, group_size: int, out: np.ndarray) -> None:
    """Write the k largest of each row: those that reach a bound, taken from groups of columns."""
    n_rows, n_columns = values.shape
    n_groups = n_columns // group_size
    grouped = values[:, : n_groups * group_size].reshape(n_rows, group_size, n_groups)

    # k groups have a maximum that reaches the k-th largest maximum. So at least k numbers of the
    # row do, all that are sought among them, and few others.
    maxima = grouped.max(axis=1)
    maxima.partition(n_groups - k, axis=1)
    found = np.flatnonzero(values >= maxima[:, n_groups - k, None])

    # Those of each row side by side, and -inf where another row has more.
    ends = np.searchsorted(found, np.arange(1, n_rows + 1) * n_columns)
    n_found = np.diff(ends, prepend=0)
    most = n_found.max()
    side_by_side = np.full((n_rows, most), -np.inf, dtype=values.dtype)
    side_by_side[np.arange(most) < n_found[:, None]] = values.ravel()[found]
    side_by_side.partition(most - k, axis=1)
    out[:] = side_by_side[:, most - k :]


def _check_neighbors(n_neighbors: Any, available: int, what: str) -> int:
    n_neighbors = check_integer("n_neighbors", n_neighbors, 1)
    if n_neighbors > available:
        warn(
            f"n_neighbors={n_neighbors} is more than the corpus has: all {available} {what} are "
            "taken.",
        )
    return min(n_neighbors, available)
