"""Scoring against naive float64 loops, released outputs, and the facts the formulas imply."""

import json
import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from golden import golden_cases, golden_excerpt
from hypothesis import given, settings
from hypothesis import strategies as st

from dnm_sklearn import scoring
from dnm_sklearn.scoring import _chunks
from dnm_sklearn.scoring.mining import group_permutation

EXCERPT = json.loads((Path(__file__).parents[1] / "data" / "dnm_score_excerpt.json").read_text())


def unit_rows(rng, n, width):
    rows = rng.standard_normal((n, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def banks(seed=0, n=7, n_id=5, n_negative=23, width=8):
    rng = np.random.default_rng(seed)
    return unit_rows(rng, n, width), unit_rows(rng, n_id, width), unit_rows(rng, n_negative, width)


def spearman(a, b):
    rank = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return np.corrcoef(*rank)[0, 1]


def expit(x):
    return 1 / (1 + np.exp(-x))


def naive_masses(X, class_embeddings, negative_embeddings, temperature, n_groups, permutation):
    """(S, [N_1..N_G]) of one image by plain loops."""
    size = len(negative_embeddings) // n_groups
    order = range(size * n_groups) if permutation is None else permutation
    dealt = [negative_embeddings[i] for i in order]
    mass = sum(math.exp(float(X @ text) / temperature) for text in class_embeddings)
    groups = [
        sum(math.exp(float(X @ text) / temperature) for text in dealt[j * size : (j + 1) * size])
        for j in range(n_groups)
    ]
    return mass, groups


def naive_log_odds(
    X,
    class_embeddings,
    negative_embeddings,
    *,
    temperature,
    n_groups=1,
    id_scale=1.0,
    permutation=None,
):
    out = []
    for x in X:
        mass, groups = naive_masses(
            x, class_embeddings, negative_embeddings, temperature, n_groups, permutation
        )
        p = sum(id_scale * mass / (id_scale * mass + group) for group in groups) / n_groups
        q = sum(group / (id_scale * mass + group) for group in groups) / n_groups
        out.append(math.log(p / q))
    return np.array(out)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_log_odds_equal_naive_loop(data):
    n_negative = data.draw(st.integers(1, 30))
    n_groups = data.draw(st.integers(1, n_negative))
    X, class_embeddings, negative_embeddings = banks(
        data.draw(st.integers(0, 99)),
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(1, 7)),
        n_negative,
        data.draw(st.integers(2, 9)),
    )
    order = range(n_negative)
    if data.draw(st.booleans()):
        order = np.random.default_rng(1).permutation(n_negative)
    params = {
        "temperature": data.draw(st.sampled_from([0.05, 0.2, 1.0])),
        "n_groups": n_groups,
        "id_scale": data.draw(st.sampled_from([0.01, 0.44, 1.0, 20.0])),
    }
    with mock.patch.dict(_chunks.MOST_ROWS, cpu=data.draw(st.sampled_from([1024, 1, 2]))):
        got = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings[order], **params
        )
    assert got.dtype == np.float64
    np.testing.assert_allclose(
        got,
        naive_log_odds(X, class_embeddings, negative_embeddings, permutation=order, **params),
        rtol=1e-10,
        atol=1e-10,
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    n_groups=st.integers(1, 23),
    prior=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
def test_noisy_positives_equal_naive_loop(seed, n_groups, prior):
    X, class_embeddings, negative_embeddings = banks(seed)
    positives = unit_rows(np.random.default_rng(seed + 1), 4, 8)
    got, n_floored = scoring.dnm_log_confidence(
        X,
        class_embeddings,
        negative_embeddings,
        positives,
        temperature=0.2,
        n_groups=n_groups,
        negative_prior=prior,
        min_id_scale=0.3,
    )
    expected, floored = [], 0
    for x in X:
        mass, groups = naive_masses(x, class_embeddings, negative_embeddings, 0.2, n_groups, None)
        mean_positive = sum(math.exp(float(x @ v) / 0.2) for v in positives) / len(positives)
        scale = prior - (1 - prior) * (len(negative_embeddings) // n_groups) * mean_positive / mass
        floored += scale < 0.3
        scale = max(scale, 0.3)
        score = sum(1 / (scale + group / mass) for group in groups) / n_groups
        expected.append(math.log(prior / len(class_embeddings) * score))
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    assert n_floored == floored


def test_positives_that_are_the_id_labels_give_the_closed_form():
    X, class_embeddings, negative_embeddings = banks()
    c = scoring.debiased_id_scale(5, 23 // 4, 0.8)
    log_odds = scoring.negative_label_log_odds(
        X, class_embeddings, negative_embeddings, temperature=0.1, n_groups=4, id_scale=c
    )
    confidence, n_floored = scoring.dnm_log_confidence(
        X, class_embeddings, negative_embeddings, class_embeddings,
        temperature=0.1, n_groups=4, negative_prior=0.8, min_id_scale=1e-9,
    )  # fmt: skip
    assert n_floored == 0
    np.testing.assert_allclose(np.exp(confidence), 0.8 / (5 * c) * expit(log_odds), rtol=1e-10)


def test_debiased_id_scale():
    assert scoring.debiased_id_scale(1000, 120, 0.5) == pytest.approx(0.44)
    assert scoring.debiased_id_scale(53, 64, 0.5) < 0
    assert scoring.debiased_id_scale(7, 3, 1.0) == 1


class TestReleasedCode:
    """Numbers that the authors' released code computed."""

    @staticmethod
    def check(case, rtol):
        arrays = [np.asarray(case[key]) for key in ("image", "id_text", "negative_text")]
        n_groups, prior = int(case["n_groups"]), float(case["tau_negative"])
        permutation = np.asarray(case["permutation"])
        arrays[2] = arrays[2][permutation]
        n_id = len(arrays[1])
        c = scoring.debiased_id_scale(n_id, len(permutation) // n_groups, prior)
        log_odds = scoring.negative_label_log_odds(
            *arrays,
            temperature=float(case["temperature"]),
            n_groups=n_groups,
            id_scale=c,
        )
        expected = np.asarray(case["score_id_confidence"])
        np.testing.assert_allclose(prior / (n_id * c) * expit(log_odds), expected, rtol=rtol)
        assert spearman(log_odds, expected) > 0.99999

    def test_excerpt(self):
        self.check(EXCERPT, 1e-5)

    @pytest.mark.parametrize("index", range(5))
    @pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-5), ("float32", 1e-4)])
    def test_golden(self, shared_dir, monkeypatch, index, dtype, rtol):
        monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", 2**40 if dtype == "float64" else 0)
        with np.load(shared_dir / "golden" / "dnm_score.npz") as data:
            case = {
                key.split("_", 1)[1]: data[key]
                for key in data.files
                if key.startswith(f"case{index}_")
            }
        self.check(case, rtol)


class TestGroupedScoreOfNegRefine:
    """NegLabel's grouped score as NegRefine's released code computes it."""

    @staticmethod
    def check(case):
        log_odds = scoring.negative_label_log_odds(
            case("image"),
            case("id_text"),
            case("negative_text")[case("permutation")],
            temperature=case("temperature").item(),
            n_groups=case("n_groups").item(),
        )
        np.testing.assert_allclose(expit(log_odds), case("score_neglabel"), atol=1e-5)

    def test_excerpt(self):
        self.check(golden_excerpt("negrefine"))

    def test_golden(self, shared_dir):
        for case in golden_cases(shared_dir, "negrefine"):
            self.check(case)


class TestFacts:
    def test_one_group_is_log_mass_ratio(self):
        X, class_embeddings, negative_embeddings = banks()
        score = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings, temperature=0.1
        )
        mass = (
            np.exp(X @ class_embeddings.T / 0.1).sum(1),
            np.exp(X @ negative_embeddings.T / 0.1).sum(1),
        )
        np.testing.assert_allclose(score, np.log(mass[0] / mass[1]), rtol=1e-10)
        for c in (0.01, 0.3, 5.0):
            scaled = scoring.negative_label_log_odds(
                X, class_embeddings, negative_embeddings, temperature=0.1, id_scale=c
            )
            np.testing.assert_allclose(scaled, score + math.log(c), rtol=1e-10, atol=1e-12)

    def test_large_id_scale_ranks_as_ungrouped(self):
        X, class_embeddings, negative_embeddings = banks(n=50, n_negative=24)
        ungrouped = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings, temperature=0.1
        )
        grouped = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings, temperature=0.1, n_groups=6, id_scale=1e12
        )
        np.testing.assert_allclose(grouped - math.log(1e12) - math.log(6), ungrouped, rtol=1e-6)

    def test_small_id_scale_is_the_harmonic_mean(self):
        X, class_embeddings, negative_embeddings = banks()
        score = scoring.negative_label_log_odds(
            X,
            class_embeddings,
            negative_embeddings,
            temperature=0.1,
            n_groups=4,
            id_scale=1e-12,
        )
        ratios = np.array(
            [naive_masses(x, class_embeddings, negative_embeddings, 0.1, 4, None) for x in X],
            object,
        )
        expected = [np.log(np.mean([s / g for g in groups])) for s, groups in ratios]
        np.testing.assert_allclose(score - math.log(1e-12), expected, rtol=1e-8)

    def test_order_of_groups_and_inside_groups_changes_nothing(self):
        X, class_embeddings, negative_embeddings = banks(n_negative=24)
        order = group_permutation(24, 4, random_state=0)
        shuffled = order.reshape(4, 6)[[2, 0, 3, 1]][:, ::-1].ravel()
        scores = [
            scoring.negative_label_log_odds(X, class_embeddings, negative_embeddings[p], n_groups=4)
            for p in (order, shuffled)
        ]
        np.testing.assert_allclose(*scores, rtol=1e-12)

    def test_remainder_is_dropped(self):
        X, class_embeddings, negative_embeddings = banks(n_negative=23)
        scores = [
            scoring.negative_label_log_odds(X, class_embeddings, text, n_groups=5)
            for text in (negative_embeddings, negative_embeddings[:20])
        ]
        np.testing.assert_allclose(*scores, rtol=1e-12)


@pytest.mark.parametrize("delta", [20.0, 90.0, 199.0])
@pytest.mark.parametrize("float64_numbers", [0, 2**18])
def test_finite_and_strictly_ordered_far_out(monkeypatch, delta, float64_numbers):
    monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", float64_numbers)
    cosine = np.linspace(0.5 * delta - 2, 0.5 * delta, 50) / 100
    X = np.stack([cosine, -cosine, np.sqrt(np.maximum(0, 1 - 2 * cosine**2))], axis=1)
    class_embeddings, negative_embeddings = np.eye(3)[:1], np.eye(3)[[1, 1, 1, 1]]
    for side, sign in ((X, 1), (X * [-1, -1, 1], -1)):
        score = scoring.negative_label_log_odds(
            side, class_embeddings, negative_embeddings, n_groups=2
        )
        assert np.isfinite(score).all()
        assert (np.diff(score) * sign > 0).all()
        np.testing.assert_allclose(score, sign * 200 * cosine - math.log(2), rtol=1e-4, atol=1e-3)


class TestChunks:
    """Sizes of chunks and blocks change scores by rounding only, and bound the memory."""

    @pytest.mark.parametrize("n_groups", [1, 3, 40, 400])
    @pytest.mark.parametrize("numbers", [1, 50, 1000])
    def test_any_chunk_gives_the_same(self, monkeypatch, n_groups, numbers):
        X, class_embeddings, negative_embeddings = banks(n=33, n_id=12, n_negative=401)
        dealt = negative_embeddings[group_permutation(401, n_groups, random_state=3)]
        kwargs = {"n_groups": n_groups, "temperature": 0.05}
        expected = scoring.negative_label_log_odds(X, class_embeddings, dealt, **kwargs)
        monkeypatch.setitem(_chunks.CHUNK_NUMBERS, "cpu", numbers)
        monkeypatch.setattr(_chunks, "BLOCK_NUMBERS", 64)
        for most_rows in (1024, 5):
            monkeypatch.setitem(_chunks.MOST_ROWS, "cpu", most_rows)
            got = scoring.negative_label_log_odds(X, class_embeddings, dealt, **kwargs)
            np.testing.assert_allclose(got, expected, rtol=1e-10)

    def test_float32_against_float64(self, monkeypatch):
        X, class_embeddings, negative_embeddings = banks(n=300, n_id=50, n_negative=1200, width=64)
        scores = []
        for numbers in (0, 2**40):
            monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", numbers)
            scores.append(
                scoring.negative_label_log_odds(
                    X, class_embeddings, negative_embeddings, n_groups=10
                )
            )
        assert 0 < np.abs(scores[0] - scores[1]).max() < 1e-4
        assert spearman(*scores) > 0.99999

    def test_small_banks_do_not_see_the_batch(self):
        X, class_embeddings, negative_embeddings = banks(n=200)
        whole = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings, n_groups=4
        )
        alone = [
            scoring.negative_label_log_odds(
                x[None], class_embeddings, negative_embeddings, n_groups=4
            )[0]
            for x in X
        ]
        np.testing.assert_allclose(whole, alone, rtol=0, atol=1e-9)

    def test_one_group_wider_than_a_chunk(self, monkeypatch):
        monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", 0)
        monkeypatch.setitem(_chunks.CHUNK_NUMBERS, "cpu", 5 * 2**10)
        X, class_embeddings, negative_embeddings = banks(n=9, n_negative=3000)
        params = {"temperature": 0.05, "n_groups": 2}
        np.testing.assert_allclose(
            scoring.negative_label_log_odds(X, class_embeddings, negative_embeddings, **params),
            naive_log_odds(X, class_embeddings, negative_embeddings, **params),
            atol=1e-4,
        )


ZERO_SHOT = {
    "max_logit": (scoring.max_logit, {}, lambda cos, t: cos.max(1)),
    "mcm": (
        scoring.mcm,
        {"temperature": 0.2},
        lambda cos, t: np.log((np.exp(cos / t) / np.exp(cos / t).sum(1, keepdims=True)).max(1)),
    ),
    "energy": (
        scoring.energy,
        {"temperature": 0.2},
        lambda cos, t: t * np.log(np.exp(cos / t).sum(1)),
    ),
    "class_index": (scoring.class_index, {}, lambda cos, t: cos.argmax(1)),
}


@pytest.mark.parametrize("name", ZERO_SHOT)
@pytest.mark.parametrize("most_rows", [1024, 3])
def test_zero_shot_scores(name, most_rows, monkeypatch):
    monkeypatch.setitem(_chunks.MOST_ROWS, "cpu", most_rows)
    function, params, naive = ZERO_SHOT[name]
    X, class_embeddings, _ = banks(n=20)
    got = function(X, class_embeddings, **params)
    want = naive(X @ class_embeddings.T, params.get("temperature"))
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    assert got.dtype == (np.int64 if name == "class_index" else np.float64)


@pytest.mark.parametrize("float64_numbers", [0, 2**18])
def test_mcm_is_strictly_ordered_where_the_softmax_rounds_to_one(monkeypatch, float64_numbers):
    monkeypatch.setattr(_chunks, "FLOAT64_NUMBERS", float64_numbers)
    cosine = np.linspace(0.8, 1, 20)
    X = np.stack([cosine, -cosine], axis=1)
    score = scoring.mcm(X, np.eye(2), temperature=0.01)
    assert (score < 0).all()
    assert (np.diff(score) > 0).all()
    np.testing.assert_allclose(score, -np.exp(-200 * cosine), rtol=1e-3)


def test_energy_is_finite_where_float32_exp_overflows():
    np.testing.assert_allclose(scoring.energy(np.eye(2), np.eye(2), temperature=0.001), [1, 1])


def test_mcm_of_one_class_names_max_logit():
    with pytest.raises(ValueError, match="max_logit"):
        scoring.mcm(np.eye(2), np.eye(2)[:1])


class TestInputs:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x.astype(np.float32),
            lambda x: x.astype(np.float16),
            lambda x: x.astype(">f8"),
            lambda x: np.asfortranarray(x),
            lambda x: np.repeat(x, 2, axis=1)[:, ::2],
            lambda x: np.ascontiguousarray(x[::-1])[::-1],
            lambda x: x.tolist(),
            lambda x: __import__("torch").from_numpy(x),
        ],
        ids=["f32", "f16", "big-endian", "fortran", "strided", "reversed", "list", "torch"],
    )
    def test_any_real_array(self, change):
        arrays = banks()
        exact = scoring.negative_label_log_odds(*arrays, n_groups=3, temperature=0.1)
        tolerance = 0.1 if getattr(change(np.ones((1, 1))), "dtype", None) == np.float16 else 1e-4
        got = scoring.negative_label_log_odds(*map(change, arrays), n_groups=3, temperature=0.1)
        np.testing.assert_allclose(got, exact, atol=tolerance)

    @pytest.mark.filterwarnings("error")
    def test_read_only_arrays_stay_silent_and_unchanged(self):
        arrays = banks()
        before = [a.copy() for a in arrays]
        for a in arrays:
            a.setflags(write=False)
        scoring.negative_label_log_odds(*arrays, n_groups=3)
        scoring.mcm(*arrays[:2])
        for a, b in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_no_rows(self):
        X, class_embeddings, negative_embeddings = banks()
        empty = X[:0]
        assert scoring.negative_label_log_odds(
            empty, class_embeddings, negative_embeddings
        ).shape == (0,)
        for function in (scoring.max_logit, scoring.mcm, scoring.energy, scoring.class_index):
            assert function(empty, class_embeddings).shape == (0,)
        score, n_floored = scoring.dnm_log_confidence(
            empty, class_embeddings, negative_embeddings, class_embeddings
        )
        assert score.shape == (0,)
        assert n_floored == 0

    def test_nan_row_scores_nan_and_spares_the_others(self):
        X, class_embeddings, negative_embeddings = banks()
        clean = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings, n_groups=3
        )
        X[2] = np.nan
        score = scoring.negative_label_log_odds(
            X, class_embeddings, negative_embeddings, n_groups=3
        )
        assert np.flatnonzero(np.isnan(score)).tolist() == [2]
        np.testing.assert_allclose(np.delete(score, 2), np.delete(clean, 2), rtol=1e-10)
        assert np.isnan(scoring.mcm(X, class_embeddings)[2])

    def test_wrong_width_names_both(self):
        X, class_embeddings, negative_embeddings = banks()
        with pytest.raises(ValueError, match=r"X is 8 wide but negative_embeddings is 7 wide"):
            scoring.negative_label_log_odds(X, class_embeddings, negative_embeddings[:, :7])
        with pytest.raises(ValueError, match=r"X is 7 wide but class_embeddings is 8 wide"):
            scoring.max_logit(X[:, :7], class_embeddings)

    @pytest.mark.parametrize(
        ("kwargs", "match"),
        [
            ({"temperature": 0}, "temperature must be a finite number > 0"),
            ({"temperature": float("nan")}, "temperature"),
            ({"temperature": "auto"}, "temperature"),
            ({"id_scale": -0.5}, "id_scale must be a finite number > 0"),
            ({"n_groups": 0}, r"n_groups must be an integer in 1\.\.23"),
            ({"n_groups": 24}, r"n_groups must be an integer in 1\.\.23"),
            ({"n_groups": 2.0}, "n_groups"),
            ({"device": "cuda:99"}, "device|cuda|CUDA"),
        ],
    )
    def test_bad_parameters(self, kwargs, match):
        with pytest.raises((ValueError, RuntimeError), match=match):
            scoring.negative_label_log_odds(*banks(), **kwargs)

    @pytest.mark.parametrize(
        ("X", "match"),
        [
            (np.ones(8), r"X must be 2-D .* x\[None, :\]"),
            (np.ones((2, 2, 8)), "X must be 2-D"),
            (np.ones((2, 0)), "X is empty"),
            (np.array([["a"] * 8]), "X must hold real numbers"),
        ],
    )
    def test_bad_image(self, X, match):
        _, class_embeddings, negative_embeddings = banks()
        with pytest.raises(ValueError, match=match):
            scoring.negative_label_log_odds(X, class_embeddings, negative_embeddings)

    def test_empty_banks(self):
        X, class_embeddings, negative_embeddings = banks()
        with pytest.raises(ValueError, match="class_embeddings is empty"):
            scoring.negative_label_log_odds(X, class_embeddings[:0], negative_embeddings)
        with pytest.raises(ValueError, match="negative_embeddings is empty"):
            scoring.negative_label_log_odds(X, class_embeddings, negative_embeddings[:0])

    @pytest.mark.parametrize(
        ("kwargs", "match"),
        [
            ({"negative_prior": 1.5}, r"probability in \(0, 1\]"),
            ({"negative_prior": 0}, "negative_prior"),
            ({"min_id_scale": 0}, "min_id_scale"),
        ],
    )
    def test_bad_debiasing(self, kwargs, match):
        X, class_embeddings, negative_embeddings = banks()
        with pytest.raises(ValueError, match=match):
            scoring.dnm_log_confidence(
                X, class_embeddings, negative_embeddings, class_embeddings, **kwargs
            )


def test_importing_the_functions_imports_no_torch():
    import subprocess
    import sys

    modules = [
        "metrics",
        "scoring",
        "scoring.mining",
        "scoring.enl",
        "streams.tanl",
        "streams.adaneg",
    ]
    imports = "; ".join(f"import dnm_sklearn.{module}" for module in modules)
    code = f"{imports}; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
