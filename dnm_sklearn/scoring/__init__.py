"""Scores of zero-shot OOD detectors as pure functions of embeddings; **higher = more ID**.

All functions take unit rows (numpy arrays of any float dtype, or torch tensors) and return numpy
float64. ``h = cos / temperature`` throughout. Nothing is exponentiated before its maximum is taken
out, so that scores stay finite and strictly ordered where probabilities would round to 0 or 1.
Extra memory stays under 256 MB whatever the number of images and labels. A row of `X` that holds
NaN scores NaN.

The same code runs on a CPU and on a GPU (`device`). `_chunks` says in which precision. What
is listed here checks its arguments; most other functions take what detectors have checked.
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
