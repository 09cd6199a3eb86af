"""What users bring to dnm-bench score: embeddings, class names, text vectors, saved detectors."""

import csv
import json

import numpy as np
import pytest
from bench_suite import invoke

from dnm_sklearn import EmbeddingTable, NegLabelDetector
from dnm_sklearn.bench.run.own_data import read_class_names, read_items, read_texts
from dnm_sklearn.exceptions import FileContentError

ROWS = np.random.default_rng(0).normal(size=(11, 6)).astype(np.float32)
NAMES = ["ant", "bee"]


def parquet(file, **columns):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), file)
    return str(file)


def test_embeddings_of_every_kind_of_file(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "a.npz", embedding=ROWS, path=[f"{i}.png" for i in range(11)])
    np.savez(tmp_path / "b.npz", mine=ROWS.astype(np.float64))
    found = read_items(str(tmp_path / "a.npy"))
    assert found.names[:2] == ["row 0", "row 1"]
    np.testing.assert_array_equal(found.all(), ROWS)
    np.testing.assert_array_equal(found.take(8, 20), ROWS[8:])
    found = read_items(str(tmp_path / "a.npz"))
    assert found.names[-1] == "10.png"
    np.testing.assert_array_equal(found.take(3, 5), ROWS[3:5])
    np.testing.assert_array_equal(read_items(str(tmp_path / "b.npz"), "mine").all(), ROWS)


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
def test_embeddings_of_parquet(tmp_path, kind):
    pa = pytest.importorskip("pyarrow")
    types = {
        "list": pa.list_(pa.float32()),
        "large_list": pa.large_list(pa.float64()),
        "fixed": pa.list_(pa.float16(), 6),
    }
    values = ROWS.astype(np.float16) if kind == "fixed" else ROWS
    column = pa.array(list(values), types[kind])
    path = parquet(tmp_path / "a.parquet", path=[f"{i}.png" for i in range(11)], vector=column)
    found = read_items(path, "vector")
    assert found.names[2] == "2.png"
    np.testing.assert_allclose(found.all(), ROWS, atol=0 if kind != "fixed" else 2e-3)


def test_files_of_embeddings_that_cannot_be_used(tmp_path):
    (tmp_path / "no.npy").write_bytes(b"\x93NUMPY\x01\x00 broken")
    np.save(tmp_path / "cut.npy", ROWS)
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-3])
    # A header that states 4 TB.
    huge = whole.replace(b"(11, 6), }     ", b"(1" + b"0" * 11 + b",6),}")
    (tmp_path / "huge.npy").write_bytes(huge)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", ROWS[0])
    np.save(tmp_path / "columns.npy", np.asfortranarray(ROWS))
    np.save(tmp_path / "bytes.npy", ROWS.astype(np.uint8))
    np.savez(tmp_path / "other.npz", rows=ROWS)
    np.savez(tmp_path / "names.npz", embedding=ROWS, path=["a.png"])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 broken PAR1")
    for name in ("no.npy", "cut.npy", "huge.npy", "objects.npy", "flat.npy", "columns.npy",
                 "bytes.npy", "other.npz", "names.npz", "no.parquet", "none.npy"):  # fmt: skip
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow")
        with pytest.raises(FileContentError, match=name):
            read_items(str(tmp_path / name)).all()


def test_columns_of_parquet_that_cannot_be_used(tmp_path):
    for columns, said in (
        ({"other": [1]}, "has no column 'embedding'"),
        ({"embedding": [1.0]}, "no lists of numbers"),
        ({"embedding": [[1.0, 2.0], [1.0]]}, "several lengths"),
        ({"embedding": [[1.0], None]}, "several lengths"),
        ({"embedding": [["a"]]}, "no lists of numbers"),
        ({"embedding": [[1.0]], "path": [None]}, "missing"),
    ):
        path = parquet(tmp_path / "a.parquet", **columns)
        with pytest.raises(FileContentError, match=said):
            read_items(path)


def test_class_names_of_every_kind_of_file(tmp_path):
    def written(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    assert read_class_names(written("a.txt", "ant\n\n bee \n")) == NAMES
    assert read_class_names(written("a.csv", 'id,name\n0,ant\n1,"bee"\n'), "name") == NAMES
    assert read_class_names(written("b.csv", "name\nant\nbee\n")) == NAMES
    assert read_class_names(written("a.tsv", "id\tname\n0\tant\n1\tbee\n"), "name") == NAMES
    assert read_class_names(written("a.json", '["ant", "bee"]')) == NAMES
    assert read_class_names(written("b.json", '{"0": "ant", "1": "bee"}')) == NAMES
    for path, column, said in (
        (written("c.csv", "id,name\n0,ant\n"), None, "say with --names-column"),
        (written("d.csv", "id,name\n0,ant\n"), "nam", "no column 'nam'"),
        (written("e.csv", "id,name\n0,\n"), "name", "row 2 has no class name"),
        (written("f.csv", "name\n"), None, "holds no class names"),
        (written("c.json", '{"ant": ["emmet"]}'), None, "a list of class names"),
        (written("d.json", "[1"), None, "not readable JSON"),
        (written("c.txt", "ant"), "name", "is no CSV file"),
    ):
        with pytest.raises(ValueError, match=said):
            read_class_names(path, column)


@pytest.fixture
def data(tmp_path):
    """Text vectors of two classes and some words, and rows on their axes."""
    names = [*NAMES, "oak", "ash", "elm", "fir"]
    np.savez(tmp_path / "texts.npz", name=names, embedding=np.eye(6))
    rows = np.eye(6, dtype=np.float32)[[0, 1, 2, 5, 0]]
    rows[4] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    return tmp_path


def lines_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore")
def test_score_embeddings_without_a_model(data):
    given = ("score", data / "rows.npy", "--texts", data / "texts.npz")
    given += ("--names", data / "names.json", "--chunk", 2, "-d", "NegLabel")
    given += ("--param", "n_groups=1", "--param", "fraction=1.0")
    result = invoke(*given, "-o", data / "a.csv", "--explain", data / "e.csv", "--top-k", 2)
    assert result.exit_code == 0, result.output
    lines = lines_of(data / "a.csv")
    assert [line["path"] for line in lines] == [f"row {i}" for i in range(5)]
    assert [line["is_ood"] for line in lines] == ["False", "False", "True", "True", "True"]
    assert lines[2]["top_negative_label"] == "oak"
    assert lines[4]["score"] == ""
    assert "NaN" in lines[4]["error"]

    # Two labels of each side for each row that has a score, as the detector explains it.
    explained = lines_of(data / "e.csv")
    table = read_texts(str(data / "texts.npz"))
    det = NegLabelDetector(NAMES, embedder=table, n_groups=1, fraction=1.0).fit()
    expected = det.explain(np.eye(6)[[0, 1, 2, 5]], top_k=2)
    assert [line["label"] for line in explained] == expected["label"].tolist()
    assert [line["path"] for line in explained][::4] == ["row 0", "row 1", "row 2", "row 3"]
    np.testing.assert_allclose(
        [float(line["cosine"]) for line in explained], expected["cosine"], atol=1e-6
    )

    assert invoke(*given, "-o", data / "b.csv", "--sort", "score").exit_code == 0
    scores = [line["score"] for line in lines_of(data / "b.csv")]
    assert scores[-1] == ""
    assert [float(score) for score in scores[:-1]] == sorted(
        (float(line["score"]) for line in lines[:-1]), reverse=True
    )


def test_score_with_a_saved_detector(data):
    table = EmbeddingTable([*NAMES, "oak", "ash", "elm", "fir"], np.eye(6))
    rng = np.random.default_rng(0)
    held_out = np.eye(6)[rng.integers(0, 2, 200)] + 0.3 * rng.normal(size=(200, 6))
    det = NegLabelDetector(NAMES, embedder=table, n_groups=1).fit().calibrate(held_out)
    det.save(data / "det.skops")
    np.save(data / "good.npy", held_out)

    # Fitted with a table, it takes embeddings without one.
    given = ("score", data / "rows.npy", "--load", data / "det.skops", "-o", data / "a.csv")
    result = invoke(*given)
    assert result.exit_code == 0, result.output
    expected = det.decision_function(np.eye(6)[[0, 1, 2, 5]])
    found = [float(line["score"]) for line in lines_of(data / "a.csv")[:4]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert lines_of(data / "a.csv")[0]["is_ood"] == "False"

    result = invoke(*given, "-n", "cat")
    assert result.exit_code == 2
    assert "--name cannot stand beside --load" in " ".join(result.output.split())
    result = invoke(*given, "--calibrate", data / "good.npy", "--false-alarms", 0.2)
    assert result.exit_code == 0, result.output
    (data / "det.skops").write_bytes(b"no detector")
    assert invoke(*given).exit_code == 2


def test_false_alarms_are_those_of_the_calibration(data):
    rng = np.random.default_rng(0)
    held_out = np.eye(6)[rng.integers(0, 2, 99)] + 0.3 * rng.normal(size=(99, 6))
    np.save(data / "good.npy", held_out)
    given = ("score", data / "good.npy", "--texts", data / "texts.npz", "-n", "ant", "-n", "bee",
             "-d", "MaxLogit", "--calibrate", data / "good.npy", "-o", data / "a.csv")  # fmt: skip
    for rate, n_flagged in ((None, 4), (0.01, 0), (0.2, 19)):
        more = () if rate is None else ("--false-alarms", rate)
        result = invoke(*given, *more)
        assert result.exit_code == 0, result.output
        flagged = [line for line in lines_of(data / "a.csv") if line["is_ood"] == "True"]
        assert len(flagged) == n_flagged


BAD = {
    "nothing to write": ((), "give -o FILE or --html FILE"),
    "rate without images": (("-o", "a.csv", "--false-alarms", "0.1"), "needs --calibrate"),
    "page of rows": (("--html", "a.html"), "holds embeddings"),
    "page's ending": (("--html", "a.csv"), "must end in .html"),
    "prompt of a table": (("-o", "a.csv", "--prompt", "a {}"), "--prompt cannot stand beside"),
    "labels of nothing": (("-o", "a.csv", "--top-k", "3"), "needs --explain or --html"),
    "column of an npy": (("-o", "a.csv", "--column", "x"), "holds one array"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_that_contradict_each_other(data, monkeypatch, case):
    monkeypatch.chdir(data)
    arguments, said = BAD[case]
    result = invoke(
        "score", "rows.npy", "--texts", "texts.npz", "-n", "ant", "-n", "bee", *arguments
    )
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert not [path for path in data.iterdir() if path.name.startswith("a.")]
