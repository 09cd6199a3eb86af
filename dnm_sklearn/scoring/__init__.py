"""Scores of zero-shot OOD detectors as pure functions of embeddings; **higher = more in-distribution (ID)**.

All functions take unit rows (numpy arrays of any float dtype, or torch tensors) and return numpy
float64. ``h = cos / temperature`` throughout. Nothing is exponentiated before its maximum is taken
out, so that scores stay finite and strictly ordered where probabilities would round to 0 or 1. Rows
and labels are worked through in tiles: extra memory stays under 256 MB whatever the number of
images and negative labels. A row of `image` that holds NaN scores NaN.

The same code runs on CPU and GPU (`device`). Banks of at most 2**18 numbers are multiplied in
float64, larger ones in float32; from the groups' log sums on, all is float64.
"""

from dnm_sklearn.scoring.class_names import class_index, energy, max_logit, mcm
from dnm_sklearn.scoring.negative_labels import (
    clamped_log_odds,
    debiased_id_scale,
    dnm_log_confidence,
    negative_label_log_odds,
)

__all__ = [
    "clamped_log_odds",
    "class_index",
    "debiased_id_scale",
    "dnm_log_confidence",
    "energy",
    "max_logit",
    "mcm",
    "negative_label_log_odds",
]
