"""
Where in the picture?
=====================

The OOD share of each patch as a heat map, beside the labels that explain the whole image.
"""

# %%
# Patches of a small model
# ------------------------
# :class:`~dnm_sklearn.GLMCMDetector` looks at the whole image and at its patches: an image that
# shows a class *somewhere* is to be ID. The model that ships ends in a grid of two by two patches;
# ViT-B/16 has fourteen by fourteen, and the same lines draw its map.

from dnm_sklearn import CLIPEmbedder, GLMCMDetector
from dnm_sklearn.datasets import load_pictures

suite = load_pictures()
embedder = CLIPEmbedder(suite.embedder)
det = GLMCMDetector(embedder=embedder, prompt=suite.prompt, temperature="auto")
det = det.fit(suite.class_names)
print("patches:", embedder.patch_grid_)

# %%
# The first image of each kind
# ----------------------------
# The first image of the first two classes, near sets and far sets, as they come. Dark squares have
# a large OOD share: one minus the patch's largest probability of a class name. All pictures have
# the same scale.

import matplotlib.pyplot as plt
import numpy as np

from dnm_sklearn.plotting import ExplanationDisplay

near = [images for images in suite.ood if images.group == "near"][:2]
far = [images for images in suite.ood if images.group == "far"][:2]
first = [np.flatnonzero(suite.id.labels == k)[0] for k in (0, 1)]
kinds = {f"ID: {suite.class_names[k]}": suite.id.images[i] for k, i in enumerate(first)}
kinds |= {images.name: images.images[0] for images in near + far}
maps = det.explain_map(list(kinds.values()))

figure, axes = plt.subplots(
    len(kinds), 2, figsize=(8.5, 11), width_ratios=(1, 2.2), layout="constrained"
)
for (name, image), shares, (left, right) in zip(kinds.items(), maps, axes, strict=True):
    left.imshow(image)
    heat = left.imshow(
        shares, cmap="magma_r", vmin=0, vmax=1, alpha=0.55, extent=(-0.5, 63.5, 63.5, -0.5)
    )
    left.set_title(name)
    left.set_axis_off()
    ExplanationDisplay.from_estimator(det, image, top_k=3, name="the whole image", ax=right)
figure.colorbar(heat, ax=axes, location="bottom", aspect=50, label="OOD share of a patch")

# %%
# Does it say where?
# ------------------
# A map looks convincing before it was tested. Here is a test: mosaics of four pictures, two of a
# class and two of far sets, in random places. If the map says where, the squares of OOD pictures
# have larger shares than those of ID pictures: the AUROC over all squares is 1. Chance is 0.5.

from dnm_sklearn.metrics import auroc

rng = np.random.default_rng(0)
X_id = suite.id.images
X_far = np.concatenate([images.images for images in suite.ood if images.group == "far"])
is_ood = np.array([rng.permutation([0, 0, 1, 1]) for _ in range(300)]).reshape(-1, 2, 2)


def picture(ood):
    return rng.choice(X_far if ood else X_id, axis=0)


def mosaic(places):
    rows = [np.concatenate([picture(ood) for ood in row], axis=1) for row in places]
    return np.concatenate(rows)


shares = det.explain_map([mosaic(places) for places in is_ood])
print(f"AUROC of squares in mosaics: {auroc(shares.ravel(), is_ood.ravel()):.2f}")

# %%
# The small model does not say where: each of its four patches has seen all of the picture, so that
# the map tells no more than the whole image does. Try the same on yours before you believe its
# maps. :doc:`/guide/explanations` says which explanation is good for what.
