"""``dnm-bench score`` and ``embed`` with ``--engine ray``."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from bench_suite import invoke
from ray_jobs import read

from dnm_sklearn import CLIPEmbedder

ray = pytest.importorskip("ray")
# One cluster for all of them.
pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning"),
]
NAMES = ("-d", "MCM", "--model", "pictoclip", "-n", "cat", "-n", "dog")


def test_score(photos, tmp_path):
    out = tmp_path / "scores"
    result = invoke("score", photos, *NAMES, "-o", out, "--engine", "ray")
    assert result.exit_code == 0, result.output
    assert "23 images (1 unreadable) in 1 partitions, 0 of them done before;" in result.output
    assert f"images/s. Wrote {out}" in result.output

    # The same scores as without Ray.
    result = invoke("score", photos, *NAMES, "-o", tmp_path / "scores.parquet")
    assert result.exit_code == 0, result.output
    local = pq.read_table(tmp_path / "scores.parquet").to_pandas().sort_values("path")
    np.testing.assert_allclose(read(out)["score"], local["score"], rtol=1e-5, atol=1e-5)
    assert (read(out)["label"].to_numpy() == local["label"].to_numpy()).all()

    # The same command goes on in its folder.
    result = invoke("score", photos, *NAMES, "-o", out, "--engine", "ray", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert "1 of them done before" in result.output


def test_embed(photos, tmp_path):
    out = tmp_path / "rows"
    command = ("embed", out, "--images", photos, "--model", "pictoclip", "--engine", "ray")
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert "23 images (1 unreadable) in 1 partitions, 0 of them done before;" in result.output
    assert f"images/s. Wrote {out}" in result.output

    table = read(out)
    assert "cannot identify image" in table.loc[str(photos / "bad.jpg"), "error"]
    readable = table[table["error"].isna()]
    want = CLIPEmbedder("pictoclip").encode_image(readable.index.tolist())
    np.testing.assert_allclose(np.stack(readable["embedding"]), want, atol=1e-3)
    assert "1 of them done before" in invoke(*command).output


def test_partitions_that_fail_are_work_that_failed(photos, tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    command = ("embed", tmp_path / "rows", "--images", tmp_path / "broken.parquet")
    result = invoke(*command, "--model", "pictoclip", "--engine", "ray", "--column", "jpg")
    assert result.exit_code == 1
    assert "1 of 1 partitions failed" in result.output
    assert "broken.parquet, row group 0: it cannot be read" in result.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("embed", "rows", "--engine", "ray"), "No images; give"),
        (("embed", "rows", "--images", "p", "--id", "p", "--engine", "ray"), "--id is for --eng"),
        (("embed", "rows", "--images", "p", "--overwrite", "--engine", "ray"), "--overwrite is"),
        (("embed", "rows", "--images", "p"), "--images needs --engine ray"),
        (("embed", "rows", "--id", "p", "--workers", 2), "--workers needs --engine ray"),
        (("embed", "rows", "--far", "x=p"), "No ID images; give their folder with --id"),
        (("embed", "rows", "--images", "gone", "--engine", "ray"), "There is no such file or fol"),
        (("score", "p", *NAMES, "-o", "x.csv", "--address", "auto"), "--address needs --engine"),
        (("score", "p", *NAMES, "-o", "x", "--engine", "ray", "--chunk", 5), "--chunk is for --e"),
        (("score", "p", *NAMES, "-o", "x", "--engine", "ray", "--restart"), "--restart is for --"),
        (("score", "p", *NAMES, "--html", "x.html", "--engine", "ray"), "--html is for --engine"),
        (("score", "p", *NAMES, "-o", "x", "--engine", "ray", "--sort", "path"), "--sort is for"),
        (("score", "p", "--texts", "t.npz", "-o", "x", "--engine", "ray"), "--texts is for --eng"),
        (("score", "p", *NAMES, "-o", "."), "must end in .csv or .parquet"),
    ],
)
def test_options_that_an_engine_cannot_honour(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*given)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_gpus_that_are_not_there(monkeypatch, tmp_path):
    """Ray would wait for them for ever."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    given = ("embed", tmp_path / "rows", "--images", tmp_path, "--engine", "ray")
    result = invoke(*given, "--gpus-per-worker", 1000)
    assert result.exit_code == 2
    assert "--gpus-per-worker 1000: this machine has 0 GPUs" in result.output


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_what_is_not_installed_is_named(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from dnm_sklearn.distributed import embed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs Ray: pip install 'dnm_sklearn[ray]'" in done.stderr
