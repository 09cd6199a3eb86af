"""Histograms of ID and OOD scores, and the threshold between them."""

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


class ScoreHistogramDisplay(_TwoKindsDisplay):
    """Histograms of the scores of ID and OOD images, with the threshold.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    id_scores : array-like of shape (n_id,)
        OOD scores of ID images, higher = more OOD. Scores that are not finite are left out.
    ood_scores : array-like of shape (n_ood,)
        OOD scores of OOD images.
    threshold : float or None, default=None
        Images with a score above it are flagged.
    name : str or None, default=None
        Title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.
    threshold_line_ : matplotlib.lines.Line2D or None
        The line at the threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.plotting import ScoreHistogramDisplay
    >>> rng = np.random.default_rng(0)
    >>> score = np.r_[rng.normal(0, 1, 100), rng.normal(3, 1, 100)]
    >>> y = np.repeat([0, 1], 100)
    >>> display = ScoreHistogramDisplay.from_predictions(y, score, threshold=1.5)
    >>> display.ax_.get_xlabel()
    'OOD score (higher = more OOD)'
    """

    def plot(self, ax: Any = None, *, bins: int = 40) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.
        bins : int, default=40
            Number of bins, the same for both kinds.

        Returns
        -------
        ScoreHistogramDisplay
            Itself, with `ax_` and `figure_`.
        """
        self.ax_ = get_axes(ax)
        self.figure_ = self.ax_.figure

        both = np.concatenate([self.id_scores, self.ood_scores])
        edges = np.histogram_bin_edges(both[np.isfinite(both)], bins)

        # In percent of each kind: the sets may differ a hundredfold in size.
        sides = (("ID", self.id_scores, ID_COLOUR), ("OOD", self.ood_scores, OOD_COLOUR))
        for label, scores, colour in sides:
            counts, _ = np.histogram(scores[np.isfinite(scores)], edges)
            percent = 100 * counts / len(scores)
            self.ax_.stairs(
                percent,
                edges,
                fill=True,
                facecolor=(colour, 0.4),
                edgecolor=colour,
                label=f"{label} ({len(scores):,} images)",
            )

        self.threshold_line_ = None
        if self._has_threshold():
            self.threshold_line_ = self.ax_.axvline(
                self.threshold, color=THRESHOLD_COLOUR, label="threshold"
            )

        self.ax_.set_xlabel("OOD score (higher = more OOD)")
        self.ax_.set_ylabel("% of the images of the kind")
        self.ax_.set_ylim(bottom=0)
        self.ax_.set_title("" if self.name is None else shown(self.name), **PLAIN)
        draw_legend(self.ax_)
        return self
