"""ENLDetector: fits, guarantees, streams, explanations, and the study's figures where the data is there."""

import warnings

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from dnm_sklearn import EmbeddingTable, ENLDetector, NegLabelDetector
from dnm_sklearn.calibration.thresholds import quantile_threshold
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.datasets.noise import noise_images
from dnm_sklearn.detectors import enl as enl_module
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def labelled(world, per_class=6, noise=0.5, seed=3):
    """ID images with class names as y."""
    rng = np.random.default_rng(seed)
    text = world.table.encode_text(world.names)
    index = np.repeat(np.arange(len(text)), per_class)
    return unit(text[index] + noise * unit(rng.normal(size=(len(index), text.shape[1])))), np.array(
        world.names
    )[index]


def build(world, **params):
    return ENLDetector(world.names, embedder=world.table, corpus=world.words, **params)


@pytest.mark.parametrize("prototype_weight", [0.0, 0.1])
def test_fit_on_images_scores_by_the_formula(prototype_weight, monkeypatch):
    monkeypatch.setattr(enl_module, "_PROTOTYPE_WEIGHT", prototype_weight)
    world = make_ood_blobs(dim=16)
    X, y = labelled(world)
    det = build(world, temperature=0.1).fit(X, y)
    text = det.class_embeddings_
    rows = np.stack([unit(X[y == name].sum(axis=0)) for name in world.names])
    np.testing.assert_allclose(det.id_prototypes_, text + prototype_weight * rows, atol=1e-6)
    ratio = np.exp((world.X @ det.negative_embeddings_.T.astype(float)) / 0.1)
    ratio /= np.exp(world.X @ det.id_prototypes_.T.astype(float) / 0.1).sum(axis=1, keepdims=True)
    want = -np.log((ratio / np.exp(det.log_expectation_)).mean(axis=1))
    np.testing.assert_allclose(det.score_samples(world.X), want, rtol=1e-5, atol=1e-6)
    assert det.n_id_images_ == len(X)
    assert det.id_scores_.shape == (len(X),)
    assert roc_auc_score(world.y, det.decision_function(world.X)) > 0.95


def test_only_rows_known_to_be_id_enter_the_expectation():
    world = make_ood_blobs()
    X, y = labelled(world)
    want = build(world).fit(X, y)
    both = build(world).fit(np.concatenate([X, world.X[world.y == 1]]), np.r_[y, ["ood"] * 40])
    np.testing.assert_allclose(both.log_expectation_, want.log_expectation_, atol=1e-9)
    with pytest.warns(UserWarning, match="E = 1 is used"):
        unlabelled = build(world).fit(world.X)
    assert unlabelled.n_id_images_ == 0
    assert unlabelled.id_scores_ is None
    only_ood = build(world, image_mean=np.zeros(32)).fit(world.X[40:], np.ones(40, int))
    assert only_ood.n_id_images_ == 0


def test_images_without_y_are_not_used_and_a_warning_says_so():
    world = make_ood_blobs(dim=16)
    X, _ = labelled(world)
    with pytest.warns(UserWarning, match="without a y"):
        det = build(world).fit(X)
    assert det.n_id_images_ == 0
    np.testing.assert_array_equal(
        det.decision_function(world.X), build(world).fit().decision_function(world.X)
    )


def test_names_only_sources_of_the_image_mean():
    world = make_ood_blobs(dim=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(world, image_mean=np.zeros(16)).fit()
        noise = ENLDetector(world.names, embedder=FakeEmbedder(dim=16), corpus=world.words).fit()
    assert np.ptp(noise.log_expectation_) > 0
    images = list(noise_images())
    assert len(images) == 15
    mean = FakeEmbedder(dim=16).fit().encode_image(images).mean(axis=0, dtype=float)
    given = ENLDetector(
        world.names, embedder=FakeEmbedder(dim=16), corpus=world.words, image_mean=mean
    ).fit()
    np.testing.assert_allclose(noise.log_expectation_, given.log_expectation_, rtol=1e-6)
    with pytest.raises(ValueError, match=r"image_mean must be 16 finite numbers.*shape \(3,\)"):
        build(world, image_mean=np.zeros(3)).fit()


def test_threshold_keeps_95_percent_of_leave_one_out_scores():
    world = make_ood_blobs()
    X, y = labelled(world, per_class=20)
    det = build(world).fit(X, y)
    assert (det.id_scores_ <= det.threshold_).mean() == pytest.approx(0.95, abs=0.01)


def test_a_synonym_of_a_class_name_moves_enl_less_than_neglabel():
    world = make_ood_blobs(dim=64, n_corpus=200)
    X, y = labelled(world, per_class=8)
    rng = np.random.default_rng(0)
    synonym = unit(world.table.encode_text(world.names[:1]) + 0.2 * unit(rng.normal(size=(1, 64))))
    text = np.concatenate([world.table.encode_text(world.names + world.words), synonym])
    table = EmbeddingTable([*world.names, *world.words, "synonym"], text)
    move = {}
    for name, make in {
        "enl": lambda words: ENLDetector(world.names, embedder=table, corpus=words).fit(X, y),
        "neglabel": lambda words: NegLabelDetector(
            world.names, embedder=table, corpus=words, fraction=1.0, n_groups=1
        ).fit(),
    }.items():
        before, after = make(world.words), make([*world.words, "synonym"])
        own = world.X_id[world.X_id @ text[0] > 0.7]
        move[name] = np.abs(after.score_samples(own) - before.score_samples(own)).max()
    assert move["enl"] < 2.5
    assert move["neglabel"] > 4 * move["enl"]


def with_bad_images(world, nearest_name, per_class=30):
    """ID images of which ten per cent are OOD, under wrong names or under those that they resemble most."""
    X, y = labelled(world, per_class=per_class)
    bad = np.random.default_rng(0).choice(len(X), len(X) // 10, replace=False)
    X[bad] = world.X[world.y == 1][: len(bad)]
    nearest = (X[bad] @ world.table.encode_text(world.names).T).argmax(axis=1)
    y[bad] = np.array(world.names)[nearest if nearest_name else (nearest + 1) % 8]
    return X, y, np.isin(np.arange(len(X)), bad)


@pytest.mark.parametrize("nearest_name", [False, True])
def test_bad_id_images_are_found(nearest_name):
    world = make_ood_blobs(n_images=200)
    X, y, bad = with_bad_images(world, nearest_name)
    clean = build(world).fit(*labelled(world, per_class=30)).log_expectation_
    robust, as_is = build(world, trim=0.2).fit(X, y), build(world).fit(X, y)
    off = np.abs(as_is.log_expectation_ - clean).mean()
    assert np.abs(robust.log_expectation_ - clean).mean() < 0.3 * off
    assert as_is.id_images_used_.all()
    assert robust.id_images_used_[bad].mean() < 0.1
    assert robust.n_id_images_ == robust.id_images_used_.sum() >= 0.8 * len(X)
    kept = build(world).fit(X[robust.id_images_used_], y[robust.id_images_used_])
    np.testing.assert_allclose(robust.log_expectation_, kept.log_expectation_)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_scores_of_images_left_out_set_the_threshold_but_for_half_of_trim(background):
    world = make_ood_blobs(n_images=200)
    X, y, _ = with_bad_images(world, nearest_name=True)
    det = build(world, trim=0.2, background=background).fit(X, y)
    used = det.id_images_used_
    alone = build(world, background=background).fit(X[used], y[used])
    want = np.sort(np.r_[alone.id_scores_, alone.decision_function(X[~used])])
    np.testing.assert_allclose(det.id_scores_, want, atol=1e-5)
    assert det.threshold_ == quantile_threshold(det.id_scores_[: len(X) - len(X) // 10], keep=0.95)
    assert build(world, trim=0.0).fit(X, y).threshold_ > det.threshold_


def test_images_used_are_told_in_the_rows_of_x():
    world = make_ood_blobs(n_images=60)
    X, y, _ = with_bad_images(world, nearest_name=False, per_class=10)
    want = build(world, trim=0.2).fit(X, y).id_images_used_
    rows, names = np.concatenate([world.X[world.y == 1], X]), np.r_[["ood"] * 60, y]
    got = build(world, trim=0.2).fit(rows, names).id_images_used_
    np.testing.assert_array_equal(got, np.r_[np.zeros(60, dtype=bool), want])
    assert not want.all()
    assert build(world, trim=0.2, image_mean=np.zeros(32)).fit().id_images_used_ is None


# -- guarantees ---------------------------------------------------------------------------------------


def test_e_values_and_levels_after_calibration():
    world = make_ood_blobs(n_images=60)
    X, y = labelled(world)
    det = build(world).fit(X, y).calibrate(world.X_id[:40])
    for form in ("score", "labels"):
        e = det.e_value(world.X, form=form)
        assert e.shape == (120,)
        assert e.min() >= 0
        assert e.max() <= 41
        assert e[world.y == 1].mean() > e[world.y == 0][40:].mean()
    score = np.exp(det.decision_function(world.X))
    np.testing.assert_allclose(
        det.e_value(world.X), 41 * score / (score + score[:40].sum()), rtol=1e-6
    )
    np.testing.assert_array_equal(det.predict(world.X, level=0.05), det.p_value(world.X) <= 0.05)
    with pytest.raises(ValueError, match="at least 99 are needed"):
        det.predict(world.X, level=0.01)
    with pytest.raises(ValueError, match="form="):
        det.e_value(world.X, form="product")
    alarm = det.drift_alarm(alpha=0.05)
    assert alarm.update(det.decision_function(world.X[world.y == 1])).alarm_at_ is not None


def test_no_guarantee_without_calibration_or_with_a_state_that_moved():
    world = make_ood_blobs()
    det = build(world, image_mean=np.zeros(32)).fit()
    for method in (det.p_value, det.e_value, lambda X: det.predict(X, level=0.1)):
        with pytest.raises(ValueError, match="no guarantee"):
            method(world.X)
    with pytest.raises(ValueError, match="drift_alarm needs calibration"):
        det.drift_alarm()
    det.calibrate(world.X_id)
    det.p_value(world.X)
    det.partial_fit(world.X)
    for method in (det.p_value, det.e_value):
        with pytest.raises(ValueError, match="learned from test images since calibrate"):
            method(world.X)
    det.reset_adaptation().p_value(world.X)
    with pytest.raises(ValueError, match="adaptation='transductive'"):
        det.set_params(adaptation="transductive").predict(world.X, level=0.1)


# -- streams --------------------------------------------------------------------------------------------


def naive_weights(det, rows):
    """Weights after rows were admitted, by loops over images and labels."""
    share = np.zeros(len(det.negative_embeddings_))
    for x in rows:
        one = np.exp(
            x @ det.negative_embeddings_.T.astype(float) / det.temperature_ - det.log_expectation_
        )
        share += one / one.sum() / len(rows)
    confidence = len(rows) / (len(rows) + 20)
    return 1 - confidence + confidence * (0.1 + 0.9 * len(share) * share)


def stream_detector(world, **params):
    X, y = labelled(world, per_class=15)
    return build(world, **params).fit(X, y)


def test_stream_weights_against_a_loop_and_in_any_order():
    world = make_ood_blobs(n_images=60)
    det = stream_detector(world)
    order = np.random.default_rng(0).permutation(len(world.X))
    rows = world.X[order]
    static = det.score_samples(world.X)
    admitted = det._admit(rows, static[order])
    assert (admitted <= (world.y[order] == 1)).mean() > 0.97
    assert admitted.sum() > 30
    det.partial_fit(rows)
    weights = np.exp(det._present_log_weights())
    np.testing.assert_allclose(weights, naive_weights(det, rows[admitted]), rtol=1e-4)
    assert weights.mean() == pytest.approx(1)
    assert (det.n_seen_, det.n_admitted_) == (120, admitted.sum())
    other = stream_detector(world, batch_size=7).partial_fit(world.X)
    np.testing.assert_allclose(np.exp(other._present_log_weights()), weights, rtol=1e-4)
    np.testing.assert_array_equal(det.reset_adaptation().score_samples(world.X), static)


def test_window_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(enl_module, "_WINDOW", 16)
    world = make_ood_blobs(n_images=60)
    det = stream_detector(world, batch_size=5)
    rows = world.X[world.y == 1]
    admitted = rows[det._admit(rows, det.score_samples(rows))]
    assert len(admitted) > 40
    det.partial_fit(rows)
    np.testing.assert_allclose(
        np.exp(det._present_log_weights()), naive_weights(det, admitted[-16:]), rtol=1e-3
    )


def test_id_streams_change_almost_nothing_and_scoring_modes_agree():
    world = make_ood_blobs(n_images=80)
    det = stream_detector(world)
    before = det.score_samples(world.X)
    det.partial_fit(world.X_id)
    assert det.n_admitted_ <= 3
    held = det.n_admitted_
    assert np.abs(det.score_samples(world.X) - before).max() <= np.log1p(
        held / (held + 20) * 0.9 * 60
    )
    det.reset_adaptation()
    streamed = det.set_params(adaptation="transductive").score_samples(world.X)
    assert det.n_seen_ == 0
    got = -np.concatenate(list(det.score_stream([world.X[:100], world.X[100:]])))
    assert det.n_seen_ == 160
    np.testing.assert_allclose(got[100:], streamed[100:], atol=1e-4)


def test_with_few_or_no_id_images_names_alone_admit():
    world = make_ood_blobs()
    det = build(world, image_mean=np.zeros(32)).fit()
    det.partial_fit(world.X)
    assert 10 < det.n_admitted_ <= 41
    X, y = labelled(world, per_class=2)
    few = build(world).fit(X, y).partial_fit(world.X)
    assert few.n_admitted_ == det.n_admitted_


# -- reasons ------------------------------------------------------------------------------------------


def test_explain_gives_the_probability_of_each_weighted_label():
    world = make_ood_blobs(n_images=5)
    X, y = labelled(world)
    det = build(world).fit(X, y)
    table = det.explain(world.X, top_k=None)
    of_id = table[table["side"] == "id"].groupby("image")["probability"].sum()
    np.testing.assert_allclose(of_id, expit(det.score_samples(world.X)), rtol=1e-5)
    negative = table[(table["side"] == "negative") & (table["image"] == 7)]
    assert (np.diff(negative["probability"]) <= 0).all()


# -- the study's figures ------------------------------------------------------------------------------


def test_figures_on_real_embeddings(shared_dir):
    suite = load_embedding_suite(shared_dir / "real_clip_vitb32" / "caltech63")
    labels = suite.id_train.labels
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[:4] for k in np.unique(labels)]
    )
    common = {"classes": suite.class_names, "embedder": suite.embedder, "corpus": suite.corpus}
    names = ENLDetector(**common, image_mean=suite.id_train.images.mean(axis=0)).fit()
    shots = ENLDetector(**common).fit(
        suite.id_train.images[rows], np.array(suite.class_names)[labels[rows]]
    )
    sets = {images.name: images.images[::3] for images in suite.ood}

    def fpr95(det, name):
        id_scores, ood = det.score_samples(suite.id.images[::2]), det.score_samples(sets[name])
        return np.mean(ood >= np.quantile(id_scores, 0.05))

    assert np.mean([fpr95(names, name) for name in ("dtd", "sun397", "pets")]) < 0.09
    assert np.mean([fpr95(shots, name) for name in ("dtd", "sun397", "pets")]) < 0.05
    assert fpr95(shots, "caltech-rest") < 0.34
    # A tenth of the images from an OOD set, under the class names that they resemble most.
    image, index = suite.id_train.images[rows].copy(), labels[rows].copy()
    bad = rng.choice(len(rows), len(rows) // 10, replace=False)
    image[bad] = next(images.images for images in suite.ood if images.name == "dtd")[
        1 : 3 * len(bad) : 3
    ]
    index[bad] = (image[bad] @ suite.embedder.encode_text(suite.class_names).T).argmax(axis=1)
    y = np.array(suite.class_names)[index]
    trimmed = ENLDetector(**common, trim=0.2).fit(image, y)
    assert fpr95(ENLDetector(**common).fit(image, y), "dtd") > 0.15
    assert fpr95(trimmed, "dtd") < 0.08
    assert trimmed.id_images_used_[bad].mean() < 0.15


@pytest.mark.parametrize("with_images", [False, True])
def test_background_label_is_one_more_label(with_images):
    world = make_ood_blobs(dim=16)
    fit = labelled(world) if with_images else ()
    params = {"image_mean": np.full(16, 0.1), "temperature": 0.1}
    without, det = (
        build(world, **params).fit(*fit),
        build(world, background=2.0, **params).fit(*fit),
    )
    log_mean = det.background_log_expectation_
    r = np.exp(-(world.X @ det.class_embeddings_.T.astype(float)).max(axis=1) / 0.1 - log_mean)
    want = -np.log((np.exp(-without.score_samples(world.X)) + 2 * r) / 3)
    np.testing.assert_allclose(det.score_samples(world.X), want, rtol=1e-5, atol=1e-6)
    if with_images:
        largest = (fit[0] @ det.class_embeddings_.T.astype(float)).max(axis=1)
        assert log_mean == pytest.approx(np.log(np.exp(-largest / 0.1).mean()), abs=1e-5)
        assert np.isfinite(det.id_scores_).all()
    auto = build(world, background="auto", **params).fit(*fit)
    weight = len(world.names) / len(auto.negative_labels_)
    by_number = build(world, background=weight, **params).fit(*fit)
    np.testing.assert_array_equal(auto.score_samples(world.X), by_number.score_samples(world.X))
    assert np.abs(auto.score_samples(world.X) - without.score_samples(world.X)).max() > 1e-3
