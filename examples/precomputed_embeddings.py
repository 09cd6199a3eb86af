"""
Precomputed embeddings
======================

Vectors of your own, from any model: no model is loaded, no image is read.
"""

# %%
# Two files of vectors
# --------------------
# Here they are computed; in a project of yours they lie on disk. Text vectors come with their
# names, image vectors with nothing.

import tempfile
from pathlib import Path

import numpy as np

from dnm_sklearn import CLIPEmbedder
from dnm_sklearn.datasets import load_pictures

suite = load_pictures("artifacts")
embedder = CLIPEmbedder(suite.embedder)
words = [*suite.class_names, *suite.corpus[::8].names]
food = next(images for images in suite.ood if images.name == "food")
folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "vectors.npz"
np.savez(
    file,
    names=words,
    text=embedder.encode_text(words),
    images=np.vstack([embedder.encode_image(s.images[:150]) for s in (suite.id, food)]),
)

# %%
# A table in the place of the model
# ---------------------------------
# Names that are no class names are the corpus. ``logit_scale`` is the model's own, 100 for CLIP.

from dnm_sklearn import EmbeddingTable, NegLabelDetector

with np.load(file) as vectors:
    table = EmbeddingTable(vectors["names"].tolist(), vectors["text"], logit_scale=100.0)
    X = vectors["images"]
folder.cleanup()

det = NegLabelDetector(suite.class_names, embedder=table).fit()
print(det, "negative labels:", len(det.negative_labels_))

# %%
# Everything else is the same
# ---------------------------

from dnm_sklearn.plotting import ScoreHistogramDisplay

y = np.repeat([0, 1], [150, len(X) - 150])
display = ScoreHistogramDisplay.from_estimator(det.calibrate(X[:150:2]), X, y)

# %%
# Pairs of text and image vectors must come from one model and one preprocessing; vectors of two
# models may be equally wide. A whole benchmark of vectors is an embedding suite
# (:doc:`/embedding_suite`).
