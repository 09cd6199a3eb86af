"""Jobs on a local Ray with two workers; what is killed are processes that the tests started."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench_suite import invoke
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from slow_embedder import SlowEmbedder

from dnm_sklearn import (
    AdaNegDetector,
    DictionaryDetector,
    EmbeddingTable,
    MCMDetector,
    NegLabelDetector,
    make_ood_pipeline,
)
from dnm_sklearn.distributed import adapt, embed, jobs, score
from dnm_sklearn.exceptions import PartitionError, UnreadableImageWarning
from dnm_sklearn.metrics import auroc_scorer
from dnm_sklearn.testing import FakeEmbedder

ray = pytest.importorskip("ray")
# One cluster for all of them.
pytestmark = pytest.mark.xdist_group("ray")

CLASSES = ["cat", "dog"]
WORDS = ["truck", "house", "tree", "cloud", "river"]
N_IMAGES = 23


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    # Workers find the encoder of these tests where the tests find it.
    helpers = os.pathsep.join(path for path in sys.path if path)
    os.environ["PYTHONPATH"] = helpers
    ray.shutdown()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()
    os.environ.pop("PYTHONPATH", None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images, one of them in a sub-folder, one that is none."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    (folder / "trip").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(N_IMAGES - 1):
        image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(folder / ("trip" if i == 3 else "") / f"{i:02d}.png")
    (folder / "bad.jpg").write_bytes(b"this is no image")
    (folder / "notes.txt").write_text("nor is this")
    return folder


@pytest.fixture(scope="module")
def detector():
    embedder = FakeEmbedder(logit_scale=20.0)
    det = NegLabelDetector(CLASSES, embedder=embedder, corpus=WORDS, n_groups=1).fit()
    return det.calibrate(np.random.default_rng(1).standard_normal((40, 32)))


def read(folder):
    return pq.read_table(folder).to_pandas().sort_values("id").set_index("id")


def expected(detector, paths):
    """What the detector says in this process."""
    quiet = FakeEmbedder(logit_scale=20.0, on_error="nan")
    rows = quiet.encode_image(paths)
    return detector.decision_function(rows[~np.isnan(rows).any(axis=1)])


def content_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("part-*")}


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_scores_are_those_of_one_process_and_nothing_is_lost(photos, detector, tmp_path):
    summary = score(photos, detector, tmp_path, workers=2, rows_per_partition=5, embeddings=True)
    table = read(tmp_path)

    paths = sorted(str(path) for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))
    assert table.index.tolist() == paths
    readable = table["error"].isna().to_numpy()
    np.testing.assert_allclose(
        table["score"][readable], expected(detector, paths), rtol=1e-5, atol=1e-5
    )
    flags = table["score"][readable] > detector.threshold_
    assert (table["is_ood"][readable] == flags).all()
    assert (
        table["label"][readable] == np.where(flags, "ood", table["nearest_class"][readable])
    ).all()
    assert set(table["top_negative_label"][readable]) <= set(WORDS)

    # The unreadable image is listed, flagged and without a score.
    bad = table.loc[str(photos / "bad.jpg")]
    assert "cannot identify image" in bad["error"]
    assert bad["is_ood"]
    assert np.isnan(bad["score"])
    assert (summary.n_rows, summary.n_errors, summary.n_partitions) == (N_IMAGES, 1, 5)
    assert summary.n_flagged == flags.sum()
    assert "23 images (1 unreadable) in 5 partitions, 0 of them done before" in str(summary)

    # Embeddings are lists of one length, in half precision.
    kept = pq.read_table(tmp_path).column("embedding")
    assert kept.type == pa.list_(pa.field("element", pa.float16()), 32)


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_what_is_done_stays_and_what_is_missing_is_done(photos, detector, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    detector = make_ood_pipeline(
        FakeEmbedder(logit_scale=20.0, log_path=str(log)),
        NegLabelDetector(CLASSES, corpus=WORDS, n_groups=1),
    ).fit()
    detector.calibrate(np.random.default_rng(1).standard_normal((40, 32)))

    score(photos, detector, out, rows_per_partition=5)
    whole = read(out)
    (out / "part-000002.parquet").unlink()
    before = content_of(out)
    log.unlink()

    summary = score(photos, detector, out, rows_per_partition=5)
    assert (summary.n_done_before, summary.n_rows, summary.n_rows_now) == (4, N_IMAGES, 5)
    assert summary.n_errors == 1
    # The unreadable image is flagged in the table, and counted as unreadable only.
    assert summary.n_flagged == whole["is_ood"].sum() - 1 > 0
    # Five images were embedded, and the other files are the same byte for byte.
    assert log.read_text().count("row") == 5
    assert before.items() <= content_of(out).items()
    assert read(out).equals(whole)


def test_an_output_of_another_job_is_refused(photos, detector, tmp_path):
    embed(photos / "trip", FakeEmbedder(), tmp_path)
    with pytest.raises(ValueError, match="results of another job"):
        embed(photos / "trip", FakeEmbedder(random_state=1), tmp_path)
    with pytest.raises(ValueError, match="results of another job"):
        score(photos / "trip", detector, tmp_path)


def test_a_job_is_of_its_images_its_model_its_detector_and_its_columns(
    photos, detector, tmp_path, monkeypatch
):
    """Nothing runs here: whose results a folder holds is said before."""
    monkeypatch.setattr(jobs, "_run", lambda *args: None)
    paths = [str(path) for path in sorted(photos.glob("*.png"))]
    as_written = {"rows_per_partition": 5}
    score(paths, detector, tmp_path, **as_written)
    score(paths, detector, tmp_path, workers=2, batch_bytes=1000, **as_written)

    def fitted(**params):
        words = params.pop("corpus", WORDS)
        embedder = FakeEmbedder(logit_scale=20.0, **params)
        det = NegLabelDetector(CLASSES, embedder=embedder, corpus=words, n_groups=1).fit()
        return det.calibrate(np.random.default_rng(1).standard_normal((40, 32)))

    score(paths, fitted(), tmp_path, **as_written)
    others = [
        (paths[1:], detector, as_written),
        ([*paths[1:], paths[0]], detector, as_written),
        (paths, detector, {"rows_per_partition": 6}),
        (paths, detector, {"embeddings": True, **as_written}),
        (paths, fitted(corpus=WORDS[::-1]), as_written),
        (paths, fitted().calibrate(np.eye(32), id_tpr=0.5), as_written),
    ]
    for images, other, options in others:
        with pytest.raises(ValueError, match="results of another job"):
            score(images, other, tmp_path, **options)

    # The vectors of a detector are given; only the encoder of the images is another.
    of_others_images = fitted()
    of_others_images.embedder_ = FakeEmbedder(logit_scale=20.0, random_state=1)
    with pytest.raises(ValueError, match="results of another job"):
        score(paths, of_others_images, tmp_path, **as_written)


def test_parquet_of_bytes_and_of_paths(photos, tmp_path):
    paths = sorted(photos.glob("*.png"))
    whole = pa.table(
        {
            "key": [path.stem for path in paths],
            "image": [path.read_bytes() for path in paths],
            "path": [str(path) for path in paths],
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(whole, tmp_path / "in" / "images.parquet", row_group_size=8)
    twin = FakeEmbedder().encode_image([str(path) for path in paths])

    for column in ("image", "path"):
        out = tmp_path / column
        summary = embed(
            tmp_path / "in",
            FakeEmbedder(),
            out,
            id_column="key",
            image_column=column,
            # Far less than a row group: it is read in many batches.
            batch_bytes=2000,
        )
        assert summary.n_partitions == 3
        table = read(out)
        assert table.index.tolist() == [path.stem for path in paths]
        np.testing.assert_allclose(np.stack(table["embedding"]), twin, atol=1e-3)


def test_webdataset_tars(photos, tmp_path):
    paths = sorted(photos.glob("*.png"))
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for path in paths[shard::2]:
                archive.add(path, path.name)
                note = tarfile.TarInfo(path.stem + ".json")
                archive.addfile(note, io.BytesIO(b""))

    summary = embed(tmp_path, FakeEmbedder(), tmp_path / "out", batch_bytes=2000)
    assert (summary.n_partitions, summary.n_rows) == (2, len(paths))
    table = read(tmp_path / "out")
    assert table.index[0] == f"{tmp_path}/0.tar#{paths[0].name}"
    twin = FakeEmbedder().encode_image([str(paths[0])])
    np.testing.assert_allclose(table["embedding"].iloc[0], twin[0], atol=1e-3)


def test_a_dataset_is_staged_once(photos, tmp_path):
    paths = sorted(str(path) for path in photos.glob("*.png"))
    dataset = ray.data.from_items([{"path": path, "number": i} for i, path in enumerate(paths)])
    summary = embed(dataset, FakeEmbedder(), tmp_path, id_column="number")
    staged = {path.name for path in (tmp_path / "_input").iterdir()}
    again = embed(dataset, FakeEmbedder(), tmp_path, id_column="number")

    assert summary.n_rows == again.n_rows == len(paths)
    assert again.n_rows_now == 0
    assert staged == {path.name for path in (tmp_path / "_input").iterdir()}
    assert sorted(map(int, read(tmp_path).index)) == list(range(len(paths)))


def test_settings_of_the_users_own_datasets_stay(photos, tmp_path):
    context = ray.data.DataContext.get_current()
    before = (context.enable_progress_bars, context.execution_options.preserve_order)
    context.enable_progress_bars = context.execution_options.preserve_order = True
    try:
        embed(photos / "trip", FakeEmbedder(), tmp_path)
        assert context.enable_progress_bars
        assert context.execution_options.preserve_order
    finally:
        context.enable_progress_bars, context.execution_options.preserve_order = before


def test_a_detector_without_a_threshold_flags_nothing(photos, tmp_path):
    det = DictionaryDetector(
        CLASSES, embedder=FakeEmbedder(), base=MCMDetector(), n_neighbors=2
    ).fit()
    assert det.threshold_ is None
    summary = score(photos / "trip", det, tmp_path)
    assert summary.n_flagged == 0
    table = read(tmp_path)
    assert table["is_ood"].isna().all()
    assert (table["label"] == table["nearest_class"]).all()


PAGE = Path(__file__).parents[2] / "docs" / "guide" / "distributed.rst"
BLOCKS = re.findall(r"^\.\. code-block:: py\n\n((?:   .*\n|\n)+)", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS[:2])
def test_the_pages_examples_run(block, tmp_path, monkeypatch, capsys):
    """Not among the tests of all pages: these need the cluster."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"photos/{i}.png")
    monkeypatch.setattr("dnm_sklearn.embedding.check.CLIPEmbedder", FakeEmbedder)
    exec(compile(textwrap.dedent(block), "distributed.rst", "exec"), {})
    if "print(summary)" in block:
        assert "8 images (0 unreadable) in 1 partitions" in capsys.readouterr().out


def test_file_urls_and_patterns(photos, tmp_path):
    summary = embed(f"file://{photos}/0*.png", FakeEmbedder(), f"file://{tmp_path}/out")
    assert summary.n_rows == 9
    assert read(tmp_path / "out").index[0] == str(photos / "00.png")


def test_an_object_store(photos, tmp_path):
    """An S3 server in this process; the same code reads and writes there."""
    server_of = pytest.importorskip("moto.server")
    from pyarrow import fs

    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"access_key": "a", "secret_key": "b", "region": "us-east-1", "scheme": "http"}
    try:
        store = fs.S3FileSystem(
            endpoint_override=f"{host}:{port}", allow_bucket_creation=True, **keys
        )
        store.create_dir("bucket/photos")
        for path in sorted(photos.glob("0*.png")):
            with store.open_output_stream(f"bucket/photos/{path.name}") as file:
                file.write(path.read_bytes())
        with store.open_output_stream("bucket/photos/bad.jpg") as file:
            file.write(b"no image")

        with pytest.warns(UnreadableImageWarning, match="1 of 10 images"):
            embed("bucket/photos", FakeEmbedder(), tmp_path, filesystem=store, rows_per_partition=4)
        table = read(tmp_path)
        assert len(table) == 10
        assert "cannot identify image" in table.loc["bucket/photos/bad.jpg", "error"]
    finally:
        server.stop()


def test_broken_partitions_are_told_when_all_others_are_done(photos, tmp_path):
    image = sorted(photos.glob("*.png"))[0].read_bytes()
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pq.write_table(pa.table({"image": [image]}), source / "good.parquet")
    (source / "broken.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")

    with pytest.raises(PartitionError, match="1 of 2 partitions failed") as caught:
        embed(source, FakeEmbedder(), out)
    assert "broken.parquet, row group 0: it cannot be read" in str(caught.value)
    assert len(read(out)) == 1

    # The same call does what is missing, once the cause is mended.
    pq.write_table(pa.table({"image": [image, image]}), source / "broken.parquet")
    assert embed(source, FakeEmbedder(), out).n_rows == 3


def test_unreadable_images_end_a_partition_only_if_asked(photos, tmp_path):
    with pytest.raises(PartitionError, match=r"bad\.jpg"):
        embed(photos, FakeEmbedder(), tmp_path, on_error="raise", rows_per_partition=6)
    assert len(content_of(tmp_path)) == 3


def test_missing_files_are_unreadable_images(tmp_path):
    with pytest.warns(UnreadableImageWarning, match="1 of 1 images"):
        embed([str(tmp_path / "gone.png")], FakeEmbedder(), tmp_path / "out")
    assert read(tmp_path / "out")["error"].tolist() == ["no such file"]


def test_memory_that_runs_out_halves_the_batch(photos, tmp_path, monkeypatch):
    from dnm_sklearn.distributed.partitions import find_partitions
    from dnm_sklearn.distributed.places import find_place
    from dnm_sklearn.distributed.workers import Task, Worker

    options = {"id_column": None, "image_column": None, "filesystem": None}
    paths = sorted(photos.glob("*.png"))
    pq.write_table(pa.table({"image": [p.read_bytes() for p in paths]}), tmp_path / "in.parquet")
    partitions = find_partitions(tmp_path / "in.parquet", kind="auto", rows=100, **options)
    sizes = []

    class Small(FakeEmbedder):
        def encode_image(self, X):
            sizes.append(len(X))
            if len(X) > 6:
                raise MemoryError("too many")
            return super().encode_image(X)

    worker = Worker.__new__(Worker)
    worker.task = Task(partitions, find_place(tmp_path), Small(), None, False, 40_000)
    assert worker.work(0)["rows"] == len(paths)
    assert max(sizes) > 6 >= sizes[-1]
    assert len(read(tmp_path / "part-000000.parquet")) == len(paths)


def test_a_worker_that_is_killed_is_replaced(photos, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    killed = []

    def kill_the_first():
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for path in pids.iterdir():
                os.kill(int(path.name), signal.SIGKILL)
                killed.append(path.name)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    paths = sorted(str(path) for path in photos.glob("*.png"))
    embedder = SlowEmbedder(pid_folder=str(pids))
    summary = embed(paths, embedder, tmp_path / "out", rows_per_partition=7, workers=1)
    killer.join()

    assert len(killed) == 1
    assert len(list(pids.iterdir())) >= 2
    assert summary.n_rows == len(paths)
    assert read(tmp_path / "out").index.tolist() == paths


DRIVER = """
import ray, sys
sys.path[:0] = {path!r}
from slow_embedder import SlowEmbedder
from dnm_sklearn.distributed import embed
if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    embed({paths!r}, SlowEmbedder(pid_folder={pids!r}), {out!r}, rows_per_partition=5)
"""


def test_a_job_whose_driver_is_killed_goes_on(photos, tmp_path):
    pids, out = tmp_path / "pids", tmp_path / "out"
    pids.mkdir()
    paths = sorted(str(path) for path in photos.glob("*.png"))
    helpers = [str(Path(__file__).parents[1] / "helpers"), *filter(None, sys.path)]
    script = tmp_path / "driver.py"
    script.write_text(
        DRIVER.format(path=helpers, paths=paths, pids=str(pids), out=str(out)), encoding="utf-8"
    )
    # A cluster of its own, not the one of the tests.
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
    )
    deadline = time.monotonic() + 120
    while not content_of(out) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    _, errors = driver.communicate()
    before = content_of(out)
    assert 0 < len(before) < 5, errors.decode()

    embedder = SlowEmbedder(pid_folder=str(pids), seconds=0)
    summary = embed(paths, embedder, out, rows_per_partition=5, workers=2)
    assert summary.n_done_before == len(before)
    assert before.items() <= content_of(out).items()

    # Unbroken, it comes to the same.
    embed(paths, embedder, tmp_path / "unbroken", rows_per_partition=5)
    broken, unbroken = read(out), read(tmp_path / "unbroken")
    assert broken.index.equals(unbroken.index)
    assert np.array_equal(np.stack(broken["embedding"]), np.stack(unbroken["embedding"]))
    # No half of a file is left.
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]
    assert json.loads((out / "_manifest.json").read_text())["n_partitions"] == 5


def test_what_partitions_learn_is_merged(photos):
    paths = sorted(str(path) for path in photos.glob("*.png"))
    det = AdaNegDetector(
        CLASSES, embedder=FakeEmbedder(logit_scale=20.0), corpus=WORDS, n_groups=1, gap=0.0
    ).fit()
    learned = adapt(paths, det, rows_per_partition=6, workers=2)
    assert learned.n_seen_ == len(paths)
    assert det.n_seen_ == 0

    # Its rule of what to remember is static: merged is what one stream would hold.
    rows = FakeEmbedder(logit_scale=20.0).encode_image(paths)
    whole = det.partial_fit(rows).set_params(adaptation="frozen").decision_function(rows)
    merged = learned.set_params(adaptation="frozen").decision_function(rows)
    np.testing.assert_allclose(merged, whole, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_done_is_said_before_anything_is_started(photos, detector, tmp_path):
    with pytest.raises(TypeError, match="does not learn from test images"):
        adapt(photos, detector)
    stateful = AdaNegDetector(CLASSES, embedder=FakeEmbedder(), corpus=WORDS, n_groups=1).fit()
    with pytest.raises(TypeError, match=r"dataset\.write_parquet\(folder\)"):
        adapt(ray.data.from_items([{"path": "a.png"}]), stateful)
    with pytest.raises(ValueError, match=r"format='zip' must be one of"):
        adapt(photos, stateful, format="zip")
    with pytest.raises(TypeError, match="needs a CLIPEmbedder, not EmbeddingTable"):
        embed(photos, EmbeddingTable(["cat"], np.eye(1)), tmp_path)
    with pytest.raises(ValueError, match=r"format='zip' must be one of"):
        embed(photos, FakeEmbedder(), tmp_path / "zip", format="zip")
    assert not (tmp_path / "zip").exists()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        embed(tmp_path / "gone", FakeEmbedder(), tmp_path / "out")
    with pytest.raises(ValueError, match="on_error='skip'"):
        embed(photos, FakeEmbedder(), tmp_path, on_error="skip")

    (tmp_path / "both").mkdir()
    for name in ("a.parquet", "b.tar"):
        (tmp_path / "both" / name).touch()
    with pytest.raises(ValueError, match=r"holds parquet and webdataset: name what to read"):
        embed(tmp_path / "both", FakeEmbedder(), tmp_path / "out")

    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match="It has picture"):
        embed(tmp_path / "odd.parquet", FakeEmbedder(), tmp_path / "out")


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_the_command_scores_on_ray(photos, tmp_path):
    out = tmp_path / "scores"
    names = ("-d", "MCM", "--model", "pictoclip", "-n", "cat", "-n", "dog")
    result = invoke("score", str(photos), *names, "-o", str(out), "--engine", "ray")
    assert result.exit_code == 0, result.output
    assert "23 images (1 unreadable) in 1 partitions" in result.output

    # The same scores as without Ray.
    result = invoke("score", str(photos), *names, "-o", str(tmp_path / "scores.parquet"))
    assert result.exit_code == 0, result.output
    local = pq.read_table(tmp_path / "scores.parquet").to_pandas().sort_values("path")
    np.testing.assert_allclose(read(out)["score"], local["score"], rtol=1e-5, atol=1e-5)
    assert (read(out)["label"].to_numpy() == local["label"].to_numpy()).all()

    result = invoke("score", str(photos), *names, "-o", "x.csv", "--address", "auto")
    assert result.exit_code == 2
    assert "--address needs --engine ray" in result.output


def test_grids_run_on_dask_and_ray():
    """joblib's back ends of clusters, real ones: the README of joblib is all that is needed."""
    from dask.distributed import Client, LocalCluster
    from ray.util.joblib import register_ray

    register_ray()
    rng = np.random.default_rng(0)
    text = np.eye(6)
    table = EmbeddingTable([*CLASSES, *WORDS[:4]], text)
    y = np.repeat([0, 1], 40)
    X = text[np.where(y == 0, rng.integers(0, 2, 80), rng.integers(2, 6, 80))]
    X = X + 0.3 * rng.standard_normal(X.shape)
    search = GridSearchCV(
        NegLabelDetector(CLASSES, embedder=table),
        {"n_groups": [1, 2]},
        scoring=auroc_scorer,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    )
    here = search.fit(X, y).cv_results_["mean_test_score"]

    cluster = LocalCluster(2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster), joblib.parallel_config("dask"):
        there = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(there, here)

    with joblib.parallel_config("ray"):
        there = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(there, here)
