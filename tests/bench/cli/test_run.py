"""dnm-bench run: one table from records, runs that go on, bad input refused with exit code 2."""

import csv
import json
import logging

import numpy as np
import pytest
from bench_suite import K, invoke, method_of, suite_folder
from joblib import parallel_config
from sklearn.base import BaseEstimator

from dnm_sklearn.bench.cli.common import TABLE_WIDTH
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.results.rows import METRICS
from dnm_sklearn.bench.results.score_files import _digest, read_scores, valid_records
from dnm_sklearn.bench.run import registry
from dnm_sklearn.bench.run.orders import ORDERS
from dnm_sklearn.corpus import Corpus


def test_one_table_with_everything(full_run):
    result, _ = full_run
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= TABLE_WIDTH
    for text in (
        "MCM",
        "NegLabel (n_groups=2)",
        "PyOD ECOD",
        "ID+",
        "OOD+",
        "near",
        "far one",
        "check",
        "sanity",
    ):
        assert text in result.output
    for name in registry.baselines():
        assert f"PyOD {name}" in result.output
    assert "rows are scored each row alone, ranked among the ID images used at fit" in result.output


def test_csv_and_records_hold_all(full_run):
    _, out = full_run
    with open(out / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    detectors = {name: m for name, m in registry.detectors().items() if not m.needs_pictures}
    names_only = [name for name, method in detectors.items() if not method.needs_id_images]
    with_images = [name for name, m in detectors.items() if m.uses_id_images and not m.is_plug_in]
    methods = [*names_only, *with_images, *registry.baselines()]
    assert [line["method"] for line in lines] == methods
    enl = [line for line in lines if line["method"] == "ENLDetector"]
    used = {line["label"]: line["id_images_used"] for line in enl}
    assert used == {"ENL": "0", "ENL (id_per_class=4)": str(4 * K)}
    assert len(list((out / "records").glob("*.json"))) == len(methods) * 4
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]
    by_name = {line["method"]: line for line in lines}
    made = {name: method.load()() for name, method in registry.detectors().items()}
    test_time = {
        name for name, det in made.items() if det.get_params().get("adaptation") == "transductive"
    }
    assert by_name["NegLabelDetector"]["id_images_used"] == "0"
    assert by_name["KNN"]["id_images_used"] == str(16 * K)
    for line in lines:
        assert line["status"] == "ok"
        far = [float(line[f"auroc:{name}"]) for name in ("far one", "far two")]
        assert float(line["auroc:far"]) == pytest.approx(np.mean(far))
        assert float(line["auroc:near"]) == float(line["auroc:near"])
        assert line["sees_test_stream"] == str(line["method"] in test_time)
    assert float(by_name["MaxLogitDetector"]["auroc:far"]) > 0.99
    assert float(by_name["KNN"]["auroc:far"]) > 0.99
    record = json.loads(next((out / "records").glob("*NegLabel*near*.json")).read_text())
    assert record["prompt"] == "a {}"
    assert record["params"]["n_groups"] == 2
    assert record["overrides"] == {"n_groups": 2}
    assert record["fitted"]["n_groups_"] == 2
    assert record["id_accuracy"] > 0.95
    assert record["environment"]["versions"]["numpy"] == np.__version__
    assert set(record["metrics"]) == set(METRICS)
    record = json.loads(next((out / "records").glob("*ECOD*near*.json")).read_text())
    assert "alone" in record["scoring"]


def test_wide(folder):
    result = invoke("run", "--suite", folder, "-d", "mcm", "--no-baselines", "--wide")
    assert result.exit_code == 0
    assert "by OOD set" not in result.output
    assert result.output.count("far two") == len(METRICS)


def test_choice_of_methods(folder, tmp_path):
    run = ("run", "--suite", folder, "-o", tmp_path)
    assert invoke(*run, "-d", "ENERGY", "-d", "energydetector", "-b", "pyod:knn").exit_code == 0
    assert {r.method for r in read_records(tmp_path / "records")} == {"EnergyDetector", "KNN"}


def test_seed_draw_and_prompt_are_recorded(folder, tmp_path):
    arguments = (
        "--seed",
        3,
        "--id-per-class",
        5,
        "--prompt",
        "one {}",
        "-d",
        "NegLabel",
        "-b",
        "IForest",
    )
    assert invoke("run", "--suite", folder, "-o", tmp_path, *arguments).exit_code == 0
    records = {r.method: r for r in read_records(tmp_path / "records")}
    assert records["IForest"].id_images_used == 5 * K
    assert records["IForest"].params["random_state"] == 3
    assert records["IForest"].prompt is None
    assert records["NegLabelDetector"].params["random_state"] == 3
    assert records["NegLabelDetector"].prompt == "one {}"


def test_same_run_same_numbers(folder, tmp_path):
    for i in range(2):
        assert (
            invoke(
                "run", "--suite", folder, "-o", tmp_path / str(i), "-d", "DNM", "-b", "IForest"
            ).exit_code
            == 0
        )
    first, second = (read_records(tmp_path / str(i) / "records") for i in range(2))
    assert [r.metrics for r in first] == [r.metrics for r in second]
    assert [r.file_name for r in first] == [r.file_name for r in second]


def test_suite_without_id_images(tmp_path):
    folder = suite_folder(tmp_path / "s", id_train=None)
    result = invoke("run", "--suite", folder, "-d", "MCM")
    assert result.exit_code == 0
    assert "baselines are left out" in result.output
    assert "PyOD" not in result.output
    result = invoke("run", "--suite", folder, "-d", "MCM", "-b", "KNN")
    assert result.exit_code == 2
    assert "has no id_train images" in result.output
    assert invoke("run", "--suite", folder, "--no-detectors").exit_code == 2


BAD_INPUT = {
    "suite": (("--suite", "picures"), "neither a suite nor a folder", "mean 'pictures'"),
    "detector": (("-d", "neglabl"), "no detector 'neglabl'", "Did you mean 'NegLabelDetector'"),
    "baseline": (("-b", "IForrest"), "no baseline 'IForrest'", "Did you mean 'IForest'?"),
    "contradiction": (("--no-baselines", "-b", "KNN"), "contradict"),
    "contradiction 2": (("--no-detectors", "-d", "MCM"), "contradict"),
    "nothing": (("--no-detectors", "--no-baselines"), "Nothing to run"),
    "param form": (("--param", "n_groups=10"), "not METHOD.NAME=VALUE"),
    "param method": (("--param", "NoSuch.n_groups=10"), "'NoSuch'"),
    "param name": (
        ("--param", "NegLabel.ngroups=10"),
        "no parameter 'ngroups'",
        "Did you mean 'n_groups'?",
    ),
    "param value": (("--param", "NegLabel.n_groups=many"), "n_groups", "many"),
    "param of the suite": (("--param", "NegLabel.corpus=x"), "no parameter 'corpus' to set"),
    "baseline value": (("--param", "KNN.contamination=7"), "contamination"),
    "prompt": (("--prompt", "a photo"), "has no {}"),
    "seed": (("--seed", "-1"), "-1"),
    "corpus of a suite of embeddings": (
        ("--corpus", "wordnet-csp"),
        "dnm-bench embed --corpus wordnet-csp",
    ),
    "corpus": (("--corpus", "wordnet-cps"), "mean 'wordnet-csp'"),
    "corpus file": (("--corpus", "no/words.txt"), "There is no corpus file 'no/words.txt'"),
    "detector spec": (("-d", "ENL(id_per_class=open('x'))"), "is not DETECTOR(NAME=VALUE"),
    "detector spec name": (("-d", "ENLL(id_per_class=4)"), "Did you mean 'ENLDetector'"),
    "detector spec parameter": (("-d", "ENL(id_per_clas=4)"), "no parameter 'id_per_clas'"),
    "detector without ID images": (
        ("-d", "MCM(id_per_class=4)"),
        "uses no ID images",
        "for ENLDetector",
    ),
    "ID images a class": (("-d", "ENL(id_per_class=-1)"), "is a number of images"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(folder, tmp_path, case):
    arguments, *said = BAD_INPUT[case]
    result = invoke("run", "--suite", folder, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2, result.output
    text = " ".join(result.output.split())
    for part in said:
        assert part in text
    assert not list(tmp_path.rglob("*.json"))


def test_damaged_suite(folder, tmp_path):
    broken = suite_folder(tmp_path / "broken")
    (broken / "text.npz").unlink()
    result = invoke("run", "--suite", broken)
    assert result.exit_code == 2
    assert "text.npz is missing" in result.output


def test_output_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("run", "--suite", folder, "-o", tmp_path / "file" / "out", "-d", "MCM")
    assert result.exit_code == 2
    assert "Cannot write to" in result.output


def test_full_disk(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = invoke("run", "--suite", folder, "-o", tmp_path / "out", "-d", "MCM", "--no-baselines")
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_shipped_suite(tmp_path):
    arguments = ("-d", "MaxLogit", "-d", "NegLabel", "-b", "KNN", "-o", tmp_path)
    result = invoke("run", *arguments)
    assert result.exit_code == 0, result.output
    records = read_records(tmp_path / "records")
    assert {r.suite["name"] for r in records} == {"pictures-animals-food"}
    assert {r.id_images_used for r in records} == {0, 8 * 62}
    assert {r.prompt for r in records} == {"{}", None}
    accuracy = {r.id_accuracy for r in records if r.method == "MaxLogitDetector"}
    assert min(accuracy) > 0.7
    assert registry.load_suite("pictures-animals-food").name == "pictures-animals-food"


def test_hostile_names_in_a_terminal_and_a_file(tmp_path):
    folder = suite_folder(tmp_path / "s", name="[red]a/../b[/red]", note="[bold]x[/nothing]")
    result = invoke("run", "--suite", folder, "-d", "MCM", "--no-baselines", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "[red]a/../b[/red]" in result.output
    assert "[bold]x[/nothing]" in result.output
    assert all(p.parent == tmp_path / "out" / "records" for p in (tmp_path / "out").rglob("*.json"))


@pytest.mark.filterwarnings("ignore")
def test_a_corpus_of_ones_own(tmp_path):
    words = ["black circle", "white circle", "black square", "white square", "heart", "arrow"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    run = (
        "run",
        "-d",
        "NegLabel(n_groups=1, fraction=1.0)",
        "--no-baselines",
        "-o",
        tmp_path / "out",
    )
    result = invoke(*run, "--corpus", tmp_path / "words.txt")
    assert result.exit_code == 0, result.output
    corpus = read_records(tmp_path / "out" / "records")[0].corpus
    assert corpus["n"] == len(words)
    assert corpus["name"] == "words.txt"
    assert corpus["fingerprint"] == Corpus(words).fingerprint


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


def changed_record(path, **changes):
    """Change a record on disk; one of `scores` gets a file of its own with its right digest."""
    record = json.loads(path.read_text())
    scores = changes.pop("scores", None)
    if scores is not None:
        file = path.parent / record["scores"]["file"]
        np.savez_compressed(file, id=scores[0], ood=scores[1])
        record["scores"]["digest"] = _digest(file.read_bytes())
    path.write_text(json.dumps(record | changes))


def test_records_of_other_versions_and_other_scores_are_made_again(folder, tmp_path):
    run = ("run", "--suite", folder, "-o", tmp_path, "-d", "TANL", "-d", "MCM", "--no-baselines")
    assert invoke(*run).exit_code == 0
    paths = sorted((tmp_path / "records").glob("*.json"))
    assert set(valid_records(tmp_path / "records")) == {path.name for path in paths}
    one_run, repeated = ([p for p in paths if name in p.name] for name in ("MCM", "TANL"))
    environment = json.loads(paths[0].read_text())["environment"]
    other = environment["versions"] | {"dnm_sklearn": "0.0.9"}
    metrics = json.loads(one_run[2].read_text())["metrics"]
    repeats = json.loads(repeated[0].read_text())["repeats"]

    changed_record(one_run[0], format=1)
    changed_record(one_run[1], environment=environment | {"versions": other})
    changed_record(one_run[2], metrics=metrics | {"auroc": metrics["auroc"] - 1e-6})
    changed_record(one_run[3], scores=(np.arange(60.0)[None], np.arange(30.0)[None]))
    last = repeats[2] | {"auroc": repeats[2]["auroc"] - 1e-6}
    changed_record(repeated[0], repeats=[*repeats[:2], last])
    changed_record(repeated[1], environment={})
    changed_record(repeated[2], format=True)
    assert set(valid_records(tmp_path / "records")) == {repeated[3].name}

    before = times(tmp_path)
    assert invoke(*run, "--skip-existing").exit_code == 0
    after = times(tmp_path)
    assert [name for name in before if after[name] == before[name]] == [repeated[3].name]
    assert len(valid_records(tmp_path / "records")) == 8


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


def test_skip_existing_needs_a_folder(folder):
    result = invoke("run", "--suite", folder, "--skip-existing")
    assert result.exit_code == 2
    assert "give it with -o" in result.output


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


def test_verbose_names_model_and_device(folder, caplog):
    with caplog.at_level(logging.INFO, logger="dnm_sklearn"):
        assert invoke("run", "--suite", folder, "-d", "MCM", "--no-baselines", "-v").exit_code == 0
    text = caplog.text
    assert "EmbeddingTable on no device" in text
    assert "MCM on far one: ok" in text
    logging.getLogger("dnm_sklearn").setLevel(logging.NOTSET)
