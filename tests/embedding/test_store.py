"""The row store and the file-digest cache in ordinary use, and with damaged or foreign files."""

import errno
import logging
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from dnm_sklearn.embedding import filehash, recordlog
from dnm_sklearn.embedding.recordlog import folder_lock
from dnm_sklearn.embedding.store import (
    FileDigests,
    RowStore,
    clear_cache,
    digest_array,
    digest_bytes,
    digest_file,
    digest_files,
    list_stores,
)
from dnm_sklearn.exceptions import CacheFormatError, CacheWriteWarning

WIDTH = 16
DIGESTS = [digest_bytes(b"image %d" % i) for i in range(200)]


def rows_of(digests):
    """The one right row of each digest."""
    raw = np.frombuffer(b"".join(digests), "u1").reshape(len(digests), -1)
    return (raw[:, :WIDTH] / np.float32(7)).astype("float32")


class Compute:
    """Right rows for positions in a list of digests; remembers what it was asked."""

    def __init__(self, digests):
        self.digests, self.asked = digests, []

    def __call__(self, index):
        self.asked.append([int(i) for i in index])
        return rows_of([self.digests[i] for i in index])

    @property
    def n_computed(self):
        return sum(map(len, self.asked))


def never(index):
    raise AssertionError(f"rows {index} should have been stored")


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path, "model-a", WIDTH)


@pytest.fixture
def filled(store):
    store.get_or_compute(DIGESTS, Compute(DIGESTS))
    return store


def assert_heals(store, digests=DIGESTS):
    """Whatever was lost is computed again, right, and stored."""
    compute = Compute(digests)
    np.testing.assert_array_equal(store.get_or_compute(digests, compute), rows_of(digests))
    fresh = RowStore(store.folder, store.key, WIDTH)
    np.testing.assert_array_equal(fresh.get_or_compute(digests, never), rows_of(digests))
    return compute.n_computed


# ---------------------------------------------------------------- ordinary use


def test_rows_come_back_bit_for_bit_in_the_order_asked(store):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, WIDTH)).astype("float32")
    rows[0, :3] = [-0.0, np.finfo("float32").tiny / 8, np.finfo("float32").max]
    first = store.get_or_compute(DIGESTS, lambda i: rows[i])
    order = rng.permutation(200)
    again = RowStore(store.folder, "model-a", WIDTH).get_or_compute(
        [DIGESTS[i] for i in order], never
    )
    assert first.tobytes() == rows.tobytes()
    assert again.tobytes() == rows[order].tobytes()
    assert len(store) == 200


def test_only_missing_rows_are_computed_each_once(store):
    compute = Compute(DIGESTS[:5])
    store.get_or_compute(DIGESTS[:5], compute)
    mixed = [DIGESTS[i] for i in (7, 2, 7, 8, 0, 8)]
    compute = Compute(mixed)
    np.testing.assert_array_equal(store.get_or_compute(mixed, compute), rows_of(mixed))
    assert compute.asked == [[0, 3]]
    assert store.get_or_compute([], never).shape == (0, WIDTH)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names open files through /proc")
def test_rows_are_synced_before_the_records_that_commit_them(filled, monkeypatch):
    calls = []
    pwrite, fsync = os.pwrite, os.fsync

    def name(fd):
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(
        os, "pwrite", lambda fd, *args: calls.append(("write", name(fd))) or pwrite(fd, *args)
    )
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(("sync", name(fd))) or fsync(fd))
    new = [digest_bytes(b"new")]
    filled.get_or_compute(new, Compute(new))
    assert calls == [
        (what, file) for file in ("rows.bin", "index.bin") for what in ("write", "sync")
    ]


def test_chunks_and_blocks(store):
    compute = Compute(DIGESTS)
    store.get_or_compute(DIGESTS[:50], compute, chunk_size=20)
    assert [len(asked) for asked in compute.asked] == [20, 20, 10]

    def blocks(index):
        for start in range(0, len(index), 32):
            yield rows_of([DIGESTS[i] for i in index[start : start + 32]])

    got = store.get_or_compute(DIGESTS, blocks, chunk_size=None)
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    assert len(store) == 200


def test_blocks_are_stored_before_a_later_one_fails(store):
    def blocks(index):
        yield rows_of([DIGESTS[i] for i in index[:60]])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_compute(DIGESTS, blocks, chunk_size=None)
    assert len(store) == 60
    assert assert_heals(store) == 140


@pytest.mark.parametrize(
    "wrong",
    [
        lambda i: np.zeros((len(i), 3)),
        lambda i: np.zeros((1, WIDTH)),
        lambda i: np.zeros((300, WIDTH)),
    ],
)
def test_wrong_answers_of_compute_are_refused(store, wrong):
    with pytest.raises(ValueError, match=r"compute\(\) was asked for 200 rows"):
        store.get_or_compute(DIGESTS, wrong)


def test_rows_that_are_not_finite_are_returned_but_not_stored(store):
    rows = rows_of(DIGESTS[:3])
    rows[1] = np.nan
    np.testing.assert_array_equal(store.get_or_compute(DIGESTS[:3], lambda i: rows[i]), rows)
    compute = Compute(DIGESTS[:3])
    store.get_or_compute(DIGESTS[:3], compute)
    assert compute.asked == [[1]]


def test_stores_of_two_keys_do_not_meet(store):
    other = RowStore(store.folder, "model-b", WIDTH + 1)
    store.get_or_compute(DIGESTS[:2], Compute(DIGESTS))
    rows = other.get_or_compute(DIGESTS[:2], lambda i: np.ones((2, WIDTH + 1)))
    assert rows.shape == (2, WIDTH + 1)
    assert [(s.key, s.width, len(s)) for s in list_stores(store.folder)] == [
        ("model-a", WIDTH, 2),
        ("model-b", WIDTH + 1, 2),
    ]


def test_info_clear_and_pickle(filled, tmp_path):
    info = filled.info()
    assert info["rows"] == 200
    assert info["bytes"] == 2 * 512 + 200 * (4 * WIDTH + 40)
    assert (info["key"], info["width"], info["dtype"], info["max_bytes"]) == (
        "model-a",
        WIDTH,
        "float32",
        None,
    )
    twin = pickle.loads(pickle.dumps(filled))
    np.testing.assert_array_equal(twin.get_or_compute(DIGESTS, never), rows_of(DIGESTS))
    twin.clear()
    assert len(filled) == 0
    assert assert_heals(filled) == 200
    clear_cache(tmp_path)
    assert list_stores(tmp_path) == []


def test_bad_arguments(tmp_path, store):
    with pytest.raises(ValueError, match="at least 1"):
        RowStore(tmp_path, "k", 0)
    with pytest.raises(ValueError, match="floating"):
        RowStore(tmp_path, "k", 2, int)
    with pytest.raises(ValueError, match="cache key is at most"):
        RowStore(tmp_path, "k" * 2000, 2)
    with pytest.raises(ValueError, match=r"digests\[1\] must be 32 bytes"):
        store.get_or_compute([DIGESTS[0], b"short"], never)


def test_no_locks_no_store(tmp_path, monkeypatch):
    monkeypatch.setattr(recordlog, "fcntl", None)
    with pytest.raises(RuntimeError, match="Windows"):
        RowStore(tmp_path, "k", 2)


def test_float64_and_float16_rows(tmp_path):
    for dtype in ("float64", "float16"):
        store = RowStore(tmp_path, dtype, WIDTH, dtype)
        got = store.get_or_compute(DIGESTS, Compute(DIGESTS))
        assert got.dtype == dtype
        assert store.get_or_compute(DIGESTS, never).tobytes() == got.tobytes()


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["index.bin", "rows.bin"])
def test_truncated_anywhere(filled, name):
    path = filled.path / name
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for size in [0, 5, 511, 512, 513, *rng.integers(512, len(whole), 25)]:
        with open(path, "r+b") as file:
            file.truncate(size)
        store = filled if size % 2 else RowStore(filled.folder, "model-a", WIDTH)
        assert assert_heals(store) > 0
        assert len(store) == 200


@pytest.mark.parametrize("name", ["index.bin", "rows.bin"])
def test_flipped_bits(filled, name):
    path = filled.path / name
    rng = np.random.default_rng(2)
    for offset in rng.integers(512, path.stat().st_size, 60):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ (1 << rng.integers(8))]))
        assert assert_heals(RowStore(filled.folder, "model-a", WIDTH)) <= 1


def test_flipped_bits_in_a_header_lose_rows_or_are_refused(filled):
    rng = np.random.default_rng(3)
    for name in ("index.bin", "rows.bin"):
        path = filled.path / name
        for offset in [*range(60), *rng.integers(60, 512, 10)]:
            whole = path.read_bytes()
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
            store = RowStore(filled.folder, "model-a", WIDTH)
            if offset < 12:  # magic and version: not ours to judge
                with pytest.raises(CacheFormatError, match=name):
                    store.get_or_compute(DIGESTS, never)
                path.write_bytes(whole)
            else:
                assert assert_heals(store) == 200


def test_verify_drops_bad_rows_only(filled):
    with open(filled.path / "rows.bin", "r+b") as file:
        file.seek(512 + 10 * 4 * WIDTH + 3)
        file.write(b"\xff\xfe")
    with open(filled.path / "index.bin", "r+b") as file:
        file.seek(512 + 40 * 20 + 1)
        file.write(b"\xff\xfe")
    assert RowStore(filled.folder, "model-a", WIDTH).verify() == {"rows": 198, "dropped": 2}
    assert filled.verify() == {"rows": 198, "dropped": 0}
    assert assert_heals(filled) == 2
    with open(filled.path / "rows.bin", "r+b") as file:
        file.truncate(512 + 150 * 4 * WIDTH)
    assert filled.verify() == {"rows": 148, "dropped": 52}
    assert assert_heals(filled) == 52
    assert RowStore(filled.folder, "no such store", WIDTH).verify() == {"rows": 0, "dropped": 0}


def test_store_cleared_and_refilled_by_another_process(store):
    store.get_or_compute(DIGESTS[:100], Compute(DIGESTS))
    assert len(store) == 100
    twin = RowStore(store.folder, "model-a", WIDTH)
    twin.clear()
    twin.get_or_compute(DIGESTS[::-1], Compute(DIGESTS[::-1]))
    np.testing.assert_array_equal(store.get_or_compute(DIGESTS, never), rows_of(DIGESTS))


@pytest.mark.parametrize("name", ["index.bin", "rows.bin"])
def test_one_file_removed(filled, name):
    (filled.path / name).unlink()
    assert assert_heals(filled) == 200


def test_files_of_two_stores_mixed_up(filled, tmp_path):
    other = RowStore(tmp_path / "other", "model-a", WIDTH)
    other.get_or_compute(DIGESTS, lambda i: np.zeros((len(i), WIDTH)))
    (filled.path / "rows.bin").write_bytes((other.path / "rows.bin").read_bytes())
    assert assert_heals(filled) == 200


def test_folder_removed_beside_a_running_process(filled):
    for path in filled.path.iterdir():
        path.unlink()
    filled.path.rmdir()
    assert assert_heals(filled) == 200


def test_foreign_files_are_left_alone(filled, caplog):
    notes = filled.path / "notes.txt"
    notes.write_text("mine")
    (filled.path.parent / "readme").write_text("mine too")
    (filled.path.parent / ("f" * 32)).mkdir()
    assert_heals(filled)
    filled.clear()
    filled.get_or_compute(DIGESTS, Compute(DIGESTS))
    clear_cache(filled.folder)
    assert notes.read_text() == "mine"
    for name in ("rows.bin", "index.bin"):
        foreign = filled.path / name
        foreign.write_bytes(b"GIF89a something else entirely" * 40)
        for use in (lambda: filled.get_or_compute(DIGESTS, never), filled.clear):
            with pytest.raises(CacheFormatError, match=f"{name} is not a dnm_sklearn cache file"):
                use()
        with caplog.at_level(logging.WARNING, "dnm_sklearn"):
            assert list_stores(filled.folder) == []
        assert foreign.read_bytes().startswith(b"GIF89a")
        foreign.unlink()


def test_other_version_or_width_is_a_clear_error(filled, monkeypatch):
    index = filled.path / "index.bin"
    monkeypatch.setattr(recordlog, "VERSION", 2)
    with pytest.raises(CacheFormatError, match=r"format 1, this dnm_sklearn reads format 2.*clear"):
        filled.get_or_compute(DIGESTS, never)
    monkeypatch.undo()
    with pytest.raises(CacheFormatError, match=r"index of width 16.*expected index of width 17"):
        RowStore(filled.folder, "model-a", WIDTH + 1).get_or_compute(DIGESTS, never)
    with pytest.raises(CacheFormatError, match="dtype <f4"):
        RowStore(filled.folder, "model-a", WIDTH, "float64").get_or_compute(DIGESTS, never)
    assert index.exists()
    assert assert_heals(filled) == 0


# ---------------------------------------------------------------- full disks, caps, read-only folders


def fill_disk_after(monkeypatch, n_bytes):
    """Let `n_bytes` reach the files, the last write cut short; then the disk is full."""
    left, real = [n_bytes], os.pwrite

    def pwrite(fd, data, offset):
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, bytes(data)[: left[0]], offset)
        left[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)


def test_full_disk_at_any_byte(store, monkeypatch):
    store.get_or_compute(DIGESTS[:10], Compute(DIGESTS))
    for n_bytes in np.random.default_rng(4).integers(0, 2 * 104 * 20, 60):
        with monkeypatch.context() as patch:
            fill_disk_after(patch, int(n_bytes))
            with pytest.warns(CacheWriteWarning, match=r"No space left.*free some space") as caught:
                got = store.get_or_compute(DIGESTS, Compute(DIGESTS), chunk_size=20)
        assert len(caught) == 1
        assert str(store.folder) in str(caught[0].message)
        np.testing.assert_array_equal(got, rows_of(DIGESTS))
        n_rows = len(RowStore(store.folder, "model-a", WIDTH))
        assert n_rows >= 10
        assert (store.path / "index.bin").stat().st_size == 512 + 40 * n_rows
        assert (store.path / "rows.bin").stat().st_size == 512 + 4 * WIDTH * n_rows
        np.testing.assert_array_equal(
            store.get_or_compute(DIGESTS[:10], never), rows_of(DIGESTS[:10])
        )
        if n_rows > 10:
            store.clear()
            store.get_or_compute(DIGESTS[:10], Compute(DIGESTS))


@pytest.mark.parametrize("n_bytes", [0, 100, 512, 700, 1023])
def test_full_disk_at_creation_leaves_nothing(store, monkeypatch, n_bytes):
    with monkeypatch.context() as patch:
        fill_disk_after(patch, n_bytes)
        with pytest.warns(CacheWriteWarning, match="No space left"):
            got = store.get_or_compute(DIGESTS, Compute(DIGESTS))
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    assert [path.name for path in store.path.iterdir()] == ["lock"]
    assert assert_heals(store) == 200


def test_folder_that_cannot_be_made(tmp_path, later):
    (tmp_path / "file").write_text("in the way")
    store = RowStore(tmp_path / "file", "k", WIDTH)
    with pytest.warns(CacheWriteWarning, match="could not be saved in the cache folder"):
        got = store.get_or_compute(DIGESTS, Compute(DIGESTS))
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    with pytest.warns(CacheWriteWarning, match="could not be saved in the cache folder"):
        assert len(FileDigests(tmp_path / "file").digests([tmp_path / "file"])) == 1


def test_cap_stops_adding_and_keeps_what_there_is(tmp_path):
    cap = 2 * 512 + 50 * (4 * WIDTH + 40)
    store = RowStore(tmp_path, "k", WIDTH, max_bytes=cap)
    with pytest.warns(CacheWriteWarning, match=r"reached its cap .* not stored") as caught:
        got = store.get_or_compute(DIGESTS, Compute(DIGESTS), chunk_size=20)
    assert len(caught) == 1
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    assert len(store) == 50
    assert store.info()["bytes"] == cap
    compute = Compute(DIGESTS)
    np.testing.assert_array_equal(store.get_or_compute(DIGESTS, compute), rows_of(DIGESTS))
    assert compute.n_computed == 150
    other = RowStore(tmp_path, "other", WIDTH, max_bytes=cap)
    with pytest.warns(CacheWriteWarning, match="cap"):
        other.get_or_compute(DIGESTS, Compute(DIGESTS))
    assert len(other) == 0


# ---------------------------------------------------------------- digests


def test_digests_tell_contents_apart(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_000)
    assert digest_file(path) == digest_bytes(b"x" * 3_000_000) == digest_files([str(path)])[0]
    array = np.arange(6, dtype="uint8")
    views = [
        array,
        array.reshape(2, 3),
        array.view("int8"),
        array.reshape(3, 2),
        array[:0],
        array[::-1],
    ]
    digests = [digest_array(view) for view in views] + [digest_bytes(array.tobytes())]
    assert len(set(digests)) == len(digests)
    assert digest_array(array[::-1]) == digest_array(array[::-1].copy())
    assert digest_array(np.asfortranarray(array.reshape(2, 3))) == digest_array(array.reshape(2, 3))
    with pytest.raises(TypeError, match="Python objects"):
        digest_array(np.array([object()]))


@pytest.fixture
def files(tmp_path):
    paths = [str(tmp_path / f"{i}.jpg") for i in range(150)]
    for i, path in enumerate(paths):
        with open(path, "wb") as file:
            file.write(b"content %03d" % i)
    return paths


@pytest.fixture
def later(monkeypatch):
    """Ten seconds later, to the file-digest cache: files made by the test have settled."""
    monkeypatch.setattr(filehash.time, "time_ns", lambda real=time.time_ns: real() + 10_000_000_000)


def count_reads(monkeypatch):
    reads, real = [], filehash.digest_open_file
    monkeypatch.setattr(
        filehash, "digest_open_file", lambda fd, *size: reads.append(fd) or real(fd, *size)
    )
    return reads


def test_unchanged_files_are_not_read_again(tmp_path, files, later, monkeypatch):
    first = FileDigests(tmp_path).digests(files)
    assert first == [digest_file(path) for path in files]
    reads = count_reads(monkeypatch)
    cache = FileDigests(tmp_path)
    assert cache.digests(files[::-1]) == first[::-1]
    assert reads == []
    with open(files[3], "ab") as file:
        file.write(b"more")
    assert cache.digests(files)[3] == digest_file(files[3])
    assert len(reads) == 1
    assert len(cache) == 151


def test_same_size_rewrite_with_its_times_restored(tmp_path, files, later):
    cache = FileDigests(tmp_path)
    cache.digests(files)
    before = os.stat(files[5])
    time.sleep(0.02)  # the clock that stamps files is coarse
    with open(files[5], "r+b") as file:
        file.write(b"CONTENT")
    os.utime(files[5], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(files[5])
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert cache.digests(files)[5] == digest_bytes(b"CONTENT 005")


def test_young_files_are_read_every_time(tmp_path, files, monkeypatch):
    cache = FileDigests(tmp_path)
    os.utime(files[0], ns=(0, 0))  # an old modification time does not make a file old
    cache.digests(files)
    assert len(cache) == 0
    reads = count_reads(monkeypatch)
    cache.digests(files)
    assert len(reads) == 150


def test_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, files, later, monkeypatch):
    real = filehash.digest_open_file

    def slow(fd, *size):
        digest = real(fd, *size)
        with open(files[0], "ab") as file:
            file.write(b"!")
        return digest

    monkeypatch.setattr(filehash, "digest_open_file", slow)
    cache = FileDigests(tmp_path)
    cache.digests(files[:1])
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("n_bytes", "wait", "wanted", "threads"),
    [(100, 0, 2, None), (100, 1e-3, 2, 2), (20_000, 0, 2, 2), (20_000, 1e-3, 1, None)],
    ids=["small", "small, slow disk", "large", "one wanted"],
)
def test_threads_are_for_large_files_and_slow_disks(
    tmp_path, monkeypatch, n_bytes, wait, wanted, threads
):
    paths = [tmp_path / f"{i}.bin" for i in range(150)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * n_bytes)
    # Clocks that say how long each file was waited for: the real ones depend on who else uses the
    # machine.
    clock = iter([0.0, 64 * wait])
    monkeypatch.setattr(filehash.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(filehash.time, "thread_time", lambda: 0.0)
    asked, pool = [], filehash.ThreadPoolExecutor
    monkeypatch.setattr(filehash, "ThreadPoolExecutor", lambda n: asked.append(n) or pool(n))
    assert digest_files(paths, n_threads=wanted) == [digest_file(path) for path in paths]
    assert asked == ([] if threads is None else [threads])


def test_digest_does_not_depend_on_the_guessed_size(tmp_path):
    path = tmp_path / "grown.bin"
    path.write_bytes(bytes(range(256)) * 100)
    for guess in (0, 10, 25_599, 25_600, 1 << 30):
        with open(path, "rb") as file:
            assert filehash.digest_open_file(file.fileno(), guess) == digest_file(path)


def test_unreadable_files(tmp_path, files):
    files[4] = str(tmp_path / "no such file")
    files[6] = str(tmp_path)
    cache = FileDigests(tmp_path)
    for paths in (files, files[:10]):
        with pytest.raises(FileNotFoundError):
            cache.digests(paths)
        digests = cache.digests(paths, unreadable="none")
        assert [i for i, digest in enumerate(digests) if digest is None] == [4, 6]
    with pytest.raises(ValueError, match="unreadable must be"):
        cache.digests(files, unreadable="skip")


def test_damaged_file_digests_are_read_again(tmp_path, files, later, monkeypatch):
    right = digest_files(files)
    path = tmp_path / "file_digests" / "digests.bin"
    rng = np.random.default_rng(5)
    FileDigests(tmp_path).digests(files)
    for _ in range(40):
        with open(path, "r+b") as file:
            if rng.random() < 0.3:
                file.truncate(rng.integers(0, path.stat().st_size))
            else:
                file.seek(rng.integers(512, path.stat().st_size))
                file.write(rng.bytes(3))
        assert FileDigests(tmp_path).digests(files) == right
        with monkeypatch.context() as patch:
            reads = count_reads(patch)
            assert FileDigests(tmp_path).digests(files) == right
            assert reads == []
    cache = FileDigests(tmp_path)
    with open(path, "r+b") as file:
        file.seek(512 + 85)
        file.write(b"\xff\x00\xff")
    assert cache.verify()["dropped"] > 0
    assert cache.verify()["dropped"] == 0
    assert cache.info()["records"] == len(cache) > 0
    cache.clear()
    assert len(cache) == 0
    path.write_bytes(b"foreign")
    with pytest.raises(CacheFormatError, match="not a dnm_sklearn cache file"):
        cache.digests(files)


def test_file_digests_on_a_full_disk(tmp_path, files, later, monkeypatch):
    cache = FileDigests(tmp_path)
    with monkeypatch.context() as patch:
        fill_disk_after(patch, 1000)
        with pytest.warns(CacheWriteWarning, match="digests of image files could not be saved"):
            assert cache.digests(files) == digest_files(files)
    assert (cache.path / "digests.bin").stat().st_size == 512 + 6 * 80
    assert len(cache) == 6


# ---------------------------------------------------------------- locks and imports


def test_lock_is_found_again_when_its_file_is_replaced(tmp_path):
    with folder_lock(tmp_path):
        (tmp_path / "lock").unlink()
        with folder_lock(tmp_path):
            pass


def test_hits_import_neither_torch_nor_open_clip(filled, files):
    code = (
        "import sys, numpy as np\n"
        "from dnm_sklearn.embedding.store import FileDigests, RowStore, digest_bytes\n"
        f"store = RowStore({str(filled.folder)!r}, 'model-a', {WIDTH})\n"
        "rows = store.get_or_compute([digest_bytes(b'image %d' % i) for i in range(200)], None)\n"
        f"FileDigests({str(filled.folder)!r}).digests({files!r})\n"
        "heavy = {'torch', 'open_clip', 'sklearn', 'scipy', 'PIL', 'pyod'} & set(sys.modules)\n"
        "assert len(rows) == 200 and not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
