"""Names that the model reads alike, and a y of 0 and 1 that the images speak against."""

import warnings

import numpy as np
import pytest

from dnm_sklearn import CLIPEmbedder, EmbeddingTable, ENLDetector, MaxLogitDetector, MCMDetector
from dnm_sklearn.detectors.label_doubts import first_doubles
from dnm_sklearn.testing import make_ood_blobs

WORLD = make_ood_blobs(n_images=120)
NEAREST = (WORLD.X_id @ WORLD.table.encode_text(WORLD.names).T).argmax(axis=1)


@pytest.mark.parametrize(
    ("a", "b"),
    [("Cat", "cat"), ("Alzheimer's", "Alzheimer\u2019s"), ("sea\u00a0lion", "sea lion")],
)
def test_names_that_the_tokenizer_reads_alike_are_one_class(a, b):
    embedder = CLIPEmbedder("pictoclip")
    want = MCMDetector([a, "dog", "owl"], embedder=embedder).fit()
    with pytest.warns(UserWarning, match=f"one class with them: '{b}' as "):
        got = MCMDetector([a, "dog", b, "owl"], embedder=embedder).fit()
    assert got.class_names_.tolist() == [a, "dog", "owl"]
    np.testing.assert_allclose(got.class_embeddings_, want.class_embeddings_, atol=1e-5)


def test_labels_of_merged_names_go_to_the_first():
    rows = np.vstack([WORLD.table.encode_text(WORLD.names + WORLD.words), np.zeros(32)])
    rows[-1] = rows[2]
    table = EmbeddingTable([*WORLD.names, *WORLD.words, "double"], rows)
    names = [*WORLD.names, "double"]
    labels = [names[k] for k in NEAREST]
    doubled = ["double" if k == 2 else names[k] for k in NEAREST]

    def fit(y):
        det = ENLDetector(names, embedder=table, corpus=WORLD.words)
        with pytest.warns(UserWarning, match="'double' as 'class 2'"):
            return det.fit(WORLD.X_id, y)

    want = fit(labels).decision_function(WORLD.X)
    np.testing.assert_allclose(fit(doubled).decision_function(WORLD.X), want, atol=1e-9)
    indices = [len(names) - 1 if k == 2 else k for k in NEAREST]
    np.testing.assert_allclose(fit(indices).decision_function(WORLD.X), want, atol=1e-9)


def test_doubles_are_found_as_by_all_pairs():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 16))
    copies = rng.integers(0, 200, 100)
    rows[200:] = rows[copies] + 1e-5 * rng.standard_normal((100, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    same = np.square(rows[:, None] - rows[None]).sum(axis=2) < 1e-6
    with pytest.warns(UserWarning, match="one class"):
        found = first_doubles(rows, [str(i) for i in range(300)])
    np.testing.assert_array_equal(found, same.argmax(axis=1))


def detector():
    return MaxLogitDetector(WORLD.names, embedder=WORLD.table)


def test_class_indices_that_happen_to_be_zeros_and_ones_are_doubted():
    few = np.flatnonzero(NEAREST <= 1)
    with pytest.warns(UserWarning, match="look as if they were class indices"):
        detector().fit(WORLD.X_id[few], NEAREST[few])
    only_ones = np.flatnonzero(NEAREST == 1)
    with pytest.warns(UserWarning, match="look as if they were class indices"):
        detector().fit(WORLD.X_id[only_ones], NEAREST[only_ones])


def test_a_y_the_wrong_way_round_is_doubted():
    with pytest.warns(UserWarning, match="is it the other way round"):
        detector().fit(WORLD.X, 1 - WORLD.y)


def test_an_explicit_or_a_likely_y_is_not_doubted():
    few = np.flatnonzero(NEAREST <= 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector().fit(WORLD.X, WORLD.y)
        detector().fit(WORLD.X, WORLD.y == 1)
        detector().fit(WORLD.X_id[few], NEAREST[few] == 1)
        detector().fit(WORLD.X_id[few], np.zeros(len(few), int))
        detector().fit(WORLD.X_id, NEAREST)

        # Zeros are near class 0 and nothing else of it: ones are near no class, least of all 1.
        rows = np.concatenate([WORLD.X_id[NEAREST == 0], WORLD.X[WORLD.y == 1]])
        far = (rows @ WORLD.table.encode_text(WORLD.names).T).argmax(axis=1) != 1
        n_zeros = np.count_nonzero(NEAREST == 0)
        y = np.arange(len(rows)) >= n_zeros
        detector().fit(rows[far], y[far].astype(int))
