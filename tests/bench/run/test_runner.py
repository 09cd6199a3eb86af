"""Methods on a suite: failures recorded, streams, several jobs, what a record holds."""

import csv

import numpy as np
import pytest
from bench_suite import K, invoke, method_of, records_of
from joblib import parallel_config
from sklearn.base import BaseEstimator

from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.results.score_files import read_scores
from dnm_sklearn.bench.run import registry
from dnm_sklearn.bench.run.config import RunConfig
from dnm_sklearn.bench.run.prepare import embed_suite
from dnm_sklearn.bench.run.registry import (
    detectors,
    resolve,
)
from dnm_sklearn.bench.run.runner import run_methods
from dnm_sklearn.bench.run.specs import baseline_of_spec
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.metrics import ood_metrics


class Broken(BaseEstimator):
    """Fails at fit."""

    def __init__(self, classes=None, *, embedder=None):
        self.classes = classes
        self.embedder = embedder

    def fit(self, X=None, y=None):
        raise RuntimeError("no luck today")


class GivesNaN(Broken):
    """Scores that cannot be ranked."""

    def fit(self, X=None, y=None):
        return self

    def decision_function(self, X):
        return np.full(len(X), np.nan)


@pytest.mark.parametrize("cls", [Broken, GivesNaN])
def test_a_failure_is_recorded_and_the_run_goes_on(embedded, folder, tmp_path, monkeypatch, cls):
    methods = [method_of(cls), resolve("MCM", detectors())]
    records = records_of(embedded, methods)
    failed = [r for r in records if r.status == "failed"]
    assert [r.ood["name"] for r in failed] == ["far one", "far two", "near", "check"]
    assert len(records) == 8
    assert all(r.error and not r.metrics for r in failed)
    monkeypatch.setattr(registry, "detectors", lambda: {m.name: m for m in methods})
    result = invoke("run", "--suite", folder, "--no-baselines", "-o", tmp_path)
    assert result.exit_code == 1
    assert f"{cls.__name__} failed: " in result.output
    assert len(read_records(tmp_path / "records")) == 8
    with open(tmp_path / "table.csv", newline="") as file:
        line = next(csv.DictReader(file))
    assert line["status"] == "failed"
    assert line["auroc:far"] == ""


class Interrupted(Broken):
    """Ctrl-C while it fits."""

    def fit(self, X=None, y=None):
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_valid_records(folder, tmp_path, monkeypatch):
    methods = [resolve("MCM", detectors()), method_of(Interrupted)]
    monkeypatch.setattr(registry, "detectors", lambda: {m.name: m for m in methods})
    result = invoke("run", "--suite", folder, "--no-baselines", "-o", tmp_path)
    assert result.exit_code == 130
    assert "4 records" in result.output
    assert "--skip-existing" in result.output
    assert [r.method for r in read_records(tmp_path / "records")] == ["MCMDetector"] * 4
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


class Stream(BaseEstimator):
    """A test-time method: scores are ranks within the batch."""

    info = type("Info", (), {"test_time": True})

    def __init__(self, adaptation="transductive"):
        self.adaptation = adaptation

    def fit(self, X=None, y=None):
        return self

    def decision_function(self, X):
        return -X[:, :K].max(axis=1)


@pytest.mark.parametrize(("adaptation", "stream"), [("transductive", True), ("frozen", False)])
def test_test_time_methods_see_one_stream_a_set(embedded, adaptation, stream):
    seen = []

    class Watched(Stream):
        def decision_function(self, X):
            seen.append(len(X))
            return super().decision_function(X)

    config = RunConfig(overrides={"Watched": {"adaptation": adaptation}}, repeats=2)
    records = records_of(embedded, [method_of(Watched)], config)
    assert {r.sees_test_stream for r in records} == {stream}
    assert seen == ([100, 100, 90, 90, 90, 90, 90, 90] if stream else [60, 40, 30, 30, 30])
    assert records[0].metrics["auroc"] > 0.99
    assert {(r.stream, len(r.repeats)) for r in records} == {("shuffled", 2) if stream else ("", 0)}


def test_a_record_says_what_ran_on_what(folder, tmp_path):
    assert (
        invoke("run", "--suite", folder, "-d", "NegLabel", "-b", "KNN", "-o", tmp_path).exit_code
        == 0
    )
    record = next(r for r in read_records(tmp_path / "records") if r.method == "NegLabelDetector")
    assert {"cpu", "usable_cpus", "memory", "gpu", "revision", "versions"} <= set(
        record.environment
    )
    assert record.environment["versions"]["joblib"]
    assert record.peak_memory["process"] > 1e6
    assert record.corpus["fingerprint"]
    assert record.suite["classes_digest"]
    assert record.model["fingerprint"]
    assert record.id["digest"] != record.ood["digest"]
    assert {"fit", "encode_text", "embed_images", "score_id", "score_ood"} == set(record.seconds)
    ids, oods = read_scores(tmp_path / "records", record)
    assert (ids.shape, oods.shape) == ((1, record.id["n"]), (1, record.ood["n"]))
    again = ood_metrics(
        np.concatenate([ids[0], oods[0]]), np.arange(ids.size + oods.size) >= ids.size
    )
    assert again == record.metrics


def test_jobs_give_the_same(embedded):
    methods = [resolve(name, detectors()) for name in ("MCM", "NegLabel", "TANL")] + [
        baseline_of_spec("pyod:KNN")
    ]
    config = RunConfig(repeats=1)
    records = records_of(embedded, methods, config)
    expected = [(r.method, r.ood["name"], r.metrics) for r in records]
    for backend in ("threading", "loky"):
        with parallel_config(backend=backend):
            results = list(run_methods(embedded, methods, config, jobs=2))
        assert [
            (r.record.method, r.record.ood["name"], r.record.metrics) for r in results
        ] == expected
        assert all(r.id_scores.size and r.ood_scores.size for r in results)


@pytest.mark.parametrize(
    ("detector", "auroc"),
    [("NegLabelDetector", 95.1), ("MCMDetector", 96.3), ("MaxLogitDetector", 95.1)],
)
def test_real_clip_features(shared_dir, detector, auroc):
    embedded = embed_suite(load_embedding_suite(shared_dir / "real_clip_vitb32" / "caltech63"))
    config = RunConfig(overrides={"NegLabelDetector": {"n_groups": 10}})
    records = records_of(embedded, [detectors()[detector]], config)
    found = [100 * r.metrics["auroc"] for r in records if r.ood["name"] in ("dtd", "sun397")]
    assert len(found) == 2
    assert np.mean(found) == pytest.approx(auroc, abs=1.0)
