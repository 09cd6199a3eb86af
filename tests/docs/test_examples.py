"""The examples run offline, with no weights but the shipped ones."""

import csv
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from dnm_sklearn.detectors import all_detectors

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = [
    pytest.mark.usefixtures("offline_folder"),
    pytest.mark.filterwarnings(
        "ignore:.*prompt.* longer than the model's context", "ignore:.*could not be read"
    ),
    pytest.mark.filterwarnings("ignore:.*the prior is raised"),
]


def run(file, *arguments):
    main = runpy.run_path(str(EXAMPLES / file))["main"]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def read_scores(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folder_demo_writes_scores_labels_and_names():
    result = run("zero_shot_folder.py", "--n-images", "40", "--memory", "cache")
    assert result.exit_code == 0, result.output
    rows = read_scores("scores.csv")
    assert len(rows) == 80
    scores = [float(row["ood_score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all((row["class_name"] == "ood") == (row["is_ood"] == "1") for row in rows)
    assert 0 < sum(row["is_ood"] == "1" for row in rows) < 80


def test_folder_of_the_user(tmp_path):
    names, corpus = tmp_path / "names.txt", tmp_path / "corpus.txt"
    names.write_text("cat\n\n", encoding="utf-8")
    corpus.write_text("chess pawn\narrow\n", encoding="utf-8")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (80, 60), "white").save(photos / "one.png")
    (photos / "broken.png").write_bytes(b"no image")
    arguments = [
        "-c",
        "dog",
        "--names",
        str(names),
        "--model",
        "pictoclip",
        "--corpus",
        str(corpus),
    ]
    with pytest.warns(UserWarning, match="n_groups"):
        result = run("zero_shot_folder.py", str(photos), *arguments, "-o", "out.csv")
    assert result.exit_code == 0, result.output
    rows = {Path(row["path"]).name: row for row in read_scores("out.csv")}
    assert set(rows) == {"one.png", "broken.png"}
    assert rows["broken.png"]["is_ood"] == "1"
    assert rows["broken.png"]["ood_score"] == "nan"


def test_folder_without_names_or_images_says_so(tmp_path):
    result = run("zero_shot_folder.py", str(tmp_path))
    assert result.exit_code == 2
    assert "class names" in result.output
    result = run("zero_shot_folder.py", str(tmp_path), "-c", "cat")
    assert result.exit_code == 2
    assert "holds no image" in result.output


def test_against_pyod_shows_every_detector():
    result = run("against_pyod.py", "--n-images", "60", "--memory", "cache")
    assert result.exit_code == 0, result.output
    table = {line[:16].strip(): line[16:].split() for line in result.output.splitlines()[1:]}
    assert {cls.info.name for cls in all_detectors().values()} < set(table)
    assert {name for name in table if "PyOD" in name} == {"KNN (PyOD)", "IForest (PyOD)"}
    for n_seen, near, far in table.values():
        assert 0 <= float(near) <= 100
        assert float(far) > 50
        assert int(n_seen) >= 0
