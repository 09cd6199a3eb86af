"""The bridges to scikit-learn's outlier detectors and classifiers."""

import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_outlier_detector
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)

from dnm_sklearn import (
    EmbeddingTable,
    MaxLogitDetector,
    MCMDetector,
    NegLabelDetector,
    OODClassifier,
    SklearnOutlierAdapter,
    make_ood_pipeline,
)
from dnm_sklearn.exceptions import UncalibratedThresholdWarning
from dnm_sklearn.metrics import (
    aupr_scorer,
    auroc_scorer,
    fpr95_ood_positive_scorer,
    fpr95_scorer,
)
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

WORLD = make_ood_blobs()
CV = StratifiedKFold(3, shuffle=True, random_state=0)


def neglabel(**params):
    return NegLabelDetector(WORLD.names, embedder=WORLD.table, n_groups=4, fraction=1.0, **params)


def test_adapter_has_scikit_learns_signs():
    detector = neglabel().fit(WORLD.X)
    adapter = SklearnOutlierAdapter(neglabel()).fit(WORLD.X)
    assert is_outlier_detector(adapter)
    assert not is_outlier_detector(detector)
    np.testing.assert_array_equal(adapter.score_samples(WORLD.X), detector.score_samples(WORLD.X))
    np.testing.assert_array_equal(
        adapter.predict(WORLD.X), np.where(detector.predict(WORLD.X) == 1, -1, 1)
    )
    np.testing.assert_allclose(
        adapter.decision_function(WORLD.X),
        adapter.score_samples(WORLD.X) - adapter.offset_,
        rtol=1e-12,
    )
    assert adapter.threshold_ == detector.threshold_
    assert auroc_scorer(adapter, WORLD.X, WORLD.y) == auroc_scorer(detector, WORLD.X, WORLD.y)


def test_adapter_on_names_calibrated_and_in_a_pipeline():
    adapter = SklearnOutlierAdapter(MCMDetector(embedder=WORLD.table)).fit(None, WORLD.names)
    with pytest.warns(UncalibratedThresholdWarning, match="calibrate"):
        adapter.predict(WORLD.X)
    adapter.calibrate(WORLD.X_id, false_alarm_rate=0.1)
    assert (adapter.predict(WORLD.X_id) == 1).mean() >= 0.9
    pipe = make_ood_pipeline(
        FakeEmbedder(dim=16), NegLabelDetector(["cat", "dog"], corpus=["x", "y"], n_groups=1)
    )
    images = list(np.random.default_rng(0).integers(0, 255, (6, 9, 9, 3)).astype(np.uint8))
    outer = SklearnOutlierAdapter(pipe).fit(images)
    assert set(outer.predict(images)) <= {-1, 1}
    assert outer.detector_[-1].embedder is outer.detector_[0]


def test_a_fitted_detector_is_kept_when_frozen():
    detector = neglabel().fit().calibrate(WORLD.X_id, id_tpr=0.9)
    adapter = SklearnOutlierAdapter(FrozenEstimator(detector)).fit(WORLD.X)
    np.testing.assert_array_equal(adapter.predict(WORLD.X) == -1, detector.predict(WORLD.X) == 1)
    assert adapter.calibrate(WORLD.X_id, id_tpr=0.8) is adapter
    assert adapter.threshold_ == detector.threshold_


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (WORLD.y, [0, 1]),
        (WORLD.y.astype(bool), [False, True]),
        (np.where(WORLD.y == 1, "ood", "known"), ["known", "ood"]),
        (np.where(WORLD.y == 1, "ood", "seen"), ["ood", "seen"]),
    ],
)
def test_classifier_follows_its_classes(y, classes):
    classifier = OODClassifier(neglabel()).fit(WORLD.X, y)
    assert is_classifier(classifier)
    assert classifier.classes_.tolist() == classes
    assert classifier.ood_class_ == y[WORLD.y == 1][0]
    flagged = neglabel().fit(WORLD.X, WORLD.y).predict(WORLD.X) == 1
    np.testing.assert_array_equal(classifier.predict(WORLD.X) == classifier.ood_class_, flagged)
    np.testing.assert_array_equal(classifier.classes_[classifier.predict_proba(WORLD.X).argmax(axis=1)],
                                  classifier.predict(WORLD.X))  # fmt: skip
    np.testing.assert_array_equal(
        classifier.classes_[(classifier.decision_function(WORLD.X) > 0).astype(int)],
        classifier.predict(WORLD.X),
    )
    assert classifier.score(WORLD.X, y) > 0.9


@pytest.mark.parametrize(("id_name", "sign"), [("known", 1), ("seen", -1)])
def test_a_row_at_the_threshold_is_id_whichever_class_sorts_first(id_name, sign):
    y = np.where(WORLD.y == 1, "ood", id_name)
    classifier = OODClassifier(neglabel()).fit(WORLD.X, y)
    scores = classifier.detector_.decision_function(WORLD.X)

    # The threshold is put on a row, which then is ID, as are all below.
    at = np.argsort(scores)[len(scores) // 2]
    classifier.detector_.threshold_ = scores[at]
    assert classifier.predict(WORLD.X)[at] == id_name
    np.testing.assert_array_equal(classifier.predict(WORLD.X) == "ood", scores > scores[at])
    np.testing.assert_array_equal(
        classifier.classes_[classifier.predict_proba(WORLD.X).argmax(axis=1)],
        classifier.predict(WORLD.X),
    )
    margin = classifier.decision_function(WORLD.X)
    np.testing.assert_allclose(margin, sign * (scores - scores[at]), atol=1e-12)
    assert (margin[at] > 0) == (sign < 0)


def test_outlier_coding_is_pointed_out_and_can_be_given():
    y = np.where(WORLD.y == 1, -1, 1)
    with pytest.warns(UserWarning, match="ood_class=-1"):
        OODClassifier(neglabel()).fit(WORLD.X, y)
    classifier = OODClassifier(neglabel(), ood_class=-1).fit(WORLD.X, y)
    assert classifier.score(WORLD.X, y) > 0.9
    with pytest.raises(ValueError, match="ood_class=7 is not in y"):
        OODClassifier(neglabel(), ood_class=7).fit(WORLD.X, y)


def test_classifier_errors():
    with pytest.raises(ValueError, match="Only binary classification"):
        OODClassifier(neglabel()).fit(WORLD.X, np.arange(len(WORLD.X)) % 3)
    with pytest.raises(ValueError, match="only one class"):
        OODClassifier(neglabel()).fit(WORLD.X, np.zeros(len(WORLD.X), dtype=int))
    with pytest.raises(ValueError, match="requires y"):
        OODClassifier(neglabel()).fit(WORLD.X, None)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibrated_probabilities(method):
    model = CalibratedClassifierCV(OODClassifier(neglabel()), method=method, cv=CV)
    proba = cross_val_predict(model, WORLD.X, WORLD.y, cv=CV, method="predict_proba")[:, 1]
    assert roc_auc_score(WORLD.y, proba) > 0.9
    assert np.mean((proba - WORLD.y) ** 2) < 0.1


def test_tuned_threshold_and_stratified_by_default():
    tuned = TunedThresholdClassifierCV(
        OODClassifier(neglabel()), scoring="f1", response_method="decision_function"
    )
    assert tuned.fit(WORLD.X, WORLD.y).score(WORLD.X, WORLD.y) > 0.9
    # cv=3 means stratified folds for a classifier: no fold is of one kind, though rows are sorted
    # ID-then-OOD.
    scores = cross_val_score(
        OODClassifier(neglabel()), WORLD.X, WORLD.y, cv=3, scoring="roc_auc", error_score="raise"
    )
    assert scores.min() > 0.9
    assert clone(OODClassifier(neglabel(), ood_class=1)).ood_class == 1


@pytest.mark.parametrize(
    "y",
    [
        WORLD.y,
        WORLD.y.astype(bool),
        np.where(WORLD.y == 1, "ood", "id"),
        np.where(WORLD.y == 1, "ood", "seen"),
        np.where(WORLD.y == 1, -1, 1),
    ],
    ids=["0/1", "bool", "id", "seen", "-1/+1"],
)
def test_every_scorer_has_the_right_sign_for_every_y_of_a_classifier(y):
    classifier = OODClassifier(neglabel(), ood_class=y[WORLD.y == 1][0]).fit(WORLD.X, y)
    assert auroc_scorer(classifier, WORLD.X, y) > 0.95
    assert aupr_scorer(classifier, WORLD.X, y) > 0.95
    assert fpr95_scorer(classifier, WORLD.X, y) > -0.2
    assert fpr95_ood_positive_scorer(classifier, WORLD.X, y) > -0.2
    folds = {"cv": CV, "error_score": "raise"}
    assert cross_val_score(classifier, WORLD.X, y, scoring="roc_auc", **folds).min() > 0.9
    assert cross_val_score(classifier, WORLD.X, y, scoring=auroc_scorer, **folds).min() > 0.9
    with pytest.raises(ValueError, match="which the classifier was not fitted on"):
        auroc_scorer(classifier, WORLD.X, np.full(len(y), 7))


def test_outlier_adapter_reads_its_own_coding():
    """-1 = OOD, +1 = ID, of which scikit-learn's scoring strings have the right sign."""
    y = np.where(WORLD.y == 1, -1, 1)
    want = neglabel().fit(WORLD.X, WORLD.y == 1)
    adapter = SklearnOutlierAdapter(neglabel()).fit(WORLD.X, y)
    assert adapter.threshold_ == want.threshold_
    # With all rows inliers, as for novelty detection, nothing is OOD.
    inliers = SklearnOutlierAdapter(neglabel()).fit(WORLD.X_id, np.ones(len(WORLD.X_id), int))
    assert inliers.threshold_ == neglabel().fit(WORLD.X_id, [False] * len(WORLD.X_id)).threshold_
    for scoring in ("roc_auc", auroc_scorer, aupr_scorer):
        scores = cross_val_score(adapter, WORLD.X, y, cv=CV, scoring=scoring, error_score="raise")
        assert scores.min() > 0.9


SCORED = [
    WORLD.y,
    WORLD.y == 1,
    np.where(WORLD.y == 1, "ood", "class 0"),
    np.where(WORLD.y == 1, "ood", "zebra"),
    np.where(WORLD.y == 1, -1, 1),
    np.where(WORLD.y == 1, -1, 0),
    np.where(WORLD.y == 1, -1, np.arange(len(WORLD.y)) % 3),
    np.where(WORLD.y == 1, "ood", np.asarray(["zebra", *WORLD.names])[np.arange(len(WORLD.y)) % 3]),
]
SCORED_IDS = ["0/1", "bool", "class 0", "zebra", "-1/+1", "-1/0", "indices", "names"]


# How a y is refused: by fit, by the adapter that has no such scores, or by scikit-learn's scorer.
REFUSED = re.compile(
    "would come out the wrong way round|none of the following attributes: decision_function"
    "|needs ID and OOD rows|Only binary classification|`y_score` needs to be of shape"
    "|multi_class must be|pos_label=1 is not a valid label|outlier coding"
    "|should either be a classifier|Expected 2D array, got 1D"
)


@pytest.mark.parametrize("with_ood", [True, False], ids=["both in fit", "ID only in fit"])
@pytest.mark.parametrize("y", SCORED, ids=SCORED_IDS)
@pytest.mark.parametrize("adapter", [None, SklearnOutlierAdapter, OODClassifier])
@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision"])
@pytest.mark.filterwarnings("ignore")
def test_scoring_strings_have_the_right_sign_or_raise(adapter, y, with_ood, scoring):
    names = ["zebra", *WORLD.names]
    vectors = WORLD.table.encode_text(WORLD.names)
    table = EmbeddingTable(names, np.vstack([WORLD.X_id.mean(axis=0), vectors]))
    estimator = MaxLogitDetector(names, embedder=table)
    estimator = estimator if adapter is None else adapter(estimator)
    if adapter is OODClassifier:
        # -1 / +1 it reads as a classifier does, with a warning.
        estimator.set_params(ood_class=y[WORLD.y == 1][0] if 1 in y and -1 in y else None)
    elif adapter is None and not with_ood and len(np.unique(y)) == 2 and -1 in y:
        pytest.skip("ID rows that are all 0, or all 1, are another y than that of the scorer")
    rows = np.full(len(y), True) if with_ood else WORLD.y == 0

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(WORLD.X[rows], y[rows])
            score = get_scorer(scoring)(estimator, WORLD.X, y)
        except (ValueError, AttributeError) as error:
            # Ours or scikit-learn's, of this y; no other passes for an answer.
            if not REFUSED.search(str(error)):
                raise
            return
    # Of names of one class alone nothing is known of the rows that are scored.
    is_warned = any("wrong way round" in str(one.message) for one in caught)
    assert score > 0.7 or (is_warned and not with_ood and y.dtype.kind == "U")


@pytest.mark.parametrize(
    "y", [WORLD.y, WORLD.y == 1, WORLD.y * 0, np.where(WORLD.y == 1, "ood", WORLD.names[0])]
)
def test_outlier_adapter_gives_scoring_strings_nothing_that_they_turn(y):
    adapter = SklearnOutlierAdapter(neglabel())
    with pytest.warns(UserWarning, match=r"wrong way round: pass y = np.where\(is_ood, -1, 1\)"):
        adapter.fit(WORLD.X, y)
    assert not hasattr(adapter, "decision_function")
    with pytest.raises(AttributeError) as caught:
        _ = adapter.decision_function
    assert "or use score_samples" in str(caught.value.__cause__)
    if len(np.unique(y)) == 2:
        with pytest.raises(AttributeError, match="decision_function"):
            get_scorer("roc_auc")(adapter, WORLD.X, y)
        assert auroc_scorer(adapter, WORLD.X, y) > 0.9
        search = GridSearchCV(adapter, {"detector__n_groups": [2, 4]}, scoring=auroc_scorer, cv=CV)
        assert search.fit(WORLD.X, y).best_score_ > 0.9
        assert auroc_scorer(search, WORLD.X, y) > 0.9

    # Each fit says anew how y is ordered.
    adapter.fit(WORLD.X, np.where(WORLD.y == 1, -1, 1))
    assert auroc_scorer(adapter, WORLD.X, WORLD.y) > 0.9
    assert roc_auc_score(WORLD.y, -adapter.decision_function(WORLD.X)) > 0.9
    with pytest.warns(UserWarning, match="wrong way round where scored rows are OOD"):
        adapter.fit(WORLD.X_id, [WORLD.names[0]] * len(WORLD.X_id))


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_the_string_that_marks_ood_rows_is_the_detectors(in_pipeline):
    detector = NegLabelDetector(
        ["cat", "dog"], corpus=["x", "y"], n_groups=1, fraction=1.0, ood_label="zzz"
    )
    if in_pipeline:
        detector = make_ood_pipeline(FakeEmbedder(dim=16), detector)
    else:
        detector.set_params(embedder=FakeEmbedder(dim=16))
    rows = np.random.default_rng(0).standard_normal((20, 16))
    y = np.repeat(["cat", "zzz"], 10)
    with pytest.warns(UserWarning, match="wrong way round"):
        SklearnOutlierAdapter(detector).fit(rows, y)
    classifier = OODClassifier(detector).fit(rows, np.repeat(["zzzz", "zzz"], 10))
    assert classifier.ood_class_ == "zzz"


def test_a_detector_refuses_what_a_scoring_string_turns():
    names = ["zebra", *WORLD.names]
    table = EmbeddingTable(
        names, np.vstack([WORLD.X_id.mean(axis=0), WORLD.table.encode_text(WORLD.names)])
    )
    detector = MaxLogitDetector(names, embedder=table)
    y = np.where(WORLD.y == 1, "ood", "zebra")
    for turned in (y, np.where(WORLD.y == 1, -1, 3)):
        with pytest.raises(ValueError, match="greater label in y means ID.*give bool"):
            detector.fit(WORLD.X, turned)
    with pytest.warns(UserWarning, match="greater label in y means ID"):
        detector.fit(WORLD.X_id, ["zebra"] * len(WORLD.X_id))
    assert auroc_scorer(detector, WORLD.X, y) > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.fit(WORLD.X, WORLD.y == 1)
        detector.fit(WORLD.X, np.where(WORLD.y == 1, "ood", WORLD.names[0]))
