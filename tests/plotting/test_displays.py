"""Displays are tested by what they are made of, not by pixels."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from pyod.models.ecod import ECOD
from sklearn.metrics import RocCurveDisplay

from dnm_sklearn import (
    EmbeddingTable,
    MCMDetector,
    NegLabelDetector,
    OODClassifier,
    TANLDetector,
    make_ood_pipeline,
)
from dnm_sklearn.calibration.conformal import ConformalTestMartingale
from dnm_sklearn.metrics import fpr_at_tpr
from dnm_sklearn.plotting import (
    ContactSheetDisplay,
    ExplanationDisplay,
    OODRocCurveDisplay,
    ScoreHistogramDisplay,
    StreamDisplay,
    ThresholdDisplay,
)
from dnm_sklearn.testing import FakeEmbedder

NAMES = ["cat", "dog", "truck", "teapot", "cloud"]
Y = np.repeat([0, 1], [30, 20])


@pytest.fixture(autouse=True)
def _no_windows():
    matplotlib.use("agg")
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    nearest = np.concatenate([rng.integers(0, 2, 30), rng.integers(2, 5, 20)])
    return np.eye(5)[nearest] + 0.15 * rng.standard_normal((50, 5))


@pytest.fixture(scope="module")
def detector():
    return NegLabelDetector(["cat", "dog"], embedder=table(), n_groups=1).fit()


def table():
    return EmbeddingTable(NAMES, np.eye(5))


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_histogram_has_each_kind_in_percent_and_the_threshold(detector, X):
    display = ScoreHistogramDisplay.from_estimator(detector, X, Y, bins=7)
    heights = [stairs.get_data().values for stairs in display.ax_.patches]

    assert [len(values) for values in heights] == [7, 7]
    assert np.allclose([values.sum() for values in heights], 100)
    assert display.threshold_line_.get_xdata()[0] == detector.threshold_
    assert display.ax_.get_title() == "NegLabelDetector"
    assert texts(display.ax_) == ["ID (30 images)", "OOD (20 images)", "threshold"]


def test_histogram_leaves_out_what_is_not_finite():
    score = np.array([0.0, 1.0, np.nan, 2.0, np.inf])
    display = ScoreHistogramDisplay.from_predictions([0, 0, 0, 1, 1], score)
    heights = [stairs.get_data().values for stairs in display.ax_.patches]
    assert np.allclose([values.sum() for values in heights], [200 / 3, 50])
    assert display.threshold_line_ is None


@pytest.mark.parametrize("display", [ScoreHistogramDisplay, ThresholdDisplay, OODRocCurveDisplay])
def test_every_estimator_with_scores_is_drawn(display, detector, X):
    pipeline = make_ood_pipeline(table(), NegLabelDetector(["cat", "dog"], n_groups=1))
    pipeline.fit(X[Y == 0])
    pyod = ECOD().fit(X[Y == 0])
    classifier = OODClassifier(detector).fit(X, Y)
    _, ax = matplotlib.pyplot.subplots()
    for estimator in (detector, pipeline, pyod, classifier):
        shown = display.from_estimator(estimator, X, Y, ax=ax)
        assert shown.ax_ is ax
        assert isinstance(shown.figure_, Figure)


@pytest.mark.parametrize("display", [ScoreHistogramDisplay, ThresholdDisplay, OODRocCurveDisplay])
def test_y_of_another_length_is_an_error(display):
    with pytest.raises(ValueError, match="3 rows, but there are 2 scores"):
        display.from_predictions([0, 1, 1], [0.1, 0.2])


def test_curves_share_one_line_of_chance(X, detector):
    pyod = ECOD().fit(X[Y == 0])
    _, ax = matplotlib.pyplot.subplots()
    for estimator in (detector, pyod):
        OODRocCurveDisplay.from_estimator(estimator, X, Y, ax=ax)
    names = [text.split(",")[0] for text in texts(ax)]
    assert names == ["NegLabelDetector", "chance", "ECOD"]


def test_roc_points_lie_at_both_fpr95(X, detector):
    score = detector.decision_function(X) + np.random.default_rng(1).normal(0, 2, len(X))
    display = OODRocCurveDisplay.from_predictions(Y, score)

    by_id, by_ood = (line for line in display.ax_.lines if line.get_linestyle() == "None")
    assert by_id.get_xdata()[0] == fpr_at_tpr(score, Y, positive="id")
    assert by_ood.get_ydata()[0] == 1 - fpr_at_tpr(score, Y, positive="ood")
    # At the second point at most 5 % of the OOD images are accepted.
    assert by_ood.get_xdata()[0] <= 0.05 + 1e-12
    assert display.id_accepted[-1] == display.ood_accepted[-1] == 1


def test_roc_takes_infinite_scores():
    display = OODRocCurveDisplay.from_predictions([0, 0, 1, 1], [-np.inf, 0.0, 1.0, np.inf])
    assert display.auroc == 1


def test_scikit_learns_own_roc_display_works_through_the_classifier(detector, X):
    classifier = OODClassifier(detector).fit(X, Y)
    ours = OODRocCurveDisplay.from_estimator(detector, X, Y)
    theirs = RocCurveDisplay.from_estimator(classifier, X, Y)
    assert theirs.roc_auc == pytest.approx(ours.auroc)


def test_threshold_curves_against_counting(detector, X):
    score = detector.decision_function(X)
    display = ThresholdDisplay.from_estimator(detector, X, Y)
    for place in (0, 20, -1):
        threshold = display.thresholds[place]
        kept = np.mean([s <= threshold for s in score[Y == 0]])
        caught = np.mean([s > threshold for s in score[Y == 1]])
        assert display.id_kept[place] == pytest.approx(kept)
        assert display.ood_caught[place] == pytest.approx(caught)

    flags = detector.predict(X)
    kept, caught = 100 * np.mean(flags[Y == 0] == 0), 100 * np.mean(flags[Y == 1] == 1)
    assert texts(display.ax_)[-1] == f"threshold: {kept:.1f} % kept, {caught:.1f} % caught"


def test_threshold_curves_are_drawn_as_they_hold():
    """A proportion holds from its threshold to the next; a score at the line counts as ID."""
    display = ThresholdDisplay([0.0, 2.0], [2.0, 3.0], threshold=2.0).plot()
    kept, caught, line = display.ax_.lines
    assert line.get_xdata() == [2.0, 2.0]
    assert texts(display.ax_)[-1] == "threshold: 100.0 % kept, 50.0 % caught"
    for curve, percent in ((kept, [50, 100, 100]), (caught, [100, 50, 0])):
        assert curve.get_xdata().tolist() == [0.0, 2.0, 3.0]
        assert curve.get_ydata().tolist() == percent
        assert curve.get_drawstyle() == "steps-post"


def test_an_unreadable_image_is_flagged_at_every_threshold():
    display = ThresholdDisplay([0.0, np.nan], [1.0, np.nan])
    assert display.id_kept.tolist() == [0.5, 0.5]
    assert display.ood_caught.tolist() == [1.0, 0.5]


def test_explanation_has_a_bar_per_label(detector, X):
    display = ExplanationDisplay.from_estimator(detector, X[-1:], top_k=2)
    explained = detector.explain(X[-1:], top_k=2)

    assert display.labels == explained["label"].tolist()
    widths = [bar.get_width() for bar in display.bars_]
    assert np.allclose(widths, 100 * explained["probability"])
    assert texts(display.ax_) == ["class name", "negative label"]
    assert display.image_ax_ is None


def test_explanation_shows_the_image_beside_the_bars(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("RGB", (9, 7), "grey").save(path)
    det = NegLabelDetector(["cat"], embedder=FakeEmbedder(), corpus=NAMES[1:], n_groups=1).fit()

    display = ExplanationDisplay.from_estimator(det, path)
    assert display.image_ax_.images[0].get_array().shape == (7, 9, 3)
    # In axes of the user's own there is no room for it.
    beside = ExplanationDisplay.from_estimator(
        det, path, ax=matplotlib.pyplot.figure().add_subplot()
    )
    assert beside.image_ax_ is None


def test_explanation_of_a_method_with_class_names_alone(X):
    det = MCMDetector(["cat", "dog"], embedder=table()).fit()
    display = ExplanationDisplay.from_estimator(det, X[:1])
    assert texts(display.ax_) == ["class name"]


def test_explanation_is_of_one_image(detector, X):
    with pytest.raises(ValueError, match=r"one image, got 2: take X\[i : i \+ 1\]"):
        ExplanationDisplay.from_estimator(detector, X[:2])


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (5, 12, 10, 3), dtype=np.uint8))


def test_contact_sheet_is_sorted_and_framed(pictures):
    scores, flags = [0.1, 3.0, np.nan, 2.0, 1.0], [0, 1, 1, 1, 0]
    sheet = ContactSheetDisplay.from_predictions(pictures, scores, flags, n_columns=2)
    assert sheet.order_.tolist() == [1, 3, 4, 0, 2]

    for axes, index in zip(sheet.axes_, sheet.order_, strict=True):
        assert np.array_equal(axes.images[0].get_array(), pictures[index])
        assert axes.get_xlabel() == f"{['accepted', 'flagged'][flags[index]]}\n{scores[index]:.2f}"
    frames = {axes.spines["top"].get_edgecolor() for axes in sheet.axes_[:2]}
    assert len(frames) == 1
    assert sheet.axes_[2].spines["top"].get_edgecolor() not in frames


@pytest.mark.parametrize(
    ("order", "expected"), [("id first", [0, 4]), ("as given", [0, 1]), ("ood first", [1, 3])]
)
def test_contact_sheet_in_other_orders(pictures, order, expected):
    scores = [0.1, 3.0, np.nan, 2.0, 1.0]
    sheet = ContactSheetDisplay.from_predictions(
        pictures, scores, [0, 1, 1, 1, 0], order=order, max_images=2
    )
    assert sheet.order_.tolist() == expected


def test_contact_sheet_of_a_detector_names_what_it_accepts(pictures, tmp_path):
    images = [*pictures, tmp_path / "missing.png"]
    det = MCMDetector(["cat", "dog"], embedder=FakeEmbedder(on_error="nan")).fit()
    det.calibrate(pictures * 4)
    sheet = ContactSheetDisplay.from_estimator(det, images)

    names = det.predict_class(images)
    shown = [axes.get_xlabel().split("\n")[0] for axes in sheet.axes_]
    assert shown == names[sheet.order_].tolist()
    # The unreadable one is last and says so.
    assert sheet.order_[-1] == 5
    assert sheet.axes_[-1].texts[0].get_text() == "unreadable"


def test_contact_sheet_refuses_what_does_not_fit(pictures):
    with pytest.raises(ValueError, match="one of each per image"):
        ContactSheetDisplay.from_predictions(pictures, [0.0], [1])
    with pytest.raises(ValueError, match="at least one"):
        ContactSheetDisplay.from_predictions([], [], [])
    with pytest.raises(ValueError, match="order='worst' must be one of"):
        ContactSheetDisplay.from_predictions(pictures[:1], [0.0], [1], order="worst")
    with pytest.raises(ValueError, match="must be at least 1"):
        ContactSheetDisplay.from_predictions(pictures[:1], [0.0], [1], n_columns=0)


def test_a_dollar_in_a_name_is_no_formula(pictures):
    sheet = ContactSheetDisplay.from_predictions(pictures[:1], [0.0], [0], labels=["$a_b$ \x1b"])
    assert sheet.ax_.xaxis.label.get_parse_math() is False
    assert sheet.ax_.get_xlabel().startswith("$a_b$ \ufffd")
    sheet.figure_.canvas.draw()


def test_stream_has_the_threshold_and_each_kind(detector, X):
    display = StreamDisplay.from_estimator(detector, X, Y)
    id_points, ood_points, threshold = display.ax_.lines
    assert len(id_points.get_xdata()) == 30
    assert np.allclose(ood_points.get_ydata(), detector.decision_function(X)[30:])
    assert threshold.get_ydata()[0] == detector.threshold_
    assert display.capital_ax_ is None


def test_stream_draws_the_alarm_where_it_went_off():
    rng = np.random.default_rng(0)
    known, quiet, drifted = rng.normal(size=200), rng.normal(size=80), rng.normal(4, 1, size=80)
    scores = np.concatenate([quiet, [np.nan], drifted])

    alarm = ConformalTestMartingale(known)
    display = StreamDisplay.from_predictions(scores, alarm=alarm)

    # A twin that is fed all at once; the unreadable image is one place more on the axis.
    twin = ConformalTestMartingale(known).update(scores[~np.isnan(scores)])
    assert display.alarm_at == twin.alarm_at_ + 1
    assert display.log_capital[-1] == pytest.approx(twin.log_capital_)
    assert display.capital_ax_.get_ylabel() == "log of the alarm's capital (grey line)"
    assert f"drift alarm at image {twin.alarm_at_ + 1}" in texts(display.ax_)


def test_stream_refuses_an_alarm_that_would_mean_nothing(X):
    det = TANLDetector(["cat", "dog"], embedder=table()).fit()
    alarm = ConformalTestMartingale(np.zeros(3))
    with pytest.raises(ValueError, match='adaptation="frozen"'):
        StreamDisplay.from_estimator(det, X, alarm=alarm)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no finite score to draw"):
        ScoreHistogramDisplay([np.nan], [1.0])
    with pytest.raises(ValueError, match=r"shape \(n,\), got \(2, 2\)"):
        StreamDisplay(np.eye(2))
