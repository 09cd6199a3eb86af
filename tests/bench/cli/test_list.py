"""dnm-bench list."""

import pytest
from bench_suite import invoke

from dnm_sklearn.bench.run import registry
from dnm_sklearn.bench.run.registry import baselines
from dnm_sklearn.corpus import corpus_names
from dnm_sklearn.datasets import benchmark_names


def test_list():
    for what, names in {
        "detectors": registry.detectors(),
        "baselines": baselines(),
        "suites": registry.suites(),
    }.items():
        result = invoke("list", what)
        assert result.exit_code == 0
        assert all(name in result.output for name in names)
        assert all(name in invoke("list").output for name in names)
    plain = invoke("list").output
    assert all(name in plain for name in (*benchmark_names(), *corpus_names()))
    assert "dnm-bench list models" in plain
    assert "torchvision:SVHN" in invoke("list", "datasets").output


@pytest.mark.parametrize("words", [("knn",), ("baselines", "KNN"), ("all", "knn")])
def test_list_searches_by_pattern(words):
    result = invoke("list", *words)
    assert result.exit_code == 0
    assert "KNN" in result.output
    assert "LOF" not in result.output
    assert "detectors" not in result.output


def test_list_bad_input():
    for words, said in (
        (("nonsense",), "No name of all kinds contains 'nonsense'"),
        (("neglabl",), "Did you mean 'NegLabelDetector'"),
        (("detectors", "knn"), "No name of all detectors contains 'knn'"),
        (("detector", "neg"), "There is no kind 'detector'"),
        (("a", "b", "c"), "takes a kind and a pattern"),
    ):
        result = invoke("list", *words)
        assert result.exit_code == 2
        assert said in result.output


def test_list_models():
    result = invoke("list", "models", "ViT-B-32/")
    assert result.exit_code == 0
    assert "ViT-B-32/openai" in result.output
    assert "pictoclip" not in result.output
    assert "pictoclip" in invoke("list", "models", "picto").output
