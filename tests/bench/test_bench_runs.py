"""dnm-bench: runs that resume, streams, baselines by specification, jobs, what a record holds."""

import json
import logging
import os
import sys

import numpy as np
import pytest
from bench_suite import K, invoke, method_of, suite_folder
from joblib import parallel_config
from sklearn.base import BaseEstimator
from sklearn.neighbors import LocalOutlierFactor

from dnm_sklearn.bench.results.records import RecordError, read_records
from dnm_sklearn.bench.results.score_files import compact, read_scores, valid_records
from dnm_sklearn.bench.run import machine, registry, runner
from dnm_sklearn.bench.run.orders import ORDERS, score_stream
from dnm_sklearn.bench.run.prepare import Plan, draw_id_images, embed_suite
from dnm_sklearn.bench.run.registry import UnknownNameError, detectors, resolve
from dnm_sklearn.bench.run.specs import method_of_spec, parse_spec
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.metrics import ood_metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return suite_folder(tmp_path_factory.mktemp("suites") / "tiny")


@pytest.fixture(scope="module")
def embedded(folder):
    return embed_suite(load_embedding_suite(folder))


# -- what a record holds --------------------------------------------------------------------------


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


def test_revision_and_threads():
    revision = machine.git_revision()
    assert revision is None or len(revision.rstrip("+")) == 40
    import torch

    before = torch.get_num_threads()
    with machine.limited_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert machine.threads_for(70_000, 512) is None


def test_compact_scores_keep_order_and_ties():
    rng = np.random.default_rng(0)
    rough = rng.standard_normal(100)
    assert compact(rough).dtype == np.float32
    assert compact(np.array([1.0, 1.0 + 1e-12])).dtype == np.float64
    assert compact(np.array([1e300, np.inf])).dtype == np.float64


# -- resuming -------------------------------------------------------------------------------------


def times(path):
    return {p.name: p.stat().st_mtime_ns for p in (path / "records").glob("*.json")}


def test_skip_existing_recomputes_only_what_is_not_valid(folder, tmp_path):
    run = (
        "run",
        "--suite",
        folder,
        "-o",
        tmp_path,
        "-d",
        "MCM",
        "-d",
        "Energy",
        "-b",
        "KNN",
        "--skip-existing",
    )
    assert invoke(*run).exit_code == 0
    before = times(tmp_path)
    assert len(before) == 12
    table = (tmp_path / "table.csv").read_text()
    assert invoke(*run).exit_code == 0
    assert times(tmp_path) == before
    assert (tmp_path / "table.csv").read_text() == table

    records = tmp_path / "records"
    cut, gone, flipped, failed = sorted(before)[:4]
    (records / cut).write_text((records / cut).read_text()[:100])
    (records / gone).unlink()
    scores = records / json.loads((records / flipped).read_text())["scores"]["file"]
    scores.write_bytes(scores.read_bytes()[:-1] + b"x")
    changed = json.loads((records / failed).read_text()) | {
        "status": "failed",
        "metrics": {},
        "error": "x",
    }
    (records / failed).write_text(json.dumps(changed))
    assert set(valid_records(records)) == set(before) - {cut, gone, flipped, failed}
    assert invoke(*run).exit_code == 0
    after = times(tmp_path)
    assert {name for name in before if after[name] != before[name]} >= {cut, gone, flipped, failed}
    assert sum(after[name] == before[name] for name in before) == 8
    assert len(valid_records(records)) == 12


def test_another_configuration_is_another_record(folder, tmp_path):
    run = (
        "run",
        "--suite",
        folder,
        "-o",
        tmp_path,
        "-d",
        "NegLabel",
        "--no-baselines",
        "--skip-existing",
    )
    for more in ((), ("--seed", 1), ("--param", "NegLabel.n_groups=3")):
        assert invoke(*run, *more).exit_code == 0
    assert len(times(tmp_path)) == 12
    other = suite_folder(tmp_path / "other", class_names=[f"class {i}" for i in (1, 0, 2, 3)])
    before = times(tmp_path)
    assert invoke("run", "--suite", other, *run[3:]).exit_code == 0
    assert len(times(tmp_path)) == 16
    assert {name: t for name, t in times(tmp_path).items() if name in before} == before


def test_a_method_owes_only_the_missing_sets(folder, tmp_path, monkeypatch):
    scored = []

    class Watched(BaseEstimator):
        def __init__(self, classes=None):
            self.classes = classes

        def fit(self):
            return self

        def decision_function(self, X):
            scored.append(len(X))
            return -X[:, :K].max(axis=1)

    monkeypatch.setattr(registry, "detectors", lambda: {"Watched": method_of(Watched)})
    run = ("run", "--suite", folder, "-o", tmp_path, "--no-baselines", "--skip-existing")
    assert invoke(*run).exit_code == 0
    assert scored == [60, 40, 30, 30, 30]
    next((tmp_path / "records").glob("*near*.json")).unlink()
    scored.clear()
    assert invoke(*run).exit_code == 0
    assert scored == [60, 30]


def test_newer_run_folder(folder, tmp_path):
    run = ("run", "--suite", folder, "-o", tmp_path, "-d", "MCM", "--no-baselines")
    assert invoke(*run).exit_code == 0
    path = next((tmp_path / "records").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for arguments in (run, (*run, "--skip-existing"), ("table", tmp_path)):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "written by a newer version" in " ".join(result.output.split())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_scores_outside_the_folder_are_not_read(folder, tmp_path):
    assert (
        invoke("run", "--suite", folder, "-o", tmp_path, "-d", "MCM", "--no-baselines").exit_code
        == 0
    )
    record = read_records(tmp_path / "records")[0]
    record.scores["file"] = "../../elsewhere.npz"
    with pytest.raises(RecordError, match="outside the folder"):
        read_scores(tmp_path / "records", record)
    record.scores.clear()
    with pytest.raises(RecordError, match="keeps no scores"):
        read_scores(tmp_path / "records", record)


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_orders(order):
    ids, oods = np.zeros((40, 2)), np.ones((30, 2))
    ids[:, 1] = np.arange(40)
    oods[:, 1] = np.arange(30)
    seen = []

    def place(rows):
        seen.append(rows)
        return np.arange(float(len(rows)))

    scores = score_stream(place, ids, oods, order, (0, 0))
    assert not np.isnan(scores.id).any()
    kinds = [rows[:, 0].tolist() for rows in seen]
    for rows, found in ((ids, scores.id), (oods, scores.ood)):
        for i in np.flatnonzero(~np.isnan(found)):
            assert any(int(found[i]) < len(s) and (s[int(found[i])] == rows[i]).all() for s in seen)
    if order == "id-first":
        assert kinds == [[0] * 40 + [1] * 30]
    elif order == "ood-first":
        assert kinds == [[1] * 30 + [0] * 40]
    elif order == "single-kind":
        assert kinds == [[0] * 40, [1] * 30]
    elif order == "rare-ood":
        assert len(seen[0]) == 42
        assert np.isnan(scores.ood).sum() == 28
        assert len(scores.seen) == 2
    else:
        assert sorted(kinds[0]) == [0] * 40 + [1] * 30
        assert kinds[0] != sorted(kinds[0])
    again = score_stream(place, ids, oods, order, (0, 0))
    np.testing.assert_array_equal(scores.id, again.id)
    assert not np.array_equal(scores.id, score_stream(place, ids, oods, order, (0, 1)).id)


def test_unknown_order():
    with pytest.raises(ValueError, match="it is one of shuffled"):
        score_stream(len, np.zeros((1, 1)), np.zeros((1, 1)), "sorted", (0, 0))


@pytest.mark.parametrize("order", ORDERS)
def test_test_time_methods_by_order(folder, tmp_path, order):
    run = (
        "run",
        "--suite",
        folder,
        "-o",
        tmp_path,
        "-d",
        "TANL",
        "-d",
        "MCM",
        "--no-baselines",
        "--wide",
    )
    result = invoke(*run, "--stream", order, "--repeats", 2, "--param", "TANL.n_activated=10")
    assert result.exit_code == 0, result.output
    by_method = {}
    for record in read_records(tmp_path / "records"):
        by_method.setdefault(record.method, []).append(record)
    for record in by_method["TANLDetector"]:
        assert (record.sees_test_stream, record.stream, record.n_repeats) == (True, order, 2)
        assert record.metrics["auroc"] == pytest.approx(
            np.mean([r["auroc"] for r in record.repeats])
        )
        ids, oods = read_scores(tmp_path / "records", record)
        assert ids.shape == (2, 60)
        assert np.isnan(oods).any() == (order == "rare-ood")
    assert {(r.stream, r.n_repeats, len(r.repeats)) for r in by_method["MCMDetector"]} == {
        ("", 0, 0)
    }
    assert "±" in result.output


# -- baselines by specification -------------------------------------------------------------------


def test_specs(folder, tmp_path):
    asked = (
        "pyod:KNN(n_neighbors=3)",
        "pyod:KNN(n_neighbors=7)",
        "pyod:COPOD",
        "sklearn:localoutlierfactor",
    )
    result = invoke(
        "run",
        "--suite",
        folder,
        "-o",
        tmp_path,
        "--no-detectors",
        *[a for s in asked for a in ("-b", s)],
    )
    assert result.exit_code == 0, result.output
    records = {r.label: r for r in read_records(tmp_path / "records") if r.ood["name"] == "far one"}
    assert set(records) == {
        "PyOD KNN (n_neighbors=3)",
        "PyOD KNN (n_neighbors=7)",
        "PyOD COPOD",
        "sklearn LocalOutlierFactor",
    }
    assert records["PyOD KNN (n_neighbors=7)"].params["n_neighbors"] == 7
    assert {r.id_images_used for r in records.values()} == {16 * K}
    assert records["PyOD COPOD"].sees_test_stream
    assert "scores change" in records["PyOD COPOD"].scoring
    assert not records["sklearn LocalOutlierFactor"].sees_test_stream


def test_a_spec_scores_as_the_estimator_itself(embedded):
    method = method_of_spec("sklearn:LocalOutlierFactor(n_neighbors=5)")
    record = next(runner.run(embedded, [method]))
    rows = np.asarray(draw_id_images(embedded.suite.id_train, 16, 0).images, dtype=float)
    itself = LocalOutlierFactor(n_neighbors=5, novelty=True).fit(rows)
    scores = [
        -itself.score_samples(x.images.astype(float))
        for x in (embedded.suite.id, embedded.suite.ood[0])
    ]
    expected = ood_metrics(np.concatenate(scores), np.arange(100) >= 60)
    assert record.metrics["auroc"] == pytest.approx(expected["auroc"])


@pytest.mark.parametrize(
    "text",
    [
        "pyod:KNN(__import__('os').system('true'))",
        "pyod:KNN(n_neighbors=open('x'))",
        "pyod:KNN(n_neighbors=[i for i in (1,)])",
        "pyod:KNN(**{})",
        "pyod:os.system",
        "pyod:",
        "pyod:KNN(",
        "pyod:lambda: 0",
    ],
)
def test_specs_are_never_evaluated(text):
    with pytest.raises(ValueError, match="is not LIBRARY:CLASS"):
        parse_spec(text)


def test_unknown_specs(folder):
    with pytest.raises(UnknownNameError, match="Did you mean LocalOutlierFactor"):
        method_of_spec("sklearn:LocalOutlierFaktor")
    result = invoke("run", "--suite", folder, "-b", "pyod:IForrest")
    assert result.exit_code == 2
    assert "Did you mean iforest?" in result.output
    result = invoke("run", "--suite", folder, "-b", "pyod:KNN(neighbours=3)")
    assert result.exit_code == 2
    assert "no parameter 'neighbours'" in result.output


def test_id_train(tmp_path):
    rows = np.eye(16)[np.arange(40) % K] + 0.01
    suite = suite_folder(tmp_path / "s", id_train=None)
    np.savez(tmp_path / "train.npz", embedding=rows, label=np.arange(40) % K)
    run = (
        "run",
        "--suite",
        suite,
        "-b",
        "KNN",
        "--no-detectors",
        "--id-per-class",
        5,
        "-o",
        tmp_path / "out",
    )
    assert invoke(*run, "--id-train", tmp_path / "train.npz").exit_code == 0
    assert {r.id_images_used for r in read_records(tmp_path / "out" / "records")} == {5 * K}
    np.savez(tmp_path / "narrow.npz", embedding=rows[:, :3])
    np.savez(tmp_path / "zero.npz", embedding=0 * rows)
    np.savez(tmp_path / "short.npz", embedding=rows, label=np.arange(3))
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "images").mkdir()
    for name, said in {
        "narrow.npz": "not of the suite's model",
        "zero.npz": "some rows of 'embedding' are zero",
        "short.npz": "'label' must hold 40",
        "text.npz": "no npz file",
        "images": "is a suite of embeddings",
        "nowhere": "no such folder or file",
    }.items():
        result = invoke(*run, "--id-train", tmp_path / name)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())


# -- jobs, models, logs ---------------------------------------------------------------------------


def test_jobs_give_the_same(embedded):
    methods = [resolve(name, detectors()) for name in ("MCM", "NegLabel", "TANL")] + [
        method_of_spec("pyod:KNN")
    ]
    plan = Plan(repeats=1)
    expected = [(r.method, r.ood["name"], r.metrics) for r in runner.run(embedded, methods, plan)]
    for backend in ("threading", "loky"):
        with parallel_config(backend=backend):
            outcomes = list(runner.run_outcomes(embedded, methods, plan, jobs=2))
        assert [
            (o.record.method, o.record.ood["name"], o.record.metrics) for o in outcomes
        ] == expected
        assert all(o.scores for o in outcomes)


@pytest.mark.parametrize("backend", ["dask", "ray"])
@pytest.mark.filterwarnings("ignore")
def test_other_back_ends(folder, tmp_path, backend, monkeypatch):
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run = ("run", "--suite", folder, "-d", "MCM", "-d", "NegLabel", "-b", "KNN", "-o")
    assert invoke(*run, tmp_path / "one").exit_code == 0
    result = invoke(*run, tmp_path / "two", "--jobs", 2, "--backend", backend)
    assert result.exit_code == 0, result.output
    one, two = (
        {
            (r.method, r.ood["name"]): (r.status, r.metrics)
            for r in read_records(tmp_path / name / "records")
        }
        for name in ("one", "two")
    )
    assert one == two


def test_back_ends_that_are_not_there(folder, monkeypatch):
    run = ("run", "--suite", folder, "-d", "MCM", "--no-baselines", "--backend")
    for name, module in (("dask", "distributed"), ("ray", "ray.util.joblib")):
        monkeypatch.setitem(sys.modules, module, None)
        result = invoke(*run, name, "--jobs", 2)
        assert result.exit_code == 2
        assert f"--backend {name} needs" in result.output
    result = invoke(*run, "dask")
    assert result.exit_code == 2
    assert "give --jobs too" in result.output


def test_jobs_on_the_command_line(folder, tmp_path):
    with parallel_config(backend="threading"):
        run = (
            "run",
            "--suite",
            folder,
            "-d",
            "MCM",
            "-d",
            "Energy",
            "--no-baselines",
            "-o",
            tmp_path,
            "--jobs",
            2,
        )
        assert invoke(*run).exit_code == 0
    assert len(valid_records(tmp_path / "records")) == 8
    assert invoke(*run[:-1], 0).exit_code == 2


def test_a_suite_of_another_model(folder, tmp_path):
    result = invoke("run", "--suite", folder, "--model", "ViT-L-14/openai", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "not of 'ViT-L-14/openai'" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_skip_existing_needs_a_folder(folder):
    result = invoke("run", "--suite", folder, "--skip-existing")
    assert result.exit_code == 2
    assert "give it with -o" in result.output


def test_verbose_names_model_and_device(folder, caplog):
    with caplog.at_level(logging.INFO, logger="dnm_sklearn"):
        assert invoke("run", "--suite", folder, "-d", "MCM", "--no-baselines", "-v").exit_code == 0
    text = caplog.text
    assert "EmbeddingTable on no device" in text
    assert "MCM on far one: ok" in text
    logger = logging.getLogger("dnm_sklearn")
    for handler in [h for h in logger.handlers if getattr(h, "dnm_bench", False)]:
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_shell_completion():
    import os
    import subprocess

    code = "from dnm_sklearn.bench.cli.main import main; main(prog_name='dnm-bench')"
    env = {
        **os.environ,
        "_DNM_BENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "dnm-bench ta",
        "COMP_CWORD": "1",
    }
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert out.stdout.split() == ["plain,table"]
