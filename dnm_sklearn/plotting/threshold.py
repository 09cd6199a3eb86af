"""What each threshold costs and brings: ID images kept against OOD images caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.plotting._axes import (
    ID_COLOUR,
    OOD_COLOUR,
    PLAIN,
    THRESHOLD_COLOUR,
    draw_legend,
    get_axes,
    shown,
)
from dnm_sklearn.plotting._two_kinds import _TwoKindsDisplay

if TYPE_CHECKING:
    from typing_extensions import Self


class ThresholdDisplay(_TwoKindsDisplay):
    """Proportion of ID images kept and of OOD images caught, over all thresholds.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        OOD scores of ID images, higher = more OOD. An image whose score is NaN is flagged at every
        threshold, as ``predict`` does.
    ood_scores : array-like of shape (n_ood,)
        OOD scores of OOD images.
    threshold : float or None, default=None
        The threshold in use.
    name : str or None, default=None
        Title.

    Attributes
    ----------
    thresholds : ndarray of shape (n_points,)
        All finite scores, ascending.
    id_kept, ood_caught : ndarray of shape (n_points,)
        Proportions in [0, 1] at these thresholds.
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.

    Examples
    --------
    >>> from dnm_sklearn.plotting import ThresholdDisplay
    >>> display = ThresholdDisplay([0.0, 1.0], [1.0, 2.0])
    >>> display.thresholds.tolist(), display.id_kept.tolist(), display.ood_caught.tolist()
    ([0.0, 1.0, 2.0], [0.5, 1.0, 1.0], [1.0, 0.5, 0.0])
    """

    def __init__(
        self,
        id_scores: Any,
        ood_scores: Any,
        *,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(id_scores, ood_scores, threshold=threshold, name=name)
        both = np.concatenate([self.id_scores, self.ood_scores])
        self.thresholds = np.unique(both[np.isfinite(both)])
        self.id_kept = _accepted(self.id_scores, self.thresholds)
        self.ood_caught = 1 - _accepted(self.ood_scores, self.thresholds)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.

        Returns
        -------
        ThresholdDisplay
            Itself, with `ax_` and `figure_`.
        """
        self.ax_ = get_axes(ax)
        self.figure_ = self.ax_.figure

        curves = (
            ("ID images kept", self.id_kept, ID_COLOUR),
            ("OOD images caught", self.ood_caught, OOD_COLOUR),
        )
        for label, proportion, colour in curves:
            self.ax_.plot(
                self.thresholds,
                100 * proportion,
                color=colour,
                drawstyle="steps-post",
                label=label,
            )

        if self._has_threshold():
            kept = 100 * _accepted(self.id_scores, np.array([self.threshold]))[0]
            caught = 100 - 100 * _accepted(self.ood_scores, np.array([self.threshold]))[0]
            label = f"threshold: {kept:.1f} % kept, {caught:.1f} % caught"
            self.ax_.axvline(self.threshold, color=THRESHOLD_COLOUR, label=label)

        self.ax_.set(xlabel="threshold of the OOD score", ylabel="% of the images", ylim=(-1, 101))
        self.ax_.set_title("" if self.name is None else shown(self.name), **PLAIN)
        draw_legend(self.ax_)
        return self


def _accepted(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Proportion of the scores at or below each threshold; NaN is never accepted."""
    ordered = np.sort(scores[~np.isnan(scores)])
    return np.searchsorted(ordered, thresholds, side="right") / len(scores)
