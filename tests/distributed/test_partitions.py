"""Collections that come from anybody: damaged, hostile or odd ones, read without Ray."""

import io
import os
import random
import tarfile

import mutations
import numpy as np
import pytest
from PIL import Image

from dnm_sklearn.exceptions import FileContentError, UnreadableImageWarning
from dnm_sklearn.testing import FakeEmbedder

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
partitions = pytest.importorskip("dnm_sklearn.distributed.partitions")
places = pytest.importorskip("dnm_sklearn.distributed.places")


def png(value):
    data = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def tar(mode, names=("0.png", "1.png", "2.png")):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(png(i))
            archive.addfile(member, io.BytesIO(png(i)))
    return data.getvalue()


def parquet(values):
    data = io.BytesIO()
    pq.write_table(pa.table({"image": values}), data)
    return data.getvalue()


def find(path):
    return partitions.find_partitions(path, partitions.Reading("auto", None, "image", None, 10))


def read(path, max_bytes=1000):
    """Identities of all images, and the batches that they came in."""
    ids, batches = [], []
    for partition in find(path):
        for of_batch, images in partition.batches(max_bytes):
            ids += of_batch
            batches.append(images)
    return ids, batches


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.tar", tar("w")),
        ("gzip.tar", tar("w:gz")),
        ("bzip2.tar", tar("w:bz2")),
        ("rows.parquet", parquet([png(i) for i in range(3)])),
    ],
)
def test_damaged_files(tmp_path, name, data):
    rng = random.Random(name)
    n_read = 0
    for i in range(mutations.N_MUTATIONS):
        (tmp_path / name).write_bytes(mutations.damaged(data, rng))
        try:
            ids, batches = read(str(tmp_path / name))
            assert len(ids) == sum(map(len, batches))
            n_read += 1
        except FileContentError:
            pass
        except ValueError as error:
            # The name of the column may be what was damaged.
            if "has no column" not in str(error):
                raise AssertionError(f"mutation {i}") from error
    assert 30 < n_read < 1970


def test_a_sparse_member_takes_no_memory(tmp_path):
    """A tar of 2 KB may state a file of 8 GB that has holes only."""
    member = tarfile.TarInfo("hole.png")
    member.size = 2**33
    header = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "hole.tar").write_bytes(header + tar("w"))
    [partition] = find(str(tmp_path / "hole.tar"))
    ids, images = next(partition.batches(10**6))
    assert ids[0].endswith("#hole.png")
    with pytest.raises(ValueError, match="larger than"):
        images[0]


def test_a_value_that_repeats_is_read_a_few_rows_at_a_time(tmp_path):
    """Stored once, of 64 kB, it takes 640 MB in all the rows."""
    (tmp_path / "same.parquet").write_bytes(parquet([bytes(2**16)] * 10_000))
    assert (tmp_path / "same.parquet").stat().st_size < 10**6
    [partition] = find(str(tmp_path / "same.parquet"))
    _, images = next(partition.batches(64 * 2**20))
    assert len(images) == 256


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    for name in ("pipe.tar", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(FileContentError, match="no ordinary file"):
            read(str(tmp_path / name))

    # A column may name files by URLs.
    given = parquet([f"file://{tmp_path}/pipe.tar", "file:///dev/zero", "/dev/zero"])
    (tmp_path / "urls.parquet").write_bytes(given)
    _, [images] = read(str(tmp_path / "urls.parquet"))
    embedder = FakeEmbedder(on_error="nan")
    with pytest.warns(UnreadableImageWarning, match="3 of 3"):
        embedder.encode_image(images)
    assert all("no ordinary file" in reason for _, _, reason in embedder.failures_)


def test_names_that_are_no_utf8(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in (b"caf\xe9.png", b"tea.png"):
        with open(os.path.join(os.fsencode(tmp_path / "photos"), name), "wb") as file:
            file.write(png(1))
    (tmp_path / "a.tar").write_bytes(tar("w", ["caf\udce9.png", "tea.png"]))

    for place in ("photos", "a.tar"):
        ids, batches = read(str(tmp_path / place))
        assert [name[-11:] for name in ids] == ["caf\\xe9.png", ids[1][-11:]]
        assert pa.array(ids, pa.string()).to_pylist() == ids
        for images in batches:
            assert np.isfinite(FakeEmbedder().encode_image(images)).all()


def test_links_that_run_in_circles(tmp_path):
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    (tmp_path / "photos" / "trip" / "a.png").write_bytes(png(1))
    (tmp_path / "photos" / "trip" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "_parts").mkdir()
    (tmp_path / "photos" / "_parts" / "b.png").write_bytes(png(1))
    place = places.find_place(tmp_path / "photos")
    assert places.list_files(place) == [str(tmp_path / "photos" / "trip" / "a.png")]


def test_a_large_file_elsewhere_is_not_read_whole(tmp_path, monkeypatch):
    """Of a store that cannot say how long a file is."""
    from pyarrow import fs

    (tmp_path / "a.png").write_bytes(bytes(3 * 2**20))
    place = places.Place(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "a.png")
    assert len(place.read()) == 3 * 2**20
    monkeypatch.setattr(places, "LARGEST_FILE", 2**21)
    with pytest.raises(FileContentError, match="larger than"):
        place.read()


@pytest.mark.parametrize("content", [b"[1]", b"\xff{", b"{", b'{"identity": 3}', b""])
def test_a_manifest_that_is_none(tmp_path, content):
    output_folder = pytest.importorskip("dnm_sklearn.distributed.output_folder")
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_manifest.json").write_bytes(content)
    how = partitions.Reading("auto", None, None, None, 10)
    with pytest.raises(ValueError, match="not readable JSON|results of another job"):
        output_folder.prepare(str(tmp_path), str(tmp_path / "out"), FakeEmbedder(), None, how)
