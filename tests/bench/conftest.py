"""Suites and runs that the tests of dnm-bench share."""

import numpy as np
import pytest
from bench_suite import invoke, suite_folder
from PIL import Image

from dnm_sklearn.bench.run.prepare import embed_suite
from dnm_sklearn.datasets import load_embedding_suite
from dnm_sklearn.testing import FakeEmbedder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return suite_folder(tmp_path_factory.mktemp("suites") / "tiny")


@pytest.fixture(scope="session")
def embedded(folder):
    return embed_suite(load_embedding_suite(folder))


@pytest.fixture(scope="session")
def full_run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "results"
    result = invoke("run", "--suite", folder, "-o", out, "--param", "NegLabel.n_groups=2")
    return result, out


@pytest.fixture
def photos(tmp_path, monkeypatch):
    def fake(model="fake", **options):
        return FakeEmbedder(dim=8, **options)

    monkeypatch.setattr("dnm_sklearn.embedding.CLIPEmbedder", fake)
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(11):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
            folder / f"{i:02d}.png"
        )
    (folder / "05.png").write_bytes(b"not an image")
    (tmp_path / "words.txt").write_text("\n".join(f"word {i}" for i in range(30)), encoding="utf-8")
    return folder
