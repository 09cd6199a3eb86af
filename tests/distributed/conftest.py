"""A local Ray with two workers, and what is scored on it."""

import os
import sys

import numpy as np
import pytest
from PIL import Image
from ray_jobs import CLASSES, N_IMAGES, WORDS

from dnm_sklearn import NegLabelDetector
from dnm_sklearn.testing import FakeEmbedder


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        # Workers find the encoder of these tests where the tests find it.
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        # Ray's workers give way to all else, so that tests beside them would make them wait.
        patch.setenv("RAY_worker_niceness", "0")
        ray.shutdown()
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images, one of them in a sub-folder, one that is none."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    (folder / "trip").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(N_IMAGES - 1):
        image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(folder / ("trip" if i == 3 else "") / f"{i:02d}.png")
    (folder / "bad.jpg").write_bytes(b"this is no image")
    (folder / "notes.txt").write_text("nor is this")
    return folder


@pytest.fixture(scope="module")
def detector():
    embedder = FakeEmbedder(logit_scale=20.0)
    det = NegLabelDetector(CLASSES, embedder=embedder, corpus=WORDS, n_groups=1).fit()
    return det.calibrate(np.random.default_rng(1).standard_normal((40, 32)))
