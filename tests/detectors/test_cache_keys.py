"""What is cached of mining, and of the corpus in this process, is found by all that decides it."""

import numpy as np
import pytest

from dnm_sklearn import DebiasedNegMiningDetector, EmbeddingTable, NegLabelDetector
from dnm_sklearn._utils.caching import forget_recent_results
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.testing import FakeEmbedder

PARTS = ["noun", "adjective"] * 15
# Texts of their own, which prompt= does not change.
BASE = {
    "classes": {"cat": ["a cat, {}"], "dog": ["a dog, {}"]},
    "corpus": Corpus([f"word {i}" for i in range(30)], PARTS),
    "prompt": "a photo of a {}",
    "adjective_prompt": "this is {}",
}
CHANGES = {
    "class vectors": {"classes": {"cat": ["one cat, {}"], "dog": ["one dog, {}"]}},
    "prompt": {"prompt": "a drawing of a {}"},
    "adjective prompt": {"adjective_prompt": "very {}"},
    "corpus": {"corpus": Corpus([f"thing {i}" for i in range(30)], PARTS)},
    "part of speech": {"corpus": Corpus([f"word {i}" for i in range(30)], PARTS[::-1])},
    "model": {"embedder": FakeEmbedder(16, random_state=1)},
}


def mined(memory, **params):
    params = {"embedder": FakeEmbedder(16), "n_groups": 2, **BASE, **params}
    det = NegLabelDetector(memory=memory, **params).fit()
    return det.negative_labels_.tolist(), det.negative_embeddings_


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["on disk", "in this process"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mining_follows_all_that_decides_it(tmp_path, change, where):
    before = mined(tmp_path)
    if where == "on disk":
        forget_recent_results()
    labels, embeddings = mined(tmp_path, **CHANGES[change])
    expected, expected_embeddings = mined(None, **CHANGES[change])
    assert labels == expected
    np.testing.assert_allclose(embeddings, expected_embeddings, atol=1e-6)

    # Otherwise the test would hold for any key.
    assert labels != before[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mining_follows_the_model_where_class_vectors_are_alike(tmp_path):
    names, words = ["cat", "dog"], [f"word {i}" for i in range(30)]
    rows = np.random.default_rng(0).standard_normal((32, 8))
    mined_labels = []
    for table in (EmbeddingTable(names + words, rows), EmbeddingTable(names + words[::-1], rows)):
        params = {"embedder": table, "corpus": words, "n_groups": 2}
        det = NegLabelDetector(names, memory=tmp_path, **params).fit()
        alone = NegLabelDetector(names, **params).fit()
        assert det.negative_labels_.tolist() == alone.negative_labels_.tolist()
        mined_labels.append(det.negative_labels_.tolist())
    assert mined_labels[0] != mined_labels[1]


DENSITY = {"mining": "density", "n_neighbors": 3, "noun_fraction": 0.3, "adjective_fraction": 0.3}


@pytest.mark.parametrize(
    ("cls", "params", "change"),
    [
        (NegLabelDetector, {"fraction": 0.3}, {"quantile": 0.0}),
        (NegLabelDetector, {"fraction": 1.0}, {"max_similarity": 0.1}),
        (DebiasedNegMiningDetector, DENSITY, {"n_neighbors": 20}),
        (DebiasedNegMiningDetector, DENSITY, {"mining": "norm"}),
        (DebiasedNegMiningDetector, DENSITY, {"mining": "percentile"}),
        (DebiasedNegMiningDetector, DENSITY, {"mining": "none"}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mining_follows_its_settings(tmp_path, cls, params, change):
    rng = np.random.default_rng(0)
    names, words = ["cat", "dog", "owl"], [f"word {i}" for i in range(40)]
    rows = rng.standard_normal((43, 8))
    table = EmbeddingTable(names + words, rows, norms=rng.uniform(5, 12, size=43))

    def mined_labels(memory, **more):
        det = cls(names, embedder=table, corpus=words, memory=memory, n_groups=2, **params)
        return det.set_params(**more).fit().negative_labels_.tolist()

    before = mined_labels(tmp_path)
    assert mined_labels(tmp_path, **change) == mined_labels(None, **change) != before
