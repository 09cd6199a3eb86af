"""joblib's back ends."""

import os
import sys

import pytest
from bench_suite import invoke

from dnm_sklearn.bench.results.records import read_records


@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("backend", ["dask", "ray"])
@pytest.mark.filterwarnings("ignore")
def test_other_back_ends(folder, tmp_path, backend, monkeypatch):
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run = ("run", "--suite", folder, "-d", "MCM", "-d", "NegLabel", "-b", "KNN", "-o")
    assert invoke(*run, tmp_path / "one").exit_code == 0
    result = invoke(*run, tmp_path / "two", "--jobs", 2, "--backend", backend)
    assert result.exit_code == 0, result.output
    one, two = (
        {
            (r.method, r.ood["name"]): (r.status, r.metrics)
            for r in read_records(tmp_path / name / "records")
        }
        for name in ("one", "two")
    )
    assert one == two
    if backend == "ray":
        # Other tests start clusters of their own.
        sys.modules["ray"].shutdown()


def test_back_ends_that_are_not_there(folder, monkeypatch):
    run = ("run", "--suite", folder, "-d", "MCM", "--no-baselines", "--backend")
    for name, module in (("dask", "distributed"), ("ray", "ray.util.joblib")):
        monkeypatch.setitem(sys.modules, module, None)
        result = invoke(*run, name, "--jobs", 2)
        assert result.exit_code == 2
        assert f"--backend {name} needs" in result.output
    result = invoke(*run, "dask")
    assert result.exit_code == 2
    assert "give --jobs too" in result.output
