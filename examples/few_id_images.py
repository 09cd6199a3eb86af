"""
A few images of each class
==========================

Names alone, or names and a handful of ID images: what the images add.
"""

# %%
# Two images of each class
# ------------------------
# :class:`~dnm_sklearn.ENLDetector` divides what every corpus word says by what ID images make it
# say anyway. Names let it guess that; images measure it. Of the six pictures of each class two are
# given to ``fit``, and the others judge.

import matplotlib.pyplot as plt
import numpy as np

from dnm_sklearn import CLIPEmbedder, ENLDetector
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.metrics import auroc

suite = load_pictures()
embedder = CLIPEmbedder(suite.embedder)
options = {"embedder": embedder, "prompt": suite.prompt, "corpus": suite.corpus[::8]}

labels = suite.id.labels
rows = np.concatenate([np.flatnonzero(labels == k)[:2] for k in range(len(suite.class_names))])
X_id = embedder.encode_image(suite.id.images)
X_few, y_few = X_id[rows], [suite.class_names[k] for k in labels[rows]]
X_id = np.delete(X_id, rows, axis=0)

by_names = ENLDetector(**options).fit(suite.class_names)
by_images = ENLDetector(suite.class_names, **options).fit(X_few, y_few)

# %%
# Against animals, food and plants that are no class
# --------------------------------------------------

near = [images for images in suite.ood if images.group == "near"]
X_ood = np.vstack([embedder.encode_image(images.images) for images in near])
X = np.vstack([X_id, X_ood])
y = np.repeat([0, 1], [len(X_id), len(X_ood)])

from dnm_sklearn.plotting import OODRocCurveDisplay

_, ax = plt.subplots(layout="constrained")
for name, det in {"names only": by_names, "2 images a class": by_images}.items():
    OODRocCurveDisplay.from_estimator(det, X, y, name=name, ax=ax)
    print(f"{name:18s} AUROC {auroc(det.decision_function(X), y):.3f}")

# %%
# With images at ``fit`` the threshold is set, too: 5 % of *new* ID images are to be flagged.

print("flagged of other ID images:", by_images.predict(X_id).mean().round(3))

# %%
# The images must be like those that will come. Pictures of the same things by other vendors
# (``suite.id_train``) do not help here: on photographs that is a change of camera or of style.
