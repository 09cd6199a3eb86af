"""InterNeg's selection of labels against loops and the golden vectors."""

import numpy as np
import pytest
from golden import golden_cases, golden_excerpt

from dnm_sklearn.scoring import negative_label_log_odds
from dnm_sklearn.scoring.intermodal import class_images, select_separated, separation


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    return [unit(rng.normal(size=(n, 8))) for n in (40, 5, 5)]


def test_separation_by_a_loop(world):
    corpus, classes, images = world
    mean, passed = separation(corpus, classes, images)
    for y, label in enumerate(corpus):
        gaps = [t @ m - label @ m for t, m in zip(classes, images, strict=True)]
        assert mean[y] == pytest.approx(np.mean(gaps), abs=1e-12)
        assert passed[y] == np.mean([gap > 0 for gap in gaps])


def test_order_of_classes_changes_nothing(world):
    corpus, classes, images = world
    again = separation(corpus, classes[::-1], images[::-1])
    np.testing.assert_allclose(again, separation(corpus, classes, images), atol=1e-12)


def test_a_label_that_is_the_class_name_does_not_pass(world):
    corpus, classes, images = world
    assert separation(classes[:1], classes[:1], images[:1])[1] < 1
    # Where the name stands for the images, every label but the name itself passes.
    np.testing.assert_array_equal(separation(corpus, classes, classes)[1], 1)


def test_selection_keeps_the_parts_of_speech_as_they_pass():
    values = np.arange(10) / 10
    adjective = np.arange(10) % 2 == 0
    passes = np.arange(10) != 9
    assert select_separated(values, passes, adjective, 4).tolist() == [8, 6, 7, 5]
    assert select_separated(values, passes, adjective, 99).tolist() == [8, 6, 4, 2, 0, 7, 5, 3, 1]
    assert select_separated(values, np.zeros(10), adjective, 3).size == 0

    # Of four that pass two are adjectives, whatever the corpus holds beside them.
    most = np.arange(10) < 8
    assert select_separated(values, np.isin(np.arange(10), [0, 7, 8, 9]), most, 3).tolist() == [
        7, 9, 8,
    ]  # fmt: skip
    # Ties keep corpus order.
    equal = select_separated(np.tile([0, 1], 200), np.ones(400), np.zeros(400), 50)
    np.testing.assert_array_equal(equal, 2 * np.arange(50) + 1)


def test_class_images():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    means, counts = class_images(X, np.array([2, 2, 0]), 3)
    np.testing.assert_allclose(means, [[0.6, 0.8], [0, 0], [0.5**0.5, 0.5**0.5]], atol=1e-12)
    assert counts.tolist() == [1, 0, 2]


@pytest.mark.parametrize("case", range(4))
def test_golden_vectors(shared_dir, case):
    check_golden(golden_cases(shared_dir, "interneg")[case])


def test_golden_excerpt():
    check_golden(golden_excerpt("interneg"))


def check_golden(golden):
    mean, passed = separation(golden("candidate_text"), golden("id_text"), golden("class_image"))
    np.testing.assert_allclose(mean, golden("separation"), atol=3e-6)
    np.testing.assert_array_equal(passed == 1, golden("passes"))
    kept = select_separated(
        mean, passed == 1, golden("candidate_is_adjective"), golden("n_negatives").item()
    )
    np.testing.assert_array_equal(kept, golden("selected"))

    dealt = golden("candidate_text")[kept][golden("permutation")]
    n_groups, n_classes = golden("n_groups").item(), len(golden("id_text"))
    settings = {"temperature": golden("temperature").item(), "n_groups": n_groups}
    balanced = len(dealt) // n_groups / n_classes
    for name, scale in (("interneg", 1.0), ("tins", balanced)):
        log_odds = negative_label_log_odds(
            golden("image"), golden("id_text"), dealt, id_scale=scale, **settings
        )
        want = golden(f"score_{name}_id_confidence")
        assert np.abs(1 / (1 + np.exp(-log_odds)) - want).max() <= 3e-6
