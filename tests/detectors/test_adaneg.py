"""AdaNeg against a float64 twin that stores one image at a time."""

import numpy as np
import pytest
import streaming_checks as checks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score
from streaming_checks import stream_world, unit

from dnm_sklearn import AdaNegDetector, NegLabelDetector
from dnm_sklearn.streams.adaneg import LabelMemoryStream


def naive_grouped(id_logits, negative_logits, n_groups):
    """Mean over groups of S / (S + N_j), for one image."""
    mass = np.exp(id_logits).sum()
    groups = np.exp(negative_logits).reshape(n_groups, -1).sum(axis=1)
    return (mass / (mass + groups)).mean()


def entropy(logits):
    p = softmax(logits)
    return -sum(q * np.log(q) for q in p if q > 0)


def naive_stream(
    class_embeddings, negative, batches, *, temperature, n_groups, length, proxy, beta, weight, gap
):
    n_classes = len(class_embeddings)
    text = np.concatenate([class_embeddings, negative])
    memory = [[] for _ in text]  # (entropy, feature) of each label
    out = []
    for batch in batches:
        static = []
        for v in batch:
            logits = text @ v / temperature
            s_nl = naive_grouped(logits[:n_classes], logits[n_classes:], n_groups)
            static.append(s_nl)
            if s_nl > 0.5 + gap * 0.5:
                side, first = logits[:n_classes], 0
            elif s_nl < 0.5 - gap * 0.5:
                side, first = logits[n_classes:], n_classes
            else:
                continue
            slots, new = memory[first + side.argmax()], (entropy(side), v)
            if len(slots) < length:
                slots.append(new)
                continue
            worst = max(range(length), key=lambda i: slots[i][0])
            if new[0] < slots[worst][0]:
                slots[worst] = new
        for v, s_nl in zip(batch, static, strict=True):
            cosines = []
            for label, slots in zip(text, memory, strict=True):
                all_slots = [label, *(feature for _, feature in slots)]
                weights = [
                    1.0 if proxy == "task" else np.exp(-beta * (1 - s @ v)) for s in all_slots
                ]
                p = sum(w * s for w, s in zip(weights, all_slots, strict=True))
                cosines.append(p / np.linalg.norm(p) @ v)
            logits = np.array(cosines) / temperature
            s_ada = naive_grouped(logits[:n_classes], logits[n_classes:], n_groups)
            out.append((s_ada + weight * s_nl) / (1 + weight))
    return np.array(out)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_classes=st.integers(1, 6),
    group_size=st.integers(1, 5),
    n_groups=st.integers(1, 4),
    length=st.integers(1, 4),
    proxy=st.sampled_from(["task", "sample"]),
    beta=st.floats(0, 8),
    weight=st.sampled_from([0.0, 0.1, 2.0]),
    gap=st.floats(0, 1),
    batch_sizes=st.lists(st.integers(1, 14), min_size=1, max_size=3),
)
def test_stream_is_the_naive_twin(
    seed, n_classes, group_size, n_groups, length, proxy, beta, weight, gap, batch_sizes
):
    rng, temperature = np.random.default_rng(seed), 0.05
    class_embeddings, negative = (
        unit(rng.normal(size=(n, 10))) for n in (n_classes, group_size * n_groups)
    )
    banks = np.concatenate([class_embeddings, negative])
    batches = []
    for size in batch_sizes:
        near = banks[rng.integers(len(banks), size=size)]
        batches.append(unit(near + 0.7 * unit(rng.normal(size=near.shape))).astype(np.float32))
    stream = LabelMemoryStream(
        class_embeddings, negative, temperature=temperature,
        n_groups=n_groups, memory_length=length, proxy=proxy, beta=beta,
        static_weight=weight, gap=gap,
    )  # fmt: skip
    stream.start()
    got = []
    for batch in batches:
        stream.load(stream.state())
        got.append(stream.advance(batch))
    want = naive_stream(
        class_embeddings, negative, [b.astype(float) for b in batches],
        temperature=temperature, n_groups=n_groups, length=length, proxy=proxy, beta=beta,
        weight=weight, gap=gap,
    )  # fmt: skip
    np.testing.assert_allclose(expit(np.concatenate(got)), want, rtol=1e-6)
    label = stream.state()["memory_label_"]
    assert np.bincount(label[label >= 0], minlength=1).max() <= length


def test_entropies_of_sure_images_are_zero_and_no_nan():
    labels = np.eye(6)
    settings_ = {"n_groups": 1, "proxy": "task", "beta": 1.0, "static_weight": 0.1, "gap": 0.5}
    stream = LabelMemoryStream(
        labels[:3], labels[3:], temperature=0.001, memory_length=2, **settings_
    )
    stream.start()
    weak = unit(labels + 0.999 * np.roll(labels, 1, axis=1)).astype(np.float32)
    assert np.isfinite(
        stream.advance(np.concatenate([weak, weak, labels.astype(np.float32)]))
    ).all()
    state = stream.state()
    live = state["memory_label_"] >= 0
    assert np.isfinite(state["memory_entropy_"]).all()
    # The sure images are in although their labels were full.
    assert np.isclose(state["memory_features_"][live].max(axis=1), 1).sum() == 6
    assert np.bincount(state["memory_label_"][live]).max() == 2


def test_a_memory_length_that_no_stream_fills_takes_no_memory():
    labels = np.eye(6)
    rows = unit(labels + 0.3 * np.roll(labels, 1, axis=1)).astype(np.float32)
    scores = []
    for length in (50, 10**12):
        stream = LabelMemoryStream(
            labels[:3], labels[3:], temperature=0.1, memory_length=length, n_groups=1,
            proxy="sample", beta=1.0, static_weight=0.1, gap=0.5,
        )  # fmt: skip
        stream.start()
        scores.append([stream.advance(rows), stream.advance(rows)])
    np.testing.assert_array_equal(scores[0], scores[1])


def simple_stream(temperature, gap):
    """Three classes and three negatives, each an axis; one image is kept of each."""
    labels = np.eye(6)
    settings_ = {"n_groups": 1, "proxy": "task", "beta": 1.0, "static_weight": 0.1, "gap": gap}
    stream = LabelMemoryStream(
        labels[:3], labels[3:], temperature=temperature, memory_length=1, **settings_
    )
    stream.start()
    return stream


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_of_images_of_one_entropy_the_first_stays(in_one_batch):
    """Sure images have the entropy 0, whatever else there is of them."""
    stream = simple_stream(temperature=0.001, gap=0.5)
    images = unit(np.eye(6)[[0, 0, 0]] + 0.1 * np.eye(6)[3:]).astype(np.float32)
    for batch in [images] if in_one_batch else np.split(images, 3):
        stream.advance(batch)
    state = stream.state()
    live = state["memory_label_"] >= 0
    assert state["memory_entropy_"][live].tolist() == [0.0]
    np.testing.assert_array_equal(state["memory_features_"][live], images[:1])


@pytest.mark.parametrize(("tilt", "label"), [(0.0, []), (1e-3, [0]), (-1e-3, [3])])
def test_an_image_at_the_edge_of_the_gap_is_not_stored(tilt, label):
    """As near to its class as to a negative, where the gap is 0."""
    stream = simple_stream(temperature=0.01, gap=0.0)
    image = np.eye(6)[:1] * (1 + tilt) + np.eye(6)[3:4]
    stream.advance(unit(image).astype(np.float32))
    found = stream.state()["memory_label_"]
    assert found[found >= 0].tolist() == label


def detector(names, table, **params):
    return AdaNegDetector(names, embedder=table, **{"fraction": 1.0, "batch_size": 10, **params})


@pytest.mark.parametrize("proxy", ["task", "sample"])
@pytest.mark.parametrize(
    "check",
    [
        checks.check_scoring_changes_nothing,
        checks.check_stream_equals_transductive,
        checks.check_frozen_ignores_order_and_company,
        checks.check_errors_leave_the_state,
    ],
)
def test_contract_of_test_time_methods(check, proxy):
    names, table, X, _ = stream_world()
    check(detector(names, table, proxy=proxy).fit(), X)


def test_without_images_it_is_neglabel():
    names, table, X, y = stream_world(n_images=200, noise=0.4)
    det = detector(names, table, adaptation="frozen").fit()
    neglabel = NegLabelDetector(names, embedder=table, fraction=1.0, n_groups=5).fit()
    np.testing.assert_allclose(det.score_samples(X), neglabel.score_samples(X), atol=1e-9)
    assert det.threshold_ == pytest.approx(np.log(40 // 5) - 4.57)  # frozen
    det.partial_fit(X)
    assert (det.memory_label_ >= 0).sum() > 50
    assert roc_auc_score(y, det.decision_function(X)) > 0.95
