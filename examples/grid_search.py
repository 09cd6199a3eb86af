"""Grid search over mining hyper-parameters, on raw images and on embeddings.

Each image is embedded once over all folds, candidates and processes, because the embedder keeps
rows in ``memory``. The images are drawn here and the encoder is a stand-in without weights; with
``CLIPEmbedder()`` in its place the script is the same.
"""

import tempfile

import numpy as np
from sklearn.model_selection import GridSearchCV, cross_val_score

from dnm_sklearn import (
    EmbeddingTable,
    LeaveOneOODSetOut,
    NegLabelDetector,
    StratifiedBySourceKFold,
    make_ood_pipeline,
)
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.metrics import auroc_scorer, fpr95_scorer
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

# Raw images: 24 of data set "a" (in distribution), 12 of each of two OOD sets.
rng = np.random.default_rng(0)
images = list(rng.integers(0, 255, (48, 16, 16, 3)).astype(np.uint8))
y = np.repeat([0, 1], 24)
sources = np.repeat(["a", "ood 1", "ood 2"], [24, 12, 12])
corpus = Corpus([f"word {i}" for i in range(40)])

with tempfile.TemporaryDirectory() as folder:
    pipeline = make_ood_pipeline(
        FakeEmbedder(memory=folder), NegLabelDetector(["cat", "dog"], corpus=corpus)
    )
    search = GridSearchCV(
        pipeline,
        {"detector__fraction": [0.2, 0.5], "detector__n_groups": [1, 4]},
        scoring={"auroc": auroc_scorer, "fpr95": fpr95_scorer},
        refit="auroc",
        cv=StratifiedBySourceKFold(n_splits=3),
        error_score="raise",
    )
    search.fit(images, y, groups=sources)
    print("images embedded:", search.best_estimator_[0].cache_info()["rows"])
    print("best on raw images:", search.best_params_)

# Embeddings and text vectors of one's own: nothing is embedded at all.
world = make_ood_blobs(n_images=60)
table = EmbeddingTable(world.table.names, world.table.encode_text(world.table.names))
sources = np.concatenate([np.repeat("a", 60), np.repeat(["ood 1", "ood 2"], 30)])
search = GridSearchCV(
    NegLabelDetector(world.names, embedder=table),
    {"fraction": [0.1, 0.3, 1.0], "n_groups": [1, 5]},
    scoring=auroc_scorer,
    cv=StratifiedBySourceKFold(n_splits=3),
    error_score="raise",
)
# Nobody tunes on the OOD set that is reported: the search inside each fold sees the other sets
# only.
for source, score in zip(
    ("ood 1", "ood 2"),
    cross_val_score(
        search,
        world.X,
        world.y,
        groups=sources,
        params={"groups": sources},
        cv=LeaveOneOODSetOut(),
        scoring=auroc_scorer,
        error_score="raise",
    ),
    strict=True,
):
    print(f"AUROC on {source}, tuned without it: {score:.3f}")
