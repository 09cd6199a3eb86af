"""Warnings point at the user's line, through pipelines, searches and caches alike."""

import ast
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import dnm_sklearn
from dnm_sklearn import EmbeddingTable, NegLabelDetector, make_ood_pipeline
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors import ENLDetector
from dnm_sklearn.metrics import auroc_scorer

TABLE = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
MESSAGE = "n_groups=100 is more than the 1 kept"


def detector(**params):
    return NegLabelDetector(["cat", "dog"], embedder=TABLE, **params)


def alone(tmp_path):
    detector().fit()


def with_images(tmp_path):
    detector().fit(np.eye(4), [0, 0, 1, 1])


def cached(tmp_path):
    detector(memory=tmp_path).fit()


def in_pipeline(tmp_path):
    make_pipeline(FunctionTransformer(), detector()).fit(np.eye(4))


def in_own_pipeline(tmp_path):
    make_ood_pipeline(TABLE, NegLabelDetector(["cat", "dog"])).fit(np.eye(4))


def in_search(tmp_path):
    X, y = np.tile(np.eye(4), (4, 1)), np.tile([0, 0, 1, 1], 4)
    GridSearchCV(detector(), {"fraction": [0.1]}, scoring=auroc_scorer, cv=2).fit(X, y)


@pytest.mark.parametrize(
    "call", [alone, with_images, cached, in_pipeline, in_own_pipeline, in_search]
)
def test_points_at_the_users_call(call, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(tmp_path)
    places = {(w.filename, w.lineno) for w in caught if MESSAGE in str(w.message)}
    ((name, line),) = places
    assert name == __file__
    assert line == max(at for _, _, at in call.__code__.co_lines() if at)


def test_of_a_method_further_down():
    with pytest.warns(UserWarning, match="without a y that says which are ID") as caught:
        ENLDetector(["cat", "dog"], embedder=TABLE).fit(np.eye(4))
    assert caught[0].filename == __file__


def test_in_a_worker_that_no_user_line_called():
    """A thread of the library has no frame of the user's; the warning still comes, once, with a
    place.
    """
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(1) as pool:
        warnings.simplefilter("always")
        pool.submit(warn, "from a worker").result()
    assert [str(w.message) for w in caught] == ["from a worker"]
    assert Path(caught[0].filename).is_file()


def test_is_an_error_where_the_user_wants_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="low"):
            warn("low", RuntimeWarning)


def test_shown_once_a_place_by_default():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            detector().fit()
    assert len([w for w in caught if MESSAGE in str(w.message)]) == 1


def test_all_of_the_library_warns_this_way():
    package = Path(dnm_sklearn.__file__).parent
    for path in package.rglob("*.py"):
        calls = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute)
            and node.attr == "warn"
            and getattr(node.value, "id", "") == "warnings"
        ]
        assert calls == [], (
            f"{path}: warn with dnm_sklearn._utils.warnings.warn, which finds the user's line"
        )
