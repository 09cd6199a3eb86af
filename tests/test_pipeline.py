"""OODPipeline: one embedder whatever is done to the pipeline, names, and what it forwards."""

import inspect
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer

from dnm_sklearn import MCMDetector, NegLabelDetector, make_ood_pipeline
from dnm_sklearn.metrics import auroc_scorer
from dnm_sklearn.pipeline import OODPipeline
from dnm_sklearn.testing import FakeEmbedder
from dnm_sklearn.testing.instances import make_detectors

pd = pytest.importorskip("pandas")
IMAGES = list(np.random.default_rng(0).integers(0, 255, (30, 9, 9, 3)).astype(np.uint8))


def neglabel(classes=("cat", "dog")):
    return NegLabelDetector(
        classes and list(classes), corpus=["x", "y", "z"], n_groups=1, fraction=1.0
    )


@pytest.fixture
def pipe():
    return make_ood_pipeline(FakeEmbedder(dim=16), neglabel())


def test_one_embedder_after_anything(pipe):
    def linked(pipeline):
        return pipeline[-1].embedder is pipeline[0]

    assert linked(pipe)
    assert linked(clone(pipe))
    assert linked(clone(pipe).set_params(embedder__random_state=3))
    assert linked(clone(pipe).set_params(embedder=FakeEmbedder(dim=8)))
    assert linked(clone(pipe).set_params(detector=MCMDetector(["a", "b"])))
    assert linked(pickle.loads(pickle.dumps(pipe)))
    assert linked(pickle.loads(pickle.dumps(clone(pipe).fit(IMAGES))))


def test_the_callers_own_stay_as_they_are():
    """Two pipelines of one detector do not know of each other."""
    embedder, detector = FakeEmbedder(dim=16), neglabel()
    pipes = [make_ood_pipeline(e, detector).fit(IMAGES) for e in (embedder, FakeEmbedder(dim=8))]
    assert detector.embedder is None
    assert not hasattr(detector, "class_embeddings_")
    assert not hasattr(embedder, "n_features_in_")
    alone = make_ood_pipeline(FakeEmbedder(dim=16), neglabel()).fit(IMAGES)
    np.testing.assert_array_equal(
        pipes[0].decision_function(IMAGES), alone.decision_function(IMAGES)
    )
    other = MCMDetector(["a", "b"])
    pipes[0].set_params(detector=other)
    assert other.embedder is None
    direct = OODPipeline([("embedder", embedder), ("detector", other)])
    assert other.embedder is None
    assert direct[-1].embedder is embedder


def test_another_embedder_of_the_detector_is_refused(pipe):
    other = FakeEmbedder(dim=16, random_state=7)
    with pytest.raises(ValueError, match="embedder of its own"):
        make_ood_pipeline(FakeEmbedder(dim=16), neglabel().set_params(embedder=other))
    with pytest.raises(ValueError, match="embedder of its own"):
        clone(pipe).set_params(detector__embedder=other)
    with pytest.raises(ValueError, match="embedder of its own"):
        clone(pipe).set_params(detector=neglabel().set_params(embedder="pictoclip"))
    changed = clone(pipe)
    changed[-1].set_params(embedder=other)
    with pytest.raises(ValueError, match="embedder of its own"):
        changed.fit(IMAGES)
    search = GridSearchCV(
        clone(pipe),
        {"detector__embedder": [other]},
        scoring=auroc_scorer,
        error_score="raise",
        cv=2,
    )
    with pytest.raises(ValueError, match="embedder of its own"):
        search.fit(IMAGES, np.arange(30) % 2 == 0)
    # One like it is no other.
    alike = neglabel().set_params(embedder=FakeEmbedder(dim=16))
    assert make_ood_pipeline(FakeEmbedder(dim=16), alike)[-1].embedder.dim == 16
    named = MCMDetector(["a", "b"], embedder="pictoclip")
    assert make_ood_pipeline("pictoclip", named)[-1].embedder.model == "pictoclip"


def test_a_cached_pipeline_keeps_one_embedder(tmp_path):
    pipe = make_ood_pipeline(FakeEmbedder(dim=16), neglabel(), memory=str(tmp_path))
    want = make_ood_pipeline(FakeEmbedder(dim=16), neglabel()).fit(IMAGES)
    for _ in range(2):
        scores = pipe.fit(IMAGES).decision_function(IMAGES)
        np.testing.assert_array_equal(scores, want.decision_function(IMAGES))


@pytest.mark.parametrize("det", make_detectors(embedder=None), ids=lambda det: type(det).__name__)
def test_whatever_a_detector_offers_its_pipeline_offers(det):
    pipe = make_ood_pipeline(FakeEmbedder(dim=16), det)
    for offers in (det, pipe):
        assert not hasattr(offers, "threshold_")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 16))
    is_ood = np.arange(40) >= 30
    pipe.set_params(detector__contamination=0.2).fit(rows, is_ood).calibrate(rows)
    alone = pipe[-1]
    own = {"info", "failures_"}  # of the class, and of the embedder that reads the images
    for name in dir(alone):
        routing = name.startswith("set_") and name.endswith("_request")
        if name.startswith("_") or routing or name in own:
            continue
        if not callable(getattr(alone, name, None)):
            continue
        assert callable(getattr(pipe, name)), name
    for name in ("threshold_", "decision_scores_", "labels_"):
        np.testing.assert_array_equal(getattr(pipe, name), getattr(alone, name))
    np.testing.assert_array_equal(pipe.e_value(rows), alone.e_value(rows))
    if "form" in inspect.signature(alone.e_value).parameters:
        by_labels = pipe.e_value(rows, form="labels")
        np.testing.assert_array_equal(by_labels, alone.e_value(rows, form="labels"))
        assert not np.allclose(by_labels, pipe.e_value(rows))
    assert pipe.drift_alarm(alpha=0.2).alpha == 0.2
    drawn = [
        offers.drift_alarm(random_state=seed).update(alone.calibration_scores_).p_values_
        for offers, seed in ((pipe, 0), (alone, 0), (pipe, 7), (alone, 7))
    ]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    np.testing.assert_array_equal(
        pipe.predict_with_rejection(rows, T=1), alone.predict_with_rejection(rows, T=1)
    )
    assert pipe.compute_rejection_stats(T=1) == alone.compute_rejection_stats(T=1)


def test_streams_are_forwarded():
    det = next(det for det in make_detectors(embedder=None) if hasattr(det, "score_stream"))
    pipe = make_ood_pipeline(FakeEmbedder(dim=16), det).fit()
    rows = FakeEmbedder(dim=16).transform(IMAGES)
    alone = clone(det).set_params(embedder=FakeEmbedder(dim=16)).fit()
    batches = [slice(0, 10), slice(10, 30)]
    got = list(pipe.score_stream(IMAGES[batch] for batch in batches))
    want = list(alone.score_stream(rows[batch] for batch in batches))
    np.testing.assert_array_equal(np.concatenate(got), np.concatenate(want))
    assert pipe[-1].n_seen_ == 30
    assert pipe.reset_adaptation() is pipe
    assert pipe[-1].n_seen_ == 0


def turned(rows):
    return -rows


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_forwarded_goes_through_the_steps_in_between():
    def streaming():
        return next(d for d in make_detectors(embedder=None) if type(d).__name__ == "ENLDetector")

    embedder = FakeEmbedder(dim=16)
    steps = [("embedder", embedder), ("turned", FunctionTransformer(turned))]
    pipe = OODPipeline([*steps, ("detector", streaming().set_params(adaptation="frozen"))])
    alone = streaming().set_params(adaptation="frozen", embedder=FakeEmbedder(dim=16))
    rows = -embedder.transform(IMAGES)

    pipe.fit(IMAGES).calibrate(IMAGES, id_tpr=0.8)
    alone.fit(rows).calibrate(rows, id_tpr=0.8)
    assert pipe.threshold_ == alone.threshold_
    for method in ("predict_class", "predict_confidence", "p_value", "e_value"):
        np.testing.assert_array_equal(getattr(pipe, method)(IMAGES), getattr(alone, method)(rows))
    np.testing.assert_array_equal(
        pipe.predict_with_rejection(IMAGES, T=1), alone.predict_with_rejection(rows, T=1)
    )
    pd.testing.assert_frame_equal(pipe.explain(IMAGES), alone.explain(rows))
    pipe.partial_fit(IMAGES[:9])
    alone.partial_fit(rows[:9])
    (got,), (want,) = pipe.score_stream([IMAGES]), alone.score_stream([rows])
    np.testing.assert_array_equal(got, want)
    is_ood = np.arange(30) % 2 == 0
    assert pipe.fit_predict_score(IMAGES, is_ood) == alone.fit_predict_score(rows, is_ood)


def test_pyods_fit_predict_score_through_a_pipeline(pipe):
    is_ood = np.arange(30) % 2 == 0
    rows = FakeEmbedder(dim=16).transform(IMAGES)
    alone = neglabel().set_params(embedder=FakeEmbedder(dim=16))
    assert pipe.fit_predict_score(IMAGES, is_ood) == alone.fit_predict_score(rows, is_ood)


def test_pipeline_is_the_detector_on_embeddings(pipe):
    rows = FakeEmbedder(dim=16).transform(IMAGES)
    alone = neglabel().set_params(embedder=FakeEmbedder(dim=16)).fit(rows)
    pipe.fit(IMAGES)
    np.testing.assert_array_equal(pipe.decision_function(IMAGES), alone.decision_function(rows))
    np.testing.assert_array_equal(pipe.decision_function(IMAGES), alone.decision_function(IMAGES))
    np.testing.assert_array_equal(pipe.predict(IMAGES), alone.predict(rows))


def test_three_ways_to_give_names():
    want = make_ood_pipeline(FakeEmbedder(dim=16), neglabel()).fit().decision_function(IMAGES)
    for arguments in ((["cat", "dog"],), (None, ["cat", "dog"])):
        pipe = make_ood_pipeline(FakeEmbedder(dim=16), neglabel(None)).fit(*arguments)
        np.testing.assert_array_equal(pipe.decision_function(IMAGES), want)


def test_forwards(pipe, tmp_path):
    rows = FakeEmbedder(dim=16).transform(IMAGES)
    alone = (
        neglabel().set_params(embedder=FakeEmbedder(dim=16)).fit(rows).calibrate(rows, id_tpr=0.9)
    )
    pipe.fit(IMAGES)
    assert pipe.calibrate(IMAGES, false_alarm_rate=0.1) is pipe
    assert pipe.threshold_ == alone.threshold_
    for method in (
        "p_value",
        "predict_class",
        "predict_proba",
        "predict_confidence",
        "score_samples",
    ):
        np.testing.assert_array_equal(getattr(pipe, method)(IMAGES), getattr(alone, method)(rows))
    labels, confidence = pipe.predict(IMAGES, return_confidence=True)
    np.testing.assert_array_equal(labels, alone.predict(rows))
    assert confidence.shape == (30,)
    pd.testing.assert_frame_equal(pipe.explain(IMAGES, top_k=2), alone.explain(rows, top_k=2))
    for form in ("shrunk", "strict"):
        alone.calibrate(rows, by_class=form)
        pipe.calibrate(IMAGES, by_class=form)
        np.testing.assert_array_equal(pipe.p_value(IMAGES), alone.p_value(rows))
        assert pipe[-1].calibration_by_class_ == form
    pipe.save(tmp_path / "pipe.skops")
    assert not hasattr(pipe, "partial_fit")


def test_partial_fit_is_forwarded_where_there_is_one():
    adaptive = [det for det in make_detectors() if hasattr(det, "partial_fit")]
    for det in adaptive:
        det.set_params(embedder=None)
        pipe = make_ood_pipeline(FakeEmbedder(dim=16), det)
        assert pipe.partial_fit(IMAGES) is pipe
        rows = FakeEmbedder(dim=16).transform(IMAGES)
        alone = clone(det).set_params(embedder=FakeEmbedder(dim=16)).partial_fit(rows)
        np.testing.assert_array_equal(pipe.decision_function(IMAGES), alone.decision_function(rows))


def test_unfitted_pipelines_say_so(pipe):
    for method in ("predict_class", "p_value", "explain", "calibrate", "predict_confidence"):
        with pytest.raises(NotFittedError):
            getattr(pipe, method)(IMAGES)


def test_set_output_names_the_columns():
    embedder = FakeEmbedder(dim=4).set_output(transform="pandas").fit(IMAGES)
    frame = embedder.transform(IMAGES)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == [f"fakeembedder{i}" for i in range(4)]
    np.testing.assert_array_equal(frame.to_numpy(), FakeEmbedder(dim=4).transform(IMAGES))
    pipe = make_ood_pipeline(FakeEmbedder(dim=16), neglabel()).fit(IMAGES)
    want = pipe.decision_function(IMAGES)
    framed = (
        make_ood_pipeline(FakeEmbedder(dim=16), neglabel())
        .set_output(transform="pandas")
        .fit(IMAGES)
    )
    np.testing.assert_array_equal(framed.decision_function(IMAGES), want)
    assert framed[-1].feature_names_in_.tolist() == [f"fakeembedder{i}" for i in range(16)]


def test_string_model_name():
    assert make_ood_pipeline("pictoclip", neglabel())[0].model == "pictoclip"


def test_unreadable_images_pass_the_pipeline_as_nan_scores(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(paths[-1])
    bad = [*paths[:2], str(tmp_path / "absent.png"), *paths[2:]]
    pipe = make_ood_pipeline(
        FakeEmbedder(dim=16, on_error="nan"), NegLabelDetector(corpus=list("abcdef"), n_groups=2)
    )
    pipe.fit(["cat", "dog"])
    with pytest.warns(UserWarning, match="absent"):
        scores = pipe.decision_function(bad)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [2]
    np.testing.assert_array_equal(np.delete(scores, 2), pipe.decision_function(paths))
    with pytest.warns(UserWarning, match="absent"):
        assert pipe.predict(bad)[2] == 1
    with pytest.raises(ValueError, match="NaN"):
        make_ood_pipeline(
            FakeEmbedder(dim=16), NegLabelDetector(["cat"], corpus=list("abc"), n_groups=1)
        ).fit(None).decision_function(np.full((1, 16), np.nan))
