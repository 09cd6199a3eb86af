"""Guarantees from calibration images: thresholds, p-values, e-values and a drift alarm.

The images must have served for nothing else. All guarantees hold over the draw of calibration *and*
test images, and need these exchangeable. Every score is higher = more OOD.

* **Threshold, p-value**: an ID image is flagged with probability at most alpha.
* **E-value**: has mean at most 1 for an ID image, so that ``P(e >= 1 / alpha) <= alpha`` (Markov).
* **Drift alarm**: bets against online p-values; for an exchangeable stream its capital exceeds
  ``1 / alpha`` *ever* with probability at most alpha (Ville).

E-values of several images from one calibration set depend on each other: their product is neither
an e-value nor a martingale.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import ceil
from typing import Any

import numpy as np

from dnm_sklearn._utils.tensors import as_floats

__all__ = [
    "ConformalTestMartingale",
    "calibration_threshold",
    "check_level",
    "conformal_e_values",
    "conformal_p_values",
    "label_e_values",
]

# Ranks such as (n + 1) * 0.95 are whole numbers that floats miss by a little; this is taken off
# before they are rounded up, so that 20 * 0.95 is rank 19 and not 20.
_ROUNDING = 1e-9


# -- one image ------------------------------------------------------------------------------------


def kept_proportion(id_tpr: float | None, false_alarm_rate: float | None) -> float:
    """Proportion of ID images to keep: as given, or 1 less the one to flag; else 0.95."""
    if id_tpr is not None and false_alarm_rate is not None:
        raise ValueError(
            f"id_tpr={id_tpr!r} and false_alarm_rate={false_alarm_rate!r} say the same in two ways "
            "(id_tpr = 1 - false_alarm_rate): give one of them."
        )
    name, value = ("id_tpr", 0.95 if id_tpr is None else id_tpr)
    if false_alarm_rate is not None:
        name, value = "false_alarm_rate", false_alarm_rate
    if not 0 < value < 1:
        raise ValueError(f"{name}={value!r} must lie in (0, 1).")
    return 1 - value if name == "false_alarm_rate" else value


def calibration_threshold(scores_id: Any, id_tpr: float = 0.95) -> float:
    """Split-conformal threshold: a new ID image is flagged with probability at most ``1 - id_tpr``.

    The ``ceil((n + 1) * id_tpr)``-th smallest of n OOD scores of ID images that were used for
    nothing else (Vovk et al., 2005).
    """
    ordered = np.sort(_checked_scores(scores_id))
    rank = ceil((len(ordered) + 1) * id_tpr - _ROUNDING)

    if rank > len(ordered):
        needed = ceil(id_tpr / (1 - id_tpr) - _ROUNDING)
        raise ValueError(
            f"{len(ordered)} calibration images cannot hold id_tpr={id_tpr:g}: at least {needed} "
            "are needed. Give more ID images or a smaller id_tpr (a larger false_alarm_rate)."
        )
    return float(ordered[rank - 1])


def conformal_p_values(scores: Any, calibration_scores: Any) -> np.ndarray:
    """Split-conformal p-values ``(1 + #{calibration >= score}) / (n + 1)``, small = unlike ID.

    For an ID image ``P(p <= alpha) <= alpha``, marginally over the calibration images, which were
    used for nothing else, and the image itself (Bates et al., Annals of Statistics 2023). NaN gives
    NaN.
    """
    ordered = np.sort(_checked_scores(calibration_scores))
    values = as_floats(scores)

    # side="left": a calibration score equal to the image's counts as "at least as large".
    at_least = len(ordered) - np.searchsorted(ordered, values, side="left")
    p_values = (1.0 + at_least) / (len(ordered) + 1.0)
    return np.where(np.isnan(values), np.nan, p_values)


def check_level(level: float, n_calibration: int) -> float:
    """Return `level`, or raise a ValueError that says how many calibration images it needs.

    With n of them neither a p-value below ``1 / (n + 1)`` nor an e-value above ``n + 1`` can occur.
    """
    if isinstance(level, bool) or not 0 < level < 1:
        raise ValueError(
            f"level={level!r} must lie in (0, 1): the proportion of ID images that may be flagged."
        )
    if level * (n_calibration + 1) < 1 - _ROUNDING:
        raise ValueError(
            f"level={level:g} cannot be reached with {n_calibration} calibration images: at least "
            f"{ceil(1 / level - _ROUNDING) - 1} are needed. Call calibrate with more ID images, or "
            "use a larger level."
        )
    return float(level)


def conformal_e_values(log_values: Any, calibration_log_values: Any) -> np.ndarray:
    """``(n + 1) v(x) / (v(x) + sum_i v(x_i))`` for a score v >= 0, large for OOD, given as log v.

    In [0, n + 1], with mean at most 1 for an ID image (Vovk, Pattern Recognition 2025). NaN gives
    NaN.
    """
    from scipy.special import expit, logsumexp

    known = _checked_scores(calibration_log_values)

    # v / (v + sum) = expit(log v - log sum): nothing is exponentiated that could overflow.
    log_ratio = as_floats(log_values) - logsumexp(known)
    return (len(known) + 1) * expit(log_ratio)


def label_e_values(
    log_ratios: Any, calibration_log_sums: Any, n_calibration: int, log_weights: Any = None
) -> np.ndarray:
    """Average of one e-value per label, ``(n + 1) r_j(x) / (r_j(x) + sum_i r_j(x_i))``.

    `log_ratios` (m, N) are log r_j of the images to judge, and `calibration_log_sums` (N,) the log
    of the sum of r_j over the n calibration images. Weights w_j of mean 1 at most, fixed before any
    of these images was seen, multiply each e-value.
    """
    from scipy.special import expit

    ratios = as_floats(log_ratios)
    sums = as_floats(calibration_log_sums)

    weights = np.ones(len(sums))
    if log_weights is not None:
        weights = np.exp(as_floats(log_weights))
    # A weighted mean of e-values is an e-value only where the weights have mean at most 1.
    if weights.mean() > 1 + _ROUNDING:
        raise ValueError(
            f"The weights have mean {weights.mean():.6g}; an e-value needs a mean of at most 1."
        )
    return (n_calibration + 1) * (expit(ratios - sums) @ weights) / len(sums)


def _checked_scores(scores: Any) -> np.ndarray:
    """Scores of calibration images (n,), of which there must be one at least and no NaN."""
    values = as_floats(scores).ravel()
    n_nan = int(np.isnan(values).sum())
    if len(values) == 0:
        raise ValueError("There are 0 calibration scores: give at least one ID image.")
    if n_nan:
        raise ValueError(
            f"{n_nan} of {len(values)} calibration scores are NaN: remove the unreadable images."
        )
    return values


# -- a stream of images ---------------------------------------------------------------------------


class ConformalTestMartingale:
    """Drift alarm for a stream of images, with a bound on the probability of *any* false alarm.

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
        Proportion of the capital dealt anew among the betting functions after each image.
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

        known = _checked_scores(calibration_scores)
        if not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha!r} must lie in (0, 1).")
        if not 0 <= switch < 1:
            raise ValueError(f"switch={switch!r} must lie in [0, 1).")

        self.alpha = alpha
        self._rng = check_random_state(random_state)
        self._seen = sorted(known.tolist())
        self._bets = _Bets(switch)

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
        for score in as_floats(scores).ravel().tolist():
            if np.isnan(score):
                continue
            p_value = self._p_value(score)
            insort(self._seen, score)

            self.p_values_.append(p_value)
            self.log_capital_ += self._bets.place(p_value)
            self.n_seen_ += 1
            if self.alarm_at_ is None and self.log_capital_ >= -np.log(self.alpha):
                self.alarm_at_ = self.n_seen_
        return self

    def _p_value(self, score: float) -> float:
        """``(#{greater} + u #{equal, itself included}) / (number so far)``, u uniform in (0, 1].

        Smoothed so, the p-values of an exchangeable stream are independent and uniform.
        """
        below, up_to = bisect_left(self._seen, score), bisect_right(self._seen, score)
        n_greater, n_equal = len(self._seen) - up_to, up_to - below + 1
        u = 1 - self._rng.random_sample()
        return (n_greater + u * n_equal) / (len(self._seen) + 1)


# What the experts of `_Bets` assume of a drift. Step: a proportion of the images is OOD, and these
# have a p-value below the level; many of them, because a few OOD images among ID ones are the drift
# to be expected. Power: the p-values of the OOD images crowd towards 0 as p ** (power - 1).
#
# The "simple jumper" would be ten lines, but bets at most 1.5 to 1, however small a p-value is. On
# caltech63, with 250 calibration images, alpha = 0.01 and 5 % OOD, it raised the alarm in 3 % of
# streams of 2,000 images where these experts do in 59 %; with 20 % OOD it took 202 images instead
# of 18 (``python -m benchmarks.enl_guarantee --suite FOLDER --part alarm --fits 1``).
_STEP_PROPORTIONS = (0.02, 0.05, 0.1, 0.3)
_STEP_LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_POWER_PROPORTIONS = (0.1, 0.4, 1.0)
_POWERS = (0.15, 0.4)
# Bins of the histogram of past p-values, the expert that assumes nothing.
_N_BINS = 20
# The capital at the start of: no bet, all steps, all powers, the histogram.
_INITIAL_CAPITAL = (0.1, 0.7, 0.1, 0.1)


class _Bets:
    """Capital split among experts, each of which bets on the next p-value by past ones only.

    Each expert's gain, as a function of p, integrates to 1 over [0, 1], so that no bet has an
    expected gain where p-values are uniform. A small part of the capital goes back to the initial
    split after each bet, so that a drift that begins late is followed.
    """

    def __init__(self, switch: float) -> None:
        proportion, level = np.meshgrid(_STEP_PROPORTIONS, _STEP_LEVELS, indexing="ij")
        self._step_proportion, self._level = proportion.ravel(), level.ravel()
        proportion, power = np.meshgrid(_POWER_PROPORTIONS, _POWERS, indexing="ij")
        self._power_proportion, self._power = proportion.ravel(), power.ravel()

        sizes = (1, self._level.size, self._power.size, 1)
        parts = zip(sizes, _INITIAL_CAPITAL, strict=True)
        self._initial = np.concatenate([np.full(size, capital / size) for size, capital in parts])
        self._capital = self._initial.copy()

        # One p-value per bin to begin with, so that no bin is ever bet on with nothing.
        self._counts = np.ones(_N_BINS)
        self._switch = switch

    def gains(self, p: Any) -> np.ndarray:
        """What each expert makes of one unit of capital at p-values (...); (..., experts)."""
        column = as_floats(p)[..., None]

        # 1 - a + a [p <= c] / c
        below = (column <= self._level) / self._level
        steps = 1 - self._step_proportion + self._step_proportion * below
        # 1 - a + a e p**(e - 1)
        density = self._power * column ** (self._power - 1)
        powers = 1 - self._power_proportion + self._power_proportion * density
        # Bins are equally wide: the density of a bin is its frequency times their number.
        histogram = _N_BINS * self._counts[self._bin(column)] / self._counts.sum()

        return np.concatenate([np.ones_like(column), steps, powers, histogram], axis=-1)

    def place(self, p: float) -> float:
        """Bet on the next p-value; return the log of what the whole capital is multiplied with."""
        earned = self._capital * self.gains(p)
        total = earned.sum()

        self._counts[self._bin(p)] += 1
        # Kept as proportions of the whole, so that nothing overflows.
        self._capital = (1 - self._switch) * earned / total + self._switch * self._initial
        return float(np.log(total))

    @staticmethod
    def _bin(p: Any) -> np.ndarray:
        """Bin of the histogram that holds p (p = 1 is in the last)."""
        return np.minimum((np.asarray(p) * _N_BINS).astype(int), _N_BINS - 1)
