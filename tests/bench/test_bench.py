"""dnm-bench: one table from records, failures recorded, bad input refused with exit code 2."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bench_suite import K, invoke, method_of, suite_folder
from PIL import Image
from rich.console import Console
from sklearn.base import BaseEstimator, clone

from dnm_sklearn.bench.cli.common import TABLE_WIDTH
from dnm_sklearn.bench.results import rows
from dnm_sklearn.bench.results.records import RecordError, read_records, write_record, write_text
from dnm_sklearn.bench.run import registry, runner
from dnm_sklearn.bench.run.baselines import RowwiseECOD
from dnm_sklearn.bench.run.prepare import Plan, SharedText, draw_id_images, embed_suite
from dnm_sklearn.bench.run.registry import (
    UnknownNameError,
    baselines,
    detectors,
    load_suite,
    resolve,
)
from dnm_sklearn.corpus import corpus_names
from dnm_sklearn.datasets import ImageSet, benchmark_names, load_embedding_suite
from dnm_sklearn.embedding.open_clip.registry import shown_model_name


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return suite_folder(tmp_path_factory.mktemp("suites") / "tiny")


@pytest.fixture(scope="session")
def embedded(folder):
    return embed_suite(load_embedding_suite(folder))


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def full_run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "results"
    result = invoke("run", "--suite", folder, "-o", out, "--param", "NegLabel.n_groups=2")
    return result, out


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
    methods = [*registry.detectors(), "ENLDetector", *registry.baselines()]
    assert [line["method"] for line in lines] == methods
    assert {line["label"]: line["id_images_used"] for line in lines if line["method"] == "ENLDetector"} == {
        "ENL": "0", "ENL (id_per_class=4)": str(4 * K),
    }  # fmt: skip
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
    assert set(record["metrics"]) == set(rows.METRICS)
    record = json.loads(next((out / "records").glob("*ECOD*near*.json")).read_text())
    assert "alone" in record["scoring"]


def test_the_table_can_be_made_again_from_the_records(full_run):
    _, out = full_run
    assert rows.to_csv(read_records(out / "records")) == (out / "table.csv").read_text()


def test_wide(folder):
    result = invoke("run", "--suite", folder, "-d", "mcm", "--no-baselines", "--wide")
    assert result.exit_code == 0
    assert "by OOD set" not in result.output
    assert result.output.count("far two") == len(rows.METRICS)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_part_of_a_cut_table_names_its_rows(embedded, width):
    methods = [resolve(name, detectors()) for name in ("NegLabel", "AdaNeg")]
    records = list(runner.run(embedded, methods))
    terminal = Console(width=width, record=True, file=io.StringIO())
    rows.render(records, terminal)
    text = terminal.export_text()
    n_parts = text.count("Detector")
    assert n_parts > 1
    assert sum(line.split()[:1] == ["NegLabel"] for line in text.splitlines()) == n_parts
    assert "…" not in text


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
    "suite": (("--suite", "glyhps"), "neither a suite nor a folder", "mean glyphs"),
    "detector": (("-d", "neglabl"), "no detector 'neglabl'", "Did you mean NegLabelDetector?"),
    "baseline": (("-b", "IForrest"), "no baseline 'IForrest'", "Did you mean IForest?"),
    "contradiction": (("--no-baselines", "-b", "KNN"), "contradict"),
    "contradiction 2": (("--no-detectors", "-d", "MCM"), "contradict"),
    "nothing": (("--no-detectors", "--no-baselines"), "Nothing to run"),
    "param form": (("--param", "n_groups=10"), "not METHOD.NAME=VALUE"),
    "param method": (("--param", "NoSuch.n_groups=10"), "'NoSuch'"),
    "param name": (
        ("--param", "NegLabel.ngroups=10"),
        "no parameter 'ngroups'",
        "Did you mean n_groups?",
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
    "detector spec name": (("-d", "ENLL(id_per_class=4)"), "Did you mean ENLDetector"),
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


def test_list():
    for what, names in {
        "detectors": registry.detectors(),
        "baselines": baselines(),
        "suites": registry.suites(),
    }.items():
        result = invoke("list", what)
        assert result.exit_code == 0
        assert all(name in result.output for name in names)
        assert all(name in invoke("list").output for name in names)
    plain = invoke("list").output
    assert all(name in plain for name in (*benchmark_names(), *corpus_names()))
    assert "dnm-bench list models" in plain
    assert "torchvision:SVHN" in invoke("list", "datasets").output


@pytest.mark.parametrize("words", [("knn",), ("baselines", "KNN"), ("all", "knn")])
def test_list_searches_by_pattern(words):
    result = invoke("list", *words)
    assert result.exit_code == 0
    assert "KNN" in result.output
    assert "LOF" not in result.output
    assert "detectors" not in result.output


def test_list_bad_input():
    for words, said in (
        (("nonsense",), "No name of all kinds contains 'nonsense'"),
        (("neglabl",), "Did you mean NegLabelDetector"),
        (("detectors", "knn"), "No name of all detectors contains 'knn'"),
        (("detector", "neg"), "There is no kind 'detector'"),
        (("a", "b", "c"), "takes a kind and a pattern"),
    ):
        result = invoke("list", *words)
        assert result.exit_code == 2
        assert said in result.output


def test_help_is_cheap():
    code = (
        "import sys\nfrom dnm_sklearn.bench.cli.main import main\nfor a in ['--help'], ['run', "
        "'--help'], ['list', 'suites'], ['embed', '--help'], ['score', '--help']:\n    try: "
        "main(a)\n    except SystemExit as e: assert not e.code\nheavy = ('torch', 'open_clip', "
        "'pyod', 'scipy.stats', 'matplotlib', 'sklearn')\nprint([m for m in heavy if m in "
        "sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_shipped_suite(tmp_path):
    arguments = ("-d", "MaxLogit", "-d", "NegLabel", "-b", "KNN", "-o", tmp_path)
    result = invoke("run", *arguments)
    assert result.exit_code == 0, result.output
    records = read_records(tmp_path / "records")
    assert {r.suite["name"] for r in records} == {"glyphs-letters"}
    assert {r.id_images_used for r in records} == {0, 16 * 52}
    assert {r.prompt for r in records} == {"{}", None}
    accuracy = {r.id_accuracy for r in records if r.method == "MaxLogitDetector"}
    assert min(accuracy) > 0.8
    assert registry.load_suite("glyphs-letters").name == "glyphs-letters"


# -- embed ----------------------------------------------------------------------------------------


def test_embed_bad_input(tmp_path):
    result = invoke("embed", tmp_path / "s", "--id", tmp_path)
    assert result.exit_code == 2
    assert "No OOD set" in result.output
    result = invoke("embed", tmp_path / "s", "--id", tmp_path, "--far", "things")
    assert result.exit_code == 2
    assert "not NAME=DIR" in result.output
    result = invoke("embed", tmp_path / "s", "--id", tmp_path / "nowhere", "--far", f"x={tmp_path}")
    assert result.exit_code == 2
    assert "nowhere: no such folder" in " ".join(result.output.split())
    (tmp_path / "names").write_text("ant insect\n")
    result = invoke(
        "embed",
        tmp_path / "s",
        "--id",
        tmp_path,
        "--far",
        f"x={tmp_path}",
        "--names",
        tmp_path / "names",
    )
    assert result.exit_code == 2
    assert "line 1" in result.output


def test_embed_without_weights(tmp_path, monkeypatch):
    from dnm_sklearn.embedding.open_clip.build import WeightsUnavailableError

    def fail(*args, **kwargs):
        raise WeightsUnavailableError("download them")

    monkeypatch.setattr("dnm_sklearn.datasets.embed_image_folders", fail)
    result = invoke("embed", tmp_path / "s", "--id", tmp_path, "--far", f"x={tmp_path}")
    assert result.exit_code == 2
    assert "download them" in result.output


def test_embed_then_run(tmp_path, monkeypatch):
    from dnm_sklearn.testing import FakeEmbedder

    def fake(model="fake", *, memory=None, on_error="raise"):
        return FakeEmbedder(dim=8, memory=memory, on_error=on_error)

    monkeypatch.setattr("dnm_sklearn.embedding.CLIPEmbedder", fake)
    rng = np.random.default_rng(0)
    for sub in ("id/n1", "id/n2", "train/n1", "train/n2", "far", "near"):
        (tmp_path / sub).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
                tmp_path / sub / f"{i}.png"
            )
    (tmp_path / "names").write_text("n1\tant\nn2\tbee\n\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("\n".join(f"word {i}" for i in range(30)), encoding="utf-8")
    result = invoke(
        "embed", tmp_path / "suite", "--id", tmp_path / "id", "--id-train", tmp_path / "train",
        "--far", f"far={tmp_path / 'far'}", "--near", f"near={tmp_path / 'near'}",
        "--names", tmp_path / "names", "--corpus", tmp_path / "words.txt", "--note", "a test",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    suite = load_suite(str(tmp_path / "suite"))
    assert suite.class_names == ["ant", "bee"]
    assert {s.name: s.group for s in suite.ood} == {"far": "far", "near": "near"}
    assert (
        invoke("run", "--suite", tmp_path / "suite", "-d", "MaxLogit", "-b", "KNN").exit_code == 0
    )


def test_embed_full_disk_and_unreadable_images(tmp_path, monkeypatch):
    for sub in ("id/cat", "id/dog", "far"):
        (tmp_path / "photos" / sub).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / sub / "0.png")
    (tmp_path / "words.txt").write_text("stone\ncloud", encoding="utf-8")
    place, out = tmp_path / "photos", tmp_path / "out"
    out.mkdir()
    run = (
        "embed",
        out / "suite",
        "--id",
        place / "id",
        "--far",
        f"far={place / 'far'}",
        "--model",
        "glyphclip",
    )
    run = (*run, "--corpus", tmp_path / "words.txt")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dnm_sklearn.datasets.suite_writer.os.fsync", full)
        result = invoke(*run)
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    (place / "far" / "broken.png").write_bytes(b"no image")
    result = invoke(*run)
    assert result.exit_code == 2
    assert "broken.png" in result.output
    assert not list(out.iterdir())
    result = invoke(*run, "--skip-unreadable")
    assert result.exit_code == 0, result.output
    assert len(load_suite(str(out / "suite")).ood[0]) == 1


def test_the_path_of_a_checkpoint_stays_here(tmp_path):
    for model, shown in (
        ("local-dir:/home/me/tuned", "local-dir:tuned"),
        ("ViT-B-16//home/me/tuned.pt", "ViT-B-16/tuned.pt"),
        ("ViT-B-16/~/tuned.pt", "ViT-B-16/tuned.pt"),
        ("hf-hub:org/repo", "hf-hub:org/repo"),
        ("ViT-B-16/openai", "ViT-B-16/openai"),
        ("glyphclip", "glyphclip"),
    ):
        assert shown_model_name(model) == shown


# -- the rooms behind it --------------------------------------------------------------------------


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
    records = list(runner.run(embedded, methods))
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

    plan = Plan(overrides={"Watched": {"adaptation": adaptation}}, repeats=2)
    records = list(runner.run(embedded, [method_of(Watched)], plan))
    assert {r.sees_test_stream for r in records} == {stream}
    assert seen == ([100, 100, 90, 90, 90, 90, 90, 90] if stream else [60, 40, 30, 30, 30])
    assert records[0].metrics["auroc"] > 0.99
    assert {(r.stream, len(r.repeats)) for r in records} == {("shuffled", 2) if stream else ("", 0)}


def test_texts_are_encoded_once():
    class Counting:
        asked = []

        def encode_text(self, names, prompt="{}", *, return_norm=False):
            assert return_norm
            self.asked.append((list(names), prompt))
            return np.array([[len(name), 1.0] for name in names]), np.arange(1.0, len(names) + 1)

    counting = Counting()
    shared = SharedText(counting)
    for _ in range(2):
        assert shared.encode_text(["a", "bb", "a"], "the {}").tolist() == [[1, 1], [2, 1], [1, 1]]
    rows, norms = shared.encode_text(["ccc", "bb"], "the {}", return_norm=True)
    assert (rows.tolist(), norms.tolist()) == ([[3, 1], [2, 1]], [1, 2])
    shared.encode_text(["a"], ["the {}", "a {}"])
    assert counting.asked == [
        (["a", "bb"], "the {}"),
        (["ccc"], "the {}"),
        (["a"], ["the {}", "a {}"]),
    ]
    assert clone(shared) is shared


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
def test_ecod_is_pyods_row_by_row():
    from pyod.models.ecod import ECOD

    rng = np.random.default_rng(0)
    train = rng.standard_normal((40, 5)) ** 3
    train[:, 1] = np.round(train[:, 1])  # ties
    train[:, 2] = 1.0  # constant
    X = np.concatenate([rng.standard_normal((25, 5)) ** 3, train[:5]])
    X[:10, 2] = 1.0
    original = ECOD().fit(train)
    expected = [original.decision_function(row[None])[0] for row in X]
    ours = RowwiseECOD().fit(train)
    np.testing.assert_allclose(ours.decision_function(X), expected, rtol=1e-10)
    np.testing.assert_allclose(ours.decision_scores_, original.decision_scores_)


def test_draw_of_id_images():
    images = ImageSet("t", np.arange(20.0).reshape(10, 2), "id", np.array([0] * 6 + [1] * 3 + [2]))
    drawn = draw_id_images(images, 3, seed=0)
    assert len(drawn) == 3 + 3 + 1
    np.testing.assert_array_equal(drawn.images, draw_id_images(images, 3, seed=0).images)
    assert not np.array_equal(drawn.images, draw_id_images(images, 3, seed=1).images)
    assert len(draw_id_images(images, 0, seed=0)) == 10
    assert len(draw_id_images(replace(images, labels=None), 3, seed=0)) == 10


def test_unreadable_image_in_a_suite(embedded):
    class Blind:
        logit_scale_, fingerprint_ = 100.0, "blind"

        def encode_image(self, X):
            return np.full((len(X), 3), np.nan)

        fit = encode_text = transform = encode_image

    with pytest.raises(ValueError, match="60 images of the set 'id' could not be read"):
        embed_suite(replace(embedded.suite, embedder=Blind()))


def test_names_that_are_not_known():
    with pytest.raises(UnknownNameError, match="Known: KNN, LOF"):
        resolve("zzz", baselines())
    with pytest.raises(UnknownNameError, match="or give a folder with a suite.json"):
        load_suite("zzz")


def test_damaged_records(full_run, tmp_path):
    _, out = full_run
    record = read_records(out / "records")[0]
    path = write_record(tmp_path, record)
    assert read_records(tmp_path) == [record]
    path.write_text(path.read_text()[:-40])
    with pytest.raises(RecordError, match="not a readable record"):
        read_records(tmp_path)
    write_record(tmp_path, replace(record, format=99))
    with pytest.raises(RecordError, match="newer version"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="no such folder"):
        read_records(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_hostile_names_in_a_terminal_and_a_file(tmp_path):
    folder = suite_folder(tmp_path / "s", name="[red]a/../b[/red]", note="[bold]x[/nothing]")
    result = invoke("run", "--suite", folder, "-d", "MCM", "--no-baselines", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "[red]a/../b[/red]" in result.output
    assert "[bold]x[/nothing]" in result.output
    assert all(p.parent == tmp_path / "out" / "records" for p in (tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("detector", "auroc"),
    [("NegLabelDetector", 95.1), ("MCMDetector", 96.3), ("MaxLogitDetector", 95.1)],
)
def test_real_clip_features(shared_dir, detector, auroc):
    embedded = embed_suite(load_embedding_suite(shared_dir / "real_clip_vitb32" / "caltech63"))
    plan = Plan(overrides={"NegLabelDetector": {"n_groups": 10}})
    records = runner.run(embedded, [detectors()[detector]], plan)
    found = [100 * r.metrics["auroc"] for r in records if r.ood["name"] in ("dtd", "sun397")]
    assert len(found) == 2
    assert np.mean(found) == pytest.approx(auroc, abs=1.0)
