"""Paired bootstrap of the difference of two detectors on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dnm_sklearn.metrics import ood_metrics

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """A difference with its interval, fractions.

    Parameters
    ----------
    value : float
        Method minus reference, on all images.
    low, high : float
        Ends of the interval.
    """

    value: float
    low: float
    high: float


def paired_difference(
    method: Sequence[Pair],
    reference: Sequence[Pair],
    *,
    metric: str = "auroc",
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Bootstrap the difference of a metric, averaged over OOD sets.

    ID images are drawn with replacement, and OOD images of each set too; both detectors are judged
    on the same draw. The interval holds the chance of the images, not that of seeds or of the order
    of a stream.

    Parameters
    ----------
    method, reference : sequence of (ndarray of shape (r, n_id), ndarray of shape (r, n_ood))
        For each OOD set the scores (higher = more OOD) of each of r runs, whose metrics are
        averaged; NaN for an OOD image that a run did not see. The images are the same in both, and
        the ID images the same in all sets.
    metric : str, default="auroc"
        A key of :func:`dnm_sklearn.metrics.ood_metrics`; others than "auroc" take longer.
    n_resamples : int, default=1000
        Draws.
    level : float, default=0.95
        Of the percentile interval.
    seed : int, default=0
        Of the draws.

    Returns
    -------
    Difference

    Raises
    ------
    ValueError
        If the numbers of images differ.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.results.bootstrap import paired_difference
    >>> good = [(np.arange(9.0)[None], 9 + np.arange(9.0)[None])]
    >>> bad = [(np.arange(9.0)[None], np.arange(9.0)[None])]
    >>> difference = paired_difference(good, bad, n_resamples=50)
    >>> difference.value, difference.low > 0
    (0.5, True)
    """
    sizes = [(a.shape[1], b.shape[1]) for a, b in method]
    if sizes != [(a.shape[1], b.shape[1]) for a, b in reference]:
        raise ValueError(
            "The two detectors were not scored on the same images; run them on the same suite."
        )
    rng = np.random.default_rng(seed)
    ones = [(np.ones(n_id, np.int64), np.ones(n_ood, np.int64)) for n_id, n_ood in sizes]
    judges = [[_judge(pair, metric) for pair in side] for side in (method, reference)]

    def difference(counts: Sequence[Pair]) -> float:
        ours, theirs = (
            [judge(*count) for judge, count in zip(side, counts, strict=True)] for side in judges
        )
        return float(np.mean(ours) - np.mean(theirs))

    drawn = np.empty(n_resamples)
    for i in range(n_resamples):
        id_counts = _draw(rng, sizes[0][0])
        drawn[i] = difference([(id_counts, _draw(rng, n_ood)) for _, n_ood in sizes])
    tail = (1 - level) / 2
    # A draw without any of the OOD images that the runs saw has no metric.
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return Difference(difference(ones), float(low), float(high))


def _draw(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.bincount(rng.integers(0, n, n), minlength=n)


def _judge(pair: Pair, metric: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """Make a function from how often each ID and each OOD image was drawn to the metric, averaged over the runs."""
    runs = []
    for ids, oods in zip(*pair, strict=True):
        seen = np.flatnonzero(~np.isnan(oods))
        make = (
            _auroc_judge(ids, oods[seen])
            if metric == "auroc"
            else _any_judge(ids, oods[seen], metric)
        )
        runs.append((make, seen))

    def judge(id_counts: np.ndarray, ood_counts: np.ndarray) -> float:
        counts = [(run, ood_counts[seen]) for run, seen in runs]
        values = [run(id_counts, of_run) for run, of_run in counts if of_run.any()]
        return float(np.mean(values)) if values else float("nan")

    return judge


def _auroc_judge(
    id_scores: np.ndarray, ood_scores: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], float]:
    order = np.argsort(id_scores, kind="stable")
    ranked = id_scores[order]
    below, upto = (np.searchsorted(ranked, ood_scores, side=side) for side in ("left", "right"))

    def auroc(id_counts: np.ndarray, ood_counts: np.ndarray) -> float:
        mass = np.concatenate([[0], np.cumsum(id_counts[order])])
        wins = ood_counts @ (mass[below] + mass[upto])
        return float(wins / (2 * id_counts.sum() * ood_counts.sum()))

    return auroc


def _any_judge(
    id_scores: np.ndarray, ood_scores: np.ndarray, metric: str
) -> Callable[[np.ndarray, np.ndarray], float]:
    def judge(id_counts: np.ndarray, ood_counts: np.ndarray) -> float:
        ids, oods = np.repeat(id_scores, id_counts), np.repeat(ood_scores, ood_counts)
        return ood_metrics(
            np.concatenate([ids, oods]), np.arange(len(ids) + len(oods)) >= len(ids)
        )[metric]

    return judge
