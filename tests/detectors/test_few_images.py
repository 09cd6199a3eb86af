"""Detectors of labelled ID images: thresholds for new images, and classes without images."""

import numpy as np
import pytest

from dnm_sklearn import KLMatchingDetector, MahalanobisDetector, PrototypeDetector
from dnm_sklearn.testing import make_ood_blobs

BLOBS = make_ood_blobs(n_images=2000, noise=0.9)
# Half of the ID images for the fit, the others as new ones.
HALF = np.flatnonzero(BLOBS.y == 0)[::2]
NEW = np.flatnonzero(BLOBS.y == 0)[1::2]
LABELS = np.array(BLOBS.labels)
ALL = [PrototypeDetector, KLMatchingDetector, MahalanobisDetector]


def detector(cls, **params):
    return cls(BLOBS.names, **{"embedder": BLOBS.table, "temperature": 0.1, **params})


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("contamination", ["auto", 0.2])
def test_the_threshold_is_for_new_images(cls, contamination):
    """Each ID image is left out of what scores it: so many new ones are flagged, not more."""
    det = detector(cls, contamination=contamination).fit(BLOBS.X[HALF], LABELS[HALF])
    assert det.threshold_source_ == "images"
    meant = 0.05 if contamination == "auto" else 0.2
    assert abs(det.predict(BLOBS.X[NEW]).mean() - meant) < 0.03
    assert len(det.id_scores_) == len(HALF)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("contamination", ["auto", 0.2])
def test_the_threshold_of_few_images_is_for_new_ones_too(cls, contamination):
    """Of four images a class each is a quarter of what it would be compared with.

    Left out, an image has three others of its class where a new one has four, so that fewer are
    flagged than meant, but not more.
    """
    is_id = np.flatnonzero(BLOBS.y == 0)
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(12):
        order = rng.permutation(is_id)
        few = np.concatenate([order[LABELS[order] == name][:4] for name in BLOBS.names])
        det = detector(cls, contamination=contamination).fit(BLOBS.X[few], LABELS[few])
        flagged.append(det.predict(BLOBS.X[np.setdiff1d(is_id, few)]).mean())
    meant = 0.05 if contamination == "auto" else 0.2
    assert meant / 3 < np.mean(flagged) < meant + 0.04


@pytest.mark.parametrize("cls", ALL)
def test_known_ood_rows_do_not_enter(cls):
    rows = np.r_[HALF, np.flatnonzero(BLOBS.y == 1)]
    only_id = detector(cls).fit(BLOBS.X[HALF], LABELS[HALF])
    both = detector(cls).fit(BLOBS.X[rows], LABELS[rows])
    np.testing.assert_array_equal(both.score_samples(BLOBS.X), only_id.score_samples(BLOBS.X))
    assert both.threshold_ == only_id.threshold_


@pytest.mark.parametrize("cls", [KLMatchingDetector, MahalanobisDetector])
def test_a_class_without_images_is_a_warning(cls):
    rows = HALF[LABELS[HALF] != "class 2"]
    with pytest.warns(UserWarning, match="1 of 8 classes have no ID image.*'class 2'"):
        detector(cls).fit(BLOBS.X[rows], LABELS[rows])


def test_a_prototype_without_images_is_the_name():
    rows = HALF[LABELS[HALF] != "class 2"]
    det = detector(PrototypeDetector).fit(BLOBS.X[rows], LABELS[rows])
    text = det.class_embeddings_.astype(float)
    name = text[2] - text.mean(axis=0)
    np.testing.assert_allclose(det.prototype_rows_[2], name / np.linalg.norm(name), atol=1e-6)


def test_one_image_a_class():
    first = [int(np.flatnonzero(name == LABELS)[0]) for name in BLOBS.names]
    with pytest.raises(ValueError, match="is alone in its class.*use PrototypeDetector"):
        detector(MahalanobisDetector).fit(BLOBS.X[first], LABELS[first])
    det = detector(PrototypeDetector).fit(BLOBS.X[first], LABELS[first])
    assert len(det.id_scores_) == 8
    with pytest.raises(ValueError, match="at least two classes"):
        KLMatchingDetector(["class 0"], embedder=BLOBS.table).fit(BLOBS.X[:2], [0, 0])
