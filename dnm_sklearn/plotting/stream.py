"""Scores of a stream over time, with the threshold and the drift alarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.calibration.conformal import ConformalTestMartingale
from dnm_sklearn.metrics import fitted_threshold, read_is_ood
from dnm_sklearn.plotting._axes import (
    ID_COLOUR,
    OOD_COLOUR,
    PLAIN,
    QUIET_COLOUR,
    THRESHOLD_COLOUR,
    check_scores,
    draw_legend,
    get_axes,
    shown,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class StreamDisplay:
    """Scores in the order in which the images came, the threshold, and the drift alarm.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    scores : array-like of shape (n,)
        OOD scores, higher = more OOD, in the order of the stream; NaN = unreadable, not drawn.
    is_ood : array-like of bool of shape (n,) or None, default=None
        What each image is, where that is known.
    threshold : float or None, default=None
        Images with a score above it are flagged.
    log_capital : array-like of shape (n,) or None, default=None
        Log of the drift alarm's capital after each image, see
        :class:`~dnm_sklearn.calibration.conformal.ConformalTestMartingale`.
    alarm_at : int or None, default=None
        Number of images seen when the alarm went off.
    alarm_level : float or None, default=None
        Log of the capital at which it goes off, ``-log(alpha)``.
    name : str or None, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where the scores were drawn.
    capital_ax_ : matplotlib.axes.Axes or None
        Where the capital was drawn, on the right-hand scale.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.calibration.conformal import ConformalTestMartingale
    >>> from dnm_sklearn.plotting import StreamDisplay
    >>> rng = np.random.default_rng(0)
    >>> alarm = ConformalTestMartingale(rng.normal(size=200))
    >>> scores = np.r_[rng.normal(size=100), rng.normal(3, 1, size=100)]
    >>> display = StreamDisplay.from_predictions(scores, alarm=alarm)
    >>> 100 < display.alarm_at < 130
    True
    """

    def __init__(
        self,
        scores: Any,
        *,
        is_ood: Any = None,
        threshold: float | None = None,
        log_capital: Any = None,
        alarm_at: int | None = None,
        alarm_level: float | None = None,
        name: str | None = None,
    ) -> None:
        self.scores = check_scores(scores, "scores")
        self.is_ood = None if is_ood is None else np.asarray(is_ood, dtype=bool)
        self.threshold = threshold
        self.log_capital = log_capital
        self.alarm_at = alarm_at
        self.alarm_level = alarm_level
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        alarm: ConformalTestMartingale | None = None,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Score a stream with a fitted detector, which stays as it is, and draw it.

        For a detector that learns for good, draw what ``score_stream`` gave with
        :meth:`from_predictions`.

        Parameters
        ----------
        estimator : fitted detector
            Its scores are those of ``decision_function(X)``.
        X : images or array-like of shape (n, D)
            The stream, in the order in which the images came.
        y : array-like of shape (n,) or None, default=None
            0/1 or bool (1 = OOD), or strings of which "ood" means OOD; for the colours.
        alarm : ConformalTestMartingale or None, default=None
            The detector's :meth:`drift_alarm`; it is fed the scores.
        name : str or None, default=None
            Title; None = the estimator's class.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.

        Returns
        -------
        StreamDisplay

        Raises
        ------
        ValueError
            If there is an `alarm` and the detector's scores depend on the stream
            (``adaptation="transductive"``), so that the alarm would mean nothing.
        """
        if alarm is not None and getattr(estimator, "adaptation", "frozen") != "frozen":
            raise ValueError(
                "The drift alarm needs scores that do not depend on the stream: use "
                'set_params(adaptation="frozen") before calibrate, or leave the alarm out.'
            )
        name = type(estimator).__name__ if name is None else name
        scores = estimator.decision_function(X)
        threshold = fitted_threshold(estimator)
        return cls.from_predictions(
            scores, y_true=y, threshold=threshold, alarm=alarm, name=name, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        scores: Any,
        *,
        y_true: Any = None,
        threshold: float | None = None,
        alarm: ConformalTestMartingale | None = None,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw a stream whose scores are there already.

        Parameters
        ----------
        scores : array-like of shape (n,)
            OOD scores in the order of the stream, NaN = unreadable.
        y_true : array-like of shape (n,) or None, default=None
            0/1 or bool (1 = OOD), or strings of which "ood" means OOD; for the colours.
        threshold : float or None, default=None
            Images with a score above it are flagged.
        alarm : ConformalTestMartingale or None, default=None
            A drift alarm that has seen nothing of the stream; it is fed the scores.
        name : str or None, default=None
            Title.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.

        Returns
        -------
        StreamDisplay
        """
        scores = check_scores(scores, "scores")
        display = cls(
            scores,
            is_ood=None if y_true is None else read_is_ood(y_true, scores),
            threshold=threshold,
            name=name,
        )
        if alarm is not None:
            display._run_alarm(alarm)
        return display.plot(ax)

    def _run_alarm(self, alarm: ConformalTestMartingale) -> None:
        """Feed the scores to an alarm one by one, and keep its capital after each."""
        self.log_capital = np.empty(len(self.scores))
        seen_before = alarm.n_seen_
        for place, score in enumerate(self.scores):
            # An unreadable image says nothing of drift.
            if not np.isnan(score):
                alarm.update([score])
            self.log_capital[place] = alarm.log_capital_

        self.alarm_level = -float(np.log(alarm.alpha))
        if alarm.alarm_at_ is not None:
            readable = np.flatnonzero(~np.isnan(self.scores))
            self.alarm_at = int(readable[max(alarm.alarm_at_ - seen_before, 1) - 1]) + 1

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.

        Returns
        -------
        StreamDisplay
            Itself, with `ax_` and `figure_`.
        """
        self.ax_ = get_axes(ax)
        self.figure_ = self.ax_.figure
        places = np.arange(1, len(self.scores) + 1)

        if self.is_ood is None:
            self.ax_.plot(places, self.scores, ".", color=ID_COLOUR, alpha=0.5, label="image")
        else:
            for label, rows, colour in (
                ("ID image", ~self.is_ood, ID_COLOUR),
                ("OOD image", self.is_ood, OOD_COLOUR),
            ):
                x, y = places[rows], self.scores[rows]
                self.ax_.plot(x, y, ".", color=colour, alpha=0.5, label=label)

        if self.threshold is not None and np.isfinite(self.threshold):
            self.ax_.axhline(self.threshold, color=THRESHOLD_COLOUR, label="threshold")
        if self.alarm_at is not None:
            label = f"drift alarm at image {self.alarm_at:,}"
            self.ax_.axvline(self.alarm_at, color=OOD_COLOUR, linestyle="--", label=label)

        self.capital_ax_ = None
        if self.log_capital is not None:
            self.capital_ax_ = self.ax_.twinx()
            self.capital_ax_.plot(places, self.log_capital, color=QUIET_COLOUR, linewidth=1)
            self.capital_ax_.set_ylabel("log of the alarm's capital (grey line)")
            if self.alarm_level is not None:
                self.capital_ax_.axhline(self.alarm_level, color=QUIET_COLOUR, linestyle=":")

        self.ax_.set(xlabel="images seen", ylabel="OOD score (higher = more OOD)")
        self.ax_.set_title("" if self.name is None else shown(self.name), **PLAIN)
        draw_legend(self.ax_)
        return self
