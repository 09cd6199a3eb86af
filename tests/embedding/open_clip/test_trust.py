"""Checkpoints are tensors: what else is in them never runs, unless the user says that it may."""

import os
import zipfile

import numpy as np
import pytest
import torch
from embedding_models import registered

from dnm_sklearn.embedding import CLIPEmbedder, release_models
from dnm_sklearn.embedding.open_clip import build
from dnm_sklearn.embedding.open_clip.registry import is_published
from dnm_sklearn.exceptions import FileContentError


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def hostile(tmp_path):
    path, mark = tmp_path / "model.pt", tmp_path / "ran"
    torch.save({"state_dict": Hostile(mark)}, path)
    return path, mark


# An entry that makes older readers take the file for TorchScript, at three places in the archive.
ENTRIES = [None, "constants.pkl", "x/constants.pkl", "code/constants.pkl"]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("allowed", [False, True])
def test_no_pickle_runs(hostile, entry, allowed):
    path, mark = hostile
    if entry:
        with zipfile.ZipFile(path, "a") as archive:
            top = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{top}/{entry}", b"\x80\x02).")
    embedder = CLIPEmbedder(f"ViT-B-32/{path}", torchscript=allowed)
    expected = (FileContentError, RuntimeError) if allowed else FileContentError
    with pytest.raises(expected):
        embedder.encode_text(["a"])
    assert not mark.exists()


def test_torchscript_needs_the_users_word(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(FileContentError, match=r"is a program.*torchscript=True"):
        build._recipe("ViT-B-32", str(path))
    options = build._recipe("ViT-B-32", str(path), torchscript=True)[1]
    assert options["weights_only"] is False
    assert options["quick_gelu"] is True


def test_ordinary_checkpoints_still_load(tmp_path):
    name = "tiny-clip"
    with registered(tmp_path):
        given = build.load_model(name, "", "cpu", "fp32").model.state_dict()
        torch.save(given, tmp_path / "w.pt")
        loaded = build.load_model(name, str(tmp_path / "w.pt"), "cpu", "fp32").model.state_dict()
    for key, tensor in given.items():
        np.testing.assert_array_equal(loaded[key].numpy(), tensor.numpy())
    release_models()


def test_published_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").touch()
    for model in ("pictoclip", "ViT-B-16-quickgelu/openai", "ViT-B-32/laion2b_s34b_b79k", "RN50/"):
        assert is_published(model), model
    for model in (
        "ViT-B-32/weights",
        "ViT-B-32//tmp/w.pt",
        "ViT-B-32/../w.pt",
        "hf-hub:org/repo",
        "local-dir:/tmp",
        "no-such-model/openai",
        "nothing",
        "",
    ):
        assert not is_published(model), model
