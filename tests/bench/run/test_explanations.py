"""What a detector answers of single images, for the gallery and for ``dnm-bench score``."""

import sys

import numpy as np
import pytest

from dnm_sklearn import EmbeddingTable, MCMDetector, NegLabelDetector
from dnm_sklearn.detectors.nearest_labels import nearest_labels

ROWS = np.array([[0.9, 0.1, 0.2, 0.0], [0.0, 0.2, 0.1, 0.9]])


class NoPandas:
    """A finder that finds no pandas, as where it is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")


@pytest.mark.parametrize("has_pandas", [True, False])
def test_classes_and_negative_labels_nearest_first(monkeypatch, has_pandas):
    if not has_pandas:
        # An entry of None would end scikit-learn 1.6, which looks for pandas there.
        monkeypatch.delitem(sys.modules, "pandas", raising=False)
        monkeypatch.setattr(sys, "meta_path", [NoPandas, *sys.meta_path])
    table = EmbeddingTable(["cat", "dog", "truck", "tree"], np.eye(4))
    detector = NegLabelDetector(["cat", "dog"], embedder=table, n_groups=1, fraction=1.0).fit()
    first, second = nearest_labels(detector, ROWS, top_k=2)
    assert [name for name, _ in first.classes] == ["cat", "dog"]
    assert [name for name, _ in first.negatives] == ["truck", "tree"]
    assert [name for name, _ in second.negatives] == ["tree", "truck"]
    assert second.negatives[0][1] == pytest.approx(0.9 / np.linalg.norm(ROWS[1]))


def test_a_detector_without_negative_labels():
    table = EmbeddingTable(["cat", "dog"], np.eye(2))
    (labels,) = nearest_labels(MCMDetector(["cat", "dog"], embedder=table).fit(), [[0.1, 0.9]])
    assert (labels.classes[0][0], labels.negatives) == ("dog", [])
