"""Detectors of others: by module and class, by entry point, inside others, in files."""

import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from bench_suite import invoke

from dnm_sklearn import EmbeddingTable, TANLDetector, load
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.run.specs import detector_of_spec
from dnm_sklearn.detectors import entry_points
from dnm_sklearn.exceptions import UnknownNameError

SOURCE = """
import numpy as np
from dnm_sklearn.detectors import BaseOODDetector, DetectorInfo

class SecondBest(BaseOODDetector):
    info = DetectorInfo("Second", "Second best", 2026, "", "", ("class names",), own=True)

    def __init__(self, classes=None, *, embedder=None, power=1.0):
        super().__init__(classes, embedder=embedder)
        self.power = power

    def _fit_text(self):
        self.rows_ = self.class_embeddings_ * self.power

    def _score_embeddings(self, embeddings):
        return np.sort(embeddings @ self.rows_.T, axis=1)[:, -1].astype(float)

class NoInfo(BaseOODDetector):
    def _fit_text(self): ...
    def _score_embeddings(self, embeddings): ...

number = 3
""".replace(", power=1.0, **shared", ", power=1.0")


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "somebodys_detectors.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "somebodys_detectors"
    sys.modules.pop("somebodys_detectors", None)


@pytest.fixture
def installed(package, monkeypatch):
    """The package as if it were installed with an entry point."""
    point = EntryPoint("second", f"{package}:SecondBest", entry_points.GROUP)
    monkeypatch.setattr(entry_points, "entry_points", lambda group: [point])
    entry_points.foreign_detectors.cache_clear()
    yield package
    entry_points.foreign_detectors.cache_clear()


def test_a_class_by_its_module(package, folder, tmp_path):
    given = ("-d", f"{package}:SecondBest(power=2.0)", "-d", "MaxLogit", "--no-baselines")
    result = invoke("run", "--suite", folder, "-o", tmp_path / "out", *given)
    assert result.exit_code == 0, result.output
    records = read_records(tmp_path / "out" / "records")
    own = [r for r in records if r.method == f"{package}:SecondBest"]
    other = [r for r in records if r.method == "MaxLogitDetector"]
    assert [r.metrics["auroc"] for r in own] == pytest.approx([r.metrics["auroc"] for r in other])
    assert own[0].label == "Second (power=2.0)"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("{}:Missing", "has no 'Missing'"),
        ("no_such_package.x:Det", "cannot be imported"),
        ("{}:number", "is no detector: it must be a subclass"),
        ("{}:NoInfo", "lacks the class attribute info"),
        ("sklearn.svm:OneClassSVM", "go to --baseline"),
        ("ReNeg(base=Nobody)", "There is no detector 'Nobody'"),
        ("ReNeg(base=ENL(id_per_class=4))", "give id_per_class to that one"),
        ("ReNeg(base=[ENL])", "not DETECTOR"),
    ],
)
def test_what_is_no_detector_is_refused(package, spec, match):
    with pytest.raises((UnknownNameError, ValueError), match=match):
        detector_of_spec(spec.format(package))


def test_a_detector_inside_another():
    method = detector_of_spec("ReNeg(base=TANL(step=0), omega=0.1)")
    params = dict(method.params)
    assert isinstance(params["base"], TANLDetector)
    assert (params["base"].step, params["omega"]) == (0, 0.1)
    assert dict(detector_of_spec("OODD(base=MCM)").params)["base"].info.name == "MCM"


def test_an_entry_point_is_a_name(installed):
    assert detector_of_spec("SecondBest").load().__module__ == installed
    assert detector_of_spec("second").label == "Second"
    assert "SecondBest" in invoke("list", "detectors").output


def test_a_file_of_an_installed_detector(installed, tmp_path):
    cls = detector_of_spec("SecondBest").load()
    table = EmbeddingTable(["cat", "dog"], np.eye(2, 3))
    det = cls(["cat", "dog"], embedder=table, power=3.0).fit()
    det.save(tmp_path / "det.skops")
    again = load(tmp_path / "det.skops", table)
    assert type(again) is cls
    np.testing.assert_array_equal(again.score_samples(np.eye(3)), det.score_samples(np.eye(3)))

    # Where the package is not installed, the file says so; and a class without a name is refused.
    entry_points.foreign_detectors.cache_clear()
    entry_points.entry_points = lambda group: []
    with pytest.raises(ValueError, match="no installed package gives in the group"):
        load(tmp_path / "det.skops", table)
    with pytest.raises(TypeError, match="make it an entry point of its package"):
        det.save(tmp_path / "other.skops")
