"""
A stream that drifts
====================

An alarm that goes off when the images that come are no longer like those of the calibration.
"""

# %%
# Calibrate, then watch
# ---------------------

import numpy as np

from dnm_sklearn import CLIPEmbedder, ENLDetector
from dnm_sklearn.datasets import load_pictures

suite = load_pictures()
embedder = CLIPEmbedder(suite.embedder)
det = ENLDetector(embedder=embedder, prompt=suite.prompt, corpus=suite.corpus[::8])
det = det.fit(suite.class_names)

rng = np.random.default_rng(0)
X_id = embedder.encode_image(suite.id.images)[rng.permutation(len(suite.id))]
det = det.calibrate(X_id[:172], id_tpr=0.95)

# %%
# A hundred and twenty images, and then tools among them
# ------------------------------------------------------
# From image 121 on every third image is one that no class name covers.

tools = next(images for images in suite.ood if images.name == "tools")
X_tools = embedder.encode_image(tools.images[:40])
mixed = np.vstack([X_id[292:], X_tools])
is_tool = np.repeat([0, 1], [len(X_id[292:]), len(X_tools)])
order = rng.permutation(len(mixed))
stream = np.vstack([X_id[172:292], mixed[order]])
y = np.concatenate([np.zeros(120, int), is_tool[order]])

# %%
# The drift alarm bets on the ranks of the scores. Without drift it goes off *ever* with
# probability at most ``alpha``.

from dnm_sklearn.plotting import StreamDisplay

display = StreamDisplay.from_estimator(det, stream, y, alarm=det.drift_alarm(alpha=0.01))
print("alarm at image", display.alarm_at)

# %%
# A detector that learns from the stream
# --------------------------------------
# ``score_stream`` scores batches and learns from them, ``reset_adaptation`` forgets. What such
# methods gain depends on the order of the stream: :doc:`/guide/streams` says which orders break
# them.

from dnm_sklearn import TANLDetector

tanl = TANLDetector(embedder=embedder, prompt=suite.prompt, corpus=suite.corpus[::8])
tanl = tanl.fit(suite.class_names)
scores = np.concatenate(list(tanl.score_stream(np.array_split(stream, 5))))
display = StreamDisplay.from_predictions(scores, y_true=y, name="TANL, learning")
