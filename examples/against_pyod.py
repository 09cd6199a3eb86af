"""
Beside PyOD's detectors
=======================

The same vectors, scored by detectors that know class names and by PyOD's, which know ID images.
"""

# %%
# Vectors
# -------

import matplotlib.pyplot as plt
import numpy as np
from pyod.models.iforest import IForest
from pyod.models.knn import KNN

from dnm_sklearn import CLIPEmbedder, MCMDetector, NegLabelDetector, UnknownImageDetector
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.metrics import auroc

suite = load_pictures()
embedder = CLIPEmbedder(suite.embedder)
X_train = embedder.encode_image(suite.id_train.images)
X_id = embedder.encode_image(suite.id.images)
far = [images for images in suite.ood if images.group == "far"]
X_ood = np.vstack([embedder.encode_image(images.images[:60]) for images in far])
X = np.vstack([X_id, X_ood])
y = np.repeat([0, 1], [len(X_id), len(X_ood)])

# %%
# Names for some, images for others
# ---------------------------------
# All share PyOD's methods and sign: ``decision_function`` is higher for what is more OOD.

options = {"embedder": embedder, "prompt": suite.prompt}
corpus = suite.corpus[::8]
detectors = {
    "ENL (names)": UnknownImageDetector(corpus=corpus, **options).fit(suite.class_names),
    "NegLabel (names)": NegLabelDetector(corpus=corpus, **options).fit(suite.class_names),
    "MCM (names)": MCMDetector(**options).fit(suite.class_names),
    "KNN (496 images)": KNN().fit(X_train),
    "IForest (496 images)": IForest(random_state=0).fit(X_train),
}

# %%
# One plot for all
# ----------------
# The displays take any estimator with ``decision_function``.

from dnm_sklearn.plotting import OODRocCurveDisplay

_, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
for name, det in detectors.items():
    OODRocCurveDisplay.from_estimator(det, X, y, name=name, ax=ax)
    print(f"{name:22s} AUROC {auroc(det.decision_function(X), y):.3f}")

# %%
# ``dnm-bench run`` does this for all detectors, on all sets, as one table (:doc:`/dnm_bench`).
