"""Records and their scores on disk."""

from dataclasses import replace

import numpy as np
import pytest
from bench_suite import invoke

from dnm_sklearn.bench.results.formats import to_csv
from dnm_sklearn.bench.results.records import read_records, write_record
from dnm_sklearn.bench.results.score_files import compact, read_scores
from dnm_sklearn.exceptions import RecordError


def test_the_table_can_be_made_again_from_the_records(full_run):
    _, out = full_run
    assert to_csv(read_records(out / "records")) == (out / "table.csv").read_text()


def test_damaged_records(full_run, tmp_path):
    _, out = full_run
    record = read_records(out / "records")[0]
    path = write_record(tmp_path, record)
    assert read_records(tmp_path) == [record]
    path.write_text(path.read_text()[:-40])
    with pytest.raises(RecordError, match="not a readable record"):
        read_records(tmp_path)
    write_record(tmp_path, replace(record, format=99))
    with pytest.raises(RecordError, match="newer version"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="no such run folder"):
        read_records(tmp_path / "nowhere")


def test_compact_scores_keep_order_and_ties():
    rng = np.random.default_rng(0)
    rough = rng.standard_normal(100)
    assert compact(rough).dtype == np.float32
    assert compact(np.array([1.0, 1.0 + 1e-12])).dtype == np.float64
    assert compact(np.array([1e300, np.inf])).dtype == np.float64


def test_scores_outside_the_folder_are_not_read(folder, tmp_path):
    assert (
        invoke("run", "--suite", folder, "-o", tmp_path, "-d", "MCM", "--no-baselines").exit_code
        == 0
    )
    record = read_records(tmp_path / "records")[0]
    record.scores["file"] = "../../elsewhere.npz"
    with pytest.raises(RecordError, match="outside the folder"):
        read_scores(tmp_path / "records", record)
    record.scores.clear()
    with pytest.raises(RecordError, match="keeps no scores"):
        read_scores(tmp_path / "records", record)
