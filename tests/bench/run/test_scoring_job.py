"""dnm-bench score: names and images to a file, chunk by chunk."""

import csv
import os

import numpy as np
import pytest
from bench_suite import invoke, score
from PIL import Image

from dnm_sklearn.bench.run import scoring_job


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
    assert lines[5]["error"].startswith("cannot identify image file")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_name_that_is_not_utf8_is_escaped(photos, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    odd = os.path.join(os.fsencode(photos), b"caf\xe9.png")
    try:
        os.rename(photos / "03.png", odd)
    except OSError:
        pytest.skip("this file system has no such names")
    with open(os.path.join(os.fsencode(photos), b"bad\xff.png"), "wb"):
        pass
    out = tmp_path / f"out.{ending}"
    result = score(photos, "-o", out)
    assert result.exit_code == 0, result.output
    if ending == "csv":
        lines = {line["path"]: line["score"] for line in lines_of(out)}
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        lines = dict(zip(table["path"].to_pylist(), table["score"].to_pylist(), strict=True))
    assert lines[str(photos / r"caf\xe9.png")]
    assert not lines[str(photos / r"bad\xff.png")]


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
    by_rule = invoke(*plain)
    assert by_rule.exit_code == 0
    assert "" not in {line["is_ood"] for line in lines_of(tmp_path / "a.csv")}
    assert "no rule is known to hold" in by_rule.output
    assert "--calibrate FOLDER" in by_rule.output
    good = tmp_path / "good"
    good.mkdir()
    rng = np.random.default_rng(1)
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(good / f"{i}.png")
    calibrated = invoke(*plain, "--calibrate", good)
    assert calibrated.exit_code == 0
    assert "--calibrate FOLDER" not in calibrated.output
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
    "detector": (("-o", "x.csv", "-d", "NegLable"), "Did you mean 'NegLabelDetector'?"),
    "param": (
        ("-o", "x.csv", "-d", "NegLabel", "--param", "n_grops=3"),
        "Did you mean 'n_groups'?",
    ),
    "param form": (("-o", "x.csv", "--param", "3"), "is not NAME=VALUE"),
    "value": (("-o", "x.csv", "-d", "NegLabel", "--param", "n_groups=few"), "n_groups"),
    "prompt": (("-o", "x.csv", "--prompt", "cat"), "has no {}"),
    "names": (("-o", "x.csv", "--names", "nowhere.txt"), "there is no such file"),
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


def test_score_needs_names_and_images(photos, tmp_path):
    assert "No class names" in invoke("score", photos, "-o", tmp_path / "x.csv").output
    result = invoke("score", tmp_path / "nowhere", "-n", "ant", "-o", tmp_path / "x.csv")
    assert result.exit_code == 2
    assert "no such folder of images" in " ".join(result.output.split())
