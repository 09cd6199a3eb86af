"""The group "shifted": ID classes in another style, which should be accepted."""

import csv
import io

import numpy as np
import pytest
from bench_suite import invoke, suite_folder

from dnm_sklearn.bench.html.table import result_columns
from dnm_sklearn.bench.results.formats import make_table, to_csv
from dnm_sklearn.bench.results.rows import mean_columns
from dnm_sklearn.bench.results.run_groups import read_run_groups
from dnm_sklearn.datasets import ImageSet
from dnm_sklearn.metrics import fpr_at_tpr


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    rng = np.random.default_rng(1)
    rows = np.repeat(np.eye(16)[:4], 12, axis=0) + 0.2 * rng.standard_normal((48, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sets = [ImageSet("far one", np.eye(16)[4:], "far"), ImageSet("drawn", rows, "shifted")]
    root = tmp_path_factory.mktemp("shifted")
    suite = suite_folder(root / "suite", ood=sets)
    done = invoke("run", "--suite", suite, "-d", "MCM", "-d", "Energy", "-o", root / "out")
    assert done.exit_code == 0, done.output
    assert "flagged" in done.output
    (found,) = read_run_groups([root / "out"])
    return found


def test_columns_of_means():
    assert mean_columns(("auroc", "aupr_id_positive"), ["near", "shifted"]) == [
        ("auroc", "near"),
        ("aupr_id_positive", "near"),
        ("auroc", "shifted"),
    ]
    assert mean_columns(("fpr95_id_positive",), ["shifted"]) == [("flagged", "shifted")]
    assert mean_columns(("auroc",), ["far"]) == [("auroc", "far")]


def test_flagged_is_what_is_not_accepted_where_95_percent_of_the_id_images_are(group):
    for row in group.rows:
        (record,) = [record for record in row.records if record.ood["name"] == "drawn"]
        ids, shifted = (scores[0] for scores in group.scores(record))
        is_shifted = np.arange(len(ids) + len(shifted)) >= len(ids)
        accepted = fpr_at_tpr(np.r_[ids, shifted], is_shifted, tpr=0.95, positive="id")
        assert row.group_mean("flagged", "shifted") == pytest.approx(1 - accepted)
        assert 0 < accepted < 1


def test_tables_show_both_and_mark_no_auroc_as_the_best(group):
    head = make_table(group).head
    assert "AUROC shifted" in head
    assert "flagged shifted" in head
    assert not any("AUPR" in name and "shifted" in name for name in head)

    (line, _, *_) = csv.DictReader(io.StringIO(to_csv(group.records)))
    row = group.rows[0]
    assert float(line["flagged:shifted"]) == row.group_mean("flagged", "shifted")
    assert float(line["auroc:shifted"]) == row.group_mean("auroc", "shifted")

    columns = {column.head: column for column in result_columns(group)}
    assert columns["AUROC\nshifted"].better == ""
    assert not any(cell.best for cell in columns["AUROC\nshifted"].cells)
    assert columns["flagged\nshifted"].better == "low"
    assert columns["FPR95 ID+\ndrawn (shifted)"].better == "high"
