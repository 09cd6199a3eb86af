"""Thresholders as contamination, probabilities, confidence, and what calibration guarantees."""

import numpy as np
import pytest
from pyod.models.base import BaseDetector
from scipy.special import expit

from dnm_sklearn import EnergyDetector, MaxLogitDetector, MCMDetector, NegLabelDetector
from dnm_sklearn.calibration import conformal, thresholds
from dnm_sklearn.exceptions import UncalibratedThresholdWarning
from dnm_sklearn.testing import make_ood_blobs

WORLD = make_ood_blobs()


def build(cls=NegLabelDetector, **params):
    if cls is NegLabelDetector:
        params = {"n_groups": 4, "fraction": 1.0, **params}
    return cls(WORLD.names, embedder=WORLD.table, **params)


class OldStyle:
    """PyThresh before 1.0: eval only; states its threshold on rescaled scores."""

    def eval(self, scores):
        scaled = (scores - scores.min()) / (scores.max() - scores.min())
        self.thresh_ = 0.6
        return (scaled > 0.6).astype(int)


class NewStyle(OldStyle):
    """PyThresh from 1.0 on, as PyOD calls it."""

    def fit(self, scores):
        self.labels_ = self.eval(scores)
        return self

    def predict(self, scores):
        return self.eval(scores)


class FitOnly:
    def fit(self, scores):
        self.labels_ = (scores > np.median(scores)).astype(int)
        return self

    def predict(self, scores):
        raise NotImplementedError


@pytest.mark.parametrize("thresholder", [OldStyle(), NewStyle(), FitOnly()])
def test_thresholder_sets_the_threshold_and_is_not_touched(thresholder):
    det = build(contamination=thresholder).fit(WORLD.X)
    own = type(thresholder)()
    want = (
        own.fit(det.decision_scores_).labels_
        if hasattr(own, "fit")
        else own.eval(det.decision_scores_)
    )
    np.testing.assert_array_equal(det.labels_, want)
    np.testing.assert_array_equal(det.predict(WORLD.X), want)
    assert vars(thresholder) == {}
    assert (
        det.decision_scores_[want == 0].max()
        < det.threshold_
        < det.decision_scores_[want == 1].min()
    )


def test_thresholder_sees_no_rows_known_to_be_ood():
    det = build(contamination=FitOnly()).fit(WORLD.X, WORLD.y)
    assert det.labels_[WORLD.y == 0].mean() == 0.5
    with pytest.raises(ValueError, match="needs images"):
        build(contamination=FitOnly()).fit()


def test_real_pythresh_agrees_with_pyod():
    iqr = pytest.importorskip("pythresh.thresholds.iqr").IQR
    karch = pytest.importorskip("pythresh.thresholds.karch").KARCH

    class Fixed(BaseDetector):
        def __init__(self, contamination):
            super().__init__(contamination=contamination)

        def fit(self, X, y=None):
            self.decision_scores_ = build().fit().decision_function(X)
            self._process_decision_scores()
            return self

        def decision_function(self, X):
            return build().fit().decision_function(X)

    for make in (iqr, karch):
        ours, theirs = build(contamination=make()).fit(WORLD.X), Fixed(make()).fit(WORLD.X)
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_array_equal(ours.predict(WORLD.X), theirs.predict(WORLD.X))


def test_bad_thresholders_are_named():
    class Wrong:
        def eval(self, scores):
            return scores

    with pytest.raises(ValueError, match="one 0 .inlier. or 1"):
        build(contamination=Wrong()).fit(WORLD.X)
    with pytest.raises(ValueError, match="contamination"):
        build(contamination=object()).fit(WORLD.X)


def test_threshold_from_labels_disagrees_with_the_fewest_rows_whatever_is_tied():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 9):
        for _ in range(50):
            scores, labels = rng.integers(3, size=n).astype(float), rng.integers(2, size=n)
            threshold = thresholds.threshold_from_labels(scores, labels)
            wrong = np.count_nonzero((scores > threshold) != labels)
            possible = [-1.0, *scores]
            assert wrong == min(np.count_nonzero((scores > t) != labels) for t in possible)


def test_threshold_from_labels_lies_between_neighbouring_floats():
    """The middle of two is rounded to one of them, here to the upper one."""
    low = np.nextafter(1.0, 2)
    high = np.nextafter(low, 2)
    assert low + (high - low) / 2 == high
    assert low <= thresholds.threshold_from_labels([low, high], [0, 1]) < high


def test_threshold_from_labels_corner_cases():
    scores = np.array([3.0, 1.0, 2.0, 2.0])
    assert thresholds.threshold_from_labels(scores, [0, 0, 0, 0]) == 3.0
    assert (scores > thresholds.threshold_from_labels(scores, [1, 1, 1, 1])).all()
    assert thresholds.threshold_from_labels(scores, [1, 0, 1, 1]) == 1.5
    # No threshold parts equal scores, nor gives these labels; one disagrees with a single row.
    assert thresholds.threshold_from_labels(scores, [1, 0, 1, 0]) in (1.5, 2.5)
    assert thresholds.threshold_from_labels([0.0, 1, 2, 3, 4], [0, 1, 0, 1, 1]) in (0.5, 2.5)
    near = np.nextafter(1.0, 2.0)
    assert thresholds.threshold_from_labels([1.0, near], [0, 1]) == 1.0


def test_probabilities_are_what_they_say():
    det = build(contamination=0.2).fit(WORLD.X)
    scores = det.decision_function(WORLD.X)
    proba = det.predict_proba(WORLD.X)
    np.testing.assert_allclose(proba[:, 1], expit(scores - det.threshold_))
    np.testing.assert_array_equal(proba[:, 1] > 0.5, det.predict(WORLD.X) == 1)
    for cls in (MaxLogitDetector, EnergyDetector):
        cosine = build(cls).fit(WORLD.X)
        got = cosine.predict_proba(WORLD.X)[:, 1]
        np.testing.assert_allclose(
            got, expit((cosine.decision_function(WORLD.X) - cosine.threshold_) / 0.01)
        )
    for method in ("linear", "unify"):
        proba, confidence = det.predict_proba(WORLD.X, method=method, return_confidence=True)
        theirs = pyod_like(det)
        np.testing.assert_allclose(
            proba, theirs.predict_proba(WORLD.X, method=method), rtol=1e-7, atol=1e-12
        )
        np.testing.assert_allclose(
            confidence, theirs.predict_confidence(WORLD.X), rtol=1e-7, atol=1e-12
        )
    with pytest.raises(ValueError, match="logistic"):
        det.predict_proba(WORLD.X, method="softmax")
    with pytest.raises(ValueError, match="given to fit"):
        build().fit().predict_proba(WORLD.X, method="linear")
    with pytest.raises(ValueError, match="given to fit"):
        build().fit().predict(WORLD.X, return_confidence=True)
    with pytest.warns(UncalibratedThresholdWarning, match="calibrate"):
        build(MCMDetector).fit().predict_proba(WORLD.X)


def pyod_like(det):
    """PyOD's own methods on our scores."""

    class Like(BaseDetector):
        def __init__(self):
            super().__init__(contamination=det.contamination)

        def fit(self, X, y=None):
            self._set_n_classes(None)
            self.decision_scores_ = det.decision_scores_
            self._process_decision_scores()
            return self

        def decision_function(self, X):
            return det.decision_function(X)

    return Like().fit(WORLD.X)


def test_confidence_is_pyods():
    det = build(contamination=0.2).fit(WORLD.X)
    labels, confidence = det.predict(WORLD.X, return_confidence=True)
    want_labels, want = pyod_like(det).predict(WORLD.X, return_confidence=True)
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_allclose(confidence, want)


def test_p_values_and_calibration_hold_in_simulation():
    """Split conformal: P(p <= alpha) <= alpha and P(flagged) <= 1 - id_tpr over all draws."""
    rng = np.random.default_rng(0)
    det = build(MaxLogitDetector).fit()
    n_calibration, n_test, rounds = 39, 10, 400
    pool = make_ood_blobs(n_images=4000, random_state=0).X[:4000]
    p_values, flagged = [], []
    for _ in range(rounds):
        rows = rng.choice(len(pool), n_calibration + n_test, replace=False)
        det.calibrate(pool[rows[:n_calibration]], id_tpr=0.9)
        p_values.append(det.p_value(pool[rows[n_calibration:]]))
        flagged.append(det.predict(pool[rows[n_calibration:]]))
    p_values, flagged = np.concatenate(p_values), np.concatenate(flagged)
    # Four standard errors of a proportion over rounds that share a calibration set (conservatively
    # one draw per round).
    for alpha in (0.025, 0.1, 0.3, 0.5):
        slack = 4 * np.sqrt(alpha * (1 - alpha) / rounds)
        assert (p_values <= alpha).mean() <= alpha + slack
        assert (p_values <= alpha).mean() >= alpha - 1 / (n_calibration + 1) - slack
    assert flagged.mean() <= 0.1 + 4 * np.sqrt(0.1 * 0.9 / rounds)
    assert p_values.min() == pytest.approx(1 / (n_calibration + 1))


def test_p_value_errors_and_nan():
    det = build().fit(WORLD.X)
    with pytest.raises(ValueError, match=r"calibrate\(X_id\) first"):
        det.p_value(WORLD.X)
    det.calibrate(WORLD.X_id)
    assert det.fit(WORLD.X).calibration_scores_ is None
    with pytest.raises(ValueError, match="at least 19 are needed"):
        det.calibrate(WORLD.X[:5])
    assert np.isnan(conformal.conformal_p_values([np.nan], [1.0])).all()


def test_labels_follow_calibration():
    det = build().fit(WORLD.X).calibrate(WORLD.X_id, id_tpr=0.9)
    np.testing.assert_array_equal(det.labels_, (det.decision_scores_ > det.threshold_).astype(int))


def test_few_shot_images_with_names_set_the_threshold():
    names = np.array(WORLD.names)[
        np.argmax(WORLD.X_id @ WORLD.table.encode_text(WORLD.names).T, axis=1)
    ]
    det = NegLabelDetector(embedder=WORLD.table, n_groups=4, fraction=1.0).fit(WORLD.X_id, names)
    assert (det.predict(WORLD.X_id) == 0).mean() == pytest.approx(0.95, abs=0.03)
    assert set(det.class_names_) == set(names)


def test_false_alarm_rate_is_the_complement_of_id_tpr():
    det = build().fit()
    kept = det.calibrate(WORLD.X_id, 0.9).threshold_
    assert det.calibrate(WORLD.X_id, false_alarm_rate=0.1).threshold_ == kept
    assert det.calibrate(WORLD.X_id).threshold_ == det.calibrate(WORLD.X_id, 0.95).threshold_
    assert det.threshold_ != kept
    for bad, said in (
        ({"id_tpr": 0.9, "false_alarm_rate": 0.1}, "in two ways"),
        ({"false_alarm_rate": 0}, "false_alarm_rate=0 must lie in"),
        ({"id_tpr": 1.0}, "id_tpr=1.0 must lie in"),
    ):
        with pytest.raises(ValueError, match=said):
            det.calibrate(WORLD.X_id, **bad)
