"""Jobs in which something fails; what is killed are processes that the tests started."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mortal_embedder import MortalEmbedder
from ray_jobs import content_of, mortal_detector, read

from dnm_sklearn.distributed import embed, score
from dnm_sklearn.distributed.running import Pool
from dnm_sklearn.exceptions import PartitionError, UnreadableImageWarning
from dnm_sklearn.testing import FakeEmbedder

pytest.importorskip("ray")
# One cluster for all of them.
pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture
def processes(tmp_path):
    """Folder in which each process that embeds leaves a file."""
    folder = tmp_path / "processes"
    folder.mkdir()
    return folder


def test_broken_partitions_are_told_when_all_others_are_done(photos, tmp_path):
    image = sorted(photos.glob("*.png"))[0].read_bytes()
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pq.write_table(pa.table({"image": [image]}), source / "good.parquet")
    (source / "broken.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    # The third has a whole end, which says what it holds, and damage in what it holds.
    pq.write_table(pa.table({"image": [image] * 9}), source / "holes.parquet", compression="gzip")
    content = bytearray((source / "holes.parquet").read_bytes())
    content[30:200] = bytes(170)
    (source / "holes.parquet").write_bytes(content)

    with pytest.raises(PartitionError, match="2 of 3 partitions failed") as caught:
        embed(source, FakeEmbedder(), out)
    assert "broken.parquet, row group 0: it cannot be read" in str(caught.value)
    assert "holes.parquet, row group 0: it cannot be read" in str(caught.value)
    assert len(read(out)) == 1

    # The same call does what is missing, once the cause is mended.
    pq.write_table(pa.table({"image": [image, image]}), source / "broken.parquet")
    pq.write_table(pa.table({"image": [image] * 9}), source / "holes.parquet")
    assert embed(source, FakeEmbedder(), out).n_rows == 12


def test_unreadable_images_end_a_partition_only_if_asked(photos, tmp_path):
    with pytest.raises(PartitionError, match=r"bad\.jpg"):
        embed(photos, FakeEmbedder(), tmp_path, on_error="raise", rows_per_partition=6)
    assert len(content_of(tmp_path)) == 3


def test_missing_files_are_unreadable_images(tmp_path):
    with pytest.warns(UnreadableImageWarning, match="1 of 1 images"):
        embed([str(tmp_path / "gone.png")], FakeEmbedder(), tmp_path / "out")
    assert read(tmp_path / "out")["error"].tolist() == ["no such file"]


def test_memory_that_runs_out_halves_the_batch(photos, tmp_path, monkeypatch):
    from dnm_sklearn.distributed.partitions import Reading, find_partitions
    from dnm_sklearn.distributed.places import find_place
    from dnm_sklearn.distributed.workers import Task, Worker

    paths = sorted(photos.glob("*.png"))
    pq.write_table(pa.table({"image": [p.read_bytes() for p in paths]}), tmp_path / "in.parquet")
    partitions = find_partitions(tmp_path / "in.parquet", Reading("auto", None, None, None, 100))
    sizes = []

    class Small(FakeEmbedder):
        def encode_image(self, X):
            sizes.append(len(X))
            if len(X) > 6:
                raise MemoryError("too many")
            return super().encode_image(X)

    worker = Worker.__new__(Worker)
    worker.task = Task(partitions, find_place(tmp_path), Small(), None, False, 40_000)
    assert worker.work(0, 40_000)["rows"] == len(paths)
    assert max(sizes) > 6 >= sizes[-1]
    assert len(read(tmp_path / "part-000000.parquet")) == len(paths)


def test_a_model_that_is_not_on_a_node_is_told(photos, processes, tmp_path):
    embedder = MortalEmbedder(folder=str(processes), has_weights=False)
    with pytest.raises(PartitionError, match=r"WeightsUnavailableError: this node has no weights"):
        embed(photos / "trip", embedder, tmp_path / "out")
    # A node that has them does what is missing.
    embedder = MortalEmbedder(folder=str(processes))
    assert embed(photos / "trip", embedder, tmp_path / "out").n_rows_now == 1


def test_workers_that_none_can_start_are_told():
    with pytest.warns(UserWarning, match="wants 1000 GPUs, and the whole cluster has 0"):
        Pool(1, 1, 1000).warn_of_waiting()


def test_a_worker_that_dies_of_its_memory_goes_on_with_smaller_batches(photos, processes, tmp_path):
    paths = sorted(photos.glob("*.png"))
    contents = [path.read_bytes() for path in paths]
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": contents}), source, compression="none")
    n_bytes = pq.ParquetFile(source).metadata.row_group(0).total_byte_size
    most = len(paths) * 3 // 4

    embedder = MortalEmbedder(folder=str(processes), most=most)
    summary = embed(source, embedder, tmp_path / "out", batch_bytes=n_bytes)
    assert summary.n_rows == len(paths)
    assert len(list(processes.iterdir())) == 2


def test_a_partition_that_no_worker_survives_ends_no_other(photos, processes, tmp_path):
    paths = sorted(str(path) for path in photos.glob("*.png"))
    embedder = MortalEmbedder(folder=str(processes), most=5)
    # Six images in all partitions but the last.
    with pytest.raises(PartitionError, match=r"1 of 2 partitions failed") as caught:
        embed(paths[:9], embedder, tmp_path / "out", rows_per_partition=6)
    assert "partition 0: its worker died 4 times" in str(caught.value)
    assert read(tmp_path / "out").index.tolist() == paths[6:9]


def test_a_worker_that_is_killed_is_replaced(photos, processes, tmp_path):
    paths = sorted(str(path) for path in photos.glob("*.png"))
    embedder = MortalEmbedder(folder=str(processes), dies_at=2)
    summary = embed(paths, embedder, tmp_path / "out", rows_per_partition=7)

    assert len(list(processes.iterdir())) == 2
    assert summary.n_rows == len(paths)
    assert read(tmp_path / "out").index.tolist() == paths


DRIVER = """
import ray, sys
sys.path[:0] = {path!r}
from ray_jobs import mortal_detector
from dnm_sklearn.distributed import score
if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    detector = mortal_detector(folder={folder!r}, waits_at=3)
    score({paths!r}, detector, {out!r}, rows_per_partition=5)
"""


def until(is_so, *, seconds=300):
    """Wait for what has to come, however busy the machine is."""
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_a_job_whose_driver_is_killed_goes_on(photos, processes, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    paths = sorted(str(path) for path in photos.glob("*.*g"))
    helpers = [str(Path(__file__).parents[1] / "helpers"), *filter(None, sys.path)]
    script = tmp_path / "driver.py"
    text = DRIVER.format(path=helpers, paths=paths, folder=str(processes), out=str(out))
    script.write_text(text, encoding="utf-8")
    # A cluster of its own, not the one of the tests; its worker stops in the third partition.
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with open(log, "wb") as errors:
        driver = subprocess.Popen([sys.executable, str(script)], stderr=errors, env=env)
    try:
        until(lambda: len(content_of(out)) == 2 or driver.poll() is not None)
    finally:
        driver.kill()
        driver.wait()
    before = content_of(out)
    assert len(before) == 2, log.read_text()
    # Ray ends its workers with their driver: nobody writes there any more.
    (worker,) = (int(path.name) for path in processes.iterdir())
    until(lambda: not is_alive(worker))
    assert not is_alive(worker)

    # What one leaves that is killed while it writes.
    (out / ".part-000002.parquet.x.tmp").write_bytes(b"half of a file")
    detector = mortal_detector(folder=str(processes))
    summary = score(paths, detector, out, rows_per_partition=5, workers=2)
    assert (summary.n_done_before, summary.n_errors) == (2, 1)
    assert before.items() <= content_of(out).items()

    # Unbroken, it comes to the same.
    score(paths, detector, tmp_path / "unbroken", rows_per_partition=5)
    broken, unbroken = read(out), read(tmp_path / "unbroken")
    assert broken.drop(columns="score").equals(unbroken.drop(columns="score"))
    np.testing.assert_allclose(broken["score"], unbroken["score"], rtol=1e-5, atol=1e-5)
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]
    assert json.loads((out / "_manifest.json").read_text())["n_partitions"] == 5
