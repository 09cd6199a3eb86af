"""ENLDetector: fits, guarantees, streams, explanations; the study's figures where data is there."""

import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import logit, logsumexp
from sklearn.metrics import roc_auc_score

from dnm_sklearn import EmbeddingTable, ENLDetector, NegLabelDetector, load
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.detectors import enl as enl_module
from dnm_sklearn.exceptions import UncalibratedThresholdWarning
from dnm_sklearn.scoring import enl
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

pd = pytest.importorskip("pandas")


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


def naive_margin(X, y, text, nbar, rows, without=None):
    """C of `rows` from images X of classes y, with image `without` left out of its class."""
    o = np.empty(len(X))
    best = np.full(len(rows), -np.inf)

    def row(k, left_out):
        own = [i for i in range(len(X)) if y[i] == k and i != left_out]
        total = 25 * 0.5 * (text[k] - nbar) + sum((X[i] - X.mean(axis=0) for i in own), np.zeros(1))
        return total / (0.5 * (25 + len(own)))

    for i in range(len(X)):
        o[i] = X[i] @ row(y[i], i)
    for k in range(len(text)):
        own = [i for i in range(len(X)) if y[i] == k and i != without]
        offset = (o[own] - o.mean()).sum() / (len(own) + 4)
        best = np.maximum(best, rows @ row(k, without) - offset)
    return best


def parts_of_fit(world, X, y):
    """Class indices, class texts and the mean corpus label, as float64."""
    index = np.array([world.names.index(name) for name in y])
    text = world.table.encode_text(world.names).astype(float)
    return index, text, world.table.encode_text(world.words).astype(float).mean(axis=0)


@pytest.mark.parametrize("margin_weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("prototype_weight", [0.0, 0.1])
def test_fit_on_images_scores_by_the_formula(prototype_weight, margin_weight, monkeypatch):
    monkeypatch.setattr(enl_module, "_PROTOTYPE_WEIGHT", prototype_weight)
    world = make_ood_blobs(dim=16)
    X, y = labelled(world, per_class=3)
    det = build(world, temperature=0.1, margin_weight=margin_weight).fit(X, y)
    text = det.class_embeddings_
    rows = np.stack([unit(X[y == name].sum(axis=0)) for name in world.names])
    np.testing.assert_allclose(det.id_prototypes_, text + prototype_weight * rows, atol=1e-6)
    ratio = np.exp((world.X @ det.negative_embeddings_.T.astype(float)) / 0.1)
    ratio /= np.exp(world.X @ det.id_prototypes_.T.astype(float) / 0.1).sum(axis=1, keepdims=True)
    want = -np.log((ratio / np.exp(det.log_expectation_)).mean(axis=1))
    own = parts_of_fit(world, X, y)
    left_out = [naive_margin(X, *own, X[i : i + 1], without=i)[0] for i in range(len(X))]
    margin = naive_margin(X, *own, world.X) - np.mean(left_out)
    np.testing.assert_allclose(
        det.score_samples(world.X), want + margin_weight / 0.1 * margin, rtol=1e-5, atol=1e-5
    )
    assert det.margin_mean_ == pytest.approx(np.mean(left_out), abs=1e-6)
    assert det.n_id_images_ == len(X)
    assert det.id_scores_.shape == (len(X),)
    assert roc_auc_score(world.y, det.decision_function(world.X)) > 0.95


def test_the_temperature_is_0_7_of_the_models():
    world = make_ood_blobs(dim=16)
    for scale in (100.0, 20.0):
        table = EmbeddingTable(
            [*world.names, *world.words], world.table.encode_text([*world.names, *world.words]),
            logit_scale=scale,
        )  # fmt: skip
        auto = ENLDetector(world.names, embedder=table).fit()
        assert auto.temperature_ == pytest.approx(0.7 / scale)
        given = ENLDetector(world.names, embedder=table, temperature=0.7 / scale).fit()
        np.testing.assert_array_equal(
            auto.decision_function(world.X), given.decision_function(world.X)
        )


def test_names_only_score_is_the_formula():
    world = make_ood_blobs(dim=16)
    det = build(world, temperature=0.1).fit()
    _, text, nbar = parts_of_fit(world, world.X, [])
    corpus = det.negative_embeddings_.astype(float)
    ratio = np.exp(world.X @ corpus.T / 0.1 + det.log_weights_)
    ratio /= np.exp(world.X @ text.T / 0.1).sum(axis=1, keepdims=True)
    margin = (world.X @ text.T).max(axis=1) - world.X @ nbar
    want = -np.log(ratio.mean(axis=1)) + 0.5 / 0.1 * margin
    np.testing.assert_allclose(det.score_samples(world.X), want, rtol=1e-5, atol=1e-5)
    assert (det.log_weights_ < 0).any()
    assert det.margin_mean_ == 0


def test_a_class_without_images_has_its_name_in_the_margin():
    world = make_ood_blobs(dim=16)
    X, y = labelled(world)
    some = y != world.names[2]
    det = build(world).fit(X[some], y[some])
    names = build(world).fit()
    np.testing.assert_array_equal(det.margin_rows_[2], names.margin_rows_[2])
    assert det.margin_offsets_[2] == 0
    others = np.arange(len(world.names)) != 2
    assert np.abs(det.margin_rows_ - names.margin_rows_)[others].max(axis=1).min() > 1e-3


def test_known_scores_are_leave_one_out_but_for_part_of_the_margin():
    world = make_ood_blobs(dim=16)
    X, y = labelled(world, per_class=3)
    without = build(world, margin_weight=0.0, temperature=0.1).fit(X, y)
    det = build(world, temperature=0.1).fit(X, y)
    own = parts_of_fit(world, X, y)
    left_out = np.array([naive_margin(X, *own, X[i : i + 1], without=i)[0] for i in range(len(X))])
    known = left_out + 0.4 * (naive_margin(X, *own, X) - left_out)
    # Known scores are sorted: the margins are compared by their sum, and one image by itself.
    want = without.id_scores_.sum() - 5 * (known - left_out.mean()).sum()
    assert det.id_scores_.sum() == pytest.approx(want, rel=1e-5)
    alone = build(world, temperature=0.1).fit(X[:1], y[:1])
    bare = build(world, temperature=0.1, margin_weight=0.0).fit(X[:1], y[:1])
    own = parts_of_fit(world, X[:1], y[:1])
    left_out = naive_margin(X[:1], *own, X[:1], without=0)
    gained = 0.4 * (naive_margin(X[:1], *own, X[:1]) - left_out)
    np.testing.assert_allclose(alone.id_scores_, bare.id_scores_ - 5 * gained, atol=1e-5)


def test_inside_the_expectation_an_image_is_left_out_of_its_own_mean(monkeypatch):
    # A weight at which it matters which images the mean is made of.
    monkeypatch.setattr(enl_module, "_PROTOTYPE_WEIGHT", 1.0)
    world = make_ood_blobs(dim=16)
    X, y = labelled(world, per_class=3)
    det = build(world, temperature=0.1).fit(X, y)
    index, text, _ = parts_of_fit(world, X, y)
    log_id = []
    for i, image in enumerate(X):
        rows = det.id_prototypes_.astype(float)
        others = (index == index[i]) & (np.arange(len(X)) != i)
        rows[index[i]] = text[index[i]] + unit(X[others].sum(axis=0))
        log_id.append(logsumexp(rows @ image / 0.1))
    want = enl.expectation(
        X, np.array(log_id), det.negative_embeddings_, temperature=0.1, class_index=index,
        prior=det._prior(X.mean(axis=0)),
    )  # fmt: skip
    np.testing.assert_allclose(det.log_expectation_, want.log_mean, atol=1e-5)


def test_the_margin_is_saved(tmp_path):
    world = make_ood_blobs(dim=16)
    for images in ((), labelled(world)):
        det = build(world).fit(*images)
        det.save(tmp_path / "det.skops")
        again = load(tmp_path / "det.skops", embedder=world.table)
        np.testing.assert_array_equal(
            again.decision_function(world.X), det.decision_function(world.X)
        )
        want = det.partial_fit(world.X).decision_function(world.X)
        np.testing.assert_array_equal(again.partial_fit(world.X).decision_function(world.X), want)


def test_only_rows_known_to_be_id_enter_the_expectation():
    world = make_ood_blobs()
    X, y = labelled(world)
    want = build(world).fit(X, y)
    both = build(world).fit(np.concatenate([X, world.X[world.y == 1]]), np.r_[y, ["ood"] * 40])
    np.testing.assert_allclose(both.log_expectation_, want.log_expectation_, atol=1e-9)
    with pytest.warns(UserWarning, match="without a y"):
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


def test_names_only_expectation_is_1_or_by_the_image_mean():
    world = make_ood_blobs(dim=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = build(world, image_mean=np.full(16, 0.1)).fit()
        for embedder in (world.table, FakeEmbedder(dim=16)):
            without = ENLDetector(world.names, embedder=embedder, corpus=world.words).fit()
            assert (without.log_expectation_ == 0).all()
    assert np.ptp(given.log_expectation_) > 0
    with pytest.raises(ValueError, match=r"image_mean must be 16 finite numbers.*shape \(3,\)"):
        build(world, image_mean=np.zeros(3)).fit()


def test_zero_shot_threshold_is_the_rule_of_thumb():
    """Flagged where ``score_samples`` is below 7.5: the threshold is on its negative."""
    world = make_ood_blobs()
    det = build(world).fit()
    assert det.threshold_ == pytest.approx(-7.5)
    np.testing.assert_array_equal(det.predict(world.X), det.score_samples(world.X) < 7.5)
    # In units of a cosine: it moves with the temperature and with the weight of the margin.
    assert build(world, temperature=0.07).fit().threshold_ == pytest.approx(-0.75)
    assert build(world, margin_weight=0.0).fit().threshold_ == pytest.approx(-0.024 / 0.007)
    by_mean = build(world, image_mean=np.zeros(32)).fit()
    assert by_mean.threshold_ == pytest.approx((0.042 - 0.5 * 0.057) / 0.007)
    # Nobody can know what the mean given is the mean of: the warning is the strong one.
    with pytest.warns(UncalibratedThresholdWarning, match=r"no rule is known.*image_mean"):
        by_mean.predict(world.X)
    with pytest.warns(UncalibratedThresholdWarning, match="rule of thumb"):
        build(world).fit().predict(world.X)


@pytest.mark.parametrize("contamination", ["auto", 0.05, 0.2])
def test_threshold_flags_that_proportion_of_new_id_images(contamination):
    """Not of those that the score is made of, which score too well."""
    world = make_ood_blobs(n_images=400, dim=64)
    asked = 0.05 if contamination == "auto" else contamination
    flagged = []
    for seed in range(8):
        X, y = labelled(world, per_class=8, noise=1.5, seed=seed)
        new, _ = labelled(world, per_class=50, noise=1.5, seed=100 + seed)
        det = build(world, contamination=contamination).fit(X, y)
        flagged.append(det.predict(new).mean())
        # Position (1 - asked) (n + 1), interpolated: the other half of it is below.
        position = (1 - asked) * (len(X) + 1) - 1
        want = np.interp(position, np.arange(len(X)), det.id_scores_)
        assert det.threshold_ == pytest.approx(want)
    assert np.mean(flagged) == pytest.approx(asked, abs=0.03)


def test_a_thresholder_sees_leave_one_out_scores():
    class Keep:
        def eval(self, scores):
            self.seen.append(np.sort(scores))
            return (scores > np.median(scores)).astype(int)

        seen: list = []

        def __deepcopy__(self, memo):
            return self

    world = make_ood_blobs()
    X, y = labelled(world)
    det = build(world, contamination=Keep()).fit(X, y)
    np.testing.assert_array_equal(Keep.seen[0], det.id_scores_)
    assert (det.id_scores_ > det.threshold_).mean() == pytest.approx(0.5, abs=0.02)


def test_with_few_images_the_largest_known_score_is_the_threshold():
    world = make_ood_blobs()
    X, y = labelled(world, per_class=1)
    for n in (1, 8):
        det = build(world).fit(X[:n], y[:n])
        assert det.threshold_ == det.id_scores_.max()


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
    """ID images, ten per cent of them OOD, under wrong names or those that they resemble most."""
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


@pytest.mark.parametrize("margin_weight", [0.0, 0.5])
def test_scores_of_images_left_out_set_the_threshold_but_for_half_of_trim(margin_weight):
    world = make_ood_blobs(n_images=200)
    X, y, _ = with_bad_images(world, nearest_name=True)
    det = build(world, trim=0.2, margin_weight=margin_weight).fit(X, y)
    used = det.id_images_used_
    alone = build(world, margin_weight=margin_weight).fit(X[used], y[used])
    want = np.sort(np.r_[alone.id_scores_, alone.decision_function(X[~used])])
    np.testing.assert_allclose(det.id_scores_, want, atol=1e-5)
    believed = det.id_scores_[: len(X) - len(X) // 10]
    assert det.threshold_ == np.quantile(believed, 0.95, method="weibull")
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


# -- guarantees ------------------------------------------------------------------------------------


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


# -- streams ---------------------------------------------------------------------------------------


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
    weights = np.exp(det._present_stream().log_weights())
    np.testing.assert_allclose(weights, naive_weights(det, rows[admitted]), rtol=1e-4)
    assert weights.mean() == pytest.approx(1)
    assert (det.n_seen_, det.n_admitted_) == (120, admitted.sum())
    other = stream_detector(world, batch_size=7).partial_fit(world.X)
    np.testing.assert_allclose(np.exp(other._present_stream().log_weights()), weights, rtol=1e-4)
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
        np.exp(det._present_stream().log_weights()), naive_weights(det, admitted[-16:]), rtol=1e-3
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


def static_scores(det, rows):
    return det.reset_adaptation().score_samples(rows)


def test_the_gate_is_a_conformal_p_value_where_its_level_is_within_reach():
    world = make_ood_blobs(n_images=60)
    X, y = labelled(world, per_class=7, noise=0.6)
    det = build(world).fit(X[:49], y[:49])
    static = static_scores(det, world.X)
    n_as_low = (det.id_scores_ >= -static[:, None]).sum(axis=1)
    np.testing.assert_array_equal(det._admit(world.X, static), (1 + n_as_low) / 50 <= 0.02)
    assert 0 < det._admit(world.X, static).sum() < len(static)


@pytest.mark.parametrize("n", [2, 16, 48])
def test_with_fewer_id_images_the_gate_is_a_predictive_quantile(n):
    """Student's t: score below mean - t sd sqrt(1 + 1 / n) of the known scores."""
    world = make_ood_blobs(n_images=60)
    X, y = labelled(world, per_class=6, noise=1.5)
    order = np.random.default_rng(0).permutation(len(X))[:n]
    det = build(world).fit(X[order], y[order])
    known = -det.id_scores_
    static = np.linspace(known.min() - 20 * np.ptp(known), known.max(), 5000)
    bound = known.mean() - stats.t.ppf(0.98, n - 1) * np.std(known, ddof=1) * np.sqrt(1 + 1 / n)
    rows = np.tile(world.X[:1], (len(static), 1))
    np.testing.assert_array_equal(det._admit(rows, static), static < bound)


@pytest.mark.parametrize("n", [0, 1])
def test_without_id_images_or_with_one_names_alone_admit(n):
    world = make_ood_blobs()
    X, y = labelled(world)
    det = build(world).fit(*((X[:n], y[:n]) if n else ()))
    weights = np.exp(build(world).fit().log_weights_)
    text = world.table.encode_text(world.names).astype(float)
    corpus = det.negative_embeddings_.astype(float)
    against = np.log((weights * np.exp(world.X @ corpus.T / 0.01)).sum(axis=1))
    log_odds = np.log(np.exp(world.X @ text.T / 0.01).sum(axis=1)) - against
    np.testing.assert_array_equal(det._admit(world.X, static_scores(det, world.X)), log_odds < -5)
    det.partial_fit(world.X)
    assert det.n_admitted_ == (log_odds < -5).sum()
    assert 10 < det.n_admitted_ <= 41


def test_weights_of_a_names_only_stream_are_computed_once(monkeypatch):
    world = make_ood_blobs()
    det = build(world, batch_size=10).fit()
    calls = []
    monkeypatch.setattr(det, "_log_weights_of_names", lambda: calls.append(1))
    det.partial_fit(world.X)
    assert not calls


@pytest.mark.parametrize("with_images", [False, True])
def test_a_stream_moves_the_label_weights_and_not_the_margin(with_images):
    world = make_ood_blobs(n_images=60)
    images = labelled(world, per_class=15) if with_images else ()
    both = [build(world, margin_weight=weight).fit(*images) for weight in (0.0, 0.5)]
    # The same images are admitted, so that only the margin differs.
    for det in both:
        det._admit = lambda rows, static: rows[:, 0] > 0
        det.set_params(adaptation="transductive", batch_size=16)
    gained = both[1].score_samples(world.X) - both[0].score_samples(world.X)
    static = [det.set_params(adaptation="frozen").score_samples(world.X) for det in both]
    np.testing.assert_allclose(gained, static[1] - static[0], atol=2e-4)
    learned = [det.partial_fit(world.X).score_samples(world.X) for det in both]
    assert both[1].n_admitted_ == both[0].n_admitted_ > 10
    assert np.abs(learned[0] - static[0]).max() > 0.1
    np.testing.assert_allclose(learned[1] - learned[0], static[1] - static[0], atol=2e-4)


# -- reasons ---------------------------------------------------------------------------------------


def test_explain_gives_the_probability_of_each_weighted_label():
    world = make_ood_blobs(n_images=5)
    X, y = labelled(world)
    det = build(world).fit(X, y)
    table = det.explain(world.X, top_k=None)
    of_id = table[table["side"] == "id"].groupby("image")["probability"].sum()
    margin = table[table["side"] == "margin"].set_index("image")["cosine"]
    got = logit(of_id) + 0.5 / det.temperature_ * margin
    np.testing.assert_allclose(got, det.score_samples(world.X), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(table.groupby("image")["probability"].sum(), 1)
    negative = table[(table["side"] == "negative") & (table["image"] == 7)]
    assert (np.diff(negative["probability"]) <= 0).all()


def test_explain_has_one_line_for_the_margin():
    world = make_ood_blobs(n_images=5)
    det = build(world).fit()
    table = det.explain(world.X, top_k=2)
    assert table["image"].tolist() == np.repeat(np.arange(10), 5).tolist()
    assert table["side"].tolist() == ["id", "id", "negative", "negative", "margin"] * 10
    line = table[table["side"] == "margin"]
    assert set(line["label"]) == {"margin over an average label"}
    assert set(line["rank"]) == {1}
    assert set(line["group"]) == {-1}
    corpus_mean = det.negative_embeddings_.mean(axis=0, dtype=float)
    want = (world.X @ det.class_embeddings_.T).max(axis=1) - world.X @ corpus_mean
    np.testing.assert_allclose(line["cosine"], want, atol=1e-6)
    without = build(world, margin_weight=0.0).fit().explain(world.X, top_k=2)
    assert set(without["side"]) == {"id", "negative"}
    pd.testing.assert_frame_equal(without, table[table["side"] != "margin"].reset_index(drop=True))


def test_e_values_over_labels_do_not_see_the_margin():
    world = make_ood_blobs(n_images=30)
    images = labelled(world)
    dets = [
        build(world, margin_weight=weight, temperature=0.1).fit(*images) for weight in (0.0, 0.5)
    ]
    by_labels = [det.calibrate(world.X_id).e_value(world.X, form="labels") for det in dets]
    np.testing.assert_array_equal(*by_labels)
    by_score = [det.e_value(world.X) for det in dets]
    assert np.abs(np.log(by_score[0] / by_score[1])).max() > 0.1


# -- the study's figures ---------------------------------------------------------------------------


def test_names_only_figures_on_real_embeddings(shared_dir):
    """AUROC and FPR95 in per cent, as ``python -m benchmarks.acceptance`` judges them."""
    suite = load_embedding_suite(shared_dir / "real_clip_vitb32" / "caltech63")
    det = ENLDetector(suite.class_names, embedder=suite.embedder, corpus=suite.corpus).fit()
    known = det.score_samples(suite.id.images)
    figures = {
        "dtd": (98.3, 9.2),
        "sun397": (98.1, 9.4),
        "pets": (98.9, 7.4),
        "caltech-rest": (90.8, 37.0),
    }
    for images in suite.ood:
        score = det.score_samples(images.images)
        is_id = np.repeat([1, 0], [len(known), len(score)])
        auroc, fpr95 = figures[images.name]
        found = 100 * roc_auc_score(is_id, np.concatenate([known, score]))
        assert found == pytest.approx(auroc, abs=0.3)
        found = 100 * np.mean(score >= np.quantile(known, 0.05))
        assert found == pytest.approx(fpr95, abs=0.5)


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
