"""dnm-bench table: means over seeds, formats, differences to a reference."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from bench_suite import invoke, suite_folder

from dnm_sklearn.bench.results.differences import differences
from dnm_sklearn.bench.results.formats import make_set_tables
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.results.rows import METRICS, deviation
from dnm_sklearn.bench.results.run_groups import read_run_groups
from dnm_sklearn.bench.results.score_files import read_scores
from dnm_sklearn.metrics import auroc


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    suite = suite_folder(root / "tiny", name="50 % & co_1 | <b>")
    for seed in (0, 1):
        arguments = (
            "-d",
            "NegLabel",
            "-d",
            "MCM",
            "-d",
            "TANL",
            "-b",
            "IForest",
            "--seed",
            seed,
            "--repeats",
            2,
        )
        more = ("--param", "TANL.n_activated=10", "--param", "NegLabel.n_groups=4")
        assert (
            invoke("run", "--suite", suite, "-o", root / f"seed{seed}", *arguments, *more).exit_code
            == 0
        )
    return root


def test_mean_and_deviation_over_seeds(runs):
    group = read_run_groups([runs / "seed0", runs / "seed1"])[0]
    rows = {row.method: row for row in group.rows}
    assert {name: row.n_runs for name, row in rows.items()} == {
        "NegLabelDetector": 2, "MCMDetector": 2, "TANLDetector": 4, "IForest": 2,
    }  # fmt: skip
    each = [
        np.mean([r.metrics["auroc"] for r in read_records(runs / f"seed{s}" / "records")
                 if r.method == "IForest" and r.ood["group"] == "far"])
        for s in (0, 1)
    ]  # fmt: skip
    assert rows["IForest"].group_mean("auroc", "far") == pytest.approx(np.mean(each))
    assert deviation(rows["IForest"].group_values("auroc", "far")) == pytest.approx(
        np.std(each, ddof=1)
    )
    assert deviation(rows["MCMDetector"].group_values("auroc", "far")) == 0


@pytest.mark.parametrize("kind", ["rich", "markdown", "latex", "csv"])
def test_formats(runs, tmp_path, kind):
    result = invoke("table", runs / "seed0", runs / "seed1", "-f", kind)
    assert result.exit_code == 0, result.output
    for text in (
        "NegLabel (n_groups=4)".replace("_", {"markdown": r"\_", "latex": r"\_"}.get(kind, "_")),
        "TANL",
    ):
        assert text in result.output
    file = tmp_path / "table"
    assert invoke(
        "table", runs / "seed0", runs / "seed1", "-f", kind, "-o", file, "--sets"
    ).exit_code in (0, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["table"]
    text = file.read_text()
    if kind == "csv":
        line = next(csv.DictReader(text.splitlines()))
        assert line["seeds"] == "0 1"
        assert {f"{metric}:far:sd" for metric in METRICS} <= set(line)
        return
    words = " ".join(text.split())
    for said in (
        "FPR95 ID+ far",
        "FPR95 OOD+ near",
        "AUPR ID+",
        "ID accuracy",
        "sees test stream",
        "far one",
    ):
        assert said in words or kind == "rich"
    assert words.count("by OOD set") == len(METRICS)
    assert "±" in text if kind != "latex" else r"$\pm$" in text
    assert {"latex": r"50 \% \& co\_1", "markdown": r"\| \<b\>"}.get(kind, "<b>") in text


@pytest.mark.parametrize("kind", ["rich", "markdown", "latex", "csv"])
def test_metric_filters_the_columns_of_every_format(runs, kind):
    result = invoke(
        "table",
        runs / "seed0",
        "-f",
        kind,
        "--sets",
        "--metric",
        "auroc",
        "--metric",
        "fpr95_id_positive",
    )
    assert result.exit_code == 0, result.output
    text = result.output.lower()
    assert "auroc" in text
    assert "fpr95" in text
    assert "aupr" not in text
    assert "ood+" not in text
    assert "ood_positive" not in text


def test_sets_are_a_table_for_each_metric(runs):
    result = invoke("table", runs / "seed0", "-f", "markdown", "--sets")
    tables_of = result.output.split("| Detector ")[1:]
    assert len(tables_of) == 1 + len(METRICS)
    assert "far one (far) | far two (far) | near (near) | check (sanity) |" in tables_of[1]
    assert max(line.count("|") for line in result.output.splitlines()) <= 17
    assert result.output.count("All in percent") == 1
    group = read_run_groups([runs / "seed0"])[0]
    many = [
        replace(r, ood={**r.ood, "name": f"{r.ood['name']} {i}"})
        for r in group.records
        for i in range(3)
    ]
    tables = make_set_tables(replace(group, records=many), metrics=["auroc"])
    assert [table.title.split(",")[0] for table in tables] == [
        "AUROC by far OOD set", "AUROC by near OOD set", "AUROC by sanity OOD set",
    ]  # fmt: skip
    assert tables[1].head == ["Detector", "near 0", "near 1", "near 2"]


def test_reference_of_a_stream_that_holds_some_images(tmp_path):
    """Each order of rare-ood draws its own OOD images; others are judged on the same ones."""
    suite = suite_folder(tmp_path / "s")
    run = (
        "run",
        "--suite",
        suite,
        "--no-baselines",
        "--stream",
        "rare-ood",
        "-d",
        "TANL",
        "-d",
        "AdaNeg",
        "-d",
        "MCM",
    )
    run = (*run, "--param", "TANL.n_activated=10", "--param", "AdaNeg.n_groups=4", "-o")
    assert invoke(*run, tmp_path / "a", "--repeats", 2).exit_code == 0
    group = read_run_groups([tmp_path / "a"])[0]
    found = differences(group, "MCM", n_resamples=40)["far"]
    labels = [row.label for row in group.rows]
    assert found[labels.index("MCM")] == ""
    tanl = next(i for i, label in enumerate(labels) if "TANL" in label)
    records = {(r.method, r.ood["name"]): r for r in group.records}
    expected = []
    for name in ("far one", "far two"):
        tanl_id, tanl_ood = read_scores(tmp_path / "a" / "records", records["TANLDetector", name])
        mcm_id, mcm_ood = read_scores(tmp_path / "a" / "records", records["MCMDetector", name])
        each = []
        for i in range(2):
            seen = ~np.isnan(tanl_ood[i])
            assert 0 < seen.sum() < len(seen)
            truth = np.arange(len(tanl_id[i]) + seen.sum()) >= len(tanl_id[i])
            both = [np.r_[tanl_id[i], tanl_ood[i][seen]], np.r_[mcm_id[0], mcm_ood[0][seen]]]
            each.append(auroc(both[0], truth) - auroc(both[1], truth))
        expected.append(np.mean(each))
    assert found[tanl].value == pytest.approx(np.mean(expected))
    assert found[tanl].low <= found[tanl].value <= found[tanl].high
    text = invoke(
        "table", tmp_path / "a", "--reference", "MCM", "--resamples", 20, "-f", "markdown"
    ).output
    assert "over the OOD images that were drawn" in " ".join(text.split())
    assert invoke(*run, tmp_path / "b", "--repeats", 3, "-d", "NegLabel").exit_code == 0
    result = invoke(
        "table", tmp_path / "a", tmp_path / "b", "--reference", labels[tanl], "--resamples", 20
    )
    assert "No difference for" in result.output
    assert "the streams of the two hold different images" in " ".join(result.output.split())


def test_reference(runs):
    result = invoke(
        "table", runs / "seed0", "--reference", "MCM", "-f", "markdown", "--resamples", 50
    )
    assert result.exit_code == 0, result.output
    assert "AUROC minus MCM's far" in result.output
    lines = {line.split()[1]: line for line in result.output.splitlines() if line.startswith("| ")}
    assert "\\[" not in lines["MCM"]
    assert "\\[" in lines["TANL"]
    result = invoke("table", runs / "seed0", "--reference", "NegLable")
    assert result.exit_code == 2
    assert "Did you mean 'NegLabel" in " ".join(result.output.split())
    assert invoke("table", runs / "seed0", "--reference", "MCM", "-f", "csv").exit_code == 2
    next((runs / "seed1" / "records" / "scores").glob("*MCM*far-one*")).unlink()
    result = invoke("table", runs / "seed1", "--reference", "MCM")
    assert result.exit_code == 2
    assert "cannot be read" in result.output


def test_table_bad_input(tmp_path):
    for folder, said in (
        (tmp_path / "nowhere", "no such run folder"),
        (tmp_path, "holds no records"),
    ):
        result = invoke("table", folder)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())
    assert invoke("table").exit_code == 2


def test_table_output_that_cannot_be_written(runs, tmp_path):
    result = invoke("table", runs / "seed0", "-o", tmp_path / "no" / "table.md", "-f", "markdown")
    assert result.exit_code == 2
    assert "Cannot write" in result.output


def test_report_full_disk(runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for command, *more in (("report", "--no-gallery"), ("table", "-f", "latex")):
        result = invoke(command, runs / "seed0", *more, "-o", tmp_path / "out")
        assert result.exit_code == 2
        assert "No space left on device" in result.output
        assert not list(tmp_path.iterdir())


def test_ranks_over_sets(runs):
    result = invoke("table", runs / "seed0", "--ranks", "--metric", "auroc", "-f", "markdown")
    assert result.exit_code == 0, result.output
    assert "Mean ranks over 3 OOD sets" in result.output
    assert "Friedman's test that all methods are alike: p = " in result.output
    result = invoke("table", runs / "seed0", "--ranks", "-f", "csv")
    assert result.exit_code != 0
    assert "choose another --format" in result.output
