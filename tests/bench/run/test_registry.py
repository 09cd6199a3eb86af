"""Detectors, baselines and suites by name."""

import pytest

from dnm_sklearn.bench.run.registry import baselines, load_suite, resolve
from dnm_sklearn.exceptions import UnknownNameError


def test_names_that_are_not_known():
    with pytest.raises(UnknownNameError, match="Known: KNN, LOF"):
        resolve("zzz", baselines())
    with pytest.raises(UnknownNameError, match="or give a folder with a suite.json"):
        load_suite("zzz")
