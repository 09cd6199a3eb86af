"""Baselines that need care before they can be compared."""

from __future__ import annotations

import numpy as np
from pyod.models.ecod import ECOD


class RowwiseECOD(ECOD):
    """PyOD's ECOD with every row scored alone.

    PyOD ranks a scored batch together with the training rows, so that the score of a row depends on
    its neighbours in the batch: a large OOD set makes itself look common. Here each row gets
    exactly the score that PyOD gives it in a batch of one, for all rows at once. (Li et al., "ECOD:
    Unsupervised Outlier Detection Using Empirical Cumulative Distribution Functions", TKDE 2022.)
    """

    def decision_function(self, X):
        """OOD score of each row, as if it came alone; higher = more OOD."""
        # While it fits, PyOD scores the training rows themselves.
        if not hasattr(self, "X_train"):
            return super().decision_function(X)

        train = np.asarray(self.X_train, dtype=np.float64)
        X = np.asarray(X, dtype=np.float64)
        # The training rows and the one row that is scored.
        n = len(train) + 1
        mean = train.mean(axis=0)
        centered = train - mean
        second, third = (centered**2).sum(axis=0), (centered**3).sum(axis=0)

        scores = np.zeros(len(X))
        for j in range(train.shape[1]):
            # Minus the logs of both tails: how many rows are at most, or at least, as large.
            ordered = np.sort(train[:, j])
            left = -np.log((np.searchsorted(ordered, X[:, j], side="right") + 1) / n)
            right = -np.log((n - np.searchsorted(ordered, X[:, j], side="left")) / n)

            # n times the third central moment of the training column with this row's value
            # appended; with the value, the mean moves by y / n.
            y = X[:, j] - mean[j]
            moment = third[j] + y**3 - 3 * y * (second[j] + y**2) / n + 2 * y**3 / n**2

            # The tail on the longer side of a skewed column, both of a symmetric one.
            skew = np.sign(moment)
            tail = np.where(skew > 0, right, np.where(skew < 0, left, left + right))
            scores += np.maximum(np.maximum(left, right), tail)
        return scores
