"""Notice embeddings that were rescaled feature by feature, which ruins cosines."""

from __future__ import annotations

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.exceptions import EmbeddingNormWarning

# Rows that are looked at: enough for a median, and no pass over a large table.
_MOST_ROWS = 1000
# Within a factor of 2, rows were meant to be unit rows. Raw outputs of an image tower are outside,
# as standardised features are; the message tells the two apart.
_NEAR_UNIT = (0.5, 2.0)
# Whether this process has been warned.
_warned = False


def warn_far_from_unit(rows: np.ndarray) -> None:
    """Warn, once per process, when the median length of the user's rows (n, D) is far from 1.

    Detectors normalise rows, so the length itself does no harm; but it shows that embeddings were
    standardised, which changes their directions.
    """
    global _warned
    if _warned or not len(rows):
        return
    sample = np.asarray(rows[:_MOST_ROWS], dtype=np.float64)
    lengths = np.linalg.norm(sample, axis=1)

    # Rows of zeros are an error of their own, raised elsewhere.
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return
    median = float(np.median(lengths))
    if _NEAR_UNIT[0] <= median <= _NEAR_UNIT[1]:
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
