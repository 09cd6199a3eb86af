"""
Why was this image flagged?
===========================

The class names and negative labels behind a score.
"""

# %%
# A detector, and two images
# --------------------------

from dnm_sklearn import NegLabelDetector
from dnm_sklearn.datasets import load_pictures

suite = load_pictures()
det = NegLabelDetector(embedder=suite.embedder, prompt=suite.prompt, corpus=suite.corpus[::4])
det = det.fit(suite.class_names)

dog = suite.id.images[0]  # "dog" is a class
vehicles = next(images for images in suite.ood if images.name == "vehicles")
car = vehicles.images[12]  # no class name covers it

# %%
# An image of a class
# -------------------
# Blue bars are class names, orange ones negative labels; each is the share in a softmax over all.

from dnm_sklearn.plotting import ExplanationDisplay

display = ExplanationDisplay.from_estimator(det, dog)

# %%
# An image of something else
# --------------------------

display = ExplanationDisplay.from_estimator(det, car)

# %%
# The same as a table: one line per image, side and rank.

table = det.explain([dog, car], top_k=2)
try:
    print(table.to_string(index=False))
except AttributeError:  # without pandas it is a structured array
    print(table)

# %%
# A negative label that is really another word for a class pulls its images over. Such labels are
# seen here first: :ref:`sphx_glr_auto_examples_own_corpus.py` shows how to be rid of them.
