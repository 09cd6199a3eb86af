"""
Choosing a threshold
====================

A score needs no threshold; a decision does. A hundred ID images make its error rate known.
"""

# %%
# Scores first
# ------------
# Images are embedded once; everything below works on vectors.

import numpy as np

from dnm_sklearn import CLIPEmbedder, NegLabelDetector
from dnm_sklearn.datasets import load_pictures

suite = load_pictures()
embedder = CLIPEmbedder(suite.embedder)
X_id = embedder.encode_image(suite.id.images)
X_ood = np.vstack([embedder.encode_image(images.images[:60]) for images in suite.ood[:6]])

# Half of the ID images set the threshold, the others judge it.
order = np.random.default_rng(0).permutation(len(X_id))
X_calibration, X_id_test = X_id[order[:186]], X_id[order[186:]]
X = np.vstack([X_id_test, X_ood])
y = np.repeat([0, 1], [len(X_id_test), len(X_ood)])  # 0 = ID, 1 = OOD

det = NegLabelDetector(embedder=embedder, prompt=suite.prompt, corpus=suite.corpus[::8])
det = det.fit(suite.class_names)

# %%
# What each threshold costs and brings
# ------------------------------------

from dnm_sklearn.plotting import ThresholdDisplay

display = ThresholdDisplay.from_estimator(det.calibrate(X_calibration, id_tpr=0.95), X, y)

# %%
# "At most one false alarm in twenty"
# -----------------------------------
# ``calibrate`` puts the threshold where a new ID image is flagged with probability at most
# ``1 - id_tpr``, whatever the detector. The figure for one draw of images scatters about it.

from dnm_sklearn.plotting import ScoreHistogramDisplay

for id_tpr in (0.8, 0.9, 0.95):
    flags = det.calibrate(X_calibration, id_tpr=id_tpr).predict(X)
    false_alarms, caught = flags[y == 0].mean(), flags[y == 1].mean()
    print(f"keep {id_tpr:.0%}: false alarms {false_alarms:5.1%}, OOD caught {caught:.1%}")

histogram = ScoreHistogramDisplay.from_estimator(det, X, y)

# %%
# A level for one call
# --------------------
# After ``calibrate`` each image has a p-value, and ``predict`` takes a level without being fitted
# anew. :doc:`/thresholds` has guarantees by class, and says how many images are enough.

print("p-values:", det.p_value(X[:3]).round(3))
print("flagged at level 0.01:", det.predict(X_id_test, level=0.01).mean().round(3), "of ID images")
