"""
A corpus of your own
====================

Negative labels come from a list of words. Which words are in it decides what is caught, and
whether a benchmark tells the truth.
"""

# %%
# Words with a part of speech and a topic
# ---------------------------------------

import matplotlib.pyplot as plt
import numpy as np

from dnm_sklearn import CLIPEmbedder, NegLabelDetector
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import load_pictures

suite = load_pictures(contaminate=True)
everything = suite.corpus
print(everything)
without_animals = everything.filter(exclude_lexname=["noun.animal", "noun.food", "noun.plant"])
print(without_animals)

# %%
# Other words for class names
# ---------------------------
# This corpus holds "kitty" beside the class "cat": as a negative label it catches cats. Take such
# words out by hand, or let ``corpus="wordnet"`` with ``refine="wordnet"`` find them.

synonyms = suite.meta["contaminants"]
print(len(synonyms), "other words for classes:", ", ".join(synonyms[:6]), "...")
clean = everything.without(synonyms)

# %%
# Leaks
# -----
# A corpus may hold the very names of the OOD images, which flatters a benchmark. ``leaked`` lists
# them.

vehicles = suite.meta["shown"]["vehicles"]
print("leaked:", ", ".join(clean.leaked(vehicles)[:8]))
blind = clean.without(clean.leaked(vehicles))

# %%
# Words of your own are a list, or a file with one word a line (``Corpus.from_file``):

own = Corpus(["car", "boat", "hammer", "shirt", "house", "number", "pattern", "face"], name="own")

# %%
# What difference it makes
# ------------------------

from dnm_sklearn.plotting import OODRocCurveDisplay

embedder = CLIPEmbedder(suite.embedder)
X_id = embedder.encode_image(suite.id.images)
food = next(images for images in suite.ood if images.name == "other-food")
X = np.vstack([X_id, embedder.encode_image(food.images)])
y = np.repeat([0, 1], [len(X_id), len(food)])

corpora = {
    "clean": clean[::8],
    "no animals, food, plants": without_animals.without(synonyms)[::8],
    "with other words for classes": Corpus([*clean[::8].names, *synonyms]),
    "eight words": own,
}
_, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
for name, corpus in corpora.items():
    det = NegLabelDetector(
        suite.class_names,
        embedder=embedder,
        prompt=suite.prompt,
        corpus=corpus,
        fraction=1.0,
        n_groups=1,
    )
    OODRocCurveDisplay.from_estimator(det.fit(), X, y, name=name, ax=ax)
