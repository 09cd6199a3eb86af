"""Notice embeddings that were rescaled feature by feature, which ruins cosines."""

from __future__ import annotations

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.exceptions import EmbeddingNormWarning

_MOST_ROWS = 1000
_warned = False


def warn_far_from_unit(rows: np.ndarray) -> None:
    """Warn, once a process, when the median length of rows lies outside [0.5, 2].

    Detectors normalise rows, so the length itself does no harm; but it shows that embeddings were
    standardised, which changes their directions.

    Parameters
    ----------
    rows : ndarray of shape (n, D)
        Embeddings as the user gave them; the first 1000 are looked at.
    """
    global _warned
    if _warned or not len(rows):
        return
    sample = np.asarray(rows[:_MOST_ROWS], dtype=np.float64)
    lengths = np.linalg.norm(sample, axis=1)
    lengths = lengths[lengths > 0]  # rows of zeros are an error of their own, said elsewhere
    if not len(lengths):
        return
    median = float(np.median(lengths))
    if 0.5 <= median <= 2:
        return
    _warned = True
    warn(
        f"The embeddings have a median length of {median:.3g}, far from 1. Rows are normalised "
        "here, so raw outputs of the image tower are fine; but features that were standardised "
        "(StandardScaler, or PyOD's EmbeddingOD with its default standardize=True) have other "
        "cosines, and detection suffers: pass standardize=False, and scale nothing before the "
        "detector. This is said once.",
        EmbeddingNormWarning,
    )
