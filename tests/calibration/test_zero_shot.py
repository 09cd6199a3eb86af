"""The rules of zero-shot thresholds, the models' facts that they use, and what is said of them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dnm_sklearn import (
    AdaNegDetector,
    DebiasedNegMiningDetector,
    EmbeddingTable,
    EnergyDetector,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    SklearnOutlierAdapter,
    TANLDetector,
    UnknownImageDetector,
)
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.calibration.model_facts import (
    ModelFacts,
    add_model_facts,
    measure_model_facts,
    model_facts,
)
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.exceptions import UncalibratedThresholdWarning
from dnm_sklearn.testing import make_ood_blobs

BLOBS = make_ood_blobs()
SUITE = Path(__file__).resolve().parents[3] / "shared" / "real_clip_vitb32" / "caltech63"


def known_table(**params):
    """The table of the blobs under the name of a measured model."""
    names = list(BLOBS.table.names)
    rows = BLOBS.table.encode_text(names)
    what = {"model": "ViT-B-32-quickgelu/openai", "prompt": "a {}"} | params
    return EmbeddingTable(names, rows, **what)


# -- rules -----------------------------------------------------------------------------------------


REAL = [
    MCMDetector,
    MaxLogitDetector,
    EnergyDetector,
    NegLabelDetector,
    DebiasedNegMiningDetector,
    UnknownImageDetector,
]


def test_rules_are_the_formulas():
    log_k = np.log(63)
    facts = ModelFacts("m", "a {}", 0.3, 0.2, 1, 1)
    assert zero_shot.mcm_threshold(63, 0.6) == pytest.approx(log_k - 0.15 * 0.4 - 0.014)
    assert zero_shot.enl_threshold(0.007, 0.5, guessed=False) == pytest.approx(-7.5)
    assert zero_shot.enl_threshold(0.01, 3.0, guessed=True) == pytest.approx(-12.9)
    assert zero_shot.max_logit_threshold(None) == -0.25
    assert zero_shot.max_logit_threshold(facts) == -0.2
    assert zero_shot.energy_threshold(63, None) == pytest.approx(-0.236 - 0.005 * log_k)
    log_q = np.log(40)
    assert zero_shot.neglabel_threshold(63, 40) == pytest.approx(log_q - 4.24 - 0.157 * log_k)
    assert np.log(zero_shot.dnm_ratio(63, 40)) == pytest.approx(log_q - 3.26 - 0.349 * log_k)
    assert zero_shot.adaneg_threshold(40, stream=False) == pytest.approx(log_q - 4.57)
    assert zero_shot.tanl_threshold(100, stream=True) == pytest.approx(1.95 - np.log(10))


def test_thresholds_follow_the_number_of_labels():
    """Twice the corpus, each label there twice, moves scores and thresholds alike."""
    twice = [f"{word} again" for word in BLOBS.words]
    rows = np.concatenate([BLOBS.table.encode_text(BLOBS.words)] * 2)
    names = [*BLOBS.names, *BLOBS.words, *twice]
    table = EmbeddingTable(
        names,
        np.concatenate([BLOBS.table.encode_text(BLOBS.names), rows]),
        logit_scale=BLOBS.table.logit_scale_,
    )
    params = {"embedder": table, "fraction": 1.0, "n_groups": 1}
    once = NegLabelDetector(BLOBS.names, corpus=BLOBS.words, **params).fit()
    both = NegLabelDetector(BLOBS.names, corpus=[*BLOBS.words, *twice], **params).fit()
    np.testing.assert_allclose(
        both.decision_function(BLOBS.X) - both.threshold_,
        once.decision_function(BLOBS.X) - once.threshold_,
        atol=1e-4,
    )


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 10.0])
def test_mcm_threshold_can_be_met_at_every_temperature(temperature):
    """Scores lie between 0 and log K."""
    for n_classes in (2, 10, 1000):
        assert 0 < zero_shot.mcm_threshold(n_classes, 0.6, temperature) < np.log(n_classes)


def test_streams_have_thresholds_of_their_own():
    for cls, stream, frozen in ((TANLDetector, 1.95, 1.72), (AdaNegDetector, -7.3, -4.57)):
        params = {"embedder": BLOBS.table, "corpus": BLOBS.words}
        det = cls(BLOBS.names, **params).fit()
        other = cls(BLOBS.names, adaptation="frozen", **params).fit()
        assert det.threshold_ - other.threshold_ == pytest.approx(stream - frozen)
        assert "stream" in det._zero_shot_doubt()
        assert other._zero_shot_doubt() == ""


# -- facts -----------------------------------------------------------------------------------------


def test_facts_are_found_by_model_and_prompt():
    assert model_facts("ViT-B-32/openai", "a {}") is model_facts(
        "ViT-B-32-quickgelu/openai", "a {}"
    )
    for model, prompt in (
        ("ViT-B-32/openai", "a photo of a {}"),
        ("ViT-B-32/openai", ["a {}", "the {}"]),
        ("ViT-B-32/laion2b_s34b_b79k", "a {}"),
        (None, "a {}"),
    ):
        assert model_facts(model, prompt) is None


def test_a_detector_finds_the_facts_of_its_embedder():
    det = MaxLogitDetector(BLOBS.names, embedder=known_table()).fit()
    assert det.threshold_ == -0.25
    assert det._zero_shot_doubt() == ""
    for table in (known_table(prompt="the {}"), known_table(model=None), BLOBS.table):
        doubted = MaxLogitDetector(BLOBS.names, embedder=table).fit()
        assert "nobody has measured" in doubted._zero_shot_doubt()


def test_facts_of_ones_own_are_used():
    add_model_facts(ModelFacts("own/v1", "{}", median=0.5, q05=0.4, n_images=500, n_classes=60))
    table = known_table(model="own/v1", prompt="{}")
    assert MaxLogitDetector(BLOBS.names, embedder=table).fit().threshold_ == -0.4
    energy = EnergyDetector(BLOBS.names, embedder=table).fit()
    assert energy.threshold_ == pytest.approx(-0.386 - 0.005 * np.log(len(BLOBS.names)))


def test_unlabelled_images_set_the_threshold_where_the_model_is_unknown():
    """Of a known model the rule is worth more than PyOD's tenth, of an unknown one less."""
    known = MaxLogitDetector(BLOBS.names, embedder=known_table()).fit(BLOBS.X)
    unknown = MaxLogitDetector(BLOBS.names, embedder=BLOBS.table).fit(BLOBS.X)
    assert (known.threshold_, known.threshold_source_) == (-0.25, "names")
    assert unknown.threshold_source_ == "images"
    assert unknown.labels_.mean() == pytest.approx(0.1, abs=0.02)


def test_measured_quantiles_weigh_classes_alike():
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    labels = np.repeat(np.arange(30), 10)
    found = measure_model_facts(values, labels, n_bootstrap=200)
    np.testing.assert_allclose(
        [found["q05"], found["median"]], np.quantile(values, [0.05, 0.5]), atol=1e-9
    )
    low, high = found["q05_interval"]
    assert low < found["q05"] < high
    # A class of ten times as many images of the same kind changes little.
    more = measure_model_facts(
        np.append(values, np.full(3000, 9.0)), np.append(labels, np.full(3000, 30)), n_bootstrap=1
    )
    assert more["median"] < np.quantile(values, 0.6)


def test_nothing_to_measure_is_told():
    for cosines, labels in (([], []), ([0.1], ["a", "b"])):
        with pytest.raises(ValueError, match="one per image"):
            measure_model_facts(cosines, labels)
    with pytest.raises(ValueError, match="1 cosines are NaN"):
        measure_model_facts([np.nan, 1.0], ["a", "b"])


@pytest.mark.skipif(not SUITE.exists(), reason="the shared suite is not here")
def test_shipped_facts_hold_on_photographs():
    suite = load_embedding_suite(SUITE)
    text = suite.embedder.encode_text(suite.class_names)
    cosines = (suite.id.images @ text.T).max(axis=1)
    found = measure_model_facts(cosines, suite.id.labels, n_bootstrap=10)
    assert found["q05"] == pytest.approx(model_facts("ViT-B-32/openai", "a {}").q05, abs=0.015)
    assert found["median"] == pytest.approx(0.295, abs=0.011)


@pytest.mark.skipif(not SUITE.exists(), reason="the shared suite is not here")
@pytest.mark.parametrize("cls", REAL)
def test_decisions_after_names_can_be_used(cls):
    suite = load_embedding_suite(SUITE)
    extra = {"corpus": suite.corpus} if "corpus" in cls().get_params() else {}
    det = cls(suite.class_names, embedder=suite.embedder, **extra).fit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncalibratedThresholdWarning)
        assert det.predict(suite.id.images).mean() < 0.12
        known = det.score_samples(suite.id.images)
        for ood in suite.ood:
            score = det.score_samples(ood.images)
            is_id = np.repeat([1, 0], [len(known), len(score)])
            # Of far OOD that the score tells well most is caught.
            if roc_auc_score(is_id, np.concatenate([known, score])) >= 0.95:
                assert det.predict(ood.images).mean() > 0.6


# -- the warning -----------------------------------------------------------------------------------


def caught(action):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        action()
    return [w for w in seen if w.category is UncalibratedThresholdWarning]


def neglabel(**params):
    return NegLabelDetector(
        BLOBS.names, embedder=BLOBS.table, corpus=BLOBS.words, n_groups=4, fraction=1.0, **params
    )


def test_it_comes_once_per_fit_at_the_users_line():
    det = neglabel().fit()
    for decide in (det.predict, det.predict_class, det.predict_proba):
        first = caught(lambda decide=decide: decide(BLOBS.X))
        assert len(first) == (1 if decide == det.predict else 0)
        assert all(Path(w.filename) == Path(__file__) for w in first)
    det.fit()
    assert len(caught(lambda: det.predict(BLOBS.X))) == 1
    assert len(caught(lambda: det.predict(BLOBS.X))) == 0


def test_fit_predict_says_it_too():
    assert len(caught(lambda: neglabel().fit_predict(BLOBS.X))) == 1


def test_it_says_what_helps_and_invites_no_other_images():
    (warning,) = caught(lambda: neglabel().fit().predict(BLOBS.X))
    text = str(warning.message)
    for word in ("NegLabelDetector", "calibrate(X_id)", "contamination=", "at least 100"):
        assert word in text
    assert "image_mean" not in text
    assert "no rule" not in text


def test_scores_and_calibrated_decisions_do_not_warn():
    det = neglabel().fit()
    assert caught(lambda: det.decision_function(BLOBS.X)) == []
    det.calibrate(BLOBS.X_id)
    assert det.threshold_source_ == "calibration"
    assert caught(lambda: det.predict(BLOBS.X)) == []
    for own in (
        neglabel().fit(BLOBS.X, BLOBS.y),
        neglabel(contamination=0.2).fit(BLOBS.X),
    ):
        assert own.threshold_source_ == "images"
        assert caught(lambda own=own: own.predict(BLOBS.X)) == []


def test_another_temperature_is_a_doubt():
    det = neglabel(temperature=0.5).fit()
    (warning,) = caught(lambda: det.predict(BLOBS.X))
    assert "no rule is known to hold here: its constants are for the model's own" in str(
        warning.message
    )


def test_adapters_pass_it_on():
    adapter = SklearnOutlierAdapter(neglabel()).fit()
    assert len(caught(lambda: adapter.predict(BLOBS.X))) == 1
