"""InterNegDetector: what it learns from images, and what it says where there are too few."""

import numpy as np
import pytest

from dnm_sklearn import EmbeddingTable, InterNegDetector
from dnm_sklearn.scoring import intermodal
from dnm_sklearn.testing import make_ood_blobs

BLOBS = make_ood_blobs(n_corpus=40)


def detector(**params):
    return InterNegDetector(BLOBS.names, **{"embedder": BLOBS.table, "n_groups": 4, **params})


def test_selection_is_that_of_the_functions():
    det = detector(n_negatives=20).fit(BLOBS.X, BLOBS.labels)
    text = BLOBS.table.encode_text(BLOBS.words)
    index = [BLOBS.names.index(label) for label in BLOBS.labels if label != "ood"]
    means, _ = intermodal.class_images(BLOBS.X_id, index, len(BLOBS.names))
    mean, passed = intermodal.separation(text, det.class_embeddings_, means)
    kept = intermodal.select_separated(mean, passed == 1, np.zeros(40), 20)
    assert det.negative_labels_.tolist() == [BLOBS.words[i] for i in kept]
    assert det.proportion_passed_ == np.mean(passed == 1)
    np.testing.assert_allclose(det.image_embeddings_, means, atol=1e-6)


def test_balanced_groups_do_not_move_with_repeated_negatives():
    names, text = list(BLOBS.table.names), BLOBS.table.encode_text(list(BLOBS.table.names))
    copies = [f"copy of {word}" for word in BLOBS.words]
    table = EmbeddingTable(names + copies, np.concatenate([text, text[len(BLOBS.names) :]]))
    once = detector(n_groups=1).fit(BLOBS.X, BLOBS.labels)
    twice = detector(n_groups=1, embedder=table).fit(BLOBS.X, BLOBS.labels)
    assert len(twice.negative_labels_) == 2 * len(once.negative_labels_) == 80
    np.testing.assert_allclose(twice.score_samples(BLOBS.X), once.score_samples(BLOBS.X), atol=1e-5)
    bare = detector(n_groups=1, balance="none").fit(BLOBS.X, BLOBS.labels)
    assert (once.id_scale_, bare.id_scale_) == (40 / 8, 1.0)


def test_what_is_said_without_images_or_labels():
    with pytest.raises(ValueError, match=r"learns from ID images.*NegLabelDetector"):
        detector().fit()
    with pytest.raises(ValueError, match="give the class name of each image"):
        detector().fit(BLOBS.X)
    with pytest.raises(ValueError, match="no readable row of X is ID"):
        detector().fit(BLOBS.X[:2], ["ood", "ood"])


def test_a_y_of_0_and_1_takes_the_nearest_name():
    det = detector().fit(BLOBS.X, BLOBS.y)
    known = detector().fit(BLOBS.X, BLOBS.labels)
    np.testing.assert_allclose(det.image_embeddings_, known.image_embeddings_, atol=1e-6)


def test_classes_without_images():
    rows = [label != "class 3" for label in BLOBS.labels]
    X, y = BLOBS.X[rows], [label for label in BLOBS.labels if label != "class 3"]
    with pytest.raises(ValueError, match="1 of 8 classes have no ID image.*'class 3'"):
        detector().fit(X, y)
    det = detector(missing="text").fit(X, y)
    np.testing.assert_array_equal(det.image_embeddings_[3], det.class_embeddings_[3])


def test_a_class_with_a_bad_name_vetoes_the_corpus():
    """Its name is opposite to its images, so that nearly every label is closer to them."""
    text = BLOBS.table.encode_text(list(BLOBS.table.names))
    text[0] = -text[0]
    table = EmbeddingTable(BLOBS.table.names, text)
    with pytest.raises(ValueError, match="No label of 40.*Lower class_proportion"):
        detector(embedder=table).fit(BLOBS.X, BLOBS.labels)
    det = detector(embedder=table, class_proportion=7 / 8).fit(BLOBS.X, BLOBS.labels)
    assert det.proportion_passed_ == 1


def test_few_labels_that_pass_are_a_warning():
    """The name of a class is about as far from its images as the corpus is: 0.2 of cosine away."""
    text = BLOBS.table.encode_text(list(BLOBS.table.names)).astype(float)
    cosines = np.sort(text[8:] @ BLOBS.X_id[0])
    far = text[0] - (text[0] @ BLOBS.X_id[0]) * BLOBS.X_id[0]
    far /= np.linalg.norm(far)
    own = cosines[4:6].mean()  # above five of the labels
    text[0] = own * BLOBS.X_id[0] + np.sqrt(1 - own**2) * far
    det = detector(embedder=EmbeddingTable(BLOBS.table.names, text), missing="text")
    with pytest.warns(UserWarning, match="Only 12.5% of 40 labels"):
        det.fit(BLOBS.X_id[:1], ["class 0"])
