"""
Grid search without fooling yourself
====================================

Parameters are chosen on some OOD sets and judged on another. Images are embedded once.
"""

# %%
# A pipeline, rows and where they come from
# -----------------------------------------
# ``memory=`` keeps every embedded image over folds, candidates and processes. ``sources`` says for
# each image from which data set it is.

import tempfile

import numpy as np
from sklearn.model_selection import GridSearchCV

from dnm_sklearn import (
    CLIPEmbedder,
    LeaveOneOODSetOut,
    NegLabelDetector,
    StratifiedBySourceKFold,
    make_ood_pipeline,
)
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.metrics import auroc_scorer

suite = load_pictures()
sets = [suite.id, *(s for s in suite.ood if s.name in ("other-food", "plants", "tools"))]
images = [image for s in sets for image in s.images[:100]]
sources = np.repeat([s.name for s in sets], [len(s.images[:100]) for s in sets])
y = (sources != suite.id.name).astype(int)

folder = tempfile.TemporaryDirectory()
pipeline = make_ood_pipeline(
    CLIPEmbedder(suite.embedder, memory=folder.name),
    NegLabelDetector(
        suite.class_names, prompt=suite.prompt, corpus=suite.corpus[::16], memory=folder.name
    ),
)

# %%
# Which OOD set is held out?
# --------------------------
# The search sees the other two sets; folds hold ID and OOD images of each set.

from dnm_sklearn.plotting import OODRocCurveDisplay

grid = {"detector__fraction": [0.15, 0.5, 1.0], "detector__n_groups": [1, 10]}
outer = LeaveOneOODSetOut()
train, test = next(iter(outer.split(images, y, groups=sources)))
search = GridSearchCV(
    pipeline,
    grid,
    scoring=auroc_scorer,
    cv=StratifiedBySourceKFold(n_splits=3),
    error_score="raise",
)
search = search.fit([images[i] for i in train], y[train], groups=sources[train])
held_out = sorted(set(sources[test]) - {suite.id.name})
print("held out:", *held_out)
print("chosen:", search.best_params_)
print("images embedded:", search.best_estimator_[0].cache_info()["rows"], "of", len(images))

# %%
# Judged where it was not chosen
# ------------------------------

import matplotlib.pyplot as plt

test_images = [images[i] for i in test]
_, ax = plt.subplots(layout="constrained")
for name, estimator in {"chosen": search.best_estimator_, "defaults": pipeline.fit()}.items():
    OODRocCurveDisplay.from_estimator(estimator, test_images, y[test], name=name, ax=ax)
folder.cleanup()

# %%
# For an average over all sets put ``search`` into ``cross_val_score(..., cv=LeaveOneOODSetOut())``
# (:doc:`/sklearn_pyod`).
