"""What a job reads, and where it writes."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray_jobs import read

from dnm_sklearn.distributed import embed
from dnm_sklearn.exceptions import UnreadableImageWarning
from dnm_sklearn.testing import FakeEmbedder

ray = pytest.importorskip("ray")
# One cluster for all of them.
pytestmark = pytest.mark.xdist_group("ray")


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


def test_file_urls_and_patterns(photos, tmp_path):
    summary = embed(f"file://{photos}/0*.png", FakeEmbedder(), f"file://{tmp_path}/out")
    assert summary.n_rows == 9
    assert read(tmp_path / "out").index[0] == str(photos / "00.png")


def test_file_systems_of_fsspec(photos, tmp_path):
    """By a URL whose scheme pyarrow does not know, and as an object."""
    fsspec = pytest.importorskip("fsspec")
    summary = embed(f"local://{photos}/0*.png", FakeEmbedder(), f"local://{tmp_path}/out")
    assert summary.n_rows == 9
    files = fsspec.filesystem("file")
    again = embed(f"{photos}/0*.png", FakeEmbedder(), tmp_path / "out", filesystem=files)
    assert (again.n_rows, again.n_rows_now) == (9, 0)


@pytest.fixture
def store():
    """A bucket of an S3 server in this process, and the URL of a folder in it."""
    server_of = pytest.importorskip("moto.server")
    from pyarrow import fs

    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://a:b@bucket?{options}&allow_bucket_creation=true")
    filesystem.create_dir("bucket")
    yield filesystem, lambda folder: f"s3://a:b@bucket/{folder}?{options}"
    server.stop()


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_an_object_store(photos, tmp_path, store):
    """The same code reads and writes there, and goes on there."""
    filesystem, url = store
    for path in sorted(photos.glob("0*.png")):
        with filesystem.open_output_stream(f"bucket/photos/{path.name}") as file:
            file.write(path.read_bytes())
    with filesystem.open_output_stream("bucket/photos/bad.jpg") as file:
        file.write(b"no image")

    with pytest.warns(UnreadableImageWarning, match="1 of 10 images"):
        embed(url("photos"), FakeEmbedder(), url("rows"), rows_per_partition=4)
    table = pq.read_table("bucket/rows", filesystem=filesystem).to_pandas().set_index("id")
    assert len(table) == 10
    assert "cannot identify image" in table.loc["bucket/photos/bad.jpg", "error"]

    filesystem.delete_file("bucket/rows/part-000001.parquet")
    again = embed(
        "bucket/photos", FakeEmbedder(), url("rows"), filesystem=filesystem, rows_per_partition=4
    )
    assert (again.n_done_before, again.n_rows, again.n_rows_now) == (2, 10, 4)
