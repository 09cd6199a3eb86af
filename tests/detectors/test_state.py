"""Fitted state never mixes: failed fits, set_params after fit, and parameters that overflow."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone

from dnm_sklearn import (
    CLIPEmbedder,
    ENLDetector,
    MaxLogitDetector,
    NegLabelDetector,
    OODClassifier,
    SklearnOutlierAdapter,
    TANLDetector,
    make_ood_pipeline,
)
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.exceptions import CalibrationWarning, SmallBatchWarning
from dnm_sklearn.scoring import clamped_log_odds, energy, mcm, negative_label_log_odds
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs
from dnm_sklearn.testing.instances import make_detectors

WORLD = make_ood_blobs(n_images=30)
OTHER = make_ood_blobs(n_images=30, n_classes=5, random_state=1)
NEAREST = (WORLD.X_id @ WORLD.table.encode_text(WORLD.names).T).argmax(axis=1)
Y = [*np.asarray(WORLD.names)[NEAREST], *["ood"] * 30]
CASES = [
    pytest.param(det, id=f"{type(det).__name__}-{i}") for i, det in enumerate(make_detectors())
]
# They say how to run, not what was learned, and act at once.
AT_ONCE = {"adaptation", "batch_size", "device", "memory", "ood_label"}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def in_world(det, world=WORLD):
    det = clone(det).set_params(classes=world.names, embedder=world.table)
    return det.set_params(corpus=world.words) if "corpus" in det.get_params(deep=False) else det


def judged(det):
    found = [det.decision_function(WORLD.X), det.predict(WORLD.X), det.predict_confidence(WORLD.X)]
    return [*found, np.array([det.threshold_])]


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("det", CASES)
@pytest.mark.parametrize("step", ["_encode_classes", "_fit_text", "_set_threshold"])
def test_a_fit_that_fails_leaves_the_earlier_one(det, step, monkeypatch):
    det = in_world(det).fit(WORLD.X, Y).calibrate(WORLD.X_id)
    before, state = judged(det), dict(vars(det))
    own = getattr(type(det), step)

    def failing(self, *args, **params):
        own(self, *args, **params)
        raise Interrupt

    monkeypatch.setattr(type(det), step, failing)
    in_other = in_world(det, OTHER).get_params(deep=False)
    det.set_params(**in_other)
    with pytest.raises(Interrupt):
        det.fit(OTHER.X, OTHER.y)
    monkeypatch.undo()
    det.set_params(**{key: state[key] for key in in_other})
    assert vars(det).keys() == state.keys()
    for got, want in zip(judged(det), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("det", CASES)
def test_a_first_fit_that_fails_leaves_nothing(det, monkeypatch):
    det = in_world(det)
    params = set(vars(det))

    def failing(self, *args, **params):
        raise Interrupt

    monkeypatch.setattr(type(det), "_set_threshold", failing)
    with pytest.raises(Interrupt):
        det.fit(WORLD.X, Y)
    assert set(vars(det)) == params


def test_a_calibration_that_fails_leaves_the_earlier_one(monkeypatch):
    det = in_world(MaxLogitDetector()).fit().calibrate(WORLD.X_id)
    state = dict(vars(det))

    def failing(self, rows):
        raise MemoryError

    monkeypatch.setattr(BaseOODDetector, "_finish_calibration", failing)
    with pytest.raises(MemoryError):
        det.calibrate(WORLD.X_id[:25], id_tpr=0.8, by_class="shrunk")
    assert all(vars(det)[key] is value for key, value in state.items())


@pytest.mark.parametrize("adapter", [SklearnOutlierAdapter, OODClassifier])
def test_an_adapter_whose_fit_fails_keeps_the_earlier_one(adapter):
    own = adapter(in_world(MaxLogitDetector())).fit(WORLD.X, WORLD.y == 1)
    state = dict(vars(own))
    with pytest.raises(ValueError, match="X has 3 rows"):
        own.fit(WORLD.X[:3], ["a", "ood"])
    assert all(vars(own)[key] is value for key, value in state.items())


def test_a_pipeline_whose_fit_fails_keeps_the_earlier_one():
    pipe = make_ood_pipeline(
        FakeEmbedder(dim=16), NegLabelDetector(["a", "b"], corpus=["x", "y"], n_groups=1)
    )
    rows = np.random.default_rng(0).standard_normal((9, 16))
    want = pipe.fit(rows).decision_function(rows)
    with pytest.raises(ValueError, match="X has 9 rows"):
        pipe.fit(rows[:, :8], [0, 1])
    np.testing.assert_array_equal(pipe.decision_function(rows), want)


# A value that differs from the default, for each parameter that has no other number to go to.
_OTHER_VALUES = {
    "classes": ["class 1", "class 2"],
    "embedder": OTHER.table,
    "prompt": "a {}",
    "adjective_prompt": "a {}",
    "temperature": 0.3,
    "contamination": 0.3,
    "corpus": ["word 1", "word 2"],
    "mining": "none",
    "proxy": "sample",
    "initial_ood": WORLD.X[:3],
    "n_positives": 3,
    "negative_prior": 0.7,
    "clamp": 0.1,
    "max_similarity": 0.3,
    "image_mean": np.full(32, 0.1),
    "exclude_class_names": False,
    "random_state": 5,
}


@pytest.mark.parametrize("det", CASES)
def test_set_params_acts_at_the_next_fit(det):
    det = in_world(det).set_params(contamination=0.2).fit(WORLD.X, Y)
    if hasattr(det, "partial_fit"):
        det.partial_fit(WORLD.X[20:40])
    before = judged(det)
    for name, value in det.get_params(deep=False).items():
        if name in AT_ONCE:
            continue
        if name in _OTHER_VALUES:
            other = _OTHER_VALUES[name]
        elif isinstance(value, (int, float)):
            other = type(value)(value * 0.4 + 1)
        else:
            other = value[:1] if isinstance(value, (list, tuple)) else "max"
        det.set_params(**{name: other})
        for got, want in zip(judged(det), before, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=name)
    if hasattr(det, "partial_fit"):
        det.partial_fit(WORLD.X[:5]).reset_adaptation()


@pytest.mark.parametrize("det", CASES)
@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_no_score_is_nan_at_any_temperature_that_is_taken(det, temperature):
    extras = [{}]
    if "clamp" in det.get_params():
        extras += [{"clamp": 0.0}, {"clamp": -1.0}, {"positive_noise": 0.1}]
    if "temperature" not in det.get_params():
        return
    for extra in extras:
        for arguments in ((WORLD.X, Y),) if det.info.needs_id_images else ((), (WORLD.X, Y)):
            own = in_world(det).set_params(temperature=temperature, **extra).fit(*arguments)
            assert np.isfinite(own.decision_function(WORLD.X)).all()
            # OODD has no threshold without images, and then None.
            without = det.info.name == "OODD" and not arguments
            assert own.threshold_ is None if without else np.isfinite(own.threshold_)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-38, 1e-6, 1e6, 1e300, np.inf, np.nan])
def test_other_temperatures_are_refused(temperature):
    for det in make_detectors():
        if "temperature" in det.get_params():
            with pytest.raises(ValueError, match="temperature"):
                in_world(det).set_params(temperature=temperature).fit()
    functions = {mcm: 2, energy: 2, negative_label_log_odds: 3, clamped_log_odds: 3}
    for function, n_arrays in functions.items():
        with pytest.raises(ValueError, match="temperature"):
            function(*[np.eye(2)] * n_arrays, temperature=temperature)


@pytest.mark.parametrize("scale", [0.0, 1e-300, np.inf, np.nan])
def test_a_logit_scale_that_is_no_scale_is_refused(scale):
    embedder = FakeEmbedder(dim=16)
    detector = MaxLogitDetector(WORLD.names, embedder=embedder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeEmbedder, "logit_scale_", scale)
        with pytest.raises(ValueError, match=r"1 / the logit scale .* give a temperature"):
            detector.fit()


def test_a_temperature_that_is_a_part_of_the_models_is_checked_by_fit():
    """ENL's is 0.7 of it, which may lie outside of the bounds where the model's does not."""
    with pytest.raises(ValueError, match="temperature must lie in"):
        ENLDetector(WORLD.names, embedder=FakeEmbedder(logit_scale=1e4), corpus=["x", "y"]).fit()


@pytest.mark.parametrize("det", CASES)
@pytest.mark.parametrize("name", ["beta", "static_weight", "margin_weight", "positive_noise"])
def test_weights_that_overflow_are_refused(det, name):
    if name in det.get_params():
        for value in (np.inf, 1e300):
            with pytest.raises(ValueError, match=f"'{name}' parameter"):
                in_world(det).set_params(**{name: value}).fit()
        own = in_world(det).set_params(**{name: 1e6}).fit(WORLD.X, Y)
        assert np.isfinite(own.decision_function(WORLD.X)).all()


def test_a_score_that_is_nan_is_an_error_and_changes_nothing(monkeypatch):
    det = in_world(MaxLogitDetector()).fit()
    monkeypatch.setattr(
        MaxLogitDetector, "_score_embeddings", lambda self, X: np.full(len(X), np.nan)
    )
    with pytest.raises(ValueError, match="60 of 60 scores are NaN: a parameter"):
        det.decision_function(WORLD.X)
    # Of images that cannot be read it is the rule.
    embedder = CLIPEmbedder("pictoclip", on_error="nan")
    monkeypatch.undo()
    own = MaxLogitDetector(["cat", "dog"], embedder=embedder).fit()
    assert np.isnan(own.decision_function(["absent.png"])).all()


def test_a_stream_whose_scores_are_nan_keeps_its_state(monkeypatch):
    for det in make_detectors():
        if not hasattr(det, "score_stream"):
            continue
        det = in_world(det).fit(WORLD.X, Y)
        before = {name: getattr(det, name) for name in det._state_names}
        stream = type(det._open_stream())
        own = stream.advance
        monkeypatch.setattr(stream, "advance", lambda self, X, own=own: own(self, X) * np.nan)
        with pytest.raises(ValueError, match="scores are NaN"):
            next(det.score_stream([WORLD.X[:7]]))
        with pytest.raises(ValueError, match="scores are NaN"):
            det.partial_fit(WORLD.X[:7])
        monkeypatch.undo()
        assert all(getattr(det, name) is value for name, value in before.items())


def streaming():
    return [
        pytest.param(det, id=type(det).__name__)
        for det in make_detectors()
        if "adaptation" in det.get_params()
    ]


@pytest.mark.parametrize("det", streaming())
def test_what_rests_on_a_calibration_is_refused_after_learning_and_predict_warns(det):
    """One rule for all methods: where there is no guarantee, none is given."""
    det = in_world(det).set_params(adaptation="frozen").fit(WORLD.X, Y).calibrate(WORLD.X_id)
    methods = (det.p_value, det.e_value, lambda X: det.predict(X, level=0.1), det.drift_alarm)
    want = [method(*[WORLD.X] * (method != det.drift_alarm)) for method in methods][:3]
    det.partial_fit(WORLD.X[20:40])
    for method in methods:
        with pytest.raises(ValueError, match="has learned from test images since calibrate"):
            method(*[WORLD.X] * (method != det.drift_alarm))
    with pytest.warns(CalibrationWarning, match="changed its state"):
        det.predict(WORLD.X)
    det.reset_adaptation()
    for method, values in zip(methods, want, strict=False):
        np.testing.assert_allclose(method(WORLD.X), values, atol=1e-9)


@pytest.mark.parametrize("det", streaming())
def test_a_stream_shorter_than_a_batch_is_pointed_out_once_a_fit(det):
    det = in_world(det).set_params(adaptation="transductive", batch_size=50).fit()
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SmallBatchWarning)
            det.decision_function(WORLD.X)  # 60 images
            next(det.score_stream([WORLD.X[:5]]))
            det.partial_fit(WORLD.X[:5])
            clone(det).set_params(adaptation="frozen").fit().decision_function(WORLD.X[:5])
        with pytest.warns(SmallBatchWarning, match="5 images .* fewer than batch_size=50"):
            det.decision_function(WORLD.X[:5])
        with warnings.catch_warnings():
            warnings.simplefilter("error", SmallBatchWarning)
            det.predict(WORLD.X[:5]) if det.threshold_ is not None else det.explain(WORLD.X[:5])
        det.fit()


@pytest.mark.parametrize(
    ("cls", "params"),
    [
        (TANLDetector, {"queue_length": 10**9}),
        (TANLDetector, {"score_queue_length": 10**9}),
    ],
)
def test_a_memory_larger_than_the_machine_is_refused(cls, params):
    """Before anything is taken: the system would end the process, or another one."""
    world = make_ood_blobs()
    detector = cls(world.names, embedder=world.table, corpus=world.words, adaptation="transductive")
    with pytest.raises(ValueError, match=f"{next(iter(params))}=.* would take .* GB; give at most"):
        detector.set_params(**params).fit(world.X, world.y)


@pytest.mark.parametrize(("n_images", "is_short"), [(49, True), (50, False)])
def test_a_stream_is_short_below_one_batch(n_images, is_short):
    det = in_world(next(param.values[0] for param in streaming()))
    det = det.set_params(adaptation="transductive", batch_size=50).fit()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        det.decision_function(WORLD.X[:n_images])
    assert any(issubclass(one.category, SmallBatchWarning) for one in caught) == is_short
