"""A tilde is the user's folder wherever a path is given."""

import numpy as np

from dnm_sklearn import EmbeddingTable, MaxLogitDetector, load
from dnm_sklearn.bench.run.registry import load_suite
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.corpus.check import check_corpus
from dnm_sklearn.datasets import (
    ImageSet,
    extract_pictures,
    load_embedding_suite,
    write_embedding_suite,
)


def test_files_are_read_and_written_there(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)

    (home / "words.txt").write_text("oak")
    assert check_corpus("~/words.txt").names == Corpus.from_file("~/words.txt").names == ("oak",)

    table = EmbeddingTable(["a", "b"], np.eye(2))
    MaxLogitDetector(["a", "b"], embedder=table).fit().save("~/detector.skops")
    assert load("~/detector.skops").class_names_.tolist() == ["a", "b"]

    write_embedding_suite(
        "~/suite",
        name="suite",
        class_names=["a", "b"],
        id=ImageSet("id", np.eye(2), "id", labels=np.array([0, 1])),
        ood=[ImageSet("far", np.eye(2), "far")],
        text_names=["a", "b", "c"],
        text_embeddings=np.eye(3, 2) + 0.1,
        model="m/n",
        prompt="{}",
        logit_scale=100.0,
    )
    assert load_embedding_suite("~/suite").class_names == ["a", "b"]
    assert load_suite("~/suite").class_names == ["a", "b"]

    Corpus(["elm"]).to_file("~/elms.txt")
    assert Corpus.from_file(home / "elms.txt").names == ("elm",)
    images = extract_pictures("~/pictures").id.images
    assert all(image.startswith(str(home)) for image in images)
    assert not list(here.iterdir())
