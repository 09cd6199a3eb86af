"""dnm-bench table, score, cache and list."""

import csv
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from bench_suite import invoke, suite_folder
from PIL import Image

from dnm_sklearn.bench.results import formats
from dnm_sklearn.bench.results.bootstrap import paired_difference
from dnm_sklearn.bench.results.differences import differences
from dnm_sklearn.bench.results.records import read_records
from dnm_sklearn.bench.results.rows import METRICS, build_rows, deviation
from dnm_sklearn.bench.results.score_files import read_scores
from dnm_sklearn.bench.run import scoring_job
from dnm_sklearn.exceptions import CacheWriteWarning
from dnm_sklearn.metrics import auroc
from dnm_sklearn.testing import FakeEmbedder


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
    block = formats.read_blocks([runs / "seed0", runs / "seed1"])[0]
    rows = {row.method: row for row in build_rows(block.records)}
    assert {name: row.n_runs for name, row in rows.items()} == {
        "NegLabelDetector": 2, "MCMDetector": 2, "TANLDetector": 4, "IForest": 2,
    }  # fmt: skip
    each = [
        np.mean([r.metrics["auroc"] for r in read_records(runs / f"seed{s}" / "records")
                 if r.method == "IForest" and r.ood["group"] == "far"])
        for s in (0, 1)
    ]  # fmt: skip
    assert rows["IForest"].mean("auroc", "far") == pytest.approx(np.mean(each))
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
    block = formats.read_blocks([runs / "seed0"])[0]
    many = [
        replace(r, ood={**r.ood, "name": f"{r.ood['name']} {i}"})
        for r in block.records
        for i in range(3)
    ]
    grids = formats.make_set_grids(replace(block, records=many), metrics=["auroc"])
    assert [grid.title.split(",")[0] for grid in grids] == [
        "AUROC by far OOD set", "AUROC by near OOD set", "AUROC by sanity OOD set",
    ]  # fmt: skip
    assert grids[1].head == ["Detector", "near 0", "near 1", "near 2"]


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
    block = formats.read_blocks([tmp_path / "a"])[0]
    found = differences(block, "MCM", n_resamples=40)["far"]
    labels = [row.label for row in build_rows(block.records)]
    assert found[labels.index("MCM")] == ""
    tanl = next(i for i, label in enumerate(labels) if "TANL" in label)
    records = {(r.method, r.ood["name"]): r for r in block.records}
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
    assert "Did you mean NegLabel" in " ".join(result.output.split())
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


@pytest.mark.parametrize("metric", ["auroc", "fpr95_id_positive"])
def test_bootstrap_draws_both_detectors_alike(metric):
    rng = np.random.default_rng(0)
    ids, oods = (
        np.round(rng.standard_normal((1, 40)), 1),
        np.round(1 + rng.standard_normal((1, 30)), 1),
    )
    same = paired_difference([(ids, oods)], [(ids + 5, oods + 5)], metric=metric, n_resamples=30)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
    other = rng.standard_normal((1, 30))
    found = paired_difference([(ids, oods)], [(ids, other)], metric=metric, n_resamples=60)
    assert found.low < found.value < found.high
    if metric == "auroc":
        truth = np.arange(70) >= 40
        expected = auroc(np.r_[ids[0], oods[0]], truth) - auroc(np.r_[ids[0], other[0]], truth)
        assert found.value == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="not scored on the same images"):
        paired_difference([(ids, oods)], [(ids, oods[:, :3])])


# -- score ----------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path, monkeypatch):
    def fake(model="fake", **options):
        return FakeEmbedder(dim=8, **options)

    monkeypatch.setattr("dnm_sklearn.embedding.CLIPEmbedder", fake)
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(11):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
            folder / f"{i:02d}.png"
        )
    (folder / "05.png").write_bytes(b"not an image")
    (tmp_path / "words.txt").write_text("\n".join(f"word {i}" for i in range(30)), encoding="utf-8")
    return folder


def score(photos, *more):
    return invoke(
        "score", photos, "-n", "ant", "-n", "bee", "--corpus", photos.parent / "words.txt", *more
    )


def lines_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore")
def test_score_writes_a_line_for_each_image(photos, tmp_path):
    out = tmp_path / "out.csv"
    result = score(photos, "-o", out, "--chunk", 4)
    assert result.exit_code == 0, result.output
    assert "1 images unreadable" in result.output
    lines = lines_of(out)
    assert [line["path"] for line in lines] == [str(photos / f"{i:02d}.png") for i in range(11)]
    assert (lines[5]["score"], lines[5]["is_ood"], lines[5]["label"]) == ("", "True", "ood")
    for line in lines[:5] + lines[6:]:
        assert line["nearest_class"] in ("ant", "bee")
        assert line["top_negative_label"].startswith("word ")
        assert line["label"] == ("ood" if line["is_ood"] == "True" else line["nearest_class"])
    assert not (tmp_path / "out.csv.part").exists()
    assert lines[5]["error"] == "UnidentifiedImageError: cannot identify image file"


@pytest.mark.filterwarnings("ignore")
def test_score_takes_a_list_of_paths(photos, tmp_path):
    (tmp_path / "list.txt").write_text("photos/03.png\nphotos/01.png\n")
    arguments = (
        "-n",
        "ant",
        "-n",
        "bee",
        "--corpus",
        tmp_path / "words.txt",
        "-o",
        tmp_path / "b.csv",
    )
    assert invoke("score", tmp_path / "list.txt", *arguments).exit_code == 0
    assert [line["path"] for line in lines_of(tmp_path / "b.csv")] == [
        str(photos / "03.png"),
        str(photos / "01.png"),
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_job_that_failed_before_its_first_chunk_stands_in_no_ones_way(
    photos, tmp_path, monkeypatch
):
    out = tmp_path / "out.csv"

    def fails(*given):
        raise ValueError("no weights")

    with monkeypatch.context() as patch:
        patch.setattr(scoring_job, "_score", fails)
        assert score(photos, "-o", out).exit_code == 2
    assert score(photos, "-o", out, "--prompt", "a {}").exit_code == 0
    assert len(lines_of(out)) == 11


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detector", ["NegLabel", "TANL"])
def test_an_interrupted_job_goes_on(photos, tmp_path, monkeypatch, detector):
    arguments = ("-d", detector, "--chunk", 3)
    if detector == "TANL":
        arguments += ("--param", "n_activated=10")
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert score(photos, "-o", whole, *arguments).exit_code == 0
    real, calls = scoring_job._score, []

    def stops(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(scoring_job, "_score", stops)
    result = score(photos, "-o", out, *arguments)
    assert result.exit_code == 130
    assert not out.exists()
    assert len(list((tmp_path / "out.csv.part").glob("*.csv"))) == 2
    result = score(photos, "-o", out, *arguments, "--prompt", "a {}")
    assert result.exit_code == 2
    assert "other images or settings" in " ".join(result.output.split())
    calls.clear()
    monkeypatch.setattr(scoring_job, "_score", lambda *given: (calls.append(1), real(*given))[1])
    assert score(photos, "-o", out, *arguments).exit_code == 0
    assert len(calls) == 2
    assert out.read_text() == whole.read_text()
    assert score(photos, "-o", out, *arguments, "--restart").exit_code == 0


@pytest.mark.filterwarnings("ignore")
def test_score_to_parquet(photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    assert score(photos, "-o", tmp_path / "a.parquet", "--chunk", 4).exit_code == 0
    assert score(photos, "-o", tmp_path / "a.csv", "--chunk", 4).exit_code == 0
    found = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [line["score"] for line in found] == [
        float(line["score"]) if line["score"] else None for line in lines_of(tmp_path / "a.csv")
    ]
    assert {type(line["is_ood"]) for line in found} == {bool}


@pytest.mark.filterwarnings("ignore")
def test_score_threshold_from_images(photos, tmp_path):
    plain = ("score", photos, "-n", "ant", "-n", "bee", "-d", "MCM", "-o", tmp_path / "a.csv")
    assert invoke(*plain).exit_code == 0
    assert {line["is_ood"] for line in lines_of(tmp_path / "a.csv")} == {"", "True"}
    good = tmp_path / "good"
    good.mkdir()
    rng = np.random.default_rng(1)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(good / f"{i}.png")
    assert invoke(*plain, "--calibrate", good).exit_code == 0
    assert "" not in {line["is_ood"] for line in lines_of(tmp_path / "a.csv")}


def test_score_that_cannot_start_leaves_nothing(photos, tmp_path):
    result = invoke("score", photos, "-n", "ant", "-d", "MCM", "-o", tmp_path / "a.csv")
    assert result.exit_code == 2
    assert "at least two classes" in " ".join(result.output.split())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("a.csv")]


def test_score_full_disk(photos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = score(photos, "-o", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert not (tmp_path / "out.csv").exists()


SCORE_BAD = {
    "ending": (("-o", "x.txt"), "must end in .csv or .parquet"),
    "folder": (("-o", "no/x.csv"), "there is no folder"),
    "detector": (("-o", "x.csv", "-d", "NegLable"), "Did you mean NegLabelDetector?"),
    "param": (("-o", "x.csv", "--param", "n_grops=3"), "Did you mean n_groups?"),
    "param form": (("-o", "x.csv", "--param", "3"), "is not NAME=VALUE"),
    "value": (("-o", "x.csv", "--param", "n_groups=few"), "n_groups"),
    "prompt": (("-o", "x.csv", "--prompt", "cat"), "has no {}"),
    "names": (("-o", "x.csv", "--names", "nowhere.txt"), "is not a text file"),
    "calibrate": (("-o", "x.csv", "--calibrate", "nowhere"), "no such folder of images"),
}


@pytest.mark.parametrize("case", SCORE_BAD)
@pytest.mark.filterwarnings("ignore")
def test_score_bad_input(photos, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, said = SCORE_BAD[case]
    result = score(photos, *arguments)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "x.csv").exists()


def test_score_takes_no_paths_as_class_names(photos, tmp_path):
    for name, said in (
        (str(photos), "is a path on this machine"),
        ("cat.jpg", "looks like the path of an image"),
        ("ood", "is a class name and the ood_label"),
    ):
        result = invoke("score", photos, "-n", "dog", "-n", name, "-o", tmp_path / "out.csv")
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("out")]


def test_report_full_disk(runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for command, *more in (("report", "--no-gallery"), ("table", "-f", "latex")):
        result = invoke(command, runs / "seed0", *more, "-o", tmp_path / "out")
        assert result.exit_code == 2
        assert "No space left on device" in result.output
        assert not list(tmp_path.iterdir())


def test_score_needs_names_and_images(photos, tmp_path):
    assert "No class names" in invoke("score", photos, "-o", tmp_path / "x.csv").output
    result = invoke("score", tmp_path / "nowhere", "-n", "ant", "-o", tmp_path / "x.csv")
    assert result.exit_code == 2
    assert "no such folder of images" in " ".join(result.output.split())


# -- cache and list -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_cache(photos, tmp_path):
    cache = tmp_path / "cache"
    assert score(photos, "-o", tmp_path / "a.csv", "--cache", cache).exit_code == 0
    result = invoke("cache", "info", cache)
    assert result.exit_code == 0
    assert "10 rows of 8" in result.output
    assert invoke("cache", "verify", cache).output.endswith("Nothing is damaged.\n")
    with closing(sqlite3.connect(cache / "embeddings.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE rows SET checksum = checksum + 1 WHERE id = 3")
    result = invoke("cache", "verify", cache)
    assert result.exit_code == 1
    assert "1 dropped" in result.output
    (cache / "mine.txt").write_text("stays")
    assert invoke("cache", "clear", cache).exit_code == 1
    assert invoke("cache", "clear", cache, "--yes").exit_code == 0
    assert "in all: 0 B" in invoke("cache", "info", cache).output
    assert (cache / "mine.txt").exists()
    assert invoke("cache", "info", tmp_path / "nowhere").exit_code == 2

    (cache / "embeddings.sqlite").write_text("somebody else's")
    for command in ("info", "verify", "clear"):
        result = invoke("cache", command, cache, *(["--yes"] if command == "clear" else []))
        assert result.exit_code == 2
        assert "is not a cache file of dnm_sklearn" in " ".join(result.output.split())


def test_cache_size(photos, tmp_path):
    cache = tmp_path / "cache"
    options = ("-o", tmp_path / "a.csv", "--cache", cache, "--cache-size")
    with pytest.warns(CacheWriteWarning, match="cap of 1000 bytes"):
        assert score(photos, *options, "1 kB").exit_code == 0
    assert "0 rows of 8" in invoke("cache", "info", cache).output
    assert score(photos, *options, "20GB").exit_code == 0
    assert "10 rows of 8" in invoke("cache", "info", cache).output

    result = score(photos, *options, "much")
    assert result.exit_code == 2
    assert "cache_size must be a number of bytes" in " ".join(result.output.split())


def test_list_models():
    result = invoke("list", "models", "ViT-B-32/")
    assert result.exit_code == 0
    assert "ViT-B-32/openai" in result.output
    assert "glyphclip" not in result.output
    assert "glyphclip" in invoke("list", "models", "glyph").output
