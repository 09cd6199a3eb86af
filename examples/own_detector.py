"""
Your own detector in one file
=============================

A method is a class with two functions; names, images, thresholds, saving and checks come with it.
"""

# %%
# The whole of it
# ---------------
# The margin of the nearest class name over the second: an image that is about as near to two names
# shows neither.

import numpy as np

from dnm_sklearn.detectors import BaseOODDetector, DetectorInfo


class MarginDetector(BaseOODDetector):
    """Cosine to the nearest class name minus the cosine to the second nearest."""

    info = DetectorInfo(
        name="Margin",
        title="Margin of the nearest class name",
        year=2026,
        venue="",
        url="",
        needs=("class names",),
        own=True,
    )

    def _fit_text(self):
        """Prepare what depends on names only; ``class_embeddings_`` is there."""

    def _score_embeddings(self, embeddings):
        """Score unit rows: (n, D) to (n,), higher = more ID."""
        cosines = np.sort(embeddings @ self.class_embeddings_.T, axis=1).astype(np.float64)
        return cosines[:, -1] - cosines[:, -2]


# %%
# It is a detector
# ----------------

import matplotlib.pyplot as plt

from dnm_sklearn import CLIPEmbedder, MaxLogitDetector
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.plotting import OODRocCurveDisplay

suite = load_pictures()
embedder = CLIPEmbedder(suite.embedder)
X_id = embedder.encode_image(suite.id.images)
tools = next(images for images in suite.ood if images.name == "tools")
X = np.vstack([X_id, embedder.encode_image(tools.images)])
y = np.repeat([0, 1], [len(X_id), len(tools)])

_, ax = plt.subplots(layout="constrained")
for cls in (MarginDetector, MaxLogitDetector):
    det = cls(suite.class_names, embedder=embedder, prompt=suite.prompt).fit()
    OODRocCurveDisplay.from_estimator(det, X, y, ax=ax)

# %%
# Is it a good citizen?
# ---------------------
# The library's contract as checks: signs, shapes, names, thresholds, cloning, pickling, bad input.
# ``parametrize_with_ood_checks`` makes tests of pytest of them.

from dnm_sklearn.testing import check_ood_detector

check_ood_detector(MarginDetector())
print("all checks passed")

# %%
# In a package of its own it is run by ``dnm-bench run -d your_package.module:MarginDetector``;
# :doc:`/architecture` shows how one becomes part of this library.
