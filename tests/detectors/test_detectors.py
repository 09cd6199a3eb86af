"""Zero-shot detectors on small data: formulas, guards, names, thresholds, bad input."""

import warnings

import numpy as np
import pytest
from fitting import NAMES_ONLY
from scipy.special import expit, logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from dnm_sklearn import (
    DebiasedNegMiningDetector,
    EmbeddingTable,
    EnergyDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
)
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.exceptions import UncalibratedThresholdWarning
from dnm_sklearn.scoring.mining import negative_proportion
from dnm_sklearn.testing import FakeEmbedder

T = 0.01


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def world(n_classes=8, n_corpus=60, n_images=40, dim=32, noise=0.5, seed=0):
    """Class and corpus vectors, ID images near classes, OOD images near corpus words."""
    rng = np.random.default_rng(seed)
    names = [f"class {i}" for i in range(n_classes)]
    words = [f"word {i}" for i in range(n_corpus)]
    text = unit(rng.normal(size=(n_classes + n_corpus, dim)))
    table = EmbeddingTable(names + words, text, norms=rng.uniform(5, 12, size=len(text)))
    x_id = unit(
        text[rng.integers(n_classes, size=n_images)]
        + noise * unit(rng.normal(size=(n_images, dim)))
    )
    x_ood = unit(
        text[n_classes + rng.integers(n_corpus, size=n_images)]
        + noise * unit(rng.normal(size=(n_images, dim)))
    )
    X = np.concatenate([x_id, x_ood])
    return names, words, table, X, np.repeat([0, 1], n_images)


def build(cls, names, table, **params):
    defaults = {"n_groups": 4, "fraction": 1.0, "noun_fraction": 1.0, "n_neighbors": 5}
    known = cls().get_params()
    return cls(
        names, embedder=table, **{k: v for k, v in {**defaults, **params}.items() if k in known}
    )


@pytest.mark.parametrize("cls", NAMES_ONLY)
def test_ood_scores_are_higher_and_signs_agree(cls):
    names, _, table, X, y = world()
    det = build(cls, names, table).fit()
    score = det.decision_function(X)
    assert score.dtype == np.float64
    assert score.shape == (len(X),)
    assert roc_auc_score(y, score) > 0.95
    np.testing.assert_array_equal(det.score_samples(X), -score)


def naive_groups(det, X):
    """Per-group ratios r_j = N_j / S in float64, by a loop."""
    logits_id = X @ det.class_embeddings_.astype(float).T / det.temperature_
    logits_neg = X @ det.negative_embeddings_.astype(float).T / det.temperature_
    size = len(det.negative_embeddings_) // det.n_groups_
    groups = det.permutation_[: size * det.n_groups_].reshape(det.n_groups_, size)
    return np.stack(
        [
            np.exp(logsumexp(logits_neg[:, g], axis=1) - logsumexp(logits_id, axis=1))
            for g in groups
        ],
        axis=1,
    )


@pytest.mark.parametrize("n_groups", [1, 3, 7])
def test_neglabel_is_the_papers_value(n_groups):
    names, _, table, X, _ = world(dim=16)
    det = build(
        NegLabelDetector, names, table, n_groups=n_groups, fraction=0.5, temperature=0.1
    ).fit()
    expected = (1 / (1 + naive_groups(det, X))).mean(axis=1)
    np.testing.assert_allclose(expit(det.score_samples(X)), expected, rtol=1e-5)
    assert det.negative_embeddings_.shape == (30, 16)


def test_dnm_is_the_papers_value():
    names, _, table, X, _ = world(dim=16, n_classes=20)
    det = build(
        DebiasedNegMiningDetector, names, table, negative_prior=0.7, temperature=0.1, n_groups=6
    ).fit()
    c = 0.7 - 0.3 * 10 / 20
    assert det.id_scale_ == pytest.approx(c)
    expected = 0.7 / 20 * (1 / (c + naive_groups(det, X))).mean(axis=1)
    got = det.effective_negative_prior_ / (20 * det.id_scale_) * expit(det.score_samples(X))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_dnm_noisy_positives_against_a_loop():
    names, _, table, X, _ = world(dim=16, n_classes=12)
    det = build(
        DebiasedNegMiningDetector, names, table, negative_prior=0.8, positive_noise=0.5,
        n_positives=3, temperature=0.1, n_groups=6,
    ).fit(X)  # fmt: skip
    assert det.positive_embeddings_.shape == (36, 16)
    S = np.exp(X @ det.class_embeddings_.T.astype(float) / 0.1).sum(axis=1)
    positive = np.exp(X @ det.positive_embeddings_.T.astype(float) / 0.1).mean(axis=1)
    c = 0.8 - 0.2 * 10 * positive / S
    assert det.n_floored_ == (c < det.min_id_scale).sum()
    c = np.maximum(c, det.min_id_scale)
    expected = np.log(0.8 / 12) + np.log((1 / (c[:, None] + naive_groups(det, X))).mean(axis=1))
    np.testing.assert_allclose(det.score_samples(X), expected, rtol=1e-5)


def test_dnm_noise_is_on_the_raw_embeddings():
    names, _, table, _, _ = world(dim=16, n_classes=12)
    det = build(
        DebiasedNegMiningDetector, names, table, positive_noise=0.5, n_positives=2, random_state=3
    ).fit()
    text, norms = table.encode_text(names, return_norm=True)
    rng = np.random.RandomState(3)
    want = [row for k in range(12) for row in 2 * [text[k].astype(float) * norms[k]]]
    want = unit(np.array(want) + 0.5 * rng.standard_normal((24, 16)))
    np.testing.assert_allclose(det.positive_embeddings_, want, atol=1e-6)


def test_dnm_threshold_is_one_ratio_in_each_of_its_scores():
    """At the threshold every group holds r times what the class names hold."""
    names, _, table, _, _ = world(dim=16, n_classes=12)
    params = {"negative_prior": 0.8, "n_groups": 6}
    # Groups of 10 labels.
    ratio = 10 * np.exp(-3.26 - 0.349 * np.log(12))
    # log(prior / K / (c + r)), the log-odds of c / (c + r), and those of 1 / (1 + r).
    c = 0.8 - 0.2 * 10 / 12
    scores = (
        ({"positive_noise": 0.5}, np.log(0.8 / 12 / (c + ratio))),
        ({}, np.log(c / ratio)),
        ({"clamp": -0.5}, np.log(1 / ratio)),
    )
    for extra, score in scores:
        det = build(DebiasedNegMiningDetector, names, table, **params, **extra).fit()
        assert det.threshold_ == pytest.approx(-score)


def test_dnm_clamp_against_a_loop():
    names, _, table, X, _ = world(dim=16, n_classes=12)
    det = build(
        DebiasedNegMiningDetector,
        names,
        table,
        negative_prior=0.5,
        clamp=-0.5,
        temperature=0.2,
        n_groups=6,
    ).fit()
    S = np.exp(X @ det.class_embeddings_.T.astype(float) / 0.2).sum(axis=1)
    N = naive_groups(det, X) * S[:, None]
    negatives = np.maximum(N / 0.5 - 0.5 / 0.5 * 10 * S[:, None] / 12, 10 * np.exp(-0.5 / 0.2))
    expected = (S[:, None] / (S[:, None] + negatives)).mean(axis=1)
    np.testing.assert_allclose(expit(det.score_samples(X)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be combined"):
        det.set_params(positive_noise=0.1).fit()


@pytest.mark.parametrize("n_classes", [2, 5, 20, 119, 500, 2000])
def test_dnm_never_inverts_whatever_the_number_of_classes(n_classes):
    names, _, table, X, y = world(n_classes=n_classes, n_corpus=2000, n_images=60, dim=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        det = build(DebiasedNegMiningDetector, names, table, n_groups=20).fit()
    assert det.id_scale_ >= 0.44
    assert roc_auc_score(y, det.decision_function(X)) > 0.9


def test_dnm_guard_warns_once_with_numbers_and_only_when_needed():
    names, _, table, _, _ = world(n_classes=8)
    with pytest.warns(
        UserWarning, match=r"8 classes and groups of 15 .*prior is raised to 0.8052"
    ) as record:
        given = build(DebiasedNegMiningDetector, names, table, n_groups=4, negative_prior=0.5).fit()
    assert len(record) == 1
    # At the defaults nobody has asked for the prior that is raised.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        det = build(DebiasedNegMiningDetector, names, table, n_groups=4).fit()
    assert det.effective_negative_prior_ == given.effective_negative_prior_
    assert det.effective_negative_prior_ == pytest.approx((0.44 + 15 / 8) / (1 + 15 / 8))
    assert det.id_scale_ == pytest.approx(0.44)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(DebiasedNegMiningDetector, names, table, negative_prior=0.9, n_groups=30).fit()


def test_dnm_estimates_the_prior_of_the_labels_it_keeps_and_guards_it():
    names, _, table, X, y = world(n_classes=50, n_corpus=400)
    det = build(
        DebiasedNegMiningDetector,
        names,
        table,
        negative_prior="auto",
        n_groups=40,
        min_id_scale=0.0,
    )
    det.set_params(mining="percentile", noun_fraction=0.1).fit()
    expected = negative_proportion(det.class_embeddings_, det.negative_embeddings_)
    assert 0.1 < expected < 0.5
    assert det.effective_negative_prior_ == expected
    assert det.negative_prior == "auto"
    by_hand = clone(det).set_params(negative_prior=expected).fit()
    np.testing.assert_array_equal(det.score_samples(X), by_hand.score_samples(X))
    assert roc_auc_score(y, det.decision_function(X)) > 0.9
    close = [f"near {i}" for i in range(50)]
    text = table.encode_text(names)
    table = EmbeddingTable(names + close, np.concatenate([text, text + 1e-3]))
    with pytest.warns(UserWarning, match="prior is raised"):
        guarded = build(
            DebiasedNegMiningDetector, names, table, negative_prior="auto", n_groups=2
        ).fit()
    assert guarded.id_scale_ == pytest.approx(0.44)
    with pytest.raises(ValueError, match=r"needs at least 2 classes"):
        build(DebiasedNegMiningDetector, names[:1], table, negative_prior="auto").fit()


def test_dnm_without_guard_refuses_an_inverted_score():
    names, _, table, _, _ = world(n_classes=8)
    with pytest.raises(ValueError, match=r"c=.* <= 0, where the score inverts"):
        build(DebiasedNegMiningDetector, names, table, min_id_scale=0.0).fit()
    det = build(DebiasedNegMiningDetector, names, table, min_id_scale=0.0, negative_prior=0.7).fit()
    assert 0 < det.id_scale_ < 0.44


@pytest.mark.parametrize("mining", ["density", "norm", "percentile", "none"])
def test_dnm_minings_keep_the_asked_share(mining):
    names, words, table, X, y = world()
    corpus = Corpus(words, ["noun"] * 40 + ["adjective"] * 20)
    det = DebiasedNegMiningDetector(
        names, embedder=table, corpus=corpus, mining=mining, noun_fraction=0.5,
        adjective_fraction=0.25, n_groups=5, n_neighbors=7, negative_prior=1.0,
    ).fit()  # fmt: skip
    counts = (
        int((~det.negative_corpus_.is_adjective).sum()),
        int(det.negative_corpus_.is_adjective.sum()),
    )
    assert counts == ((40, 20) if mining == "none" else (20, 5))
    assert roc_auc_score(y, det.decision_function(X)) > 0.6


def test_negatives_can_be_exported_and_given_back():
    names, _, table, X, _ = world()
    det = build(NegLabelDetector, names, table, fraction=0.4).fit()
    again = clone(det).set_params(corpus=det.negative_corpus_, mining="none").fit()
    np.testing.assert_array_equal(again.score_samples(X), det.score_samples(X))
    assert again.negative_labels_.tolist() == det.negative_labels_.tolist()


@pytest.mark.parametrize("cls", NAMES_ONLY)
def test_three_ways_to_give_names_and_repeats_agree(cls):
    names, _, table, X, _ = world()
    want = build(cls, names, table).fit().decision_function(X)
    for det in (
        build(cls, None, table).fit(names),
        build(cls, None, table).fit(None, names),
        build(cls, [*names, names[0], f" {names[1]} "], table).fit(),
    ):
        np.testing.assert_array_equal(det.decision_function(X), want)


def test_synonyms_and_templates_are_averaged():
    table = EmbeddingTable(["cat", "kitty", "dog"], np.eye(3))
    det = MaxLogitDetector({"cat": ["cat", "kitty"], "dog": []}, embedder=table).fit()
    np.testing.assert_allclose(
        det.class_embeddings_, [[0.5**0.5, 0.5**0.5, 0], [0, 0, 1]], atol=1e-7
    )
    assert det.class_names_.tolist() == ["cat", "dog"]


def test_thresholds_of_the_negative_family_start_at_their_zero_points():
    names, _, table, X, _ = world()
    neg = build(NegLabelDetector, names, table, n_groups=5).fit()
    log_k = np.log(len(names))
    # 60 labels in 5 groups.
    assert neg.threshold_ == pytest.approx(np.log(12) - 4.24 - 0.157 * log_k)
    dnm = build(DebiasedNegMiningDetector, names, table, n_groups=5, negative_prior=0.9).fit()
    assert dnm.threshold_ == pytest.approx(np.log(12 / dnm.id_scale_) - 3.26 - 0.349 * log_k)
    assert set(neg.predict(X)) == {0, 1}
    assert neg.decision_scores_.shape == neg.labels_.shape == (0,)


@pytest.mark.parametrize("cls", [MCMDetector, MaxLogitDetector, EnergyDetector])
def test_methods_in_cosines_decide_by_a_guess_where_the_model_is_unknown_and_say_so(cls):
    names, _, table, X, y = world()
    for method in ("predict", "predict_class"):
        det = build(cls, names, table).fit()
        with pytest.warns(UncalibratedThresholdWarning, match="no rule is known.*calibrate"):
            getattr(det, method)(X)
    assert det.threshold_source_ == "names"
    assert build(cls, names, table).fit(X).labels_.mean() == pytest.approx(0.1, abs=0.02)
    known = build(cls, names, table).fit(X, y)
    assert (known.labels_[y == 0] == 0).mean() == pytest.approx(0.95, abs=0.03)
    assert (det.calibrate(X[y == 0]).predict(X[y == 0]) == 0).mean() >= 0.95
    # Rows known to be OOD set no threshold, so that the guess is all there is.
    only_ood = build(cls, names, table).fit(X, np.ones(len(X), dtype=int))
    assert only_ood.threshold_source_ == "names"


def test_contamination_flags_that_share_of_the_rows_not_known_to_be_ood():
    names, _, table, X, y = world()
    det = build(NegLabelDetector, names, table, contamination=0.25).fit(X)
    assert det.labels_.mean() == 0.25
    assert len(det.decision_scores_) == len(X)
    det.fit(X, y)
    assert det.labels_[y == 0].mean() == 0.25
    with pytest.raises(ValueError, match=r"needs images"):
        det.fit()
    with pytest.raises(ValueError, match=r"every row of X \(n_samples=80\) is known to be OOD"):
        det.fit(X, np.ones(len(X), dtype=int))


def test_contamination_without_images_is_refused_before_any_name_is_encoded():
    class Costly(FakeEmbedder):
        def encode_text(self, *args, **params):
            raise AssertionError("names were encoded")

    class Half:
        def eval(self, scores):
            return (scores > np.median(scores)).astype(int)

    for contamination in (0.1, Half()):
        det = NegLabelDetector(["cat", "dog"], embedder=Costly(), contamination=contamination)
        with pytest.raises(ValueError, match="needs images"):
            det.fit()


def test_predict_class_names_the_class_or_ood():
    names, _, table, X, y = world(noise=0.1)
    det = build(NegLabelDetector, names, table).fit()
    got = det.predict_class(X)
    flagged = det.predict(X) == 1
    assert set(got[flagged]) == {"ood"}
    nearest = np.array(names)[(X @ det.class_embeddings_.T).argmax(axis=1)]
    assert (got[~flagged] == nearest[~flagged]).all()
    assert (got[y == 0] != "ood").all()


def test_scoring_leaves_the_detector_unchanged():
    names, _, table, X, _ = world()
    det = build(
        DebiasedNegMiningDetector, names, table, positive_noise=0.1, negative_prior=0.9
    ).fit(X)
    before = {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in vars(det).items()}
    det.predict_class(X), det.predict(X)
    assert vars(det).keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_equal(vars(det)[key], value)


@pytest.mark.parametrize("cls", NAMES_ONLY)
def test_bad_embeddings_are_clear_errors(cls):
    names, _, table, X, _ = world()
    det = build(cls, names, table).fit()
    with pytest.raises(ValueError, match="features"):
        det.decision_function(X[:, :-1])
    for bad, match in ((np.nan, "NaN.*row 3"), (np.inf, "infinity.*row 3"), (0.0, "zeros.*row 3")):
        broken = X.copy()
        broken[3] = bad
        with pytest.raises(ValueError, match=match):
            det.decision_function(broken)
    with pytest.raises(ValueError, match="features|embeddings have"):
        build(cls, names, table).fit(X[:, :-1])
    with pytest.raises(NotFittedError):
        build(cls, names, table).decision_function(X)
    assert det.decision_function(X[:0]).shape == (0,)
    if not cls.info.test_time:
        assert det.decision_function(X[:1]) == pytest.approx(det.decision_function(X)[:1], abs=1e-4)


@pytest.mark.parametrize("cls", [NegLabelDetector, DebiasedNegMiningDetector])
def test_corpus_corner_cases(cls):
    names, words, table, X, _ = world()
    with pytest.raises(ValueError, match="cover the whole corpus"):
        build(cls, names, table, corpus=[n.upper() for n in names]).fit()
    only_names = EmbeddingTable(names, table.encode_text(names))
    with pytest.raises(ValueError, match="nothing else"):
        build(cls, names, only_names).fit()
    with pytest.warns(UserWarning, match="n_groups_=2 is used"):
        det = build(cls, names, table, corpus=words[:2], n_groups=9, negative_prior=1.0).fit()
    assert det.n_groups_ == 2
    one = build(
        cls, names, table, fraction=0.0, noun_fraction=0.0, n_groups=1, negative_prior=1.0
    ).fit()
    assert len(one.negative_labels_) == 1
    assert np.isfinite(one.score_samples(X)).all()


def test_single_class():
    names, _, table, X, y = world(n_classes=1)
    with pytest.raises(ValueError, match="MaxLogitDetector"):
        build(MCMDetector, names, table).fit()
    assert roc_auc_score(y, build(NegLabelDetector, names, table).fit().decision_function(X)) > 0.95


def test_max_similarity_drops_near_duplicates():
    names, words, table, _, _ = world()
    near = unit(table.encode_text(names[:1]) + 0.01)
    table = EmbeddingTable(
        [*names, *words, "twin"], np.concatenate([table.encode_text(names + words), near])
    )
    kept = build(NegLabelDetector, names, table).fit()
    assert "twin" in kept.negative_labels_
    dropped = build(NegLabelDetector, names, table, max_similarity=0.95).fit()
    assert "twin" not in dropped.negative_labels_
    with pytest.raises(ValueError, match="Raise max_similarity"):
        build(NegLabelDetector, names, table, max_similarity=-1.0).fit()


def test_unicode_names():
    names, words, table, X, _ = world(n_classes=2)
    table = EmbeddingTable(["猫", "Ærø", *words], table.encode_text(names + words))
    det = build(NegLabelDetector, ["猫", "Ærø"], table).fit()
    assert set(det.predict_class(X)) <= {"猫", "Ærø", "ood"}


def test_mining_is_cached_by_setting(tmp_path, monkeypatch):
    from dnm_sklearn.scoring import mining

    names, _, table, _, _ = world()
    calls = []
    original = mining.percentile_similarity
    monkeypatch.setattr(
        mining, "percentile_similarity", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    first = build(NegLabelDetector, names, table, memory=str(tmp_path)).fit()
    second = build(NegLabelDetector, names, table, memory=str(tmp_path), n_groups=2).fit()
    assert len(calls) == 1
    assert first.negative_labels_.tolist() == second.negative_labels_.tolist()
    wider = build(NegLabelDetector, names, table, memory=str(tmp_path), fraction=0.3).fit()
    assert len(calls) == 1, "the fraction kept does not change the criterion"
    alone = build(NegLabelDetector, names, table, fraction=0.3).fit()
    np.testing.assert_array_equal(wider.negative_embeddings_, alone.negative_embeddings_)
    build(NegLabelDetector, names, table, memory=str(tmp_path), quantile=0.5).fit()
    build(NegLabelDetector, names[:-1], table, memory=str(tmp_path)).fit()
    assert len(calls) == 4


def test_search_encodes_and_mines_once_a_setting(tmp_path, monkeypatch):
    """Text banks and criteria are computed once per setting, whatever the folds and candidates."""
    from sklearn.model_selection import GridSearchCV

    from dnm_sklearn.metrics import auroc_scorer
    from dnm_sklearn.scoring import mining

    mined, encoded = [], []
    for owner, name, calls in (
        (mining, "percentile_similarity", mined),
        (FakeEmbedder, "_encode_prompts", encoded),
    ):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, _f=original, _calls=calls, **k: _calls.append(1) or _f(*a, **k)
        )
    words = [f"word {i}" for i in range(60)]
    X = np.random.default_rng(0).normal(size=(40, 16))
    y = np.arange(40) % 2
    params = {"quantile": [0.5, 0.9], "fraction": [0.2, 0.5, 1.0], "n_groups": [2, 4]}
    scores = []
    for memory in (str(tmp_path), None):
        detector = NegLabelDetector(
            ["cat", "dog"], embedder=FakeEmbedder(16), corpus=words, memory=memory
        )
        search = GridSearchCV(detector, params, scoring=auroc_scorer, cv=3, refit=False).fit(X, y)
        scores.append(search.cv_results_["mean_test_score"])
        if memory:
            assert (len(mined), len(encoded)) == (2, 2), "two quantiles; class names and corpus"
    np.testing.assert_array_equal(*scores)


def test_mining_by_norm_of_a_table_of_unit_rows_is_refused():
    """Every norm is 1 there, and the ranking would be that of rounding."""
    rows = np.random.default_rng(0).standard_normal((6, 4))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    names = list("abcdef")
    by_norm = {
        "mining": "norm",
        "n_neighbors": 2,
        "noun_fraction": 0.5,
        "n_groups": 2,
        "min_id_scale": 0,
    }
    with pytest.raises(ValueError, match=r'all have length 1.*norms=\.\.\..*mining="density"'):
        DebiasedNegMiningDetector(names[:2], embedder=EmbeddingTable(names, unit), **by_norm).fit()
    norms = [1.0, 1.0, 9.0, 7.0, 8.0, 6.0]
    detector = DebiasedNegMiningDetector(
        names[:2], embedder=EmbeddingTable(names, unit, norms=norms), **by_norm
    ).fit()
    assert sorted(detector.negative_labels_) == ["d", "f"]


@pytest.mark.parametrize("kind", ["gradient", "bfloat16", "float64"])
def test_torch_tensors_are_embeddings(kind):
    torch = pytest.importorskip("torch")
    table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
    detector = NegLabelDetector(["cat", "dog"], embedder=table, fraction=1.0, n_groups=1).fit()
    X = torch.eye(3, dtype=torch.float64)
    X = {"gradient": X.float().requires_grad_(), "bfloat16": X.bfloat16(), "float64": X}[kind]
    np.testing.assert_array_equal(
        detector.decision_function(X), detector.decision_function(np.eye(3))
    )
    assert detector.fit(X, torch.tensor([0, 0, 1])).labels_.tolist() == [0, 0, 1]
    assert len(detector.decision_function([])) == 0
