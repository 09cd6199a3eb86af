"""What the displays of ID and OOD scores side by side share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn.metrics import fitted_threshold, read_is_ood, scores_and_truth
from dnm_sklearn.plotting._axes import check_scores

if TYPE_CHECKING:
    from typing_extensions import Self


class _TwoKindsDisplay:
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
    def _scored(cls, estimator: Any, X: Any, y: Any, name: str | None) -> Self:
        """Score images with a fitted detector; its class is the name where none is given."""
        score, is_ood = scores_and_truth(estimator, X, y)
        name = type(estimator).__name__ if name is None else name
        threshold = fitted_threshold(estimator)
        return cls(score[~is_ood], score[is_ood], threshold=threshold, name=name)

    @classmethod
    def _split(cls, y_true: Any, score: Any, threshold: float | None, name: str | None) -> Self:
        """Part scores that are there already by what their images are."""
        score, is_ood = np.asarray(score, dtype=np.float64), read_is_ood(y_true, score)
        return cls(score[~is_ood], score[is_ood], threshold=threshold, name=name)

    def _has_threshold(self) -> bool:
        """Whether there is a threshold that can be drawn."""
        return self.threshold is not None and bool(np.isfinite(self.threshold))
