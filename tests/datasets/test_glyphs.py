"""The shipped glyph suite and GlyphCLIP: digests, counts, and the figures that the project
promises.
"""

import gzip
import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dnm_sklearn.datasets.glyphs as glyphs
from dnm_sklearn import (
    CLIPEmbedder,
    DebiasedNegMiningDetector,
    EmbeddingTable,
    ENLDetector,
    NegLabelDetector,
)
from dnm_sklearn.corpus import load_corpus
from dnm_sklearn.datasets.glyphs import extract_glyphs, glyph_corpus, load_glyphs
from dnm_sklearn.exceptions import TruncatedPromptWarning
from dnm_sklearn.metrics import auroc, fpr_at_tpr

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(glyphs.__file__).parents[1]
MODEL_DIR = PACKAGE / "embedding" / "glyphclip"
DATA_DIR = PACKAGE / "datasets" / "glyphs"

IMAGES_SHA256 = "a3282fc6392617a1abe24444c4052f8063f4463ac5f2e8ef26b47898b8fc53a8"
CODES_SHA256 = "a830c0371d6bd7e1e93f74c65a7525de0d762fced4377d34317322711bf6a3ca"
NAMES_SHA256 = "501265b39c779b2c311c163599842ded2fd035bb6c1302bc7ab98afb03d07e21"
WEIGHTS_SHA256 = "dc18debb3d5b0734bb04a34269ba9e4d81f4e55ec38ca23615e72abc0f3e3a68"


@pytest.fixture(scope="module")
def letters():
    return load_glyphs()


@pytest.fixture(scope="module")
def embedder():
    return CLIPEmbedder("glyphclip", device="cpu")


@pytest.fixture(scope="module")
def embedded(letters, embedder):
    """Embeddings of ID images and every OOD set: each picture is encoded once for all tests."""
    return embedder.transform(letters.id.images), {
        s.name: embedder.transform(s.images) for s in letters.ood
    }


@pytest.fixture(scope="module")
def shared_text(letters, embedder):
    """The names and the corpus as a table: encoded once for detectors of several settings."""
    names = [*letters.class_names, *letters.corpus.names]
    return EmbeddingTable(names, embedder.encode_text(names), logit_scale=embedder.logit_scale_)


@pytest.fixture(scope="module")
def neglabel(letters, embedder):
    return NegLabelDetector(
        letters.class_names, embedder=embedder, prompt="{}", corpus=letters.corpus
    ).fit()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def scored(detector, embedded, metric, **options):
    """Metric of each OOD set, in percent."""
    id_scores = detector.decision_function(embedded[0])
    out = {}
    for name, rows in embedded[1].items():
        scores = np.concatenate([id_scores, detector.decision_function(rows)])
        is_ood = np.r_[np.zeros(len(id_scores), bool), np.ones(len(rows), bool)]
        out[name] = 100 * metric(scores, is_ood, **options)
    return out


# ------------------------------------------------------------- what is shipped


def test_shipped_bytes():
    index = json.loads((DATA_DIR / "index.json").read_text())
    _, images, codes = glyphs._load()
    names = gzip.decompress((DATA_DIR / "unicode_names.txt.gz").read_bytes())
    found = {
        "images": sha256(images.tobytes()),
        "codes": sha256(codes.tobytes()),
        "names": sha256(names),
    }
    assert (
        found
        == {"images": IMAGES_SHA256, "codes": CODES_SHA256, "names": NAMES_SHA256}
        == index["sha256"]
    )
    assert sha256((MODEL_DIR / "glyphclip.safetensors").read_bytes()) == WEIGHTS_SHA256
    size = sum(p.stat().st_size for folder in (MODEL_DIR, DATA_DIR) for p in folder.iterdir())
    assert size < 10e6
    assert (DATA_DIR / "unicode_names.txt.gz").stat().st_size < 400e3


def test_the_checkpoint_is_what_the_committed_script_made():
    manifest = json.loads((ROOT / "tools/glyphclip/MANIFEST.json").read_text())
    digests = manifest["sha256"]
    for name in ("tools/train_glyphclip.py", "tools/glyph_drawing.py"):
        assert sha256((ROOT / name).read_bytes()) == digests[name], (
            f"{name} changed after the training run"
        )
    for name in ("glyphclip.json", "bpe_vocab.txt.gz", "glyphclip.safetensors"):
        assert sha256((MODEL_DIR / name).read_bytes()) == digests[name], name
    assert (ROOT / "tools/glyphclip/train.log").read_text().startswith(f"# {manifest['command']}\n")
    used = json.loads((DATA_DIR / "index.json").read_text())["fonts_sha256"]
    assert not set(used) & set(digests["train_fonts"])
    assert used == digests["held_out_fonts"]


@pytest.mark.parametrize(
    ("task", "n_classes", "n_id"), [("letters", 52, 520), ("symbols", 100, 600)]
)
def test_counts(task, n_classes, n_id):
    suite = load_glyphs(task)
    assert len(suite.class_names) == len(set(suite.class_names)) == n_classes
    assert suite.id.images.shape == (n_id, 64, 64)
    assert suite.id.images.dtype == np.uint8
    assert not suite.id.images.flags.writeable
    assert np.bincount(suite.id.labels).tolist() == [n_id // n_classes] * n_classes
    assert np.bincount(suite.id_train.labels).tolist() == [16] * n_classes
    assert len(suite.id_train) == 16 * n_classes
    assert suite.embedder == "glyphclip"
    assert suite.prompt == "{}"
    assert all(len(s) == len(suite.meta["codes"][s.name]) >= 80 for s in suite.ood)


def test_groups(letters):
    groups = {}
    for ood in letters.ood:
        groups.setdefault(ood.group, []).append(ood.name)
    assert groups == {
        "near": ["greek", "cyrillic", "accented-latin", "digits"],
        "far": ["arrows", "operators", "shapes", "pictographs", "handwritten-digits", "noise"],
        "sanity": ["homoglyphs"],
    }
    assert 2000 <= json.loads((DATA_DIR / "index.json").read_text())["n_test"] <= 4000


@pytest.mark.parametrize("task", ["letters", "symbols"])
def test_sets_do_not_overlap(task):
    suite = load_glyphs(task)
    codes = {name: set(rows.tolist()) for name, rows in suite.meta["codes"].items()}
    id_codes = codes.pop(task)
    assert codes.pop(f"{task}-train") == id_codes
    assert not any(
        id_codes & other for name, other in codes.items() if name != "handwritten-digits"
    )
    assert not id_codes & suite.meta["never_trained"]
    homoglyphs = codes.pop("homoglyphs", set())
    assert not any(homoglyphs & other for other in codes.values())
    assert sum(len(other & suite.meta["never_trained"]) for other in codes.values()) >= 10


@pytest.mark.parametrize("task", ["letters", "symbols"])
def test_corpus(task):
    suite, clean, contaminated = (
        load_glyphs(task),
        glyph_corpus(task),
        glyph_corpus(task, contaminate=True),
    )
    synonyms = set(suite.meta["contaminants"])
    assert suite.corpus == clean
    assert load_glyphs(task, contaminate=True).corpus == contaminated
    assert set(contaminated.names) - set(clean.names) == synonyms
    assert not set(suite.class_names) & set(contaminated.names)
    assert 27_000 < len(clean) < 29_000
    assert all(name == name.lower() == name.strip() and name.isascii() for name in contaminated)
    expected = {"letters": "fullwidth latin small letter c", "symbols": "fullwidth plus sign"}
    assert expected[task] in synonyms
    assert "greek capital letter alpha" in clean.names


def test_a_wrong_task_is_named():
    with pytest.raises(ValueError, match=r"task='digits'.*'letters' or 'symbols'"):
        load_glyphs("digits")


def test_extract_writes_the_same_pictures(tmp_path, letters):
    suite = extract_glyphs(tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == len(letters.id) + len(letters.id_train) + sum(
        map(len, letters.ood)
    )
    for on_disk, in_memory in zip((suite.id, *suite.ood), (letters.id, *letters.ood), strict=True):
        assert on_disk.name == in_memory.name
        for i in (0, len(in_memory) - 1):
            np.testing.assert_array_equal(
                np.asarray(Image.open(on_disk.images[i])), in_memory.images[i]
            )
    assert Path(suite.id.images[0]).parent.name == letters.class_names[0].replace(" ", "-")


def test_loading_the_suite_imports_no_model_library():
    code = (
        "import sys; from dnm_sklearn.datasets.glyphs import load_glyphs; load_glyphs();"
        "print(sorted({'torch', 'open_clip', 'sklearn', 'matplotlib', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------- the model


def test_open_clip_loads_it_by_its_ordinary_functions(letters, embedder):
    import open_clip
    import torch

    bpe = MODEL_DIR / "bpe_vocab.txt.gz"
    assert not gzip.decompress(bpe.read_bytes()).endswith(b"\n")
    open_clip.add_model_config(MODEL_DIR / "glyphclip.json")
    weights = str(MODEL_DIR / "glyphclip.safetensors")
    model, _, preprocess = open_clip.create_model_and_transforms("glyphclip", pretrained=weights)
    tokenizer = open_clip.get_tokenizer("glyphclip", bpe_path=str(bpe))
    assert tokenizer.vocab_size == 2048
    assert 2.2e6 < sum(p.numel() for p in model.parameters()) < 2.4e6
    tokens = tokenizer(letters.class_names)
    assert tokens.shape == (52, 16)
    assert (tokens.argmax(1) < 15).all()
    with torch.no_grad():
        text = model.eval().encode_text(tokens, normalize=True).numpy()
        pictures = torch.stack([preprocess(Image.fromarray(x)) for x in letters.id.images[::40]])
        image = model.encode_image(pictures, normalize=True).numpy()
    np.testing.assert_allclose(embedder.encode_text(letters.class_names), text, atol=2e-5)
    np.testing.assert_allclose(embedder.transform(letters.id.images[::40]), image, atol=2e-5)


def test_zero_shot_accuracy_in_unseen_fonts(letters, embedder, embedded):
    text = embedder.encode_text(letters.class_names)
    accuracy = np.mean((embedded[0] @ text.T).argmax(1) == letters.id.labels)
    assert accuracy >= 0.80


def test_neglabel_tells_letters_from_the_rest(letters, neglabel, embedded):
    found = scored(neglabel, embedded, auroc)
    homoglyphs = found.pop("homoglyphs")
    assert np.mean(list(found.values())) >= 88
    assert 40 <= homoglyphs <= 60


@pytest.mark.parametrize("n_groups", [1, 10, 100])
@pytest.mark.parametrize("cls", [NegLabelDetector, DebiasedNegMiningDetector])
@pytest.mark.filterwarnings("ignore:With 52 classes")
def test_zero_shot_threshold_flags_most_of_the_far_and_little_of_the_id(
    letters, shared_text, embedded, cls, n_groups
):
    """After ``fit(names)`` alone, whatever the number of groups."""
    detector = cls(embedder=shared_text, prompt="{}", corpus=letters.corpus, n_groups=n_groups).fit(
        letters.class_names
    )
    far = np.concatenate([embedded[1][s.name] for s in letters.ood if s.group == "far"])
    assert detector.predict(far).mean() > 0.5
    assert detector.predict(embedded[0]).mean() < 0.4


def test_neglabel_on_raw_images_by_the_name_of_the_model(letters):
    detector = NegLabelDetector(
        letters.class_names, embedder="glyphclip", prompt="{}", corpus=letters.corpus[::20]
    ).fit()
    noise = next(s for s in letters.ood if s.name == "noise")
    assert detector.decision_function(noise.images).min() > np.median(
        detector.decision_function(letters.id.images[::8])
    )


def test_corpus_of_the_suite_fits_the_context_of_the_model(letters, embedder):
    """GlyphCLIP knows names of characters, and its text tower reads the longest of them whole."""
    assert letters.corpus == glyph_corpus()
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncatedPromptWarning)
        longest = sorted(letters.corpus.names, key=len)[-200:]
        embedder.encode_text(longest, letters.prompt)


@pytest.mark.parametrize("cls", [NegLabelDetector, DebiasedNegMiningDetector, ENLDetector])
def test_no_detector_knows_the_shipped_model(letters, cls, embedder):
    """Its corpus is the suite's to give: without one a detector takes the same list as for any
    model.
    """
    detector = cls(letters.class_names)
    detector.embedder_, detector.class_names_ = embedder, np.asarray(letters.class_names)
    assert detector._given_corpus() == load_corpus(cls._default_corpus)


def test_forced_false_negatives_cost_neglabel(letters, embedder, neglabel, embedded):
    """Near-synonyms of class names among the negatives take mass from ID images: FPR95 rises."""
    forced = [*neglabel.negative_labels_, *letters.meta["contaminants"]]
    options = {"embedder": embedder, "prompt": "{}", "mining": "none"}
    worse = NegLabelDetector(letters.class_names, corpus=forced, **options).fit()

    def mean_fpr(detector):
        found = scored(detector, embedded, fpr_at_tpr, tpr=0.95, positive="id")
        return np.mean([value for name, value in found.items() if name != "homoglyphs"])

    assert mean_fpr(worse) > mean_fpr(neglabel) + 1


def test_a_suite_shows_itself_in_a_few_lines():
    suite = load_glyphs()
    assert repr(suite.id) == "ImageSet('letters', id, 520 images)"
    assert repr(suite).startswith(
        "Suite('glyphs-letters', 52 classes, 520 ID images; OOD: greek (near, "
    )
    assert len(repr(suite)) < 500
