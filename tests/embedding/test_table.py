"""EmbeddingTable: lookup, what it refuses, and that it never changes."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dnm_sklearn.embedding import EmbeddingTable

NAMES = ["cat", "dog", "grey wolf"]
ROWS = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])


@pytest.fixture
def table():
    return EmbeddingTable(NAMES, ROWS, logit_scale=50, name="pets")


def test_lookup(table):
    rows, norms = table.encode_text(["grey wolf", "cat", "cat"], "a {}", return_norm=True)
    np.testing.assert_allclose(rows, [[0.6, 0.8], [1, 0], [1, 0]], atol=1e-7)
    assert norms.tolist() == [5, 1, 1]
    assert rows.dtype == norms.dtype == np.float32
    assert table.encode_text([]).shape == (0, 2)
    assert (table.logit_scale_, table.logit_bias_, table.embedding_dim_) == (50, None, 2)
    assert "cat" in table
    assert len(table) == 3
    assert "pets" in repr(table)


def test_given_norms():
    table = EmbeddingTable(NAMES, ROWS, norms=[7, 8, 9])
    assert table.encode_text(["dog"], return_norm=True)[1].tolist() == [8]
    assert table.fingerprint_ != EmbeddingTable(NAMES, ROWS).fingerprint_


def test_unknown_name(table):
    with pytest.raises(ValueError, match=r"'gray wolf'.*Did you mean 'grey wolf'"):
        table.encode_text(["cat", "gray wolf"])
    with pytest.raises(ValueError, match=r"2 names are not in"):
        table.encode_text(["zzz", "yyy"])
    with pytest.raises(ValueError, match=r"\{\}"):
        table.encode_text(["cat"], "a photo")


@pytest.mark.parametrize(
    ("names", "rows", "options", "match"),
    [
        (["a", "a"], ROWS[:2], {}, "'a' occurs more than once"),
        (["a"], ROWS, {}, r"shape \(1, d\)"),
        ([], ROWS[:0], {}, "at least one"),
        (["a"], [[0.0, 0.0]], {}, "row of zeros"),
        (["a"], [[np.nan, 0.0]], {}, "NaN"),
        (["a"], [[1.0, 0.0]], {"norms": [0.0]}, "positive"),
        (["a"], [[1.0, 0.0]], {"norms": [1.0, 1.0]}, "positive"),
        (["a"], [[1.0, 0.0]], {"logit_scale": -1}, "logit_scale"),
    ],
)
def test_refused(names, rows, options, match):
    with pytest.raises(ValueError, match=match):
        EmbeddingTable(names, rows, **options)


def test_names_must_be_strings():
    with pytest.raises(TypeError, match="single str 'cat'"):
        EmbeddingTable("cat", ROWS[:1])


def test_images(table):
    np.testing.assert_allclose(table.fit().transform([[3, 4]]), [[0.6, 0.8]], atol=1e-7)
    np.testing.assert_allclose(table.fit_transform([[0.0, 1e-200]]), [[0, 1]], atol=1e-7)
    with pytest.raises(TypeError, match="cannot encode images"):
        table.encode_image(["a.png"])
    with pytest.raises(ValueError, match="another model"):
        table.encode_image(np.ones((1, 3)))
    with pytest.raises(ValueError, match="row 1"):
        table.encode_image(np.array([[1.0, 0], [np.inf, 0]]))


def test_is_immutable(table):
    for same in (clone(table), copy.copy(table), copy.deepcopy(table)):
        assert same is table
    other = pickle.loads(pickle.dumps(table))
    assert other == table
    assert hash(other) == hash(table)
    with pytest.raises(ValueError, match="read-only"):
        table._rows[0, 0] = 5
    assert table != EmbeddingTable(NAMES, ROWS)


def test_in_a_pipeline(table):
    pipeline = clone(make_pipeline(table, StandardScaler()))
    assert pipeline.fit_transform(ROWS).shape == (3, 2)
    assert pipeline[0] is table
    repr(pipeline)


@pytest.mark.parametrize("kind", ["bfloat16", "gradient", "list"])
def test_torch_vectors_of_any_kind(kind):
    torch = pytest.importorskip("torch")
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    given = {
        "bfloat16": vectors.bfloat16(),
        "gradient": vectors.clone().requires_grad_(True),
        "list": [row.clone().requires_grad_(True) for row in vectors],
    }[kind]
    table = EmbeddingTable(["a", "b"], given, norms=torch.ones(2, requires_grad=True))
    np.testing.assert_array_equal(table.encode_text(["a", "b"]), np.eye(2))
    np.testing.assert_array_equal(table.encode_image(given), np.eye(2))
