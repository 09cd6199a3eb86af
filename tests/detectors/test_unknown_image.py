"""The front door is ENL at its defaults: nothing to choose, and no row of its own in tables."""

import inspect

import numpy as np
import pytest

import dnm_sklearn
from dnm_sklearn import ENLDetector, UnknownImageDetector
from dnm_sklearn.bench.run import registry
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.exceptions import UncalibratedThresholdWarning
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

BLOBS = make_ood_blobs()
PARAMS = {"embedder": BLOBS.table, "corpus": BLOBS.words}


def test_it_asks_for_little():
    names = list(inspect.signature(UnknownImageDetector).parameters)
    assert names == ["classes", "embedder", "prompt", "memory", "contamination", "device", "corpus"]
    assert "UnknownImageDetector" in dnm_sklearn.__all__
    assert "UnknownImageDetector" not in all_detectors()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("given", [(), (BLOBS.X, BLOBS.y), (BLOBS.X_id, np.zeros(len(BLOBS.X_id)))])
def test_it_is_enl(given):
    det = UnknownImageDetector(BLOBS.names, **PARAMS).fit(*given)
    enl = ENLDetector(BLOBS.names, **PARAMS).fit(*given)
    np.testing.assert_array_equal(det.decision_function(BLOBS.X), enl.decision_function(BLOBS.X))
    np.testing.assert_array_equal(det.predict(BLOBS.X), enl.predict(BLOBS.X))
    assert det.threshold_ == enl.threshold_


def test_three_lines_decide_with_a_warning_that_calibration_ends():
    det = UnknownImageDetector(**PARAMS).fit(BLOBS.names)
    with pytest.warns(UncalibratedThresholdWarning, match="UnknownImageDetector"):
        flags = det.predict(BLOBS.X)
    assert set(flags) <= {0, 1}
    det.calibrate(BLOBS.X_id, id_tpr=0.9)
    assert det.predict(BLOBS.X_id).mean() <= 0.1
    assert det.predict(BLOBS.X[BLOBS.y == 1]).mean() > 0.9


def test_the_bench_scores_with_it_and_lists_it_nowhere():
    assert registry.resolve("UnknownImage", registry.detectors_to_score()).load() is (
        UnknownImageDetector
    )
    assert "UnknownImageDetector" not in registry.detectors()


def test_it_embeds_images_itself():
    images = list(np.random.default_rng(0).integers(0, 255, (4, 9, 9, 3)).astype(np.uint8))
    det = UnknownImageDetector(["cat", "dog"], embedder=FakeEmbedder(), corpus=["x", "y", "z"])
    assert det.fit().decision_function(images).shape == (4,)
