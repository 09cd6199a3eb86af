"""
A folder of images, and names
=============================

Class names in, a folder of images in; scores, flags and a contact sheet out. No training image.
"""

# %%
# A folder to look at
# -------------------
# The shipped pictures are written as PNG files: animals and food, which the class names cover, and
# vehicles, which they do not. With photographs of your own this part falls away.

import tempfile
from pathlib import Path

from dnm_sklearn.datasets import extract_pictures, list_images

folder = tempfile.TemporaryDirectory()
suite = extract_pictures(folder.name)
paths = [
    *list_images(Path(folder.name) / "id")[::26],
    *list_images(Path(folder.name) / "vehicles")[::10],
]
print(len(paths), "files,", len(suite.class_names), "class names:", suite.class_names[:6], "...")

# %%
# Names in
# --------
# :class:`~dnm_sklearn.UnknownImageDetector` has nothing to choose. On photographs leave out
# ``prompt=`` and ``corpus=``, and take ``embedder=CLIPEmbedder("ViT-B-16-quickgelu/openai")``.
# Every eighth word of the corpus is enough for a demo that takes seconds.

from dnm_sklearn import UnknownImageDetector

det = UnknownImageDetector(
    embedder=suite.embedder, prompt=suite.prompt, corpus=suite.corpus[::8]
).fit(suite.class_names)

# %%
# The threshold after names alone is a rule of thumb, made with CLIP on photographs. A hundred ID
# images that are used for nothing else make it exact (:ref:`sphx_glr_auto_examples_threshold.py`):

id_files = list_images(Path(folder.name) / "id")
used = set(paths)
det = det.calibrate([path for path in id_files if path not in used][::3], id_tpr=0.95)

# %%
# Images scored
# -------------
# Most OOD first. An orange frame means "flagged"; under an image that is accepted stands its class.

from dnm_sklearn.plotting import ContactSheetDisplay

sheet = ContactSheetDisplay.from_estimator(det, paths, n_columns=6)

# %%
# The same numbers for a program:

scores = det.decision_function(paths)  # (n,), higher = more OOD
names = det.predict_class(paths)  # class name, or "ood"
for i in scores.argsort()[::-1][:5]:
    print(f"{scores[i]:8.2f}  {names[i]:8s}  {Path(paths[i]).relative_to(folder.name)}")
folder.cleanup()

# %%
# From the shell it is ``dnm-bench score photos -n cat -n dog -o scores.csv`` (:doc:`/dnm_bench`).
