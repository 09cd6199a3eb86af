"""ReNeg against the released code's vectors, a float64 twin with single images, and its base."""

import numpy as np
import pytest
import streaming_checks as checks
from golden import golden_cases, golden_excerpt
from scipy.special import expit, logsumexp, softmax
from streaming_checks import stream_world, unit

from dnm_sklearn import (
    EmbeddingTable,
    ENLDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    ReNegDetector,
    TANLDetector,
    load,
)  # fmt: skip
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.exceptions import InvalidNamesError
from dnm_sklearn.scoring.reneg import name_weights, otsu_of_log_odds
from dnm_sklearn.streams.reneg import GroundedNamesStream

MODES = ("balanced", "max", "safe")


class GivenScores:
    """A base whose log-odds are known."""

    def __init__(self, log_odds, confident=None):
        self.log_odds, self.confident, self.at = log_odds, confident, 0
        self.confident_id = None

    def load(self, state):
        pass

    def state(self):
        return {}

    def advance(self, batch):
        part = slice(self.at, self.at + len(batch))
        self.at += len(batch)
        self.confident_id = None if self.confident is None else self.confident[part]
        return self.log_odds[part]

    def frozen(self, rows):
        return self.log_odds[: len(rows)]


def naive_otsu(values):
    """The candidate quantile of largest variance between the sides, one by one."""
    best, found = 0, -np.inf
    for candidate in np.quantile(values, np.linspace(0.01, 0.99, 200)):
        low, high = values[values < candidate], values[values >= candidate]
        if len(values) >= 10 and len(low) and len(high):
            between = len(low) * len(high) * (high.mean() - low.mean()) ** 2
            if between > best * (1 + 1e-12):
                best, found = between, candidate
    return found


def naive_stream(
    images, text, pool, cluster, log_odds, *, size, mode, tau=100.0, omega=0.25, noise=None
):
    """ReNeg as it is written down, as released, with lists of images instead of sums."""
    caught = [[] for _ in pool]  # (image, margin, vote) of each name
    of_class = [[] for _ in text]
    weights, seen, history, out = np.full(len(pool), 0.2), [], [], []
    for start in range(0, len(images), size):
        batch, lt = images[start : start + size].astype(float), log_odds[start : start + size]
        prototypes = []
        for own, weight in zip(caught, weights, strict=True):
            if len(own) >= 2 and weight > 1e-4:
                prototypes.append((unit(sum(x for x, _, _ in own)), weight))
        classes = [unit(sum(c)) for c in of_class if c]
        nearest = [int(np.argmax([*(text @ x), *(pool @ x)])) - len(text) for x in batch]
        for x, base, j in zip(batch, lt, nearest, strict=True):
            if not classes:
                out.append(base)
                continue
            inside = logsumexp([tau * (v @ x) for v in classes])
            outside = [tau * (p @ x) + np.log(w) for p, w in prototypes]
            if mode == "max":
                around = unit(unit(sum(seen)) + 0.25 * noise)
                score = inside - logsumexp([*outside, *(tau * around @ x)])
            else:
                score = min(0.0, inside - logsumexp(outside)) if outside else 0.0
            if mode == "safe":
                score *= weights[j] if j >= 0 else 0
            out.append((1 - omega) * base + omega * score)
        history = [*history, *lt]
        votes = lt < naive_otsu(np.array(history))
        for x, j, vote in zip(batch, nearest, votes, strict=True):
            if j >= 0:
                caught[j].append((x, pool[j] @ x - (text @ x).max(), vote))
            likely = softmax(tau * text @ x)
            if likely.max() >= 0.5 and not vote:
                of_class[likely.argmax()].append(x)
            seen.append(x)
        weights = naive_weights(caught, cluster, voting=mode != "max")
    return np.array(out), weights


def naive_weights(caught, cluster, *, voting):
    margins = np.array([m for c in caught for _, m, _ in c])
    weights = np.full(len(caught), 0.2)
    for j, own in enumerate(caught):
        if len(own) < 2:
            continue
        kin = [m for c, g in zip(caught, cluster, strict=True) if g == cluster[j] for _, m, _ in c]
        n = len(own) + 2
        mean = (sum(m for _, m, _ in own) + 2 * np.mean(kin)) / n
        bound = mean / max(margins.std(), 1e-6) - 0.5 / np.sqrt(n)
        weights[j] = expit((bound - 1) / 0.5)
        if voting:
            weights[j] *= expit(((sum(v for _, _, v in own) + 1) / n - 0.5) / 0.1)
    return weights


def run(stream, images, size, sums, counts):
    stream.start(sums, counts, {})
    scores = []
    for start in range(0, len(images), size):
        stream.load(stream.state())
        scores.append(stream.advance(images[start : start + size]))
    return np.concatenate(scores)


def test_golden_vectors(shared_dir):
    for case in golden_cases(shared_dir, "reneg"):
        check_golden(case)


def test_golden_excerpt():
    check_golden(golden_excerpt("reneg"))


def check_golden(case):
    text, mask = case("id_text"), case("base_id_mask")
    sums, counts = np.zeros(text.shape), np.zeros(len(text))
    if case("id_image") is not None:
        np.add.at(sums, case("id_image_label"), case("id_image"))
        np.add.at(counts, case("id_image_label"), 1)
    stream = GroundedNamesStream(
        text, case("pool_text"), case("pool_cluster"), GivenScores(case("base_log_odds"), mask),
        mode=MODES[int(case("mode"))], omega=float(case("omega")),
        temperature=1 / float(case("inverse_temperature")), background=case("background_noise"),
        guard=False,
    )  # fmt: skip
    scores = run(stream, case("image"), int(case("batch_size")), sums, counts)
    np.testing.assert_allclose(scores, case("score_log_odds"), atol=1e-4)
    if case("pool_weight_after") is None:
        return  # an excerpt, whose stream is cut
    state = stream.state()
    np.testing.assert_allclose(state["name_weights_"], case("pool_weight_after"), atol=1e-5)
    np.testing.assert_array_equal(state["caught_counts_"], case("pool_caught_after"))
    np.testing.assert_array_equal(state["class_image_counts_"], case("class_count_after"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_stream_is_the_naive_twin(mode, seed):
    rng = np.random.default_rng(seed)
    text, pool = unit(rng.normal(size=(5, 12))), unit(rng.normal(size=(14, 12)))
    bank = np.concatenate([text, text, pool])
    shown = rng.integers(len(bank), size=90)
    images = unit(bank[shown] + 0.7 * unit(rng.normal(size=(90, 12)))).astype(np.float32)
    log_odds = np.where(shown < 10, 3.0, -3.0) + 2 * rng.normal(size=90)
    cluster, noise = rng.integers(4, size=14), unit(rng.normal(size=(9, 12)))
    stream = GroundedNamesStream(
        text, pool, cluster, GivenScores(log_odds), mode=mode, omega=0.25, temperature=0.01,
        background=noise, guard=False,
    )  # fmt: skip
    got = run(stream, images, 13, np.zeros((5, 12)), np.zeros(5))
    want, weights = naive_stream(
        images, text, pool, cluster, log_odds, size=13, mode=mode, noise=noise
    )
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(stream.state()["name_weights_"], weights, atol=1e-6)
    assert (weights != 0.2).sum() > 4


def test_otsu_is_the_naive_one_and_wants_two_sides():
    rng = np.random.default_rng(0)
    for n in (5, 10, 37, 400):
        values = np.concatenate([rng.normal(-3, 1, n), rng.normal(2, 1, n // 3)])
        assert otsu_of_log_odds(values) == naive_otsu(values)
    one_kind = rng.normal(0, 1, 300)
    assert np.isfinite(otsu_of_log_odds(one_kind))
    assert otsu_of_log_odds(one_kind, least_gap=2) == -np.inf
    assert otsu_of_log_odds(np.zeros(50)) == -np.inf


def test_otsu_at_its_limits():
    two = np.repeat([-1.0, 1.0], 5)
    assert np.isfinite(otsu_of_log_odds(two))
    assert otsu_of_log_odds(two[1:]) == -np.inf
    # As far apart as it must be is not farther.
    assert otsu_of_log_odds(two, least_gap=2) == -np.inf
    assert np.isfinite(otsu_of_log_odds(two, least_gap=1.99))


def test_equal_margins_have_a_weight():
    # The variance of three margins of 0.1 may come out below 0.
    for margin in (0.1, 0.3, 0.7):
        caught, sums = np.array([3.0]), np.array([margin * 3])
        with np.errstate(invalid="raise"):
            weights = name_weights(
                caught, sums, 3 * margin**2 - 1e-12, None, np.array([0]), least_deviation=1e-3
            )
        assert 0 < weights[0] <= 1


def test_a_name_is_not_believed_by_one_image_under_guard():
    caught, sums = np.array([2.0]), np.array([0.002])
    arguments = (caught, sums, 2 * 0.001**2, None, np.array([0]))
    assert name_weights(*arguments, least_deviation=1e-6)[0] > 0.99
    assert name_weights(*arguments, least_deviation=1e-3)[0] < 0.5

    # The same picture twice, hardly nearer to the name than to the class.
    text, pool = np.eye(3)[:1], np.eye(3)[1:2]
    picture = unit(np.array([[1.0, 1.001, 0.0]])).astype(np.float32).repeat(2, axis=0)
    weights = {}
    for guard in (True, False):
        stream = GroundedNamesStream(
            text, pool, np.zeros(1, int), GivenScores(np.zeros(2)), mode="max", omega=0.25,
            temperature=0.01, background=np.eye(3), guard=guard,
        )  # fmt: skip
        run(stream, picture, 2, np.zeros((1, 3)), np.zeros(1))
        weights[guard] = stream.state()["name_weights_"][0]
    assert weights[True] < 0.5 < 0.99 < weights[False]


# -- the detector ---------------------------------------------------------------------------------

BASES = {
    "neglabel": NegLabelDetector(fraction=1.0, n_groups=4),
    "tanl": TANLDetector(n_activated=20),
    "enl": ENLDetector(),
    "mcm": MCMDetector(),
    "max-logit": MaxLogitDetector(),
}


def detector(names, table, **params):
    values = {"base": BASES["neglabel"], "batch_size": 10, "omega": 0.5, **params}
    return ReNegDetector(names, embedder=table, **values)


def check_errors_leave_the_state(det, X):
    if det.base is not BASES["neglabel"]:
        pytest.skip("which error a base has for a corpus of class names is its own")
    checks.check_errors_leave_the_state(det, X)


@pytest.mark.parametrize("base", ["neglabel", "tanl"])
@pytest.mark.parametrize(
    "check",
    [
        checks.check_scoring_changes_nothing,
        checks.check_stream_equals_transductive,
        checks.check_frozen_ignores_order_and_company,
        check_errors_leave_the_state,
    ],
)
def test_contract_of_test_time_methods(check, base):
    names, table, X, _ = stream_world(noise=0.4)
    check(detector(names, table, base=BASES[base]).fit(), X)


@pytest.mark.parametrize("base", BASES)
def test_without_weight_it_is_its_base(base):
    names, table, X, _ = stream_world(n_images=80)
    det = detector(names, table, base=BASES[base], omega=0.0).fit()
    alone = type(BASES[base])(**{**BASES[base].get_params(), "classes": names, "embedder": table})
    if base == "tanl":
        alone.set_params(batch_size=10)
    unit_ = det.base_._score_unit()
    want = alone.fit().score_samples(X) / unit_
    np.testing.assert_allclose(det.score_samples(X), want, atol=1e-9)
    assert det.threshold_ == pytest.approx(alone.threshold_ / unit_)


def test_with_no_name_near_the_base_stands():
    names, table, X, _ = stream_world(n_images=60)
    with pytest.warns(UserWarning, match="The pool is empty"):
        det = detector(names, table, pool=names, omega=0.25).fit()
    base = det.base_.score_samples(X)
    np.testing.assert_allclose(det.score_samples(X), 0.75 * base, atol=1e-12)
    # All OOD images far from the pool: nothing is caught, nothing is lost.
    far = np.zeros((2, table.embedding_dim_))
    far[0] = -table.encode_text(names).sum(axis=0)
    far[1] = -far[0]
    pool = EmbeddingTable([*names, *"ab"], np.concatenate([table.encode_text(names), far]))
    det = detector(names, pool, base=MCMDetector(), pool=["a"], omega=0.25).fit()
    ID = X[(table.encode_text(names) @ X.T).max(axis=0) > 0.5]
    np.testing.assert_allclose(det.score_samples(ID), 0.75 * det.base_.score_samples(ID), atol=1e-9)


def test_the_order_of_the_pool_plays_no_part():
    names, table, X, _ = stream_world(n_images=80)
    words = [name for name in table.names if name not in names]
    scores = [
        detector(names, table, pool=pool).fit().score_samples(X) for pool in (words, words[::-1])
    ]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_what_was_grounded_is_shown():
    names, table, X, y = stream_world(n_images=120, noise=0.3)
    words = [name for name in table.names if name not in names]
    det = detector(names, table, pool=words).fit().partial_fit(X)
    assert 10 < len(det.grounded_names_) <= 40
    shown = det.explain(X[y == 1][:20], top_k=1)
    rows = shown[shown["side"] == "stream"]
    nearest = np.asarray(table.names)[
        (table.encode_text(table.names) @ X[y == 1][:20].T).argmax(axis=0)
    ]
    assert (rows["label"].to_numpy() == nearest).mean() > 0.8
    assert rows["cosine"].between(0.5, 1).all()
    weight = dict(zip(det.pool_labels_, det.name_weights_, strict=True))
    believed = [weight[name] for name in det.grounded_names_]
    assert believed == sorted(believed, reverse=True)
    assert believed[0] > believed[-1]
    assert det.reset_adaptation().grounded_names_.size == 0


def test_frozen_and_safe_weighs_by_the_name_that_catches():
    names, table, X, _ = stream_world(n_images=120, noise=0.3)
    words = [name for name in table.names if name not in names]
    made = {}
    for mode in ("balanced", "safe"):
        det = detector(names, table, pool=words, mode=mode, base=MCMDetector(), omega=0.25)
        made[mode] = det.fit().partial_fit(X).set_params(adaptation="frozen")
    safe = made["safe"]

    base = 0.75 * safe.base_.score_samples(X) / safe.base_._score_unit()
    of_class = (X @ table.encode_text(names).T).max(axis=1)
    of_name = X @ safe.pool_embeddings_.T
    weight = np.where(
        of_name.max(axis=1) > of_class, safe.name_weights_[of_name.argmax(axis=1)], 0.0
    )
    assert 0 < (weight > 0).mean() < 1
    want = base + weight * (made["balanced"].score_samples(X) - base)
    assert np.abs(made["balanced"].score_samples(X) - base).max() > 0.1
    np.testing.assert_allclose(safe.score_samples(X), want, atol=1e-4)


def test_names_settings_and_images_reach_the_base():
    names, table, X, y = stream_world(n_images=80, noise=0.4)
    # What the plug-in is not given, its base brings.
    det = ReNegDetector(base=ENLDetector(names, embedder=table, prompt="a {}")).fit()
    assert det.class_names_.tolist() == names
    np.testing.assert_array_equal(det.class_embeddings_, det.base_.class_embeddings_)
    assert ReNegDetector(base=ENLDetector(names, embedder=table)).partial_fit(X).n_seen_ == 80

    label = np.where(
        y == 1, "ood", np.array(names)[(table.encode_text(names) @ X.T).argmax(axis=0)]
    )
    det = detector(names, table, base=ENLDetector()).fit(X, label)
    assert det.base_.n_id_images_ == det.class_image_counts_.sum() == (y == 0).sum()
    assert det.threshold_ == pytest.approx(0.5 * det.base_.threshold_)
    det.partial_fit(X).reset_adaptation()
    np.testing.assert_array_equal(det.class_image_counts_, det.labelled_counts_)
    with pytest.raises(ValueError, match="The 'base' parameter"):
        detector(names, table, base="TANL").fit()


def test_pool_from_wordnet_synsets_and_a_blind_one():
    words = ["crane", "dog", "wolf", "fox", "stork", "duck", "gin"]
    table = EmbeddingTable(words, np.eye(7))
    bird = {"crane": "n02012849"}
    det = detector(["crane", "dog"], table, synsets=bird).fit()
    assert set(det.pool_labels_) == {"wolf", "fox", "stork", "duck"}
    assert det.pool_unmatched_ == []
    clusters = dict(zip(det.pool_labels_, det.pool_cluster_, strict=True))
    assert clusters["wolf"] == clusters["fox"] != clusters["duck"]
    with pytest.raises(InvalidNamesError, match="names"):
        detector(["crane", "dog"], table, synsets=bird, exclude=[1, 2]).fit()
    blind = detector(["crane", "dog"], table, synsets=bird, exclude=["Wolves", "duck"]).fit()
    assert set(blind.pool_labels_) == {"wolf", "fox", "stork"}
    assert set(
        detector(["crane", "dog"], table, pool=Corpus(["Dog", "gin"])).fit().pool_labels_
    ) == {"gin"}


def test_a_stream_of_one_kind_is_not_split():
    rng = np.random.default_rng(0)
    text = np.eye(4)
    images = unit(text[rng.integers(4, size=200)] + 0.2 * rng.normal(size=(200, 4))).astype(
        np.float32
    )
    log_odds = rng.normal(5, 1, size=200)
    counts = {}
    for guard in (True, False):
        stream = GroundedNamesStream(
            text, text[:0], np.zeros(0, int), GivenScores(log_odds), mode="balanced", omega=0.25,
            temperature=0.01, guard=guard,
        )  # fmt: skip
        run(stream, images, 20, np.zeros((4, 4)), np.zeros(4))
        counts[guard] = stream.state()["class_image_counts_"].sum()
    # As released the lower part of the ID images is voted OOD, and stands for no class.
    assert counts[True] == 200
    assert counts[False] < 150


@pytest.mark.parametrize("base", [BASES["tanl"], ReNegDetector(base=BASES["tanl"], omega=0.1)])
def test_a_state_with_its_base_is_saved(base, tmp_path):
    names, table, X, _ = stream_world(n_images=60)
    det = detector(names, table, base=base).fit().partial_fit(X)
    det.save(tmp_path / "det.skops")
    again = load(tmp_path / "det.skops", table)
    assert type(again.base) is type(base)
    assert again.n_seen_ == 60
    np.testing.assert_array_equal(again.decision_function(X), det.decision_function(X))
    np.testing.assert_array_equal(
        again.partial_fit(X).decision_function(X), det.partial_fit(X).decision_function(X)
    )
