"""Grid search: rows embedded once, one table in memory, scorers that speak up, splitters that know
the sources.
"""

import gc
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.utils.fixes import parse_version

from dnm_sklearn import (
    EmbeddingTable,
    LeaveOneOODSetOut,
    NegLabelDetector,
    OODClassifier,
    StratifiedBySourceKFold,
    make_ood_pipeline,
)
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.metrics import auroc_scorer, fpr95_scorer
from dnm_sklearn.testing import FakeEmbedder, make_ood_blobs

GRID = {"fraction": [0.2, 0.5, 1.0], "n_groups": [1, 4]}


@pytest.fixture
def photos(tmp_path):
    """Paths of 24 distinct images and 4 copies."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = []
    for i in range(24):
        paths.append(str(folder / f"{i}.png"))
        Image.fromarray(rng.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(paths[-1])
    for i in range(4):
        paths.append(str(folder / f"copy {i}.png"))
        Path(paths[-1]).write_bytes(Path(paths[i]).read_bytes())
    return paths, np.tile([0, 1], 14)


def grid_for(prefix):
    return {prefix + key: values for key, values in GRID.items()}


def test_each_image_is_embedded_once_over_folds_candidates_and_processes(photos, tmp_path):
    paths, y = photos
    log = tmp_path / "rows.log"
    embedder = FakeEmbedder(memory=str(tmp_path / "cache"), log_path=str(log))
    detector = NegLabelDetector(["cat", "dog"], corpus=[f"word {i}" for i in range(20)])
    search = GridSearchCV(
        make_ood_pipeline(embedder, detector),
        grid_for("detector__"),
        scoring={"auroc": auroc_scorer, "fpr95": fpr95_scorer},
        refit="auroc",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        n_jobs=2,
        error_score="raise",
    ).fit(paths, y)
    assert len(search.cv_results_["params"]) == 6
    assert len(log.read_text().splitlines()) == 24
    search.predict(paths)
    assert len(log.read_text().splitlines()) == 24

    # The detector alone, on images and on embeddings, gives the same results.
    alone = GridSearchCV(
        clone(detector).set_params(embedder=embedder),
        GRID,
        scoring={"auroc": auroc_scorer, "fpr95": fpr95_scorer},
        refit="auroc",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        error_score="raise",
    )
    for X in (paths, embedder.transform(paths)):
        alone.fit(X, y)
        for key in ("mean_test_auroc", "mean_test_fpr95"):
            np.testing.assert_array_equal(alone.cv_results_[key], search.cv_results_[key])
        np.testing.assert_array_equal(alone.decision_function(X), search.decision_function(paths))
    assert len(log.read_text().splitlines()) == 24


def test_twenty_candidates_share_one_table_and_one_corpus():
    world = make_ood_blobs()
    corpus = Corpus(world.words)
    most, calls = {EmbeddingTable: 0, Corpus: 0}, []
    gc.collect()
    before = {cls: sum(type(o) is cls for o in gc.get_objects()) for cls in most}

    def counting_scorer(estimator, X, y):
        calls.append(1)
        for cls in most if len(calls) % 8 == 0 else ():
            live = {id(o) for o in gc.get_objects() if type(o) is cls}
            most[cls] = max(most[cls], len(live) - before[cls])
        assert estimator.embedder_ is world.table
        assert estimator.embedder is world.table
        assert estimator.corpus is corpus
        return auroc_scorer(estimator, X, y)

    search = GridSearchCV(
        NegLabelDetector(world.names, embedder=world.table, corpus=corpus),
        {"fraction": np.linspace(0.1, 1, 10), "n_groups": [1, 2]},
        scoring=counting_scorer,
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(world.X, world.y)
    assert len(search.cv_results_["params"]) == 20
    assert most[EmbeddingTable] == 0  # none beside the one that was there
    assert (
        most[Corpus] <= 3
    )  # the kept labels of the detector at hand, and what made them; none a candidate


def test_string_scorer_where_it_works():
    world = make_ood_blobs()
    detector = NegLabelDetector(world.names, embedder=world.table)
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    ours = cross_val_score(detector, world.X, world.y, scoring=auroc_scorer, cv=cv)
    theirs = cross_val_score(OODClassifier(detector), world.X, world.y, scoring="roc_auc", cv=cv)
    np.testing.assert_allclose(theirs, ours)
    if parse_version(sklearn.__version__) >= parse_version("1.9"):
        direct = cross_val_score(
            detector, world.X, world.y, scoring="roc_auc", cv=cv, error_score="raise"
        )
        np.testing.assert_allclose(direct, ours)


def test_string_labels_score_as_numbers_do():
    world = make_ood_blobs()
    detector = NegLabelDetector(world.names, embedder=world.table)
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    y = np.where(world.y == 1, "ood", world.names[0])
    np.testing.assert_array_equal(
        cross_val_score(detector, world.X, y, scoring=auroc_scorer, cv=cv, error_score="raise"),
        cross_val_score(
            detector, world.X, world.y, scoring=auroc_scorer, cv=cv, error_score="raise"
        ),
    )


def test_folds_of_one_kind_are_an_error_of_ours():
    world = make_ood_blobs()
    search = GridSearchCV(
        NegLabelDetector(world.names, embedder=world.table),
        {"n_groups": [1]},
        scoring=auroc_scorer,
        cv=KFold(2),
    )
    with pytest.raises(
        ValueError, match=r"All 40 rows are ID.*StratifiedKFold\(n_splits, shuffle=True\)"
    ):
        clone(search).set_params(
            error_score="raise", estimator__contamination=0.1, cv=_KFoldTestOnly()
        ).fit(world.X, world.y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clone(search).set_params(cv=_KFoldTestOnly()).fit(world.X, world.y)
    assert any("StratifiedKFold(n_splits, shuffle=True)" in str(w.message) for w in caught)


class _KFoldTestOnly(KFold):
    """Unshuffled folds to test on, with all rows to train on, so that the scorer is what fails."""

    def __init__(self):
        super().__init__(2)

    def split(self, X, y=None, groups=None):
        everything = np.arange(len(X))
        return ((everything, test) for _, test in super().split(X, y, groups))


def sources_of(n_id=30, sizes=(12, 9, 6)):
    y = np.repeat([0, 1], [n_id, sum(sizes)])
    return y, np.repeat(["id", *(f"ood {i}" for i in range(len(sizes)))], [n_id, *sizes])


def test_a_source_of_both_kinds_has_both_in_every_fold():
    y = np.repeat([0, 1, 1], [12, 6, 9])
    sources = np.repeat(["web", "web", "lab"], [12, 6, 9])
    for _, test in StratifiedBySourceKFold(3).split(y, y, sources):
        found = [(sources[row], y[row]) for row in test]
        assert found.count(("web", 0)) == 4
        assert found.count(("web", 1)) == 2
        assert found.count(("lab", 1)) == 3
    with pytest.raises(ValueError, match="'web' has 6 rows of one kind"):
        next(StratifiedBySourceKFold(7).split(y, y, sources))


def test_stratified_by_source_puts_every_source_into_every_fold():
    y, sources = sources_of()
    splitter = StratifiedBySourceKFold(3)
    seen = np.zeros(len(y), dtype=int)
    for train, test in splitter.split(y, y, sources):
        assert not set(train) & set(test)
        seen[test] += 1
        names, counts = np.unique(sources[test], return_counts=True)
        assert dict(zip(names, counts, strict=True)) == {
            "id": 10,
            "ood 0": 4,
            "ood 1": 3,
            "ood 2": 2,
        }
    assert (seen == 1).all()
    assert splitter.get_n_splits() == 3
    strings = np.where(y == 1, "ood", "cat")
    got = [test.tolist() for _, test in splitter.split(y, strings, sources)]
    assert got == [test.tolist() for _, test in splitter.split(y, y, sources)]
    with pytest.raises(ValueError, match="'ood 2' has 6 rows"):
        next(StratifiedBySourceKFold(7).split(y, y, sources))


def test_leave_one_ood_set_out():
    y, sources = sources_of()
    splitter = LeaveOneOODSetOut()
    assert splitter.get_n_splits(y, y, sources) == 3
    id_tested = []
    for i, (train, test) in enumerate(splitter.split(y, y, sources)):
        assert set(sources[test]) == {"id", f"ood {i}"}
        assert f"ood {i}" not in sources[train]
        assert not set(train) & set(test)
        assert len(train) + len(test) == len(y)
        id_tested += [row for row in test if y[row] == 0]
    assert sorted(id_tested) == list(range(30))


@pytest.mark.parametrize("splitter", [StratifiedBySourceKFold(2), LeaveOneOODSetOut()])
def test_splitters_say_what_is_missing(splitter):
    y, sources = sources_of()
    for arguments, match in (
        ((y, None, sources), "needs y"),
        ((y, y, None), "groups"),
        ((y, y, sources[1:]), "one source per row"),
        ((y, np.zeros_like(y), sources), "rows are ID"),
        ((y, np.ones_like(y), sources), "rows are OOD"),
        ((y, np.arange(len(y)), sources), "0/1 or bool"),
    ):
        with pytest.raises(ValueError, match=match):
            next(splitter.split(*arguments))
    assert clone(splitter, safe=False).get_n_splits(y, y, sources) == splitter.get_n_splits(
        y, y, sources
    )


def test_leave_one_out_needs_two_sets_and_enough_id_rows():
    y, sources = sources_of(sizes=(5,))
    with pytest.raises(ValueError, match="StratifiedBySourceKFold"):
        next(LeaveOneOODSetOut().split(y, y, sources))
    y, sources = sources_of(n_id=2)
    with pytest.raises(ValueError, match="2 ID rows are fewer"):
        next(LeaveOneOODSetOut().split(y, y, sources))


def test_splitters_route_groups():
    world = make_ood_blobs()
    _, sources = sources_of(n_id=40, sizes=(20, 20))
    detector = NegLabelDetector(world.names, embedder=world.table)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            detector, {"n_groups": [1, 2]}, scoring=auroc_scorer, cv=LeaveOneOODSetOut()
        )
        search.fit(world.X, world.y, groups=sources)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_grid_over_two_embedders_is_two_separate_fits(photos):
    paths, y = photos
    pipeline = make_ood_pipeline(
        FakeEmbedder(dim=16), NegLabelDetector(["cat", "dog"], corpus=["x", "y", "z"])
    )
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(
        pipeline,
        {"embedder__random_state": [0, 5]},
        scoring=auroc_scorer,
        cv=cv,
        error_score="raise",
    )
    search.fit(paths, y)
    for seed, got in zip((0, 5), search.cv_results_["mean_test_score"], strict=True):
        alone = make_ood_pipeline(
            FakeEmbedder(dim=16, random_state=seed),
            NegLabelDetector(["cat", "dog"], corpus=["x", "y", "z"]),
        )
        assert got == cross_val_score(alone, paths, y, scoring=auroc_scorer, cv=cv).mean()


def test_the_example_runs(capsys):
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "grid_search.py"))
    output = capsys.readouterr().out
    assert "held out: other-food" in output
    # Those of the held-out set are not, and each other one is once.
    assert "images embedded: 216 of 350" in output
