"""Which words of a corpus name the classes of OOD sets, and a suite that is blind to them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from bench_suite import invoke

from dnm_sklearn import EmbeddingTable
from dnm_sklearn.bench.run.config import RunConfig
from dnm_sklearn.bench.run.prepare import build
from dnm_sklearn.bench.run.specs import detector_of_spec
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets import (
    ImageSet,
    Suite,
    load_embedding_suite,
    load_pictures,
    write_embedding_suite,
)


def suite(**changes):
    names = ["dog", "cat", "car", "automobile", "teapot"]
    ood = [
        ImageSet("cars", np.eye(5)[2:3], "far", class_names=("car",)),
        ImageSet("x", np.eye(5), "far"),
    ]
    values = Suite(
        "s", names[:2], ImageSet("id", np.eye(5)[:2], "id", np.arange(2)), ood,
        EmbeddingTable(names, np.eye(5)), Corpus(names[2:]),
    )  # fmt: skip
    return replace(values, **changes)


def test_leaks_and_a_blind_suite():
    assert suite().leaks() == {"cars": ("car", "automobile")}
    blind = suite(note="A note.").blind()
    assert blind.corpus.names == ("teapot",)
    assert blind.leaks() == {}
    assert blind.note == "A note. Blind: the corpus holds no names of OOD classes."
    reneg = build(detector_of_spec("ReNeg"), blind, blind.embedder, RunConfig())
    assert reneg.exclude == ["car"]
    assert build(detector_of_spec("ReNeg"), suite(), blind.embedder, RunConfig()).exclude is None
    with pytest.raises(ValueError, match="does not say which classes its OOD images show"):
        suite(ood=suite().ood[1:]).blind()


def test_leaks_by_the_sense_that_the_set_says():
    cars = suite().ood[0]
    railcars = suite(
        corpus=Corpus(["automobile", "railcar", "teapot"]),
        ood=[replace(cars, synsets={"car": "n02959942"})],
    )
    assert railcars.leaks() == {"cars": ("railcar",)}
    assert railcars.blind().corpus.names == ("automobile", "teapot")


def test_an_embedding_suite_keeps_the_names_of_ood_classes(tmp_path):
    own = suite()
    write_embedding_suite(
        tmp_path / "s", name="s", class_names=own.class_names, id=own.id, ood=own.ood,
        text_names=own.embedder.names, text_embeddings=np.eye(5),
    )  # fmt: skip
    again = load_embedding_suite(tmp_path / "s")
    assert [images.class_names for images in again.ood] == [("car",), ()]
    head = json.loads((tmp_path / "s" / "suite.json").read_text())
    assert "class_names" not in head["ood"][1]

    run = ("run", "--suite", tmp_path / "s", "-d", "ENL", "--no-baselines")
    told = invoke(*run)
    assert "names of OOD classes (e.g. 'car'), by set: cars 2" in told.output
    blind = invoke(*run, "--blind")
    assert blind.exit_code == 0, blind.output
    assert "names of OOD classes (e.g." not in blind.output

    head["ood"][0]["class_names"] = ["car", 3]
    (tmp_path / "s" / "suite.json").write_text(json.dumps(head))
    with pytest.raises(ValueError, match="'ood\\[0\\].class_names' must be a list of names"):
        load_embedding_suite(tmp_path / "s")


def test_sets_of_pictures_say_what_they_show():
    suite = load_pictures()
    shown = {images.name: images.class_names for images in suite.ood}
    assert "hedgehog" in shown["other-animals"]
    assert shown["textures"] == shown["id-3d"] == ()
    assert all(not set(names) & set(suite.class_names) for names in shown.values())
