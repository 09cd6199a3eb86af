"""GL-MCM in dnm-bench: pictures are embedded for it, and a suite of embeddings goes without."""

from dataclasses import replace

import numpy as np
import pytest
from bench_suite import invoke

from dnm_sklearn import GLMCMDetector
from dnm_sklearn.bench.run import runner
from dnm_sklearn.bench.run.prepare import embed_suite
from dnm_sklearn.bench.run.registry import detectors, resolve
from dnm_sklearn.bench.run.runner import run_methods
from dnm_sklearn.bench.run.scoring_job import make_detector
from dnm_sklearn.datasets import load_pictures
from dnm_sklearn.embedding import CLIPEmbedder

METHODS = [resolve(name, detectors()) for name in ("GL-MCM", "MCM")]


def few(images, n):
    labels = None if images.labels is None else images.labels[:n]
    return replace(images, images=images.images[:n], labels=labels)


@pytest.fixture(scope="module")
def pictures():
    suite = load_pictures()
    embedder = CLIPEmbedder("pictoclip", device="cpu")
    return replace(
        suite,
        id=few(suite.id, 7),
        ood=[few(images, 5) for images in suite.ood[:2]],
        id_train=None,
        embedder=embedder,
    )


@pytest.mark.parametrize("as_list", [False, True])
def test_scores_are_those_of_the_pictures(pictures, as_list, monkeypatch):
    monkeypatch.setattr(runner, "_PICTURES", 3)
    given = pictures
    if as_list:
        # As torchvision's data sets give them.
        items = [(image, 0) for image in pictures.id.images]
        given = replace(pictures, id=replace(pictures.id, images=items))
        embedded = replace(embed_suite(pictures), given=given)
    else:
        embedded = embed_suite(given)
    results = list(run_methods(embedded, METHODS))
    assert [result.record.status for result in results] == ["ok"] * 4

    det = GLMCMDetector(given.class_names, embedder=given.embedder, prompt="{}").fit()
    want = det.decision_function(pictures.id.images)
    np.testing.assert_allclose(results[0].id_scores[0], want, atol=1e-6)
    want = det.decision_function(pictures.ood[1].images)
    np.testing.assert_allclose(results[1].ood_scores[0], want, atol=1e-6)
    assert "patches" in results[0].record.scoring
    assert "patches" not in results[2].record.scoring


def test_a_suite_of_embeddings_goes_without(folder, embedded):
    result = invoke("run", "--suite", folder, "-d", "GLMCM", "-d", "MCM", "--no-baselines")
    assert result.exit_code == 0
    assert "holds embeddings, and GLMCMDetector scores pictures: left out" in result.output
    assert "GL-MCM" not in result.output
    result = invoke("run", "--suite", folder, "-d", "GLMCM", "--no-baselines")
    assert result.exit_code == 2
    assert "Nothing to run" in result.output
    with pytest.raises(ValueError, match="holds embeddings, and GLMCMDetector scores pictures"):
        list(run_methods(embedded, METHODS))


def test_it_scores_no_photos_one_by_one():
    with pytest.raises(ValueError, match="GLMCMDetector scores the patches of pictures"):
        make_detector("GLMCM", ["dog", "cat"])


def test_it_is_listed():
    assert "GLMCMDetector" in invoke("list", "detectors").output
