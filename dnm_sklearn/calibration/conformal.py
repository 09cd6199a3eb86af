"""Guarantees from calibration images that served for nothing else: e-values, and a drift alarm for streams.

An **e-value** of an image has mean at most 1 for ID images exchangeable with the calibration
images, so that ``P(e >= 1/alpha) <= alpha`` (Markov), over the draw of calibration and test image.
The **drift alarm** bets against online conformal p-values; for an exchangeable stream its capital
exceeds ``1/alpha`` *ever* with probability at most alpha (Ville). E-values of several images from
one calibration set depend on each other: their product is neither an e-value nor a martingale.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import ceil
from typing import Any

import numpy as np

__all__ = [
    "ConformalTestMartingale",
    "betting_log_capital",
    "check_level",
    "conformal_e_values",
    "label_e_values",
    "online_p_values",
]

_N_BINS = 20


def check_level(level: float, n_calibration: int) -> float:
    """Return `level`, or raise a ValueError that says how many calibration images it needs.

    Parameters
    ----------
    level : float
        alpha in (0, 1): the share of ID images that may be flagged.
    n_calibration : int
        n; neither a p-value below ``1 / (n + 1)`` nor an e-value above ``n + 1`` can occur.

    Returns
    -------
    float

    Examples
    --------
    >>> from dnm_sklearn.calibration.conformal import check_level
    >>> check_level(0.05, 19)
    0.05
    """
    if isinstance(level, bool) or not 0 < level < 1:
        raise ValueError(
            f"level={level!r} must lie in (0, 1): the share of ID images that may be flagged."
        )
    if level * (n_calibration + 1) < 1 - 1e-9:
        raise ValueError(
            f"level={level:g} cannot be reached with {n_calibration} calibration images: at least "
            f"{ceil(1 / level - 1e-9) - 1} are needed. Call calibrate with more ID images, or use "
            "a larger level."
        )
    return float(level)


def conformal_e_values(log_values: Any, calibration_log_values: Any) -> np.ndarray:
    """``(n + 1) v(x) / (v(x) + sum_i v(x_i))`` for a nonnegative score v, large for OOD, given as log v.

    Parameters
    ----------
    log_values : array-like of shape (m,)
        log v of the images to judge; NaN gives NaN.
    calibration_log_values : array-like of shape (n,)
        log v of ID images that were used for nothing else.

    Returns
    -------
    ndarray of shape (m,), float64
        In [0, n + 1]; mean at most 1 for an ID image.

    Raises
    ------
    ValueError
        No calibration image, or NaN among them.

    References
    ----------
    Vovk, "Conformal e-prediction", Pattern Recognition 2025, arXiv:2001.05989.

    Examples
    --------
    >>> from dnm_sklearn.calibration.conformal import conformal_e_values
    >>> conformal_e_values([0.0, 100.0], [0.0, 0.0, 0.0]).tolist()
    [1.0, 4.0]
    """
    from scipy.special import expit, logsumexp

    known = np.asarray(calibration_log_values, dtype=float).ravel()
    if not len(known) or np.isnan(known).any():
        raise ValueError(
            f"{len(known)} calibration values, {int(np.isnan(known).sum())} NaN: give readable ID "
            "images."
        )
    return (len(known) + 1) * expit(np.asarray(log_values, dtype=float) - logsumexp(known))


def label_e_values(
    log_ratios: Any, calibration_log_sums: Any, n_calibration: int, log_weights: Any = None
) -> np.ndarray:
    """``mean_j w_j (n + 1) r_j(x) / (r_j(x) + sum_i r_j(x_i))``: one conformal e-value a label, averaged.

    Parameters
    ----------
    log_ratios : array-like of shape (m, N)
        log r_j of the images to judge.
    calibration_log_sums : array-like of shape (N,)
        log of the sum of r_j over the n calibration images.
    n_calibration : int
        n.
    log_weights : array-like of shape (N,), optional
        log w_j, fixed before any of these images was seen. None = 0.

    Returns
    -------
    ndarray of shape (m,), float64
        In [0, n + 1]; mean at most 1 for an ID image.

    Raises
    ------
    ValueError
        If the mean weight is above 1.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.calibration.conformal import label_e_values
    >>> label_e_values(np.zeros((1, 2)), np.log([3.0, 3.0]), 3).round(6).tolist()
    [1.0]
    """
    from scipy.special import expit

    ratios, sums = (
        np.asarray(log_ratios, dtype=float),
        np.asarray(calibration_log_sums, dtype=float),
    )
    weights = (
        np.ones(len(sums)) if log_weights is None else np.exp(np.asarray(log_weights, dtype=float))
    )
    if weights.mean() > 1 + 1e-9:
        raise ValueError(
            f"The weights have mean {weights.mean():.6g}; an e-value needs a mean of at most 1."
        )
    return (n_calibration + 1) * (expit(ratios - sums) @ weights) / len(sums)


def online_p_values(scores: Any, n_calibration: int, random_state: Any = 0) -> np.ndarray:
    """Smoothed conformal p-values of streams: each image ranked among calibration and all images before it.

    ``(#{greater} + u #{equal, itself included}) / (number so far)``, u uniform in (0, 1]. For an
    exchangeable stream they are independent and uniform.

    Parameters
    ----------
    scores : array-like of shape (S, n + m)
        One row a stream: n calibration scores, then the stream in its order (higher = more OOD).
    n_calibration : int
        n.
    random_state : int, RandomState instance or None, default=0
        Breaks ties.

    Returns
    -------
    ndarray of shape (S, m), float64
        In (0, 1]; small = unlike what came before.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.calibration.conformal import online_p_values
    >>> bool(online_p_values([[1.0, 2.0, 3.0, 9.0]], 3)[0, 0] <= 0.25)
    True
    """
    from sklearn.utils import check_random_state

    values = np.asarray(scores)
    u = 1 - check_random_state(random_state).random_sample(
        (values.shape[0], values.shape[1] - n_calibration)
    )
    out = np.empty(u.shape)
    for t in range(u.shape[1]):
        now, so_far = values[:, n_calibration + t, None], values[:, : n_calibration + t + 1]
        greater = np.count_nonzero(so_far > now, axis=1)
        equal = np.count_nonzero(so_far == now, axis=1)
        out[:, t] = (greater + u[:, t] * equal) / (n_calibration + t + 1)
    return out


class _Bets:
    """Capital of S players, each mixing the same experts, whose bets use past p-values only.

    Experts: no bet; steps ``1 - a + a [p <= c] / c`` and powers ``1 - a + a e p**(e - 1)`` for
    several shares a of OOD images; a histogram of past p-values. The weights follow the experts'
    capital, with a small share moved back to the initial weights at each step, so that a drift that
    begins late is followed. Each expert integrates to 1 over p.
    """

    def __init__(self, n_streams: int, switch: float) -> None:
        step_share, level = np.meshgrid(
            [0.02, 0.05, 0.1, 0.3], [0.005, 0.01, 0.02, 0.05, 0.1, 0.2], indexing="ij"
        )
        share, power = np.meshgrid([0.1, 0.4, 1.0], [0.15, 0.4], indexing="ij")
        self.step_share, self.level = step_share.ravel(), level.ravel()
        self.share, self.power = share.ravel(), power.ravel()
        parts = ((0.1, 1), (0.7, self.level.size), (0.1, self.power.size), (0.1, 1))
        self.initial = np.concatenate([np.full(size, whole / size) for whole, size in parts])
        self.weights = np.tile(self.initial, (n_streams, 1))
        self.counts = np.ones((n_streams, _N_BINS))
        self.log_capital = np.zeros(n_streams)
        self.switch = switch

    def step(self, p: np.ndarray) -> np.ndarray:
        """Bet on p-values of shape (S,); return the log capital."""
        rows, bins = np.arange(len(p)), np.minimum((p * _N_BINS).astype(int), _N_BINS - 1)
        column = p[:, None]
        gain = np.concatenate(
            [
                np.ones_like(column),
                1 - self.step_share + self.step_share * (column <= self.level) / self.level,
                1 - self.share + self.share * self.power * column ** (self.power - 1),
                (_N_BINS * self.counts[rows, bins] / self.counts.sum(axis=1))[:, None],
            ],
            axis=1,
        )
        self.counts[rows, bins] += 1
        earned = self.weights * gain
        total = earned.sum(axis=1, keepdims=True)
        self.weights = (1 - self.switch) * earned / total + self.switch * self.initial
        self.log_capital = self.log_capital + np.log(total[:, 0])
        return self.log_capital


def betting_log_capital(p_values: Any, *, switch: float = 0.001) -> np.ndarray:
    """Log capital of the drift alarm's bets after each p-value.

    Parameters
    ----------
    p_values : array-like of shape (S, m)
        Streams of p-values in (0, 1].
    switch : float, default=0.001
        Share of the capital dealt anew among the betting functions after each image.

    Returns
    -------
    ndarray of shape (S, m), float64
        A test martingale's logarithm in each row, where the p-values are independent and uniform.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.calibration.conformal import betting_log_capital
    >>> bool(betting_log_capital(np.full((1, 50), 0.01))[0, -1] > np.log(1000))
    True
    """
    p = np.asarray(p_values, dtype=float)
    bets = _Bets(len(p), switch)
    return (
        np.stack([bets.step(p[:, t]) for t in range(p.shape[1])], axis=1)
        if p.shape[1]
        else np.empty(p.shape)
    )


class ConformalTestMartingale:
    """Drift alarm for a stream of images, with a bound on the probability of *ever* raising a false alarm.

    Every image's OOD score is ranked among the calibration scores and all scores before it; the
    p-values are bet on. The alarm goes off when the capital reaches ``1 / alpha``. If calibration
    and stream are exchangeable, it ever does with probability at most alpha. The score must not
    depend on the stream: give it scores of a detector whose state is frozen.

    Parameters
    ----------
    calibration_scores : array-like of shape (n,)
        OOD scores of ID images that were used for nothing else (higher = more OOD); at least one.
    alpha : float, default=0.01
        Bound on the probability of a false alarm, in (0, 1).
    switch : float, default=0.001
        Share of the capital dealt anew among the betting functions after each image.
    random_state : int, RandomState instance or None, default=0
        Breaks ties.

    Attributes
    ----------
    n_seen_ : int
        Images of the stream so far.
    log_capital_ : float
        Log of the present capital (0 at the start).
    alarm_at_ : int or None
        Number of images seen when the alarm went off.
    p_values_ : list of float
        The p-values so far.

    References
    ----------
    Vovk, Nouretdinov, Gammerman, "Testing exchangeability on-line", ICML 2003.
    Fedorova et al., "Plug-in martingales for testing exchangeability on-line", ICML 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.calibration.conformal import ConformalTestMartingale
    >>> rng = np.random.default_rng(0)
    >>> alarm = ConformalTestMartingale(rng.normal(size=200))
    >>> alarm.update(rng.normal(size=300)).alarm_at_ is None
    True
    >>> alarm.update(rng.normal(3, 1, size=100)).alarm_at_ is None
    False
    """

    def __init__(
        self,
        calibration_scores: Any,
        *,
        alpha: float = 0.01,
        switch: float = 0.001,
        random_state: Any = 0,
    ):
        from sklearn.utils import check_random_state

        known = np.asarray(calibration_scores, dtype=float).ravel()
        if not len(known) or np.isnan(known).any():
            raise ValueError(
                f"{len(known)} calibration scores, {int(np.isnan(known).sum())} NaN: give ID "
                "images."
            )
        if not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha!r} must lie in (0, 1).")
        if not 0 <= switch < 1:
            raise ValueError(f"switch={switch!r} must lie in [0, 1).")
        self.alpha = alpha
        self._rng = check_random_state(random_state)
        self._seen = sorted(known.tolist())
        self._bets = _Bets(1, switch)
        self.n_seen_ = 0
        self.log_capital_ = 0.0
        self.alarm_at_: int | None = None
        self.p_values_: list[float] = []

    def update(self, scores: Any) -> ConformalTestMartingale:
        """Go on with the next images of the stream.

        Parameters
        ----------
        scores : array-like of shape (b,)
            OOD scores in the order in which the images came; NaN (unreadable) is skipped.

        Returns
        -------
        self : ConformalTestMartingale
            The alarm, with its attributes brought up to date.
        """
        for value in np.asarray(scores, dtype=float).ravel().tolist():
            if np.isnan(value):
                continue
            low, high = bisect_left(self._seen, value), bisect_right(self._seen, value)
            u = 1 - self._rng.random_sample()
            p = (len(self._seen) - high + u * (high - low + 1)) / (len(self._seen) + 1)
            insort(self._seen, value)
            self.p_values_.append(p)
            self.log_capital_ = float(self._bets.step(np.array([p]))[0])
            self.n_seen_ += 1
            if self.alarm_at_ is None and self.log_capital_ >= -np.log(self.alpha):
                self.alarm_at_ = self.n_seen_
        return self
