"""PyOD: our detectors in its tools, its detectors on our embeddings."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from fitting import y_for
from pyod.models.base import BaseDetector
from pyod.models.ecod import ECOD
from pyod.models.embedding import EmbeddingOD, MultiModalOD
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.utils.encoders import BaseEncoder, resolve_encoder
from pyod.utils.utility import standardizer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from dnm_sklearn import CLIPEmbedder, MaxLogitDetector, NegLabelDetector
from dnm_sklearn.detectors import all_detectors
from dnm_sklearn.embedding import inputs
from dnm_sklearn.exceptions import EmbeddingNormWarning, UncalibratedThresholdWarning
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs
from dnm_sklearn.testing.instances import make_detectors

WORLD = make_ood_blobs()
IMAGES = list(np.random.default_rng(0).integers(0, 255, (30, 9, 9, 3)).astype(np.uint8))


@pytest.fixture(autouse=True)
def norm_warning_not_said_yet(monkeypatch):
    monkeypatch.setattr(inputs, "_norms_warned", False)


def neglabel(**params):
    return NegLabelDetector(WORLD.names, embedder=WORLD.table, n_groups=4, fraction=1.0, **params)


@pytest.mark.parametrize("cls", all_detectors().values())
def test_detectors_are_pyods_without_subclassing(cls):
    assert issubclass(cls, BaseDetector)
    assert BaseDetector not in cls.__mro__


@pytest.mark.parametrize(
    "code",
    [
        "import dnm_sklearn; d = dnm_sklearn.MCMDetector(); import pyod.models.base as b",
        "import pyod.models.base as b; import dnm_sklearn; d = dnm_sklearn.MCMDetector()",
    ],
)
def test_registration_in_either_import_order(code):
    check = (
        "assert isinstance(d, b.BaseDetector); import sys; from pyod.utils.encoders import "
        "BaseEncoder;assert isinstance(dnm_sklearn.CLIPEmbedder(), BaseEncoder); assert 'torch' "
        "not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"{code}; {check}"], check=True)


def test_import_of_the_package_is_light():
    code = (
        "import sys, dnm_sklearn, dnm_sklearn.embedding, dnm_sklearn.testing;"
        "print([m for m in ('torch', 'pyod', 'sklearn', 'scipy', 'skops') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_encoders_are_pyods():
    for encoder in (CLIPEmbedder(), FakeEmbedder(), WORLD.table):
        assert isinstance(encoder, BaseEncoder)
        assert resolve_encoder(encoder) is encoder
    fake = FakeEmbedder(dim=8)
    want = fake.encode_image(IMAGES)
    np.testing.assert_array_equal(fake.encode(IMAGES), want)
    np.testing.assert_array_equal(fake.encode(IMAGES, batch_size=3, show_progress=True), want)
    assert "batch_size" not in vars(fake)
    np.testing.assert_allclose(WORLD.table.encode(WORLD.X, batch_size=32), WORLD.X, atol=1e-6)


def test_our_encoder_and_their_detector():
    model = EmbeddingOD(encoder=FakeEmbedder(dim=8), detector=KNN(), standardize=False).fit(IMAGES)
    alone = KNN().fit(FakeEmbedder(dim=8).transform(IMAGES))
    np.testing.assert_allclose(model.decision_function(IMAGES), alone.decision_function(
        FakeEmbedder(dim=8).transform(IMAGES)), rtol=1e-5)  # fmt: skip
    assert set(model.predict(IMAGES)) <= {0, 1}


def test_our_encoder_and_our_detector():
    embedder = FakeEmbedder(dim=8)
    detector = NegLabelDetector(
        ["cat", "dog"], embedder=embedder, corpus=["x", "y", "z"], n_groups=1, fraction=1.0
    )
    model = EmbeddingOD(encoder=embedder, detector=detector, standardize=False, contamination=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmbeddingNormWarning)
        model.fit(IMAGES)
    np.testing.assert_allclose(
        model.decision_function(IMAGES), detector.fit().decision_function(IMAGES), atol=1e-4
    )
    assert model.labels_.sum() == 6


def test_their_encoder_and_our_detector_warns_once_when_standardised():
    rows = dict(enumerate(WORLD.X))

    def encoder(keys):
        return np.stack([rows[key] for key in keys])

    keys = list(rows)
    plain = EmbeddingOD(encoder=encoder, detector=neglabel(), standardize=False).fit(keys)
    np.testing.assert_allclose(
        plain.decision_function(keys), neglabel().fit().decision_function(WORLD.X), atol=1e-3
    )
    with pytest.warns(EmbeddingNormWarning, match="standardize=False") as record:
        ruined = EmbeddingOD(encoder=encoder, detector=neglabel()).fit(keys)
    assert len([w for w in record if w.category is EmbeddingNormWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmbeddingNormWarning)
        ruined.decision_function(keys)
    assert roc_auc_score(WORLD.y, plain.decision_function(keys)) >= roc_auc_score(
        WORLD.y, ruined.decision_function(keys)
    )


def test_norm_warning_names_the_cause_and_spares_unit_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UncalibratedThresholdWarning)
        neglabel().fit(WORLD.X).predict(WORLD.X * 1.5)
    with pytest.warns(EmbeddingNormWarning, match="StandardScaler"):
        neglabel().fit(StandardScaler().fit_transform(WORLD.X))


def test_score_averaging():
    detectors = [
        det.set_params(classes=WORLD.names, embedder=WORLD.table) for det in make_detectors()
    ]
    for det in detectors:
        if "corpus" in det.get_params():
            det.set_params(corpus=WORLD.words)
    fits = [det.fit(WORLD.X, WORLD.labels if y_for(det, WORLD.X) else None) for det in detectors]
    members = [*fits, KNN().fit(WORLD.X)]
    train = np.column_stack([member.decision_scores_ for member in members])
    test = np.column_stack([member.decision_function(WORLD.X) for member in members])
    train, test = standardizer(train, test)
    assert roc_auc_score(WORLD.y, test.mean(axis=1)) > 0.9

    fusion = MultiModalOD(
        {"names": neglabel(), "max": MaxLogitDetector(WORLD.names, embedder=WORLD.table)}
    )
    data = {"names": WORLD.X, "max": WORLD.X}
    fusion.fit(data)
    assert roc_auc_score(WORLD.y, fusion.decision_function(data)) > 0.95
    assert fusion.labels_.mean() == pytest.approx(0.1)


@pytest.mark.parametrize("detector", make_detectors(), ids=lambda det: type(det).__name__)
def test_pyods_persistence(detector, tmp_path):
    persistence = pytest.importorskip("pyod.utils.persistence", reason="newer than the lowest PyOD")
    X = np.random.default_rng(0).normal(size=(25, 16))
    detector.fit(X, y_for(detector, X))
    persistence.save(detector, tmp_path / "det.joblib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = persistence.load(tmp_path / "det.joblib", trusted=True, strict=True)
    np.testing.assert_array_equal(again.decision_function(X), detector.decision_function(X))
    assert again.threshold_ == detector.threshold_


@pytest.mark.parametrize(
    "theirs", [KNN(), IForest(random_state=0), ECOD()], ids=lambda det: type(det).__name__
)
def test_pyod_detectors_fit_on_our_embeddings_in_a_pipeline(theirs):
    pipeline = Pipeline([("embedder", FakeEmbedder(dim=8)), ("detector", theirs)]).fit(IMAGES)
    assert pipeline.decision_function(IMAGES).shape == (30,)
    assert set(pipeline.predict(IMAGES)) <= {0, 1}


def test_every_public_method_of_pyods_base_class_is_there():
    names = [name for name in dir(BaseDetector) if not name.startswith("_")]
    public = {name for name in names if callable(getattr(BaseDetector, name))}
    assert public <= set(dir(NegLabelDetector))


class Theirs(BaseDetector):
    """One column as the score."""

    def __init__(self, contamination=0.1):
        super().__init__(contamination=contamination)

    def fit(self, X, y=None):
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X):
        return np.asarray(X)[:, 0]


@pytest.mark.parametrize("T", [0.8, 2, 5, 32])
def test_rejection_is_pyods(T):
    detector = neglabel(contamination=0.2).fit(WORLD.X)
    scores = detector.decision_function(WORLD.X)[:, None]
    theirs = Theirs(contamination=0.2).fit(scores)
    before = dict(vars(detector))
    got, stats = detector.predict_with_rejection(WORLD.X, T=T, return_stats=True, c_fp=2)
    want, want_stats = theirs.predict_with_rejection(scores, T=T, return_stats=True, c_fp=2)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(stats, want_stats, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        detector.compute_rejection_stats(T, c_r=0.3), theirs.compute_rejection_stats(T, c_r=0.3)
    )
    # To judge images leaves a detector as it was, which PyOD's own do not.
    assert vars(detector).keys() == before.keys()
    assert -2 in got or T < 1


def test_rejection_says_what_it_needs():
    with pytest.raises(ValueError, match="scores of images given to fit"):
        neglabel().fit().compute_rejection_stats()
    with pytest.raises(ValueError, match="delta=1 must lie"):
        neglabel().fit(WORLD.X).compute_rejection_stats(delta=1)
    with pytest.raises(ValueError, match="needs a flagged image"):
        neglabel(contamination=0.001).fit(WORLD.X).compute_rejection_stats()


def test_fit_predict_score_reads_y_as_we_do(capsys):
    for y in (WORLD.y, WORLD.y == 1, np.where(WORLD.y == 1, "ood", "known")):
        got = neglabel().fit_predict_score(WORLD.X, y)
        assert got == roc_auc_score(WORLD.y, neglabel().fit(WORLD.X).decision_scores_)
    top = np.argsort(neglabel().fit(WORLD.X).decision_scores_)[-WORLD.y.sum() :]
    got = neglabel().fit_predict_score(WORLD.X, WORLD.y, scoring="prc_n_score")
    assert got == pytest.approx(WORLD.y[top].mean())
    with pytest.raises(ValueError, match="scoring='f1'"):
        neglabel().fit_predict_score(WORLD.X, WORLD.y, scoring="f1")
    with pytest.raises(ValueError, match="y must say"):
        neglabel().fit_predict_score(WORLD.X, np.arange(len(WORLD.X)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["decision_function", "predict_proba"])
def test_scores_by_cross_val_predict(method):
    """scikit-learn encodes y there and wants ``classes_``; names would lose their meaning."""
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    for y in (WORLD.y, WORLD.y == 1):
        scores = cross_val_predict(neglabel(), WORLD.X, y, cv=folds, method=method)
        scores = scores if method == "decision_function" else scores[:, 1]
        assert roc_auc_score(WORLD.y, scores) > 0.9
    nearest = (WORLD.X @ WORLD.table.encode_text(WORLD.names).T).argmax(axis=1)
    y = np.where(WORLD.y == 1, "ood", np.asarray(WORLD.names)[nearest % 2])
    with pytest.raises(AttributeError, match="classes_ only after a fit with y of 0/1 or bool"):
        cross_val_predict(neglabel(), WORLD.X, y, cv=folds, method=method)
    assert not hasattr(neglabel().fit(WORLD.X), "classes_")
    assert not hasattr(neglabel().fit(WORLD.X, WORLD.y).fit(WORLD.X, y), "classes_")
