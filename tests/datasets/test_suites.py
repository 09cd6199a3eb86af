"""Embedding suites: what is read is what was written, and every damage is named with its file."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import (
    ImageSet,
    embed_image_folders,
    list_images,
    load_embedding_suite,
    write_embedding_suite,
)
from dnm_sklearn.datasets.folders import list_class_folders
from dnm_sklearn.exceptions import SuiteError
from dnm_sklearn.testing import FakeEmbedder

D = 6


def rows(n, seed, width=D):
    x = np.random.default_rng(seed).standard_normal((n, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def arguments(**changes):
    given = {
        "name": "tiny",
        "class_names": ["cat", "dog"],
        "id": ImageSet("pets", rows(5, 0), "id", labels=np.array([0, 1, 1, 0, 1])),
        "id_train": ImageSet("pets-train", rows(4, 1), "id", labels=np.array([0, 0, 1, 1])),
        "ood": [ImageSet("cars", rows(3, 2), "far"), ImageSet("foxes", rows(2, 3), "near")],
        "text_names": ["cat", "car", "dog", "tree"],
        "text_embeddings": rows(4, 4),
        "text_norms": np.array([8.0, 9.0, 10.0, 11.0]),
        "model": "some/model",
        "prompt": "a {}",
        "note": "made up",
    }
    return {**given, **changes}


@pytest.fixture
def folder(tmp_path):
    return write_embedding_suite(tmp_path / "tiny", **arguments())


def edit(folder, change):
    path = folder / "suite.json"
    head = json.loads(path.read_text())
    change(head)
    path.write_text(json.dumps(head))


def save(folder, file, **arrays):
    with np.load(folder / file) as old:
        merged = {**{k: old[k] for k in old.files}, **arrays}
    np.savez(folder / file, **{k: v for k, v in merged.items() if v is not None})


def test_round_trip(folder):
    suite = load_embedding_suite(folder)
    assert (suite.name, suite.prompt, suite.note, suite.meta["model"]) == (
        "tiny",
        "a {}",
        "made up",
        "some/model",
    )
    assert suite.class_names == ["cat", "dog"]
    assert suite.corpus.names == ("car", "tree")
    assert suite.id.labels.tolist() == [0, 1, 1, 0, 1]
    assert suite.id_train.name == "pets-train"
    assert suite.id_train.labels.tolist() == [0, 0, 1, 1]
    assert [(s.name, s.group, len(s)) for s in suite.ood] == [
        ("cars", "far", 3),
        ("foxes", "near", 2),
    ]
    for images in (suite.id, suite.id_train, *suite.ood):
        assert images.images.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(images.images, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(suite.id.images, rows(5, 0), atol=2e-3)
    vectors, norms = suite.embedder.encode_text(["tree", "dog"], return_norm=True)
    assert norms.tolist() == [11.0, 10.0]
    np.testing.assert_allclose(vectors, rows(4, 4)[[3, 2]], atol=2e-3)
    assert suite.embedder.logit_scale_ == 100.0


def test_reads_by_its_json_too(folder):
    assert load_embedding_suite(folder / "suite.json").name == "tiny"


def test_optional_parts(tmp_path):
    given = arguments(
        id_train=None, text_norms=None, model=None, prompt=None, note="", dtype="float32"
    )
    given["part_of_speech"] = ["noun", "noun", "noun", "adjective"]
    given["logit_scale"] = 23.5
    suite = load_embedding_suite(write_embedding_suite(tmp_path / "s", **given))
    assert suite.id_train is None
    assert suite.prompt is None
    assert suite.corpus.is_adjective.tolist() == [False, True]
    assert suite.embedder.logit_scale_ == 23.5
    np.testing.assert_allclose(suite.id.images, rows(5, 0), atol=1e-6)


def test_repeated_class_names_are_merged(folder):
    def change(head):
        head["id"]["class_names"] = ["cat", "dog", "cat"]

    edit(folder, change)
    save(folder, "id.npz", label=np.array([2, 1, 1, 0, 1]))
    suite = load_embedding_suite(folder)
    assert suite.class_names == ["cat", "dog"]
    assert suite.id.labels.tolist() == [0, 1, 1, 0, 1]
    assert suite.meta["merged_class_names"] == ["cat"]


def test_repeated_text_names(folder):
    text = dict(np.load(folder / "text.npz"))
    again = {k: np.concatenate([v, v[:1]]) for k, v in text.items()}
    np.savez(folder / "text.npz", **again)
    edit(folder, lambda head: head["text"].update(n=5))
    assert len(load_embedding_suite(folder).embedder.names) == 4
    again["embedding"][-1] *= -1
    np.savez(folder / "text.npz", **again)
    with pytest.raises(SuiteError, match=r"text\.npz.*'cat' occurs twice.*rows 0, 4"):
        load_embedding_suite(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(SuiteError, match="no such folder"):
        load_embedding_suite(tmp_path / "nowhere")
    with pytest.raises(SuiteError, match="holds no suite.json"):
        load_embedding_suite(tmp_path)


HEAD_DAMAGE = {
    "newer format": (lambda h: h.update(format=9), r"format 9.*upgrade"),
    "no format": (lambda h: h.pop("format"), "'format' must be 1, got None"),
    "no id": (lambda h: h.pop("id"), "'id' must be an object, it is missing"),
    "id a list": (lambda h: h.update(id=[]), r"'id' must be an object, got \[\]"),
    "no ood": (lambda h: h.update(ood=[]), "'ood' is empty"),
    "no name": (lambda h: h.pop("name"), "'name' must be a non-empty string"),
    "group": (
        lambda h: h["ood"][1].update(group="middle"),
        r"ood\[1\].group.*near, far, shifted, sanity.*'middle'",
    ),
    "twice": (lambda h: h["ood"][1].update(name="cars"), "'cars' is used twice"),
    "outside": (
        lambda h: h["id"].update(images="../id.npz"),
        r"id\.images.*inside the suite's folder",
    ),
    "absolute": (
        lambda h: h["text"].update(file="/text.npz"),
        r"text\.file.*inside the suite's folder",
    ),
    "count": (lambda h: h["id"].update(n=6), r"id\.npz has 5 rows.*n = 6"),
    "count type": (lambda h: h["id"].update(n="5"), r"'id\.n' must be an integer, got '5'"),
    "zero": (lambda h: h["ood"][0].update(n=0), r"'ood\[0\]\.n' must be at least 1"),
    "names": (
        lambda h: h["id"].update(class_names=["cat", "cow"]),
        r"no embedding in text\.npz: 'cow'",
    ),
    "blank": (lambda h: h["id"].update(class_names=["cat", " "]), "non-blank"),
    "few names": (
        lambda h: h["id"].update(class_names=["cat"]),
        r"id\.npz: labels run from 0 to 1.*1 class",
    ),
    "all names": (
        lambda h: h["id"].update(class_names=["cat", "dog", "car", "tree"]),
        "no candidate",
    ),
    "scale": (lambda h: h.update(logit_scale=-1), "'logit_scale' must be a positive number"),
    "prompt": (lambda h: h.update(prompt=3), "'prompt' must be a string"),
}


@pytest.mark.parametrize("case", HEAD_DAMAGE)
def test_damaged_head(folder, case):
    change, message = HEAD_DAMAGE[case]
    edit(folder, change)
    with pytest.raises(SuiteError, match=message) as caught:
        load_embedding_suite(folder)
    assert str(folder) in str(caught.value)


def test_unreadable_json(folder):
    (folder / "suite.json").write_text("{")
    with pytest.raises(SuiteError, match=r"suite\.json is not readable JSON"):
        load_embedding_suite(folder)
    (folder / "suite.json").write_text("[1]")
    with pytest.raises(SuiteError, match="must hold a JSON object, got list"):
        load_embedding_suite(folder)


FILE_DAMAGE = {
    "width": ("id.npz", {"embedding": rows(5, 0, D + 1)}, r"7 wide, the text embeddings 6"),
    "nan": ("id.npz", {"embedding": rows(5, 0) * [[1], [1], [np.nan], [1], [1]]}, "first: row 2"),
    "zero": ("ood_00_cars.npz", {"embedding": rows(3, 0) * [[1], [0], [1]]}, "first: row 1"),
    "1-D": ("id_train.npz", {"embedding": np.ones(4)}, "2-D float array, got 1-D"),
    "text": ("text.npz", {"embedding": np.array([["a"] * D] * 4)}, "2-D float array"),
    "no label": ("id.npz", {"label": None}, r"no array 'label' \(it has \['embedding'\]\)"),
    "label type": ("id.npz", {"label": np.zeros(5)}, "5 integers, got float64"),
    "label range": ("id.npz", {"label": np.array([0, 1, 2, 0, 0])}, "labels run from 0 to 2"),
    "label negative": ("id_train.npz", {"label": np.array([0, 1, -1, 0])}, "labels run from -1"),
    "names": ("text.npz", {"name": np.arange(4)}, "'name' must hold 4 strings"),
    "pickled names": ("text.npz", {"name": np.array(list("abcd"), dtype=object)}, "plain arrays"),
    "blank name": ("text.npz", {"name": np.array(["cat", "dog", "tree", " "])}, "name 3 is blank"),
    "norm": ("text.npz", {"norm": np.array([1.0, 0.0, 1.0, 1.0])}, "4 positive finite numbers"),
    "pos": ("text.npz", {"part_of_speech": np.array(["verb"] * 4)}, "'noun' and 'adjective'"),
}


@pytest.mark.parametrize("case", FILE_DAMAGE)
def test_damaged_file(folder, case):
    file, arrays, message = FILE_DAMAGE[case]
    save(folder, file, **arrays)
    with pytest.raises(SuiteError, match=message) as caught:
        load_embedding_suite(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize("file", ["id.npz", "id_train.npz", "text.npz", "ood_00_cars.npz"])
def test_missing_and_truncated_files(folder, file):
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    with pytest.raises(SuiteError, match=f"{file} is missing"):
        load_embedding_suite(folder)
    for n in (0, 3, len(whole) // 2, len(whole) - 1):
        (folder / file).write_bytes(whole[:n])
        with pytest.raises(SuiteError, match=f"{file} is not a readable npz"):
            load_embedding_suite(folder)


def test_flipped_bytes_are_refused_or_harmless(folder):
    whole = (folder / "id.npz").read_bytes()
    good = load_embedding_suite(folder).id.images
    for i in range(0, len(whole), 7):
        (folder / "id.npz").write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        try:
            read = load_embedding_suite(folder).id.images
        except SuiteError:
            continue
        np.testing.assert_array_equal(read, good)


BAD_WRITES = {
    "nan": {"ood": [ImageSet("cars", np.full((2, D), np.nan), "far")]},
    "zero": {"text_embeddings": np.zeros((4, D))},
    "width": {"id": ImageSet("pets", rows(5, 0, 3), "id", labels=np.zeros(5, dtype=int))},
    "no labels": {"id": ImageSet("pets", rows(5, 0), "id")},
    "group": {"ood": [ImageSet("cars", rows(2, 0), "id")]},
    "unknown class": {"class_names": ["cat", "cow"]},
    "norms": {"text_norms": np.ones(3)},
    "no sets": {"ood": []},
}


@pytest.mark.parametrize("case", BAD_WRITES)
def test_a_refused_write_leaves_nothing(tmp_path, case):
    with pytest.raises(SuiteError) as caught:
        write_embedding_suite(tmp_path / "s", **arguments(**BAD_WRITES[case]))
    assert ".tmp-" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_writing_over(folder):
    with pytest.raises(FileExistsError, match="exists"):
        write_embedding_suite(folder, **arguments(name="other"))
    with pytest.raises(SuiteError):
        write_embedding_suite(folder, **arguments(**BAD_WRITES["nan"]), overwrite=True)
    assert load_embedding_suite(folder).name == "tiny"
    write_embedding_suite(folder, **arguments(name="other"), overwrite=True)
    assert load_embedding_suite(folder).name == "other"
    assert os.listdir(folder.parent) == ["tiny"]
    (folder / "suite.json").unlink()
    with pytest.raises(FileExistsError, match="not an embedding suite"):
        write_embedding_suite(folder, **arguments(), overwrite=True)


def test_bad_dtype(tmp_path):
    with pytest.raises(ValueError, match="'float16' or 'float32', got 'int8'"):
        write_embedding_suite(tmp_path / "s", **arguments(dtype="int8"))


# -- image folders --------------------------------------------------------------------------------


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(
        ["polar_bear/2.png", "polar_bear/10.PNG", "ant/a.jpg", "ant/sub/b.png"]
    ):
        picture(tmp_path / "id" / name, i)
    for i, name in enumerate(["ant/x.png", "polar_bear/y.png", "polar_bear/z.png"]):
        picture(tmp_path / "train" / name, 10 + i)
    for i, name in enumerate(["p.png", "deep/er/q.png"]):
        picture(tmp_path / "far" / name, 20 + i)
    (tmp_path / "id/ant/notes.txt").write_text("not an image")
    (tmp_path / "id/ant/.hidden.png").write_text("nor this")
    return tmp_path


def test_listing(photos):
    paths, labels, subfolders = list_class_folders(photos / "id")
    assert subfolders == ["ant", "polar_bear"]
    assert [os.path.relpath(p, photos / "id") for p in paths] == [
        "ant/a.jpg", "ant/sub/b.png", "polar_bear/10.PNG", "polar_bear/2.png"
    ]  # fmt: skip
    assert labels.tolist() == [0, 0, 1, 1]
    assert [os.path.basename(p) for p in list_images(photos / "far")] == ["q.png", "p.png"]


def test_listing_errors(photos):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        list_images(photos / "nowhere")
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no image: looked for \.apng, .*\.bmp"):
        list_images(photos / "empty")
    with pytest.raises(ValueError, match="empty holds no subfolder"):
        list_class_folders(photos / "empty")


def embed(photos, **changes):
    given = {
        "id": photos / "id",
        "id_train": photos / "train",
        "ood": [("things", "far", photos / "far")],
        "embedder": FakeEmbedder(dim=D, logit_scale=20.0),
        "corpus": Corpus(["ant", "car", "green"], part_of_speech=["noun", "noun", "adjective"]),
    }
    return embed_image_folders(photos / "suite", **{**given, **changes})


def test_embed_image_folders(photos):
    suite = load_embedding_suite(embed(photos))
    assert suite.class_names == ["ant", "polar bear"]
    assert suite.corpus.names == ("car", "green")
    assert suite.corpus.is_adjective.tolist() == [False, True]
    assert suite.embedder.logit_scale_ == 20.0
    assert suite.prompt == "the nice {}"
    assert suite.id_train.labels.tolist() == [0, 1, 1]
    model = FakeEmbedder(dim=D)
    paths, _, _ = list_class_folders(photos / "id")
    np.testing.assert_allclose(suite.id.images, model.encode_image(paths), atol=2e-3)
    text, norms = suite.embedder.encode_text(["green", "polar bear"], return_norm=True)
    adjective, adjective_norm = model.encode_text(["green"], "This is a {} photo", return_norm=True)
    noun, noun_norm = model.encode_text(["polar bear"], "the nice {}", return_norm=True)
    np.testing.assert_allclose(text, np.concatenate([adjective, noun]), atol=2e-3)
    np.testing.assert_allclose(norms, np.concatenate([adjective_norm, noun_norm]), rtol=1e-5)


def test_embed_with_names(photos):
    suite = load_embedding_suite(embed(photos, names={"ant": "insect", "polar_bear": "bear"}))
    assert suite.class_names == ["insect", "bear"]
    assert suite.corpus.names == ("ant", "car", "green")
    with pytest.raises(ValueError, match="1 subfolders .* have no class name: 'polar_bear'"):
        embed(photos, names={"ant": "insect"}, overwrite=True)


def test_embed_errors_come_before_the_work(photos):
    log = photos / "log"
    model = FakeEmbedder(dim=D, log_path=str(log))
    picture(photos / "train/bee/1.png", 5)
    with pytest.raises(ValueError, match="class folders that .* has not: 'bee'"):
        embed(photos, embedder=model)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        embed(photos, id_train=None, ood=[("x", "far", photos / "nowhere")], embedder=model)
    with pytest.raises(ValueError, match="ood is empty"):
        embed(photos, id_train=None, ood=[], embedder=model)
    with pytest.raises(ValueError, match="bad"):
        embed(photos, id_train=None, prompt="bad", embedder=model)
    (photos / "suite").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        embed(photos, id_train=None, embedder=model)
    assert not log.exists()


def test_unreadable_images(photos):
    (photos / "far/broken.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        embed(photos)
    assert not (photos / "suite").exists()
    with pytest.warns(UserWarning, match=r"1 unreadable images are left out.*broken\.png"):
        path = embed(photos, embedder=FakeEmbedder(dim=D, on_error="nan"))
    suite = load_embedding_suite(path)
    assert len(suite.ood[0]) == 2
    assert "1 unreadable images were left out" in suite.note


def test_real_suites(shared_dir):
    suite = load_embedding_suite(shared_dir / "real_clip_vitb32" / "caltech63")
    assert (len(suite.class_names), len(suite.id), len(suite.id_train)) == (63, 1606, 1073)
    assert {s.name: len(s) for s in suite.ood} == {
        "dtd": 1692,
        "sun397": 3970,
        "pets": 3669,
        "caltech-rest": 511,
    }
    assert len(suite.corpus) == 2282 - 63
    suite = load_embedding_suite(shared_dir / "real_clip_vitb32" / "imagenet1k")
    assert len(suite.class_names) == 997
    assert suite.meta["merged_class_names"] == ["crane", "cardigan", "maillot"]
    text = suite.embedder.encode_text(suite.class_names)
    accuracy = np.mean(np.argmax(suite.id.images @ text.T, axis=1) == suite.id.labels)
    assert 0.55 < accuracy < 0.65


def test_import_is_cheap():
    heavy = ("torch", "PIL", "sklearn", "pyod")
    code = (
        "import sys, dnm_sklearn.datasets; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
