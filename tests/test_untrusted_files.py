"""Files may come from anybody: 2,000 damaged forms of each kind are read, or told as what they are.

No other error, no pickle, no file outside, no memory beyond what was stated.
"""

import contextlib
import io
import json
import os
import pickle
import random
import time
import tracemalloc
import warnings
import zipfile
from dataclasses import asdict, replace

import mutations
import numpy as np
import pytest
from mutations import N_MUTATIONS, rng_of
from PIL import Image

from dnm_sklearn import EmbeddingTable, NegLabelDetector, load
from dnm_sklearn._utils.untrusted_files import (
    lies_inside,
    open_npz,
    parse_json,
    read_bytes,
    read_text,
    split_lines,
)
from dnm_sklearn.bench.cli.common import read_folder_names
from dnm_sklearn.bench.results.records import Record, read_record, write_record
from dnm_sklearn.bench.results.score_files import read_scores, write_with_scores
from dnm_sklearn.bench.run.id_train import with_id_train
from dnm_sklearn.bench.run.job_files import read_chunk
from dnm_sklearn.bench.run.own_data import list_paths, read_class_names, read_texts
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import load_benchmark, load_embedding_suite, read_definition
from dnm_sklearn.datasets.class_names import class_names
from dnm_sklearn.datasets.image_lists import names_from_paths, read_image_list
from dnm_sklearn.exceptions import (
    DataMissingError,
    DefinitionError,
    FileContentError,
    RecordError,
    SuiteError,
)


def count_outcomes(read, mutate, allowed, n=N_MUTATIONS):
    """Read n mutations; return how many were read and how many refused, the others fail."""
    n_read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(n):
            data = mutate()
            try:
                read(data)
                n_read += 1
            except allowed:
                pass
            except Exception as error:
                raise AssertionError(f"mutation {i}: {type(error).__name__}: {error}") from error
    return n_read, n - n_read


# -- embedding suites -----------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "suite"
    folder.mkdir()
    arrays = {
        "text": {
            "name": np.array(["a", "b", "c", "d"]),
            "embedding": rng.standard_normal((4, 8)).astype("f4"),
            "norm": np.ones(4, "f4"),
            "part_of_speech": np.array(["noun", "noun", "noun", "adjective"]),
        },
        "id": {
            "embedding": rng.standard_normal((6, 8)).astype("f4"),
            "label": np.array([0, 1] * 3),
        },
        "far": {"embedding": rng.standard_normal((5, 8)).astype("f4")},
    }
    for name, columns in arrays.items():
        (folder / f"{name}.npz").write_bytes(mutations.npz(columns))
    head = {
        "format": 1, "name": "x", "model": "m", "prompt": "a {}", "logit_scale": 100.0, "note": "n",
        "text": {"file": "text.npz", "n": 4},
        "id": {"name": "i", "images": "id.npz", "n": 6, "class_names": ["a", "b"]},
        "id_train": {"name": "t", "images": "id.npz", "n": 6},
        "ood": [{"name": "o", "group": "far", "images": "far.npz", "n": 5}],
    }  # fmt: skip
    (folder / "suite.json").write_text(json.dumps(head))
    return folder, head, arrays


def test_heads_of_suites(suite):
    folder, head, _ = suite
    rng = rng_of("head")

    def read(data):
        (folder / "suite.json").write_bytes(data)
        load_embedding_suite(folder)

    counts = count_outcomes(read, lambda: mutations.changed_json(head, rng), SuiteError)
    assert min(counts) > 100


def test_arrays_of_suites(suite):
    folder, _, arrays = suite
    rng = rng_of("arrays")

    def read(change):
        name, data = change
        whole = (folder / f"{name}.npz").read_bytes()
        (folder / f"{name}.npz").write_bytes(data)
        try:
            loaded = load_embedding_suite(folder)
        finally:
            (folder / f"{name}.npz").write_bytes(whole)
        assert np.isfinite(loaded.id.images).all()

    def mutate():
        name = rng.choice(list(arrays))
        return name, mutations.changed_npz(arrays[name], rng)

    counts = count_outcomes(read, mutate, SuiteError)
    assert min(counts) > 100


@pytest.mark.parametrize("key", ["text", "id", "ood", "id_train"])
def test_a_suite_reads_only_its_own_files(suite, key):
    folder, head, arrays = suite
    outside = folder.parent / "outside.npz"
    name = {"text": "text", "ood": "far"}.get(key, "id")
    outside.write_bytes(mutations.npz(arrays[name]))
    (folder / "link.npz").symlink_to(outside)
    entry = head[key][0] if key == "ood" else head[key]
    for file in ("../outside.npz", str(outside), "link.npz", "a/../../outside.npz", "C:\\x.npz"):
        entry["file" if key == "text" else "images"] = file
        (folder / "suite.json").write_text(json.dumps(head))
        with pytest.raises(SuiteError, match="inside the suite's folder"):
            load_embedding_suite(folder)


def test_a_pipe_in_a_suite_is_no_file_and_is_not_waited_for(suite):
    folder, _, _ = suite
    (folder / "text.npz").unlink()
    os.mkfifo(folder / "text.npz")
    with pytest.raises(SuiteError, match="no ordinary file"):
        load_embedding_suite(folder)


def test_arrays_larger_than_stated_take_no_memory(suite):
    """The size in the header is compared with suite.json before anything is read."""
    folder, _, _ = suite
    zeros = np.zeros((2_000_000, 8), dtype="f4")
    with open(folder / "far.npz", "wb") as file:
        np.savez_compressed(file, embedding=zeros)
    del zeros
    tracemalloc.start()
    with pytest.raises(SuiteError, match="has 2000000 rows"):
        load_embedding_suite(folder)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


# -- what all readers share -----------------------------------------------------------------------


def test_only_ordinary_files_of_bounded_size_are_read(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfcat")
    assert read_text(tmp_path / "text") == "cat"
    with pytest.raises(FileContentError, match="larger than 3 bytes"):
        read_bytes(tmp_path / "text", largest=3)
    for path in (tmp_path, "/dev/zero", "/dev/null", "a\0b"):
        with pytest.raises(FileContentError, match=r"no ordinary file|cannot be read"):
            read_bytes(path)
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    with pytest.raises(FileContentError, match="no ordinary file"):
        read_bytes(tmp_path / "pipe")
    assert time.monotonic() - start < 5
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(b"a\n\xe9")
    with pytest.raises(FileContentError, match="line 2: not text in UTF-8"):
        read_text(tmp_path / "latin")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"n": ' + "9" * 5000 + "}", '"\\ud800"', "{", ""])
def test_json_that_parsers_cannot_take(text):
    with pytest.raises(FileContentError, match="not readable JSON"):
        parse_json(text, "x.json")


def test_paths_stay_inside(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")
    inside = tmp_path / "in"
    for name in ("a", "a/b", "self/a", ".", "..a"):
        assert lies_inside(inside, name), name
    for name in ("", "..", "a/../../b", "/a", "up/a", "up", "C:\\a", "\\\\host\\a", "..\\a", "\0"):
        assert not lies_inside(inside, name), name


def test_bombs_and_pickles_in_npz(tmp_path):
    path = tmp_path / "bomb.npz"
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f4", "fortran_order": False, "shape": (50_000_000,)}
    )
    content.write(bytes(200_000_000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue())
    del content
    with open_npz(path) as arrays:
        assert arrays.header("a")[0] == (50_000_000,)
        with pytest.raises(FileContentError, match="far more than its file"):
            arrays.read("a")

    np.savez(tmp_path / "o.npz", a=np.array([{"x": 1}], dtype=object))
    with (
        open_npz(tmp_path / "o.npz") as arrays,
        pytest.raises(FileContentError, match="no numbers"),
    ):
        arrays.read("a")
    (tmp_path / "p.npz").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FileContentError, match="not a readable npz"), open_npz(tmp_path / "p.npz"):
        pass


def test_arrays_are_read_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    given = {
        "c": rng.standard_normal((300, 70)),
        "fortran": np.asfortranarray(rng.standard_normal((40, 3)).astype("f2")),
        "big": np.arange(5, dtype=">i4"),
        "text": np.array(["", "é", "\U0001f600"]),
        "empty": np.zeros((0, 4), "f4"),
        "flags": np.array([True, False]),
        "one": np.array(3.5),
    }
    np.savez_compressed(tmp_path / "x.npz", **given)
    with open_npz(tmp_path / "x.npz") as arrays:
        assert arrays.names == list(given)
        for name, array in given.items():
            assert arrays.header(name) == (array.shape, array.dtype)
            np.testing.assert_array_equal(arrays.read(name), array)


# -- records and scores ---------------------------------------------------------------------------


@pytest.fixture
def record():
    return Record(
        method="MCMDetector",
        label="MCM",
        kind="detector",
        suite={"name": "s", "n_classes": 2, "classes_digest": "c", "note": ""},
        id={"name": "i", "n": 3, "digest": "d"},
        ood={"name": "o", "n": 4, "digest": "e", "group": "far"},
        model={"name": "m", "fingerprint": "f", "logit_scale": 100.0},
        corpus={"name": "w", "n": 9, "fingerprint": "g"},
        params={"temperature": 1.0},
        overrides={},
        prompt="a {}",
        seed=0,
        id_images_used=0,
        sees_test_stream=False,
        metrics={"auroc": 0.5, "fpr95_id_positive": 0.25},
        seconds={"fit": 0.1},
        fitted={"threshold_": 0.5},
        created="2026-01-01T00:00:00",
    )


def test_records(record, tmp_path):
    path = tmp_path / "r.json"
    rng = rng_of("records")

    def read(data):
        path.write_bytes(data)
        found = read_record(path)
        assert min(found.metrics.values(), default=0) >= 0
        # What tables, reports and runs take first of a record.
        assert found.file_name.endswith(".json")
        assert f"{found.suite['name']}: {found.id['n']} {found.model['fingerprint'][:8]}"

    counts = count_outcomes(read, lambda: mutations.changed_json(asdict(record), rng), RecordError)
    assert min(counts) > 100


def test_score_files(record, tmp_path):
    written = write_with_scores(tmp_path, record, np.zeros((1, 3)), np.ones((1, 4)))
    path = tmp_path / written.scores["file"]
    arrays = {"id": np.zeros((1, 3), "f4"), "ood": np.ones((1, 4), "f4")}
    rng = rng_of("scores")

    def read(data):
        from dnm_sklearn.bench.results.score_files import _digest

        path.write_bytes(data)
        digest = {"file": written.scores["file"], "digest": _digest(data)}
        ids, oods = read_scores(tmp_path, replace(written, scores=digest))
        assert (ids.shape, oods.shape) == ((1, 3), (1, 4))

    counts = count_outcomes(read, lambda: mutations.changed_npz(arrays, rng), RecordError)
    assert min(counts) > 50


def test_scores_lie_beside_their_record(record, tmp_path):
    folder = tmp_path / "records"
    written = write_with_scores(folder, record, np.zeros((1, 3)), np.ones((1, 4)))
    moved = tmp_path / "elsewhere.npz"
    (folder / written.scores["file"]).rename(moved)
    (folder / written.scores["file"]).symlink_to(moved)
    with pytest.raises(RecordError, match="outside the folder of its record"):
        read_scores(folder, written)
    for file in (str(moved), "../elsewhere.npz"):
        path = write_record(folder, replace(written, scores={**written.scores, "file": file}))
        with pytest.raises(RecordError, match="do not fit together"):
            read_record(path)


def test_id_images_for_a_fit(tmp_path, suite):
    folder, _, arrays = suite
    loaded = load_embedding_suite(folder)
    rng = rng_of("id_train")

    def read(data):
        (tmp_path / "train.npz").write_bytes(data)
        found = with_id_train(loaded, str(tmp_path / "train.npz")).id_train
        assert np.isfinite(found.images).all()
        assert found.labels is None or found.labels.max() < 2

    counts = count_outcomes(
        read, lambda: mutations.changed_npz(arrays["id"], rng), FileContentError
    )
    assert min(counts) > 50


# -- definitions ----------------------------------------------------------------------------------

DEFINITION = """format = 1
name = "mine"
title = "t"
note = "n"
corpus = "words.txt"
prompt = "a {}"
[classes]
source = "file"
file = "names.txt"
size = 2
rename = {cat = "kitty"}
[id]
name = "id"
folder = "id"
labels = "index"
per_class = 1
[id_train]
list = "list.txt"
images = "id"
[[ood]]
name = "far"
group = "far"
folder = ["far", "other"]
size = 5
class_folders = false
"""


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    for place in ("id/0", "id/1", "far"):
        (root / place).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / place / "x.png")
    (root / "names.txt").write_text("cat\ndog\n")
    (root / "words.txt").write_text("oak\nteapot\n")
    (root / "list.txt").write_text("0/x.png 0\n1/x.png 1\n")
    return root


def test_definitions(root, tmp_path):
    path = tmp_path / "d.toml"
    path.write_text(DEFINITION)
    assert load_benchmark(path, root).class_names == ["kitty", "dog"]
    rng = rng_of("definitions")

    def read(data):
        path.write_bytes(data)
        read_definition(path)

    mutate = lambda: mutations.changed_lines(DEFINITION, rng)  # noqa: E731
    counts = count_outcomes(read, mutate, DefinitionError)
    assert min(counts) > 100

    # And what a definition that can be read leads to.
    def load_all(data):
        read(data)
        load_benchmark(path, root)

    allowed = (FileContentError, DataMissingError)
    counts = count_outcomes(load_all, mutate, allowed, n=300)
    assert counts[0] > 10


KEYS = {
    'corpus = "words.txt"': "corpus = {}",
    'file = "names.txt"': "file = {}",
    'folder = "id"': "folder = {}",
    'list = "list.txt"': "list = {}",
    'images = "id"': "images = {}",
    'folder = ["far", "other"]': "folder = [{}]",
}


@pytest.mark.parametrize("line", KEYS)
def test_no_key_of_a_definition_leads_out_of_the_data(root, tmp_path, line):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "x.png")
    (outside / "secret.txt").write_text("word 1\nword 2\n")
    is_file = ".txt" in line
    target = outside / "secret.txt" if is_file else outside
    (root / ("link.txt" if is_file else "link")).symlink_to(target)
    path = tmp_path / "d.toml"
    for name in (str(target), f"../outside/{target.name}", "link.txt" if is_file else "link"):
        path.write_text(DEFINITION.replace(line, KEYS[line].format(json.dumps(name))))
        with pytest.raises(DefinitionError, match=r"below the data root|leads out of"):
            load_benchmark(path, root)


def test_subfolders_and_wordnet_ids_stay_inside(root, tmp_path):
    path = tmp_path / "d.toml"
    text = DEFINITION.replace('labels = "index"', 'labels = "index"\nsubfolders = ["../far"]')
    path.write_text(text)
    with pytest.raises(DefinitionError, match="below the data root"):
        load_benchmark(path, root)
    (root / "id" / "2").symlink_to(tmp_path)
    path.write_text(text.replace("../far", "2"))
    with pytest.raises(DefinitionError, match="leads out of"):
        load_benchmark(path, root)
    wnids = 'source = "imagenet-open_clip"\nsubset = "wnids"\nwnids = ["../far"]'
    path.write_text(DEFINITION.replace('source = "file"', wnids))
    with pytest.raises(DefinitionError, match="no WordNet id"):
        read_definition(path)


# -- lists of images and words --------------------------------------------------------------------


def test_image_lists(root):
    text = "0/x.png 0\n1/x.png 1\n"
    rng = rng_of("lists")

    def read(data):
        (root / "list.txt").write_bytes(data)
        paths, labels = read_image_list(root / "list.txt", root / "id")
        for path in paths:
            assert os.path.realpath(path).startswith(str(root.resolve()))
        with contextlib.suppress(ValueError):
            names_from_paths(paths, labels)

    # A name that was changed is that of no image, or of another one.
    allowed = (FileContentError, FileNotFoundError)
    counts = count_outcomes(read, lambda: mutations.changed_lines(text, rng), allowed)
    assert min(counts) > 50


@pytest.mark.parametrize("link", ["id/link", "id/0/link.png"])
def test_images_of_a_list_behind_links_that_lead_out(root, tmp_path, link):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    is_file = link.endswith(".png")
    (root / link).symlink_to(tmp_path / "x.png" if is_file else tmp_path)
    name = link.removeprefix("id/") + ("" if is_file else "/x.png")
    (root / "list.txt").write_text(f"0/x.png 0\n{name} 1\n")
    with pytest.raises(FileContentError, match="behind a link"):
        read_image_list(root / "list.txt", root / "id")

    # A link that stays inside is no harm.
    (root / link).unlink()
    (root / link).symlink_to(root / "id" / "1" / ("x.png" if is_file else ""))
    assert len(read_image_list(root / "list.txt", root / "id")[0]) == 2


def test_corpora(tmp_path):
    text = "oak\nteapot\tnoun\tnoun.artifact\nrusty\tadjective\n# note\n\\#tag\n"
    rng = rng_of("corpora")

    def read(data):
        (tmp_path / "words.txt").write_bytes(data)
        assert Corpus.from_file(tmp_path / "words.txt").names

    counts = count_outcomes(read, lambda: mutations.changed_lines(text, rng), FileContentError)
    assert min(counts) > 100


def test_lists_of_names_and_paths(tmp_path):
    rng = rng_of("names")

    def read(data):
        (tmp_path / "names.txt").write_bytes(data)
        for line in read_class_names(str(tmp_path / "names.txt")):
            assert line.strip()

    text = "cat\ndog\nsea lion\n"
    counts = count_outcomes(read, lambda: mutations.changed_lines(text, rng), FileContentError)
    assert min(counts) > 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.csv", "id,name\n1,cat\n2,dog\n3,sea lion\n"),
        ("names.json", '["cat",\n"dog",\n"sea lion"]'),
        ("index.json", '{"0": "cat",\n"1": "dog",\n"2": "sea lion"}'),
    ],
)
def test_names_in_columns_and_json(tmp_path, name, text):
    rng = rng_of(name)

    def read(data):
        (tmp_path / name).write_bytes(data)
        column = "name" if name.endswith(".csv") else None
        for line in read_class_names(str(tmp_path / name), column):
            assert isinstance(line, str)

    counts = count_outcomes(read, lambda: mutations.changed_lines(text, rng), FileContentError)
    assert min(counts) > 20


ODD_NAMES = ["sea\u2028lion", "sea\u2029cow", "sea\x85star", "sea\x0chorse", "sea\x1curchin"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_where_editors_end_them(tmp_path, end):
    """Not at other characters, at which ``str.splitlines`` splits, too: all readers of lists."""
    assert split_lines("") == []
    assert split_lines(f"{end}a{end}{end}b") == ["", "a", "", "b"]
    text = end.join([*ODD_NAMES, ""])
    assert split_lines(text) == ODD_NAMES

    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    assert read_class_names(str(path)) == ODD_NAMES
    assert Corpus.from_file(path).names == tuple(ODD_NAMES)
    assert list_paths(str(path)) == [str(tmp_path / name) for name in ODD_NAMES]

    path.write_bytes(end.join(f"{i}\t{name}" for i, name in enumerate(ODD_NAMES)).encode())
    assert list(read_folder_names(str(path)).values()) == ODD_NAMES
    path.write_bytes(end.join(f"{name} {i}" for i, name in enumerate(ODD_NAMES)).encode())
    for name in ODD_NAMES:
        (tmp_path / name).touch()
    paths, labels = read_image_list(path, tmp_path)
    assert paths == [str(tmp_path / name) for name in ODD_NAMES]
    assert labels.tolist() == [0, 1, 2, 3, 4]
    path.write_bytes(end.join(["name", *(f'"{name}"' for name in ODD_NAMES)]).encode())
    assert read_class_names(str(path.rename(tmp_path / "list.csv"))) == ODD_NAMES


def test_class_names_of_a_definition_end_where_editors_end_them(root, tmp_path):
    (root / "names.txt").write_text("\n".join(ODD_NAMES), encoding="utf-8")
    path = tmp_path / "pets.toml"
    path.write_text(DEFINITION.replace("size = 2", "size = 5"), encoding="utf-8")
    assert class_names(read_definition(path), root, [], []) == ODD_NAMES


def test_texts_that_are_given(tmp_path):
    arrays = {"name": np.array(["cat", "dog"]), "embedding": np.eye(2)}
    rng = rng_of("texts")

    def read(data):
        (tmp_path / "texts.npz").write_bytes(data)
        table = read_texts(str(tmp_path / "texts.npz"))
        assert len(table.names) == len(table.encode_text(table.names))

    counts = count_outcomes(read, lambda: mutations.changed_npz(arrays, rng), FileContentError)
    assert min(counts) > 20


def test_chunks_of_an_interrupted_job(tmp_path):
    text = "a.png,0.5,True,ood,cat,oak,\nb.png,-1e-3,False,cat,cat,,\nc.png,,True,ood,,,broken\n"
    rng = rng_of("chunks")

    def read(data):
        (tmp_path / "0.csv").write_bytes(data)
        for line in read_chunk(tmp_path / "0.csv"):
            assert len(line) == 7

    counts = count_outcomes(read, lambda: mutations.changed_lines(text, rng), FileContentError)
    assert min(counts) > 50


# -- saved detectors ------------------------------------------------------------------------------


def test_saved_detectors(tmp_path):
    path = tmp_path / "d.skops"
    table = EmbeddingTable(["cat", "dog", *"abcdef"], np.eye(8, 5) + 0.1)
    rows = np.eye(2, 5)
    detector = NegLabelDetector(["cat", "dog"], embedder=table, n_groups=2, fraction=1.0)
    detector.set_params(corpus=list("abcdef")).fit(rows).save(path)
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        entries = {name: archive.read(name) for name in archive.namelist()}
    rng = random.Random(12)

    def mutate():
        if rng.random() < 0.3:
            return mutations.damaged(data, rng)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in entries.items():
                if name == "schema.json":
                    text = json.dumps(mutations.changed(schema, rng))
                    content = text.encode("utf-8", "surrogatepass")
                archive.writestr(name, content)
        return out.getvalue()

    def read(mutation):
        path.write_bytes(mutation)
        scores = load(path).decision_function(rows)
        assert scores.shape == (2,)
        assert not np.isnan(scores).any()

    counts = count_outcomes(read, mutate, FileContentError)
    assert min(counts) > 50
