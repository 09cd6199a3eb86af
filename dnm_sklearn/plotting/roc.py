"""The ROC curve of OOD detection, with both FPR95 on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import roc_curve

from dnm_sklearn.metrics import auroc, fpr_at_tpr, read_is_ood
from dnm_sklearn.plotting._axes import QUIET_COLOUR, draw_legend, get_axes, shown
from dnm_sklearn.plotting._two_kinds import _ScoredDisplay

if TYPE_CHECKING:
    from typing_extensions import Self


class OODRocCurveDisplay(_ScoredDisplay):
    """ROC curve with ID as positive, and FPR95 by both of its definitions.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. scikit-learn's
    ``RocCurveDisplay.from_estimator`` takes classifiers only; give it an
    :class:`~dnm_sklearn.OODClassifier`, or use its ``from_predictions``.

    Parameters
    ----------
    ood_accepted : ndarray of shape (n_points,)
        Proportion of OOD images that are accepted as ID, from 0 to 1.
    id_accepted : ndarray of shape (n_points,)
        Proportion of ID images that are accepted, from 0 to 1.
    auroc : float
        Area under the curve.
    fpr95_id : float
        OOD images accepted where 95 % of the ID images are (see
        :func:`~dnm_sklearn.metrics.fpr_at_tpr`).
    fpr95_ood : float
        ID images flagged where 95 % of the OOD images are.
    name : str or None, default=None
        What the curve is called in the legend.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn.
    figure_ : matplotlib.figure.Figure
        The figure of the axes.
    line_ : matplotlib.lines.Line2D
        The curve.
    point_id, point_ood : tuple of float
        The two points of the curve at which FPR95 is read.

    Examples
    --------
    >>> from dnm_sklearn.plotting import OODRocCurveDisplay
    >>> display = OODRocCurveDisplay.from_predictions([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])
    >>> display.auroc, display.fpr95_id, display.fpr95_ood
    (1.0, 0.0, 0.0)
    """

    def __init__(
        self,
        ood_accepted: np.ndarray,
        id_accepted: np.ndarray,
        *,
        auroc: float,
        fpr95_id: float,
        fpr95_ood: float,
        name: str | None = None,
    ) -> None:
        self.ood_accepted = ood_accepted
        self.id_accepted = id_accepted
        self.auroc = auroc
        self.fpr95_id = fpr95_id
        self.fpr95_ood = fpr95_ood
        self.name = name

        # Where the two rates lie on the curve, which has steps: several points share one of them.
        same = np.flatnonzero(np.isclose(ood_accepted, fpr95_id))
        nearest = same[np.argmin(np.abs(id_accepted[same] - 0.95))]
        self.point_id = (float(ood_accepted[nearest]), float(id_accepted[nearest]))
        same = np.flatnonzero(np.isclose(id_accepted, 1 - fpr95_ood))
        nearest = same[np.argmin(np.abs(ood_accepted[same] - 0.05))]
        self.point_ood = (float(ood_accepted[nearest]), float(id_accepted[nearest]))

    @classmethod
    def from_predictions(
        cls, y_true: Any, score: Any, *, name: str | None = None, ax: Any = None
    ) -> Self:
        """Draw the ROC curve of scores that are there already.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            0/1 or bool (1 = OOD), or strings of which "ood" means OOD.
        score : array-like of shape (n,)
            Higher = more OOD.
        name : str or None, default=None
            Name in the legend.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.

        Returns
        -------
        OODRocCurveDisplay
        """
        return cls._of(np.asarray(score), read_is_ood(y_true, score), None, name).plot(ax)

    @classmethod
    def _of(
        cls, score: np.ndarray, is_ood: np.ndarray, threshold: float | None, name: str | None
    ) -> Self:
        """Compute the curve and its figures; rows with infinite scores count by their order."""
        metrics = {
            "auroc": auroc(score, is_ood),
            "fpr95_id": fpr_at_tpr(score, is_ood, positive="id"),
            "fpr95_ood": fpr_at_tpr(score, is_ood, positive="ood"),
        }

        # scikit-learn's function refuses infinities; the curve depends on the order alone.
        order = np.unique(score, return_inverse=True)[1]
        ood_accepted, id_accepted, _ = roc_curve(~is_ood, -order, drop_intermediate=False)
        return cls(ood_accepted, id_accepted, name=name, **metrics)

    def plot(self, ax: Any = None, *, name: str | None = None, chance: bool = True) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw, also beside other curves; None = a new figure.
        name : str or None, default=None
            Name in the legend; None = the display's.
        chance : bool, default=True
            Draw the line of chance.

        Returns
        -------
        OODRocCurveDisplay
            Itself, with `ax_` and `figure_`.
        """
        self.ax_ = get_axes(ax)
        self.figure_ = self.ax_.figure
        name = self.name if name is None else name

        # One entry per curve, so that the legend of several does not cover them.
        name = "" if name is None else f"{shown(name)}, "
        label = (
            f"{name}AUROC {100 * self.auroc:.1f} %\n"
            f"FPR95 ● {100 * self.fpr95_id:.1f} %, ■ {100 * self.fpr95_ood:.1f} %"
        )
        (self.line_,) = self.ax_.plot(self.ood_accepted, self.id_accepted, label=label)

        for point, marker in ((self.point_id, "o"), (self.point_ood, "s")):
            places = [[place] for place in point]
            self.ax_.plot(*places, marker=marker, linestyle="", color=self.line_.get_color())

        # Other curves on the same axes may have drawn it.
        has_chance = any(line.get_label() == "chance" for line in self.ax_.lines)
        if chance and not has_chance:
            self.ax_.plot([0, 1], [0, 1], color=QUIET_COLOUR, linestyle="--", label="chance")
        self.ax_.set(
            xlabel="proportion of OOD images accepted",
            ylabel="proportion of ID images accepted",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        title = "● ID positive, ■ OOD positive"
        draw_legend(self.ax_, loc="lower right", fontsize=8, title=title, title_fontsize=8)
        return self
