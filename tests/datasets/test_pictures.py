"""The shipped suite of pictures: its bytes, its sets, and the figures that the page gives."""

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnm_sklearn import CLIPEmbedder, EnergyDetector, MaxLogitDetector, NegLabelDetector
from dnm_sklearn.datasets import extract_pictures, load_pictures, pictures
from dnm_sklearn.datasets.picture_drawing import draw_icons, enlarge
from dnm_sklearn.datasets.pictures import pictures_corpus
from dnm_sklearn.exceptions import TruncatedPromptWarning
from dnm_sklearn.metrics import auroc

ROOT = Path(__file__).resolve().parents[2]
DATA_DIR = Path(pictures.__file__).with_name("pictures")
TASKS = ("animals-food", "artifacts")

# Of all pictures of a task, as they are drawn on every machine.
DRAWN_SHA256 = {
    "animals-food": "d7ad186bd89a71f247284bb2e031ca6cafee3334d1cbf75d45f747b9b243afd5",
    "artifacts": "db6f134f465fc382e103f65223eaeed52d28d2b2877f08aefe8ca524862d8909",
}


@pytest.fixture(scope="module")
def suite():
    return load_pictures()


@pytest.fixture(scope="module")
def embedder():
    return CLIPEmbedder("pictoclip", device="cpu")


@pytest.fixture(scope="module")
def index():
    return json.loads((DATA_DIR / "index.json").read_text(encoding="utf-8"))


def all_sets(suite):
    return (suite.id, suite.id_train, *suite.ood)


# ------------------------------------------------------------- what is shipped


def test_shipped_bytes(index):
    with np.load(DATA_DIR / "icons.npz") as data:
        for name in ("pixels", "palettes"):
            assert hashlib.sha256(data[name].tobytes()).hexdigest() == index["sha256"][name]
    assert sum(path.stat().st_size for path in DATA_DIR.iterdir()) < 1.5e6


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_the_same_on_every_machine(task):
    digest = hashlib.sha256()
    for images in all_sets(load_pictures(task)):
        digest.update(images.images.tobytes())
    assert digest.hexdigest() == DRAWN_SHA256[task]


def test_only_free_vendors_and_their_notices(index):
    notices = (ROOT / "THIRD_PARTY_NOTICES").read_text(encoding="utf-8")
    shipped = notices.partition("Pictures of the suite for")[2]
    for source in index["sources"]:
        assert source["licence"]["spdx"] in ("MIT", "Apache-2.0")
        assert f"{source['package']} {source['version']}, {source['icons']} " in shipped
    # What the model is tested on was not what it was trained on.
    trained = json.loads((ROOT / "tools/pictoclip/SOURCES.json").read_text(encoding="utf-8"))
    roles = {source["package"]: source["role"] for source in trained}
    for vendor in ("fluent-emoji-flat", "fluent-emoji", "fluent-emoji-high-contrast", "fxemoji"):
        assert roles[f"@iconify-json/{vendor}"] in ("test", "shift")


@pytest.mark.parametrize("task", TASKS)
def test_counts(task):
    suite = load_pictures(task)
    n = len(suite.class_names)
    assert n == len(set(suite.class_names)) >= 60
    assert suite.id.images.shape == (6 * n, 64, 64, 3)
    assert suite.id.images.dtype == np.uint8
    assert not suite.id.images.flags.writeable
    assert np.bincount(suite.id.labels).tolist() == [6] * n
    assert np.bincount(suite.id_train.labels).tolist() == [8] * n
    assert (suite.embedder, suite.prompt) == ("pictoclip", "{}")
    groups = {images.group for images in suite.ood}
    assert groups == {"near", "far", "shifted"}
    for images in suite.ood:
        assert len(images) >= 30
        assert len(suite.meta["shown"].get(images.name, images)) == len(images)


@pytest.mark.parametrize("task", TASKS)
def test_ood_sets_show_no_id_class_and_shifted_sets_show_nothing_else(task):
    suite = load_pictures(task)
    shown, classes = suite.meta["shown"], set(suite.class_names)
    for images in suite.ood:
        if images.group == "shifted":
            assert set(shown[images.name]) <= classes
        else:
            assert not classes & set(shown.get(images.name, ()))
    for images in (suite.id, suite.id_train):
        assert [suite.class_names[i] for i in images.labels] == list(shown[images.name])


@pytest.mark.parametrize("task", TASKS)
def test_corpus(task):
    clean, contaminated = pictures_corpus(task), pictures_corpus(task, contaminate=True)
    suite = load_pictures(task)
    assert 25_000 < len(clean) < 32_000
    synonyms = set(suite.meta["contaminants"])
    assert suite.corpus == clean
    assert load_pictures(task, contaminate=True).corpus == contaminated
    assert set(contaminated.names) - set(clean.names) == synonyms
    assert not set(suite.class_names) & set(contaminated.names)
    assert {"animals-food": "hog", "artifacts": "spanner"}[task] in synonyms
    assert clean.is_adjective.any()


def test_a_wrong_task_is_named():
    for load in (load_pictures, pictures_corpus):
        with pytest.raises(ValueError, match=r"task='letters'.*'animals-food' or 'artifacts'"):
            load("letters")


def test_extract_writes_the_same_pictures(tmp_path, suite):
    written = extract_pictures(tmp_path)
    n_files = sum(map(len, all_sets(suite)))
    assert len(list(tmp_path.rglob("*.png"))) == n_files
    for on_disk, in_memory in zip(all_sets(written), all_sets(suite), strict=True):
        assert on_disk.name == in_memory.name
        for i in (0, len(in_memory) - 1):
            pixels = np.asarray(Image.open(on_disk.images[i]))
            np.testing.assert_array_equal(pixels, in_memory.images[i])
    assert Path(written.id.images[0]).parent.name == suite.class_names[0]


def test_loading_the_suite_imports_no_model_library():
    code = (
        "import sys; from dnm_sklearn.datasets import load_pictures; load_pictures();"
        "print(sorted({'torch', 'open_clip', 'matplotlib', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------- drawing


def test_enlarging_is_bilinear():
    grid = np.random.default_rng(0).integers(-200, 200, (1, 5, 5, 1))
    at = np.clip((np.arange(64) + 0.5) * 5 / 64 - 0.5, 0, 4)
    low = np.minimum(at.astype(int), 3)
    weights = np.zeros((64, 5))
    weights[np.arange(64), low] = 1 - (at - low)
    weights[np.arange(64), low + 1] = at - low
    want = weights @ grid[0, ..., 0] @ weights.T
    # Cells are cut in 256 parts, and the result is rounded down.
    np.testing.assert_allclose(enlarge(grid, 64)[0, ..., 0], want, atol=5)


def test_an_icon_is_drawn_over_its_background():
    """A full square hides the middle; a transparent one shows the background alone; ink differs."""
    pixels = np.zeros((3, 72, 72), np.uint8)
    palettes = np.zeros((3, 2, 4), np.uint8)
    palettes[0, 0] = (200, 10, 30, 255)
    palettes[2, 0, 3] = 255
    line = np.array([False, False, True])
    full, empty, inked = draw_icons(pixels, palettes, line, "a test")
    assert (full[24:40, 24:40] == (200, 10, 30)).all()
    ink = inked[24:40, 24:40].reshape(-1, 3)
    assert (ink == ink[0]).all()
    # Rows of one part have numbers of their own: the empty icon leaves its background.
    again = draw_icons(pixels, np.zeros_like(palettes), line, "a test")
    np.testing.assert_array_equal(empty, again[1])
    corner = (slice(0, 2), slice(0, 2))
    np.testing.assert_array_equal(full[corner], again[0][corner])
    assert np.abs(again[2].mean() - ink[0].mean()) > 30


# ------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def embedded(suite, embedder):
    """Each third picture, encoded once for all tests."""
    return embedder.transform(suite.id.images), {
        images.name: (images.group, embedder.transform(images.images[::3])) for images in suite.ood
    }


def means(detector, embedded):
    """AUROC in percent, the mean of the sets of each group."""
    id_scores = detector.decision_function(embedded[0])
    found = {}
    for group, rows in embedded[1].values():
        scores = np.concatenate([id_scores, detector.decision_function(rows)])
        is_ood = np.arange(len(scores)) >= len(id_scores)
        found.setdefault(group, []).append(100 * auroc(scores, is_ood))
    return {group: np.mean(values) for group, values in found.items()}


def test_zero_shot_accuracy_on_an_unseen_vendor(suite, embedder, embedded):
    text = embedder.encode_text(suite.class_names)
    accuracy = np.mean((embedded[0] @ text.T).argmax(1) == suite.id.labels)
    assert accuracy >= 0.70


@pytest.mark.parametrize("cls", [MaxLogitDetector, EnergyDetector])
def test_names_alone_tell_near_and_far_and_accept_other_styles(suite, embedder, embedded, cls):
    detector = cls(suite.class_names, embedder=embedder, prompt=suite.prompt).fit()
    found = means(detector, embedded)
    assert found["near"] > 83
    assert found["far"] > 94
    assert 40 < found["shifted"] < 60


def test_negative_labels_out_of_the_corpus_tell_the_far(suite, embedder, embedded):
    detector = NegLabelDetector(
        suite.class_names, embedder=embedder, prompt=suite.prompt, corpus=suite.corpus[::6]
    ).fit()
    found = means(detector, embedded)
    assert found["far"] > 90
    assert found["near"] > 75


def test_other_words_for_classes_as_negative_labels_cost(suite, embedder, embedded):
    """ "kitty" takes mass from images of cats: the problem that debiased mining is about."""
    options = {"embedder": embedder, "prompt": suite.prompt, "n_groups": 1}
    clean = NegLabelDetector(suite.class_names, corpus=suite.corpus[::6], **options).fit()
    forced = [*clean.negative_labels_, *suite.meta["contaminants"]]
    worse = NegLabelDetector(suite.class_names, corpus=forced, mining="none", **options).fit()
    assert means(worse, embedded)["near"] < means(clean, embedded)["near"] - 2


def test_class_names_fit_the_context_of_the_model(suite, embedder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncatedPromptWarning)
        for task in TASKS:
            embedder.encode_text(load_pictures(task).class_names, suite.prompt)


def test_a_suite_shows_itself_in_a_few_lines(suite):
    assert repr(suite.id) == "ImageSet('id', id, 372 images)"
    assert repr(suite).startswith(
        "Suite('pictures-animals-food', 62 classes, 372 ID images; OOD: other-animals (near, "
    )
