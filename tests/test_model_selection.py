"""Near-OOD sets out of held-out classes."""

import numpy as np
import pytest

from dnm_sklearn import MaxLogitDetector
from dnm_sklearn.metrics import auroc_scorer
from dnm_sklearn.model_selection import held_out_classes
from dnm_sklearn.testing import make_ood_blobs


def test_every_class_is_held_out_once_and_rows_are_marked():
    y = np.repeat(["cat", "dog", "owl", "ant", "bee"], 3)
    held_out = []
    for names, marked in held_out_classes(y, n_splits=2):
        unknown = marked == "ood"
        assert set(marked[~unknown]) == set(names)
        np.testing.assert_array_equal(marked[~unknown], y[~unknown])
        held_out += sorted(set(y[unknown]))
    assert sorted(held_out) == sorted(set(y))


def test_parts_follow_the_seed():
    y = [f"class {k}" for k in range(20)]
    first, again, other = (
        [names for names, _ in held_out_classes(y, random_state=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_detector_is_judged_on_them():
    blobs = make_ood_blobs()
    nearest = (blobs.X_id @ blobs.table.encode_text(blobs.names).T).argmax(axis=1)
    y = np.asarray(blobs.names)[nearest]
    for names, marked in held_out_classes(y, n_splits=2):
        det = MaxLogitDetector(names, embedder=blobs.table).fit()
        assert auroc_scorer(det, blobs.X_id, marked) > 0.9


def test_what_cannot_be_split_is_told():
    with pytest.raises(ValueError, match="y holds 'ood'"):
        next(held_out_classes(["cat", "ood", "dog"]))
    with pytest.raises(ValueError, match="n_splits=5 must be 2 at least"):
        next(held_out_classes(["cat", "dog"]))
    with pytest.raises(ValueError, match="n_splits=1 must be"):
        next(held_out_classes(["cat", "dog"], n_splits=1))
    with pytest.raises(ValueError, match="class name of every row, as strings"):
        next(held_out_classes([0, 1, 2]))
