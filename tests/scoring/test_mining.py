"""Mining criteria against naive float64 twins, selection and dealing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnm_sklearn.scoring import _chunks, mining


def unit_rows(rng, n, width):
    rows = rng.standard_normal((n, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def naive_density(corpus, k):
    distance = ((corpus[:, None] - corpus[None]) ** 2).sum(-1)
    out = []
    for i, row in enumerate(distance):
        others = np.delete(row, i)
        out.append(-np.log(np.sort(others)[:k].sum()))
    return np.array(out)


def naive_norm(corpus, norms, k):
    distance = norms[:, None] + norms[None] - 2 * corpus @ corpus.T
    return np.array([-np.log(np.maximum(np.sort(row)[:k], 1e-12)).mean() for row in distance])


@pytest.fixture(params=["float64", "float32"])
def tolerance(request, monkeypatch):
    monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", 2**40 if request.param == "float64" else 0)
    return 1e-10 if request.param == "float64" else 1e-4


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 70),
    n_id=st.integers(1, 30),
    quantile=st.one_of(st.sampled_from([0.0, 0.5, 0.95, 1.0]), st.floats(0, 1)),
)
def test_percentile_equals_numpy_quantile(seed, n, n_id, quantile):
    rng = np.random.default_rng(seed)
    corpus, class_embeddings = unit_rows(rng, n, 6), unit_rows(rng, n_id, 6)
    cosine = corpus @ class_embeddings.T
    got = mining.percentile_similarity(corpus, class_embeddings, quantile=quantile)
    np.testing.assert_allclose(got, np.quantile(cosine, quantile, axis=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "k"), [(2, 1), (33, 5), (65, 64), (500, 3), (1000, 3), (1025, 7), (900, 100)]
)
def test_density_equals_naive_twin(n, k, tolerance):
    corpus = unit_rows(np.random.default_rng(n), n, 5)
    np.testing.assert_allclose(
        mining.knn_density(corpus, n_neighbors=k), naive_density(corpus, k), atol=tolerance
    )


def test_density_over_many_chunks(monkeypatch, tolerance):
    monkeypatch.setattr(mining, "_SEARCH_NUMBERS", 2**14)
    corpus = unit_rows(np.random.default_rng(0), 1203, 8)
    np.testing.assert_allclose(
        mining.knn_density(corpus, n_neighbors=6), naive_density(corpus, 6), atol=tolerance
    )


def test_neighbours_that_sit_side_by_side_are_found():
    # All neighbours of a label lie in one run of 30 columns.
    rng = np.random.default_rng(0)
    centres = np.repeat(unit_rows(rng, 60, 16), 30, axis=0)
    corpus = centres + 0.05 * rng.standard_normal(centres.shape)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    np.testing.assert_allclose(
        mining.knn_density(corpus, n_neighbors=20), naive_density(corpus, 20), rtol=1e-9
    )


def test_density_leaves_out_self_once_and_counts_duplicates():
    rng = np.random.default_rng(0)
    corpus = unit_rows(rng, 40, 8)
    corpus[[3, 9, 21]] = np.eye(8)[0]
    got = mining.knn_density(corpus, n_neighbors=3)
    # Two duplicates at distance 0, so the sum is the distance to the nearest other label.
    others = np.delete(corpus, [3, 9, 21], axis=0)
    nearest = (2 - 2 * others @ np.eye(8)[0]).min()
    np.testing.assert_allclose(got[[3, 9, 21]], -np.log(nearest), rtol=1e-10)
    assert (mining.knn_density(corpus, n_neighbors=2)[[3, 9, 21]] == np.inf).all()


def test_too_many_neighbours_warn_and_take_all():
    corpus = unit_rows(np.random.default_rng(0), 6, 4)
    with pytest.warns(
        UserWarning, match="n_neighbors=100 is more than the corpus has: all 5 other labels"
    ):
        got = mining.knn_density(corpus)
    np.testing.assert_allclose(got, naive_density(corpus, 5))
    with pytest.warns(UserWarning, match="all 6 labels"):
        mining.norm_representativeness(corpus, np.full(6, 8.0))
    with pytest.warns(UserWarning, match="all 0 other labels"):
        assert mining.knn_density(corpus[:1]).tolist() == [np.inf]


@pytest.mark.parametrize(("n", "k"), [(3, 1), (50, 50), (1500, 11)])
def test_norm_equals_naive_twin(n, k, tolerance):
    rng = np.random.default_rng(n)
    corpus, norms = unit_rows(rng, n, 8), 7 + 4 * rng.random(n)
    np.testing.assert_allclose(
        mining.norm_representativeness(corpus, norms, n_neighbors=k),
        naive_norm(corpus, norms, k),
        atol=tolerance,
    )


def test_norm_prefers_small_norms():
    rng = np.random.default_rng(0)
    corpus, norms = unit_rows(rng, 400, 64), 6 + 5 * rng.random(400)
    got = mining.norm_representativeness(corpus, norms, n_neighbors=20)
    rank = [np.argsort(np.argsort(x)) for x in (got, -norms)]
    assert np.corrcoef(*rank)[0, 1] > 0.99


def test_norm_of_unit_vectors_is_finite():
    corpus = unit_rows(np.random.default_rng(0), 30, 4)
    assert np.isfinite(mining.norm_representativeness(corpus, np.ones(30), n_neighbors=5)).all()


@pytest.mark.filterwarnings("error")
def test_read_only_float16_and_torch_inputs():
    import torch

    rng = np.random.default_rng(0)
    corpus, class_embeddings = unit_rows(rng, 50, 8), unit_rows(rng, 4, 8)
    exact = (
        mining.percentile_similarity(corpus, class_embeddings),
        mining.knn_density(corpus, n_neighbors=3),
    )
    frozen = corpus.copy()
    frozen.setflags(write=False)
    for same, atol in (
        (frozen, 1e-12),
        (torch.from_numpy(corpus), 1e-12),
        (corpus.astype(np.float16), 0.01),
    ):
        np.testing.assert_allclose(
            mining.percentile_similarity(same, class_embeddings), exact[0], atol=atol
        )
        np.testing.assert_allclose(mining.knn_density(same, n_neighbors=3), exact[1], atol=2 * atol)


class TestErrors:
    corpus = unit_rows(np.random.default_rng(0), 9, 4)

    def test_width(self):
        with pytest.raises(
            ValueError, match="corpus_embeddings is 4 wide but class_embeddings is 3 wide"
        ):
            mining.percentile_similarity(self.corpus, self.corpus[:, :3])

    @pytest.mark.parametrize("quantile", [-0.1, 1.1, float("nan")])
    def test_quantile(self, quantile):
        with pytest.raises(ValueError, match=r"quantile must be in \[0, 1\]"):
            mining.percentile_similarity(self.corpus, self.corpus, quantile=quantile)

    @pytest.mark.parametrize("n_neighbors", [0, -1, 2.5, True])
    def test_n_neighbors(self, n_neighbors):
        with pytest.raises(ValueError, match="n_neighbors must be an integer >= 1"):
            mining.knn_density(self.corpus, n_neighbors=n_neighbors)

    def test_norms(self):
        with pytest.raises(ValueError, match=r"norms must have shape \(9,\)"):
            mining.norm_representativeness(self.corpus, np.ones(8))
        with pytest.raises(ValueError, match="norms must be finite: 1 are not, the first at row 0"):
            mining.norm_representativeness(self.corpus, np.r_[np.nan, np.ones(8)])

    def test_empty_corpus(self):
        with pytest.raises(ValueError, match="corpus_embeddings is empty"):
            mining.knn_density(self.corpus[:0])


class TestSelectFraction:
    def test_nouns_then_adjectives_best_first(self):
        criterion = [5, 1, 3, 2, 9, 8, 7]
        is_adjective = [False, False, True, False, True, True, False]
        kept = mining.select_fraction(criterion, is_adjective, 0.5, 0.7, largest=False)
        assert kept.tolist() == [1, 3, 2, 5]
        kept = mining.select_fraction(criterion, is_adjective, 0.5, 0.7, largest=True)
        assert kept.tolist() == [6, 0, 4, 5]
        assert kept.dtype == np.int64

    @pytest.mark.parametrize("percent", range(0, 101, 1))
    def test_counts_are_not_lost_to_binary_fractions(self, percent):
        kept = mining.select_fraction(
            np.arange(100), np.zeros(100, bool), percent / 100, 0.0, largest=True
        )
        assert len(kept) == max(percent, 1)

    def test_ties_keep_corpus_order(self):
        for largest in (True, False):
            kept = mining.select_fraction(np.zeros(10), np.zeros(10, bool), 0.5, 0, largest=largest)
            assert kept.tolist() == [0, 1, 2, 3, 4]

    def test_at_least_one_label(self):
        criterion, is_adjective = [3.0, 2.0, 1.0], [False, False, True]
        assert mining.select_fraction(
            criterion, is_adjective, 0.15, 0.15, largest=False
        ).tolist() == [2]
        assert mining.select_fraction(
            criterion, is_adjective, 0.15, 0.0, largest=False
        ).tolist() == [1]
        assert mining.select_fraction(criterion, is_adjective, 0.0, 0.0, largest=True).tolist() == [
            0
        ]

    def test_one_part_may_come_to_none(self):
        assert mining.select_fraction(
            [3, 2, 1], [False, False, True], 0.5, 0.5, largest=True
        ).tolist() == [0]

    def test_infinities_are_ranked(self):
        kept = mining.select_fraction([0, np.inf, -np.inf], np.zeros(3, bool), 1, 1, largest=True)
        assert kept.tolist() == [1, 0, 2]

    def test_errors(self):
        with pytest.raises(
            ValueError, match="criterion is NaN for 1 of 3 labels, the first at row 1"
        ):
            mining.select_fraction([0, np.nan, 1], np.zeros(3, bool), 1, 1, largest=True)
        with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
            mining.select_fraction([0, 1, 2], np.zeros(2, bool), 1, 1, largest=True)
        with pytest.raises(ValueError, match="not empty"):
            mining.select_fraction([], [], 1, 1, largest=True)
        with pytest.raises(ValueError, match="adjective_fraction must be in"):
            mining.select_fraction([0.0], [False], 1, 1.5, largest=True)


class TestGroupPermutation:
    @given(n_labels=st.integers(1, 200), data=st.data(), seed=st.integers(0, 5))
    @settings(max_examples=50, deadline=None)
    def test_drops_the_last_then_permutes(self, n_labels, data, seed):
        n_groups = data.draw(st.integers(1, n_labels))
        order = mining.group_permutation(n_labels, n_groups, seed)
        kept = n_labels - n_labels % n_groups
        assert sorted(order.tolist()) == list(range(kept))
        np.testing.assert_array_equal(order, mining.group_permutation(n_labels, n_groups, seed))
        np.testing.assert_array_equal(
            mining.group_permutation(n_labels, n_groups, None), np.arange(kept)
        )

    def test_seeds_differ(self):
        orders = [mining.group_permutation(100, 10, seed).tolist() for seed in (0, 1)]
        assert orders[0] != orders[1]
        assert np.random.RandomState(0).permutation(100).tolist() == orders[0]

    def test_errors(self):
        with pytest.raises(ValueError, match=r"n_groups must be an integer in 1\.\.5"):
            mining.group_permutation(5, 6)
