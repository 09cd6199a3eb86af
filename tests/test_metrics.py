"""Metrics against naive loops over thresholds, and scorers in scikit-learn's model selection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyod.models.knn import KNN
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dnm_sklearn import metrics
from dnm_sklearn.calibration import conformal, thresholds

SCORERS = [
    metrics.auroc_scorer,
    metrics.fpr95_scorer,
    metrics.fpr95_ood_positive_scorer,
    metrics.aupr_scorer,
]


def naive_fpr(score, is_ood, tpr, positive):
    """Both definitions by a loop over all thresholds."""
    ood, id_ = score[is_ood], score[~is_ood]
    if positive == "ood":
        for threshold in sorted(set(score), reverse=True):
            if (ood >= threshold).mean() >= tpr:
                return (id_ >= threshold).mean()
    best = None
    for threshold in sorted(set(score)):
        kept = (id_ <= threshold).mean()
        gap, accepted = abs(kept - tpr), (ood <= threshold).mean()
        # Ties: the looser threshold; once all ID rows are kept, nothing looser counts.
        if best is None or gap <= best[0]:
            best = (gap, accepted)
        if kept == 1:
            break
    return best[1]


def draw_case(seed):
    """Scores with many ties, and rows of both kinds."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 120))
    score = rng.integers(0, rng.integers(2, 60), n) / 7.0
    return score, np.r_[True, False, rng.random(n - 2) < 0.4]


labelled_scores = st.integers(0, 10_000).map(draw_case)


@settings(max_examples=200, deadline=None)
@given(labelled_scores, st.sampled_from([0.95, 0.9, 0.5, 1.0]), st.sampled_from(["id", "ood"]))
def test_fpr_equals_loop_over_thresholds(case, tpr, positive):
    score, is_ood = case
    got = metrics.fpr_at_tpr(score, is_ood, tpr=tpr, positive=positive)
    assert got == pytest.approx(naive_fpr(score, is_ood, tpr, positive), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(labelled_scores)
def test_auroc_counts_pairs_with_ties_as_half(case):
    score, is_ood = case
    pairs = score[is_ood][:, None] - score[~is_ood][None]
    assert metrics.auroc(score, is_ood) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_the_two_definitions_differ():
    rng = np.random.default_rng(0)
    score = np.r_[rng.standard_normal(1000), 2 + 2 * rng.standard_normal(1000)]
    is_ood = np.arange(2000) >= 1000
    by_id = metrics.fpr_at_tpr(score, is_ood, positive="id")
    by_ood = metrics.fpr_at_tpr(score, is_ood, positive="ood")
    threshold = np.quantile(score[:1000], 0.95)
    assert by_id == pytest.approx((score[1000:] <= threshold).mean(), abs=0.005)
    threshold = np.quantile(score[1000:], 0.05)
    assert by_ood == pytest.approx((score[:1000] >= threshold).mean(), abs=0.005)
    assert abs(by_id - by_ood) > 0.1


def test_aupr_of_each_kind():
    score, is_ood = [0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1]
    # OOD retrieved in the order 0.8 (hit), 0.4 (miss), 0.3 (hit): mean precision at hits (1 + 2/3)
    # / 2.
    assert metrics.aupr(score, is_ood, positive="ood") == pytest.approx(5 / 6)
    # ID retrieved in the order 0.1 (hit), 0.3 (miss), 0.4 (hit).
    assert metrics.aupr(score, is_ood, positive="id") == pytest.approx(5 / 6)
    assert metrics.aupr([0, 0, 0, 0], [0, 0, 0, 1], positive="ood") == pytest.approx(0.25)
    assert metrics.aupr([0, 0, 0, 0], [0, 0, 0, 1], positive="id") == pytest.approx(0.75)


def test_all_metrics_at_once():
    score, is_ood = np.array([-np.inf, -3.0, 1.0, 2.0, np.inf]), np.array([0, 0, 1, 0, 1])
    row = metrics.ood_metrics(score, is_ood)
    assert row == {
        "auroc": metrics.auroc(score, is_ood),
        "fpr95_id_positive": metrics.fpr_at_tpr(score, is_ood, positive="id"),
        "fpr95_ood_positive": metrics.fpr_at_tpr(score, is_ood, positive="ood"),
        "aupr_id_positive": metrics.aupr(score, is_ood, positive="id"),
        "aupr_ood_positive": metrics.aupr(score, is_ood, positive="ood"),
    }
    assert row["auroc"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_constant_scores(constant):
    row = metrics.ood_metrics(np.full(10, constant), np.arange(10) % 2)
    assert row["auroc"] == 0.5
    assert row["fpr95_id_positive"] == row["fpr95_ood_positive"] == 1.0


def test_scores_that_float32_could_not_tell_apart():
    score = 1.0 + np.arange(4) * 1e-12
    assert metrics.auroc(score, [0, 0, 1, 1]) == 1.0
    assert metrics.fpr_at_tpr(score, [0, 0, 1, 1], positive="ood") == 0.0


class TestRefusals:
    @pytest.mark.parametrize(
        "metric",
        [
            metrics.auroc,
            metrics.ood_metrics,
            lambda s, y: metrics.aupr(s, y, positive="id"),
            lambda s, y: metrics.fpr_at_tpr(s, y, positive="ood"),
        ],
    )
    def test_every_metric_checks_its_input(self, metric):
        with pytest.raises(
            ValueError, match=r"score is NaN for 2 of 4 rows, the first at 1 .*take these rows out"
        ):
            metric([0.0, np.nan, 1.0, np.nan], [0, 0, 1, 1])
        with pytest.raises(ValueError, match=r"All 3 rows are ID.*StratifiedKFold"):
            metric([0.0, 1.0, 2.0], [0, 0, 0])
        with pytest.raises(ValueError, match=r"All 3 rows are OOD.*StratifiedKFold"):
            metric([0.0, 1.0, 2.0], [True, True, True])
        with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
            metric([0.0, 1.0, 2.0], [0, 1])
        with pytest.raises(ValueError, match=r"got shapes \(2, 1\)"):
            metric([[0.0], [1.0]], [0, 1])
        with pytest.raises(ValueError, match="is_ood must hold booleans"):
            metric([0.0, 1.0], [-1, 1])
        with pytest.raises(ValueError, match="is_ood must hold booleans"):
            metric([0.0, 1.0], ["cat", "ood"])
        with pytest.raises(ValueError, match="real numbers"):
            metric(["a", "b"], [0, 1])

    def test_positive_is_named(self):
        for metric in (metrics.fpr_at_tpr, metrics.aupr):
            with pytest.raises(TypeError, match="positive"):
                metric([0.0, 1.0], [0, 1])
            with pytest.raises(ValueError, match='positive must be "id" or "ood"'):
                metric([0.0, 1.0], [0, 1], positive="in")

    @pytest.mark.parametrize("tpr", [0, 1.5, float("nan")])
    def test_tpr(self, tpr):
        with pytest.raises(ValueError, match="tpr must be in"):
            metrics.fpr_at_tpr([0.0, 1.0], [0, 1], tpr=tpr, positive="id")


class Column(BaseEstimator):
    """A detector whose OOD score is one column of X."""

    def __init__(self, column=0, ood_label="ood"):
        self.column = column
        self.ood_label = ood_label

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def decision_function(self, X):
        return X[:, self.column]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    is_ood = np.arange(60) >= 30
    noise = rng.standard_normal(60)
    return np.column_stack([noise, is_ood + 0.7 * noise]), is_ood


class TestScorers:
    @pytest.mark.parametrize("scorer", SCORERS)
    def test_every_form_of_y(self, data, scorer):
        X, is_ood = data
        detector = Column(1).fit(X)
        expected = scorer(detector, X, is_ood)
        names = np.where(is_ood, "ood", np.where(np.arange(60) % 2, "cat", "dog"))
        for y in (
            is_ood.astype(int),
            is_ood.astype(float),
            is_ood.tolist(),
            names,
            names.astype(object),
            names.tolist(),
        ):
            assert scorer(detector, X, y) == expected
        indices = np.where(is_ood, -1, np.arange(len(is_ood)) % 5)
        assert scorer(detector, X, indices) == expected
        renamed = np.where(is_ood, "unknown", "ood")
        assert scorer(Column(1, "unknown").fit(X), X, renamed) == expected

    def test_values(self, data):
        X, is_ood = data
        detector, score = Column(1).fit(X), X[:, 1]
        assert metrics.auroc_scorer(detector, X, is_ood) == metrics.auroc(score, is_ood)
        assert metrics.fpr95_scorer(detector, X, is_ood) == -metrics.fpr_at_tpr(
            score, is_ood, positive="id"
        )
        assert metrics.fpr95_ood_positive_scorer(detector, X, is_ood) == -metrics.fpr_at_tpr(
            score, is_ood, positive="ood"
        )
        assert metrics.aupr_scorer(detector, X, is_ood) == metrics.aupr(
            score, is_ood, positive="ood"
        )

    def test_ood_label_is_found_inside_pipelines_and_searches(self, data):
        X, is_ood = data
        y = np.where(is_ood, "strange", "ood")
        pipeline = make_pipeline(StandardScaler(), Column(1, "strange"))
        search = GridSearchCV(
            pipeline, {"column__column": [0, 1]}, scoring=metrics.auroc_scorer, error_score="raise",
            cv=StratifiedKFold(3, shuffle=True, random_state=0),
        ).fit(X, y)  # fmt: skip
        assert search.best_params_ == {"column__column": 1}
        assert metrics.auroc_scorer(search, X, y) == metrics.auroc(X[:, 1], is_ood)

    def test_outlier_detectors_of_scikit_learn_are_turned_round(self, data):
        X, is_ood = data
        X = X + 10 * is_ood[:, None]
        forest = IsolationForest(random_state=0).fit(X[~is_ood])
        for model in (
            forest,
            make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(X[~is_ood]),
        ):
            assert metrics.auroc_scorer(model, X, is_ood) > 0.95

    def test_pyods_detectors_are_not(self, data):
        """They carry scikit-learn's tag of outlier detectors, with the opposite sign."""
        X, is_ood = data
        search = GridSearchCV(
            KNN(), {"n_neighbors": [3, 5]}, scoring=metrics.auroc_scorer, cv=StratifiedKFold(2)
        )
        for model in (KNN(), make_pipeline(StandardScaler(), KNN()), search):
            score = model.fit(X, is_ood).decision_function(X)
            expected = metrics.auroc(score, is_ood)
            assert expected != 0.5
            assert metrics.auroc_scorer(model, X, is_ood) == expected

    @pytest.mark.parametrize("as_names", [False, True])
    @pytest.mark.parametrize("scorer", SCORERS)
    def test_unshuffled_folds_of_one_kind_say_what_to_use(self, data, scorer, as_names):
        X, is_ood = data
        y = np.where(is_ood, "ood", "cat") if as_names else is_ood.astype(int)
        with pytest.raises(ValueError, match="StratifiedKFold"):
            cross_val_score(Column(1), X, y, cv=KFold(4), scoring=scorer, error_score="raise")
        with pytest.warns(UserWarning, match="StratifiedKFold"):
            cross_val_score(Column(1), X, y, cv=KFold(4), scoring=scorer)
        values = cross_val_score(
            Column(1),
            X,
            y,
            cv=StratifiedKFold(4, shuffle=True, random_state=0),
            scoring=scorer,
            error_score="raise",
        )
        assert np.isfinite(values).all()

    @pytest.mark.parametrize(
        ("y", "match"),
        [
            (None, "Scoring needs y"),
            ([1, -1] * 30, r"y must be 0/1 .*pass y == -1"),
            ([0, 1, 2] * 20, "y must be 0/1"),
            (np.zeros((60, 2)), "y must be 1-D"),
            (["cat", "dog"] * 30, r"""None of the 60 rows is labelled "ood" .*'cat', 'dog'"""),
            ([None, 1] * 30, r"y\[0\] is None"),
        ],
    )
    def test_other_y(self, data, y, match):
        X, _ = data
        with pytest.raises(ValueError, match=match):
            metrics.auroc_scorer(Column(1).fit(X), X, y)

    def test_no_decision_function(self, data):
        X, is_ood = data
        with pytest.raises(TypeError, match="StandardScaler has no decision_function"):
            metrics.auroc_scorer(StandardScaler(), X, is_ood)


@pytest.mark.parametrize("kind", ["bfloat16", "gradient"])
def test_torch_scores_of_any_kind(kind):
    torch = pytest.importorskip("torch")
    scores = torch.tensor([0.25, 0.75])
    kinds = {"bfloat16": scores.bfloat16(), "gradient": scores.clone().requires_grad_(True)}
    given_scores = kinds[kind]
    assert metrics.auroc(given_scores, torch.tensor([False, True])) == pytest.approx(1.0)
    assert thresholds.quantile_threshold(given_scores, keep=0.5) == pytest.approx(0.5, abs=0.26)
    assert conformal.conformal_p_values(given_scores, given_scores).shape == (2,)
