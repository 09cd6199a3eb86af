"""Baselines that need care before they can be compared."""

from __future__ import annotations

import numpy as np
from pyod.models.ecod import ECOD


class RowwiseECOD(ECOD):
    """PyOD's ECOD with every row scored alone.

    PyOD ranks a scored batch together with the training rows, so that the score of a row depends on
    its neighbours in the batch: a large OOD set makes itself look common. Here each row gets
    exactly the score that PyOD gives it in a batch of one, for all rows at once.

    Parameters
    ----------
    contamination : float, default=0.1
        See PyOD.
    n_jobs : int, default=1
        Used at fit only.

    References
    ----------
    Li et al., "ECOD: Unsupervised Outlier Detection Using Empirical Cumulative Distribution
    Functions", TKDE 2022, arXiv:2201.00382.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.bench.run.baselines import RowwiseECOD
    >>> det = RowwiseECOD().fit(np.arange(20.0).reshape(10, 2))
    >>> scores = det.decision_function(np.array([[9.0, 10.0], [99.0, 99.0]]))
    >>> bool(scores[1] > scores[0])
    True
    """

    def decision_function(self, X):
        """OOD score of each row, as if it came alone.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Rows to score.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher = more OOD.
        """
        if not hasattr(self, "X_train"):
            return super().decision_function(X)
        train = np.asarray(self.X_train, dtype=np.float64)
        X = np.asarray(X, dtype=np.float64)
        n = len(train) + 1
        centre = train.mean(axis=0)
        centred = train - centre
        second, third = (centred**2).sum(axis=0), (centred**3).sum(axis=0)
        scores = np.zeros(len(X))
        for j in range(train.shape[1]):
            ordered = np.sort(train[:, j])
            left = -np.log((np.searchsorted(ordered, X[:, j], side="right") + 1) / n)
            right = -np.log((n - np.searchsorted(ordered, X[:, j], side="left")) / n)
            # Third central moment of the training column with this row's value appended.
            y = X[:, j] - centre[j]
            moment = third[j] + y**3 - 3 * y * (second[j] + y**2) / n + 2 * y**3 / n**2
            skew = np.sign(moment)
            tail = np.where(skew > 0, right, np.where(skew < 0, left, left + right))
            scores += np.maximum(np.maximum(left, right), tail)
        return scores
