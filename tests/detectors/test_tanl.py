"""TANL against the golden streams and a float64 twin that follows the method line by line."""

import copy
import pickle
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import streaming_checks as checks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from streaming_checks import stream_world, unit

from dnm_sklearn import EmbeddingTable, TANLDetector
from dnm_sklearn.datasets.noise import noise_images
from dnm_sklearn.scoring.tanl import activation_log_odds, otsu_threshold
from dnm_sklearn.streams import _exponentials
from dnm_sklearn.streams.tanl import ActivationStream
from dnm_sklearn.testing import FakeEmbedder

EXCERPT = Path(__file__).parents[1] / "data" / "tanl_score_excerpt.npz"


def logsumexp(logits):
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def naive_rows(x, class_embeddings, corpus):
    weights = np.exp(np.concatenate([x @ class_embeddings.T, x @ corpus.T], axis=1))
    return (weights / weights.sum(axis=1, keepdims=True))[:, len(class_embeddings) :]


def naive_score(x, class_embeddings, ranked, k):
    a, negative = logsumexp(x @ class_embeddings.T), x @ ranked.T
    n_labels = len(ranked)
    ends = [n_labels] if k == 0 else [min(m, n_labels) for m in range(k, n_labels + k, k)]
    return np.mean([expit(a - logsumexp(negative[:, :m])) for m in ends], axis=0)


def naive_otsu(queue):
    thresholds, costs = [i / 100 for i in range(100)], []
    for t in thresholds:
        above, below = queue[queue >= t], queue[queue < t]
        if len(above) == 0 or len(below) == 0:
            costs.append(np.inf)
        else:
            costs.append((len(above) * above.var() + len(below) * below.var()) / len(queue))
    best = np.flatnonzero(np.array(costs) == min(costs))
    return thresholds[best[len(best) // 2]]


def naive_stream(
    class_embeddings, corpus, noise, batches, *, scale, m, k, gap, alpha, length, score_length
):
    """The method as it is written down; logits carry the scale through the texts."""
    id_rows, noise, batches = (
        scale * class_embeddings,
        scale * noise,
        [scale * batch for batch in batches],
    )

    def select(id_mean, ood_mean):
        return corpus[np.argsort(-(ood_mean - id_mean), kind="stable")[:m]]

    id_queue = naive_rows(id_rows[-length:], class_embeddings, corpus)
    ood_queue = naive_rows(noise[-length:], class_embeddings, corpus)
    ranked = select(id_queue.mean(axis=0), ood_queue.mean(axis=0))
    queue = naive_score(np.concatenate([id_rows, noise]), class_embeddings, ranked, k)[
        -score_length:
    ]
    out, thresholds = [], []
    for x in batches:
        rows = naive_rows(x, class_embeddings, corpus)
        id_mean, ood_mean = id_queue.mean(axis=0), ood_queue.mean(axis=0)
        first = naive_score(x, class_embeddings, select(id_mean, ood_mean), k)
        queue = np.concatenate([queue, first])[-score_length:]
        t = naive_otsu(queue)
        sure_id, sure_ood = first > t + gap * (1 - t), first < t - gap * t
        if sure_id.any():
            id_mean = alpha * id_mean + (1 - alpha) * rows[sure_id].mean(axis=0)
        if sure_ood.any():
            ood_mean = alpha * ood_mean + (1 - alpha) * rows[sure_ood].mean(axis=0)
        out.append(naive_score(x, class_embeddings, select(id_mean, ood_mean), k))
        thresholds.append(t)
        id_queue = np.concatenate([id_queue, rows[sure_id]])[-length:]
        ood_queue = np.concatenate([ood_queue, rows[sure_ood]])[-length:]
    return out, thresholds


def assert_twin(
    seed,
    n_classes,
    n_corpus,
    m,
    k,
    gap,
    alpha,
    length,
    score_length,
    batch_sizes,
    scale=20.0,
    dim=12,
):
    rng = np.random.default_rng(seed)
    class_embeddings, corpus, noise = (
        unit(rng.normal(size=(n, dim))).astype(np.float32)
        for n in (n_classes, n_corpus, rng.integers(1, 20))
    )
    batches = []
    for size in batch_sizes:
        near = np.concatenate([class_embeddings, corpus])[
            rng.integers(2 * n_classes, size=size) % (n_classes + n_corpus)
        ]
        batches.append(unit(near + 0.6 * unit(rng.normal(size=(size, dim)))).astype(np.float32))
    arrays = [a.astype(float) for a in (class_embeddings, corpus, noise)]
    want, thresholds = naive_stream(
        *arrays, [b.astype(float) for b in batches], scale=scale, m=m, k=k, gap=gap, alpha=alpha,
        length=length, score_length=score_length,
    )  # fmt: skip
    settings_ = {"temperature": 1 / scale, "n_activated": m, "step": k, "gap": gap, "alpha": alpha}
    with mock.patch.object(_exponentials, "FLOAT64_NUMBERS", 2**40):
        stream = ActivationStream(class_embeddings, corpus, **settings_)
    stream.start(class_embeddings, noise, length, score_length)
    for batch, score, threshold in zip(batches, want, thresholds, strict=True):
        stream.load(stream.state())
        np.testing.assert_allclose(expit(stream.advance(batch)), score, rtol=1e-7)
        assert stream.state()["otsu_threshold_"] == pytest.approx(threshold, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_classes=st.integers(1, 12),
    n_corpus=st.integers(1, 40),
    share=st.floats(0, 1),
    k=st.integers(0, 50),
    gap=st.floats(0, 1),
    alpha=st.floats(0, 1),
    length=st.integers(1, 30),
    score_length=st.integers(1, 200),
    batch_sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
def test_stream_is_the_naive_twin(seed, n_corpus, share, **config):
    assert_twin(seed, n_corpus=n_corpus, m=max(1, round(share * n_corpus)), **config)


@pytest.mark.parametrize(
    "special",
    [
        {"m": 7, "k": 2},  # odd M, the last step is cut
        {"m": 5, "k": 9},  # k > M
        {"length": 3, "batch_sizes": [30, 30]},  # a batch longer than the queue
        {"batch_sizes": [1] * 12},
        {"gap": 1.0, "batch_sizes": [10] * 3},  # no confident image, ever
        {"length": 9, "batch_sizes": [5] * 8},  # runs that lose rows
        {"score_length": 4, "batch_sizes": [9, 2]},
    ],
)
def test_special_cases_of_the_twin(special):
    config = {
        "n_classes": 5, "n_corpus": 25, "m": 11, "k": 1, "gap": 0.2, "alpha": 0.9, "length": 12,
        "score_length": 100, "batch_sizes": [20, 20, 20],
    }  # fmt: skip
    for seed in range(2):
        assert_twin(seed, **{**config, **special})


@pytest.mark.parametrize("case", range(4))
def test_golden_streams(shared_dir, case):
    with np.load(shared_dir / "golden" / "tanl_stream.npz") as file:
        golden = {
            key.split("_", 1)[1]: file[key] for key in file.files if key.startswith(f"case{case}_")
        }
    names = [f"class {i}" for i in range(len(golden["id_text"]))]
    words = [f"word {i}" for i in range(len(golden["corpus_text"]))]
    table = EmbeddingTable(
        names + words,
        np.concatenate([golden["id_text"], golden["corpus_text"]]),
        logit_scale=golden["logit_scale"],
    )
    same = ("n_activated", "step", "gap", "alpha", "queue_length", "batch_size")
    det = TANLDetector(
        names,
        embedder=table,
        initial_ood=golden["noise_image"],
        **{key: golden[key].item() for key in same},
    ).fit()
    confidence = expit(det.score_samples(golden["image"]))
    assert np.abs(confidence - golden["score_id_confidence"]).max() <= 2e-6
    size, thresholds = golden["batch_size"].item(), []
    for start in range(0, len(golden["image"]), size):
        det.partial_fit(golden["image"][start : start + size])
        thresholds.append(det.otsu_threshold_)
    assert (
        np.rint(100 * np.array(thresholds)).tolist()
        == np.rint(100 * golden["otsu_threshold"]).tolist()
    )


@pytest.mark.parametrize("case", range(3))
def test_golden_scores_of_the_first_batch(case):
    with np.load(EXCERPT) as file:
        golden = {
            key.split("_", 1)[1]: file[key] for key in file.files if key.startswith(f"case{case}_")
        }
    got = activation_log_odds(
        golden["image"], golden["id_text"], golden["ranked_text"],
        temperature=1 / golden["logit_scale"].item(), step=golden["step"].item(),
    )  # fmt: skip
    assert np.abs(expit(got) - golden["score_id_confidence"]).max() <= 2e-6


def test_log_odds_keep_their_digits_where_probabilities_round():
    x = np.eye(4)
    got = activation_log_odds(x, x[:1], x[1:3], temperature=0.01)
    assert got == pytest.approx([100 - np.log(1.5), -100, np.log(1 / 3), got[3]], rel=1e-9)
    assert (
        np.diff(
            activation_log_odds(unit(np.array([[3.0, 1], [3.1, 1]])), np.eye(2)[:1], np.eye(2)[1:])
        )[0]
        > 0.1
    )
    assert activation_log_odds(x[:0], x[:1], x[1:]).shape == (0,)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 40])
def test_score_of_ranked_labels(step):
    rng = np.random.default_rng(0)
    x, t, n = (unit(rng.normal(size=(size, 8))) for size in (9, 3, 7))
    got = activation_log_odds(x, t, n, temperature=0.05, step=step)
    np.testing.assert_allclose(expit(got), naive_score(20 * x, t, n, step), rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_otsu_is_the_naive_search(scores):
    scores = np.array(scores)
    if np.ptp(scores) > 1e-3 or np.ptp(scores) == 0:
        got, want = float(otsu_threshold(torch.from_numpy(scores))), naive_otsu(scores)
        if got != want:  # two different splits that are equally good
            costs = [
                sum(part.var() * len(part) for part in (scores[scores >= t], scores[scores < t]))
                for t in (got, want)
            ]
            assert costs[0] == pytest.approx(costs[1], rel=1e-9)


def test_otsu_of_equal_scores_is_the_middle():
    assert otsu_threshold(torch.ones(2, dtype=torch.float64)) == 0.5


# -- the detector ----------------------------------------------------------------------------------


def detector(names, table, **params):
    defaults = {"n_activated": 9, "queue_length": 12, "batch_size": 10}
    return TANLDetector(names, embedder=table, **{**defaults, **params})


@pytest.mark.parametrize(
    "check",
    [
        checks.check_scoring_changes_nothing,
        checks.check_stream_equals_transductive,
        checks.check_frozen_ignores_order_and_company,
        checks.check_errors_leave_the_state,
    ],
)
def test_contract_of_test_time_methods(check):
    names, table, X, _ = stream_world()
    check(detector(names, table).fit(), X)


def test_separates_and_learns():
    names, table, X, y = stream_world(n_images=200, noise=0.4)
    det = detector(names, table).fit()
    # Of a stream, with 9 labels activated where the constant is for 1,000.
    assert det.threshold_ == pytest.approx(1.95 + np.log(9 / 1000))
    assert roc_auc_score(y, det.decision_function(X)) > 0.95
    assert set(det.predict(X)) == {0, 1}
    assert det.n_seen_ == 0
    det.partial_fit(X)
    assert det.n_seen_ == 200
    assert det.id_queued_ > len(names)
    assert det.activated_labels_.shape == det.activation_.shape == (9,)
    assert (np.diff(det.activation_) <= 0).all()
    assert set(det.activated_labels_) <= set(det.corpus_.names)
    assert det.otsu_threshold_ in [i / 100 for i in range(100)]


def test_more_labels_asked_for_than_there_are():
    names, table, X, _ = stream_world()
    with pytest.warns(UserWarning, match="n_activated_=40 is used"):
        det = detector(names, table, n_activated=41).fit()
    assert np.isfinite(det.decision_function(X)).all()


@pytest.mark.parametrize("n_activated", [1, 9, 150, 700])
def test_labels_activated_alike_are_taken_in_the_order_of_the_corpus(n_activated):
    rng = np.random.default_rng(0)
    n_words = 1000
    names, table, _, _ = stream_world(n_corpus=n_words)
    stream = detector(names, table, n_activated=n_activated).fit()._open_stream()
    # Few values, so that most labels are tied, at the border of the selection too.
    activation = torch.tensor(rng.integers(5, size=n_words) / 4)
    found = stream._top(torch.zeros(n_words, dtype=torch.float64), activation).tolist()
    want = sorted(range(n_words), key=lambda i: (-activation[i].item(), i))
    assert found == want[:n_activated]


def test_with_the_largest_gap_nothing_is_confident():
    """Not even a probability that is exactly 1 (log-odds are bounded below: none is 0)."""
    names, table, X, _ = stream_world(logit_scale=5000.0)
    det = detector(names, table, gap=1.0).fit()
    before = det.id_queued_, det.ood_queued_
    scores = det.partial_fit(X).score_samples(X)
    probability = expit(scores)
    assert (probability == 1).any()
    assert (probability < 1e-300).any()
    assert (det.id_queued_, det.ood_queued_) == before


@pytest.mark.parametrize(("gap", "is_queued"), [(1 / 3, False), (0.33, True)])
def test_an_image_at_the_edge_of_the_gap_is_not_confident(gap, is_queued):
    """Its probability is 0.5 where the threshold is 0.75, and 0.75 - gap * 0.75 the edge."""
    table = EmbeddingTable(["cat", "truck"], np.eye(2))
    params = {"n_activated": 1, "initial_ood": np.ones((1, 2)), "gap": gap}
    det = detector(["cat"], table, **params).fit()
    before = det.ood_queued_
    det.partial_fit(np.ones((1, 2)))
    assert det.otsu_threshold_ == 0.75
    assert det.ood_queued_ == before + is_queued


def test_the_images_that_a_stream_calls_id_are_those_that_it_queues_as_id():
    """What is built on TANL goes by them."""
    names, table, X, _ = stream_world(n_images=60, noise=0.4)
    det = detector(names, table, queue_length=100).fit()
    stream = det._present_stream()
    X = unit(X).astype(np.float32)
    stream.advance(X)
    state = stream.state()
    new = state["id_queue_"][det.id_queued_ : state["id_queued_"]]
    assert 0 < len(new) < len(X)
    np.testing.assert_array_equal(new, X[stream.confident_id])


def test_initial_queues():
    names, table, X, _ = stream_world()
    with pytest.raises(ValueError, match="initial_ood must be embeddings of shape"):
        detector(names, table, initial_ood=X[:, :-1]).fit()
    with pytest.raises(ValueError, match="initial_ood: .*zero"):
        detector(names, table, initial_ood=np.zeros((2, 16))).fit()
    given_rows = detector(names, table, initial_ood=X[:5]).fit()
    np.testing.assert_allclose(given_rows.ood_queue_[:5], X[:5], atol=1e-6)
    default, again = detector(names, table).fit(), detector(names, table).fit()
    np.testing.assert_array_equal(default.ood_queue_, again.ood_queue_)
    short = {"queue_length": 3}
    np.testing.assert_array_equal(
        detector(names, table, **short).fit().id_queue_, table.encode_text(names[-3:])
    )
    orders = {
        tuple(detector(names, table, random_state=s).fit().initial_id_order_) for s in range(5)
    }
    assert len(orders) > 1


def test_noise_goes_through_the_image_tower(tmp_path):
    log = tmp_path / "log"
    det = TANLDetector(
        ["cat", "dog"], embedder=FakeEmbedder(log_path=str(log)), corpus=["oak", "ash", "elm"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        det.fit()
    assert log.read_text().count("row") == 15
    images = noise_images()
    assert images.dtype == np.uint8
    flat = images.reshape(15, -1)
    assert (flat.min(axis=1) == 0).all()
    assert (flat.max(axis=1) == 255).all()
    assert set(np.unique(flat[-3:])) == {0, 255}
    np.testing.assert_array_equal(images, noise_images(0))


def test_unreadable_images_are_neither_scored_nor_learned(tmp_path):
    path = tmp_path / "bad.png"
    path.write_text("no image")
    good = [Image.fromarray(image) for image in noise_images(1, size=9)[:4]]
    embedder = FakeEmbedder(on_error="nan")
    det = TANLDetector(
        ["cat", "dog"], embedder=embedder, corpus=["oak", "ash", "elm"], n_activated=2
    ).fit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        (scores,) = det.score_stream([[*good, str(path)]])
        assert np.isnan(scores).tolist() == [False] * 4 + [True]
        assert det.n_seen_ == 4
        det.partial_fit([str(path)])
    assert det.n_seen_ == 4


def test_pickle_and_copy_keep_what_was_learned():
    names, table, X, _ = stream_world()
    det = detector(names, table).fit().partial_fit(X)
    want = det.decision_function(X)
    for other in (pickle.loads(pickle.dumps(det)), copy.deepcopy(det)):
        np.testing.assert_array_equal(other.decision_function(X), want)


def test_a_refit_during_a_stream_is_followed():
    names, table, X, _ = stream_world()
    det = detector(names, table).fit()
    stream = det.score_stream([X, X])
    next(stream)
    det.set_params(classes=names[:3]).fit()
    want = det.decision_function(X)
    np.testing.assert_allclose(next(stream), want, atol=1e-9)


def test_state_is_small():
    rng = np.random.default_rng(0)
    names, words = [f"c{i}" for i in range(20)], [f"w{i}" for i in range(3000)]
    table = EmbeddingTable(names + words, unit(rng.normal(size=(3020, 8))))
    det = TANLDetector(names, embedder=table).fit()
    per_label = sum(
        getattr(det, f"{side}_activation_sums_").nbytes for side in ("id", "ood")
    ) / len(words)
    assert per_label * 69_554 < 25e6
