"""The shipped model of pictures of things: its files, its record, and a few words and a drawing."""

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dnm_sklearn
from dnm_sklearn.embedding import CLIPEmbedder, release_models

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(dnm_sklearn.__file__).parent / "embedding" / "pictoclip"
RECORD = ROOT / "tools" / "pictoclip"
FILES = ("pictoclip.safetensors", "pictoclip.json", "bpe_vocab.txt.gz")


@pytest.fixture(scope="module")
def manifest():
    return json.loads((RECORD / "MANIFEST.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def embedder():
    return CLIPEmbedder("pictoclip", device="cpu")


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_are_those_of_the_manifest(name, manifest):
    found = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
    assert found == manifest["shipped"][name]


def test_stages_follow_each_other(manifest):
    stages = manifest["stages"]
    assert list(stages) == ["first", "text", "mild", "strong", "average"]
    made = {name: stage["sha256"]["pictoclip.safetensors"] for name, stage in stages.items()}
    assert stages["average"]["sha256"]["inputs"] == [made["mild"], made["strong"]]
    assert made["average"] == manifest["shipped"]["pictoclip.safetensors"]

    # Both joint runs went on from the same weights, and all runs knew the same tokens.
    assert stages["mild"]["sha256"]["start"] == stages["strong"]["sha256"]["start"]
    vocabularies = {stage["sha256"]["bpe_vocab.txt.gz"] for stage in stages.values()}
    assert vocabularies == {manifest["shipped"]["bpe_vocab.txt.gz"]}


def test_vendors_that_were_held_out_are_not_in_the_runs(manifest):
    for name, stage in manifest["stages"].items():
        read = [key for key in stage["sha256"] if key.startswith(("data/test", "data/shift"))]
        assert read == [], name


def test_log_holds_every_stage(manifest):
    log = (RECORD / "train.log").read_text(encoding="utf-8")
    for name, stage in manifest["stages"].items():
        assert f"== {name}\n# {stage['command']}\n" in log, name


def test_size():
    assert (FOLDER / "pictoclip.safetensors").stat().st_size <= 12e6
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12.2e6


def test_every_training_set_is_in_the_notices():
    notices = (ROOT / "THIRD_PARTY_NOTICES").read_text(encoding="utf-8")
    printed = subprocess.run(
        [sys.executable, "-X", "utf8", RECORD / "notices.py"],
        capture_output=True,
        check=True,
        encoding="utf-8",
    ).stdout
    assert printed.strip() in notices

    sources = json.loads((RECORD / "SOURCES.json").read_text(encoding="utf-8"))
    for source in sources:
        if source["role"] in ("training", "names"):
            assert f"{source['package']} {source['version']}" in notices, source["package"]
        # Share-alike sets took no part.
        assert "-SA" not in source["licence"]["spdx"], source["package"]


def test_loads_without_a_network(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("no network in this test")

    release_models()
    monkeypatch.setattr(socket.socket, "connect", refused)
    rows = CLIPEmbedder("pictoclip", device="cpu").encode_text(["dog", "fire truck"])
    assert rows.shape == (2, 256)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("dog", "puppy", "truck"),
        ("cat", "kitten", "airplane"),
        ("car", "automobile", "banana"),
        ("guitar", "violin", "carrot"),
        ("apple", "pear", "hammer"),
    ],
)
def test_words_lie_by_their_meaning(word, near, far, embedder):
    one, close, other = embedder.encode_text([word, near, far])
    assert one @ close > one @ other + 0.1


def test_a_drawing_finds_its_name(embedder):
    """The towers belong together: a red heart, drawn here, is no picture of any vendor."""
    y, x = np.mgrid[0:64, 0:64]
    heart = np.full((64, 64, 3), 255, dtype=np.uint8)

    # Two discs and a triangle below them.
    lobes = ((x - 21) ** 2 + (y - 24) ** 2 < 144) | ((x - 43) ** 2 + (y - 24) ** 2 < 144)
    point = (y >= 24) & (np.abs(x - 32) < 0.8 * (56 - y)) & (np.abs(x - 32) < 23)
    heart[lobes | point] = (220, 30, 40)

    names = ["dog", "airplane", "red heart", "pizza", "key", "evergreen tree"]
    scores = embedder.transform([heart])[0] @ embedder.encode_text(names).T
    assert names[scores.argmax()] == "red heart"
