"""What the displays of scored images of both kinds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.metrics import fitted_threshold, read_is_ood, scores_and_truth
from dnm_sklearn.plotting._axes import check_scores

if TYPE_CHECKING:
    from typing_extensions import Self


class _ScoredDisplay:
    """Base of the displays that a detector's scores of both kinds of images make."""

    # Makes one of scores (n,), which images are OOD, the threshold in use, and a name.
    _of: Callable[..., Any]
    plot: Callable[..., Any]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        name: str | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Score images with a fitted detector, and draw.

        Parameters
        ----------
        estimator : fitted detector, or a Pipeline or search that ends in one
            PyOD's and scikit-learn's outlier detectors too.
        X : images or array-like of shape (n, D)
            What the estimator scores.
        y : array-like of shape (n,)
            0/1 or bool (1 = OOD), or strings of which the estimator's `ood_label` means OOD.
        name : str or None, default=None
            Title, or name in the legend; None = the estimator's class.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.
        **options : dict
            As in :meth:`plot`.

        Returns
        -------
        display : object

        Raises
        ------
        ValueError
            If `y` marks no row as ID or none as OOD.
        """
        score, is_ood = scores_and_truth(estimator, X, y)
        name = type(estimator).__name__ if name is None else name
        return cls._of(score, is_ood, fitted_threshold(estimator), name).plot(ax, **options)


class _TwoKindsDisplay(_ScoredDisplay):
    """Base of the displays of scores of both kinds, and of the threshold between them.

    Parameters
    ----------
    id_scores, ood_scores : array-like of shape (n_id,), (n_ood,)
        OOD scores of ID and of OOD images, higher = more OOD.
    threshold : float or None, default=None
        Images with a score above it are flagged.
    name : str or None, default=None
        Title.
    """

    def __init__(
        self,
        id_scores: Any,
        ood_scores: Any,
        *,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        self.id_scores = check_scores(id_scores, "id_scores")
        self.ood_scores = check_scores(ood_scores, "ood_scores")
        self.threshold = threshold
        self.name = name

    @classmethod
    def _of(
        cls, score: np.ndarray, is_ood: np.ndarray, threshold: float | None, name: str | None
    ) -> Self:
        return cls(score[~is_ood], score[is_ood], threshold=threshold, name=name)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        score: Any,
        *,
        threshold: float | None = None,
        name: str | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw scores that are there already.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            0/1 or bool (1 = OOD), or strings of which "ood" means OOD.
        score : array-like of shape (n,)
            Higher = more OOD.
        threshold : float or None, default=None
            Images with a score above it are flagged.
        name : str or None, default=None
            Title.
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None = a new figure.
        **options : dict
            As in :meth:`plot`.

        Returns
        -------
        display : object
        """
        score = np.asarray(score, dtype=np.float64)
        return cls._of(score, read_is_ood(y_true, score), threshold, name).plot(ax, **options)

    def _has_threshold(self) -> bool:
        """Whether there is a threshold that can be drawn."""
        return self.threshold is not None and bool(np.isfinite(self.threshold))
