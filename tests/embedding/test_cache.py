"""The cache of embeddings in ordinary use, and with damaged, foreign or full files."""

import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from dnm_sklearn._utils import digest
from dnm_sklearn._utils.digest import digest_bytes, digest_file
from dnm_sklearn.embedding import _cache_file, _cache_rows, cache
from dnm_sklearn.embedding.cache import EmbeddingCache, size_in_bytes
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
        self.asked.append(index.tolist())
        return [rows_of([self.digests[i] for i in index])]

    @property
    def n_computed(self):
        return sum(map(len, self.asked))


def never(index):
    raise AssertionError(f"rows {index} should have been kept")


def get(folder, digests, compute, *, model="model-a", cap=None):
    """Rows of a cache that is opened anew, as in another process."""
    return EmbeddingCache(folder, cap).get_or_compute(model, WIDTH, digests, compute)


@pytest.fixture
def filled(tmp_path):
    get(tmp_path, DIGESTS, Compute(DIGESTS))
    return tmp_path


def file_of(folder):
    return folder / "embeddings.sqlite"


def assert_heals(folder, digests=DIGESTS):
    """Whatever was lost is computed again, right, and kept; give how much that was."""
    first = Compute(digests)
    np.testing.assert_array_equal(get(folder, digests, first), rows_of(digests))

    # What was not in the way of these rows is found by a check.
    EmbeddingCache(folder).verify()
    np.testing.assert_array_equal(get(folder, digests, Compute(digests)), rows_of(digests))
    np.testing.assert_array_equal(get(folder, digests, never), rows_of(digests))
    assert EmbeddingCache(folder).verify() == {"rows": len(digests), "dropped": 0}
    return first.n_computed


# ---------------------------------------------------------------- ordinary use


def test_rows_come_back_bit_for_bit_in_the_order_asked(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, WIDTH)).astype("float32")
    rows[0, :3] = [-0.0, np.finfo("float32").tiny / 8, np.finfo("float32").max]
    first = get(tmp_path, DIGESTS, lambda i: [rows[i]])
    order = rng.permutation(200)
    again = get(tmp_path, [DIGESTS[i] for i in order], never)
    assert first.dtype == again.dtype == np.float32
    assert first.tobytes() == rows.tobytes()
    assert again.tobytes() == rows[order].tobytes()
    assert EmbeddingCache(tmp_path).count_rows() == 200


def test_only_missing_rows_are_computed_each_once(tmp_path):
    get(tmp_path, DIGESTS[:5], Compute(DIGESTS))
    mixed = [DIGESTS[i] for i in (7, 2, 7, 8, 0, 8)]
    compute = Compute(mixed)
    np.testing.assert_array_equal(get(tmp_path, mixed, compute), rows_of(mixed))
    assert compute.asked == [[0, 3]]
    assert get(tmp_path, [], never).shape == (0, WIDTH)


def test_few_of_many_rows_are_found_without_reading_the_whole_index(filled):
    few = [DIGESTS[i] for i in (3, 150, 20)]
    np.testing.assert_array_equal(get(filled, few, never), rows_of(few))


def test_more_rows_than_fit_in_one_query(tmp_path):
    many = [digest_bytes(b"many %d" % i) for i in range(20_000)]
    get(tmp_path, many, Compute(many))
    some = many[:2400]
    np.testing.assert_array_equal(get(tmp_path, some, never), rows_of(some))


def test_chunks_are_kept_before_a_later_one_fails(tmp_path):
    def chunks(index):
        yield rows_of([DIGESTS[i] for i in index[:40]])
        yield rows_of([DIGESTS[i] for i in index[40:60]])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, DIGESTS, chunks)
    assert EmbeddingCache(tmp_path).count_rows() == 60
    assert assert_heals(tmp_path) == 140


def test_long_work_is_committed_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache_rows, "COMMIT_SECONDS", 0)
    counts = []

    def chunks(index):
        for start in range(0, 200, 50):
            counts.append(EmbeddingCache(tmp_path).count_rows())
            yield rows_of([DIGESTS[i] for i in index[start : start + 50]])

    get(tmp_path, DIGESTS, chunks)
    assert counts == [0, 50, 100, 150]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda i: [np.zeros((len(i), 3))],
        lambda i: [np.zeros((1, WIDTH))],
        lambda i: [np.zeros((300, WIDTH))],
        lambda i: [np.zeros(WIDTH)],
        lambda i: [],
    ],
)
def test_wrong_answers_of_compute_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"compute\(\) was asked for 200 rows"):
        get(tmp_path, DIGESTS, wrong)


def test_rows_that_are_not_finite_are_returned_but_not_kept(tmp_path):
    rows = rows_of(DIGESTS[:3])
    rows[1] = np.nan
    np.testing.assert_array_equal(get(tmp_path, DIGESTS[:3], lambda i: [rows[i]]), rows)
    compute = Compute(DIGESTS[:3])
    get(tmp_path, DIGESTS[:3], compute)
    assert compute.asked == [[1]]


def test_rows_of_two_models_do_not_meet(tmp_path):
    get(tmp_path, DIGESTS[:2], Compute(DIGESTS))
    other = EmbeddingCache(tmp_path)
    rows = other.get_or_compute("model-b", WIDTH + 1, DIGESTS[:2], lambda i: [np.ones((2, 17))])
    assert rows.shape == (2, WIDTH + 1)
    assert other.info()["models"] == [
        {"fingerprint": "model-a", "width": WIDTH, "rows": 2},
        {"fingerprint": "model-b", "width": WIDTH + 1, "rows": 2},
    ]
    assert other.count_rows() == 4


def test_info_clear_and_pickle(filled):
    twin = pickle.loads(pickle.dumps(EmbeddingCache(filled, 10**9)))
    info = twin.info()
    assert info["path"] == str(file_of(filled))
    assert info["bytes"] >= file_of(filled).stat().st_size >= 200 * 4 * WIDTH
    assert (info["max_bytes"], info["files"]) == (10**9, 0)
    np.testing.assert_array_equal(
        twin.get_or_compute("model-a", WIDTH, DIGESTS, never)[:2], rows_of(DIGESTS[:2])
    )

    (filled / "mine.txt").write_text("stays")
    twin.clear()
    assert EmbeddingCache(filled).info()["models"] == []
    assert not file_of(filled).exists()
    assert (filled / "mine.txt").read_text() == "stays"
    assert assert_heals(filled) == 200


def test_looking_makes_nothing(tmp_path):
    folder = tmp_path / "cache"
    looked = EmbeddingCache(folder)
    assert looked.info()["bytes"] == looked.count_rows() == 0
    assert looked.verify() == {"rows": 0, "dropped": 0}
    looked.clear()
    assert looked.load_facts("model") is None
    assert not folder.exists()


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"digests\[1\] must be 32 bytes"):
        get(tmp_path, [DIGESTS[0], b"short"], never)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, 1),
        (2_000_000, 2_000_000),
        ("500 MB", 500_000_000),
        ("1.5g", 1_500_000_000),
        ("20kB", 20_000),
        ("7", 7),
    ],
)
def test_sizes(size, expected):
    assert size_in_bytes(size) == expected


@pytest.mark.parametrize("size", [0, -1, "", "MB", "ten", "1.2.3 GB", "5 PB", "0.1"])
def test_sizes_that_are_none(size):
    with pytest.raises(
        ValueError, match="cache_size must be a number of bytes or a string such as"
    ):
        size_in_bytes(size)


# ---------------------------------------------------------------- damage


def flip(path, offset, bit=1):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


def test_flipped_bits(filled):
    rng = np.random.default_rng(2)
    size = file_of(filled).stat().st_size
    n_lost = []
    for offset in rng.integers(100, size, 60).tolist():
        flip(file_of(filled), offset, 1 << int(rng.integers(8)))
        n_lost.append(assert_heals(filled))
    assert np.median(n_lost) <= 1, "most bits are those of one row"


def test_a_changed_row_is_computed_again_and_no_other(filled):
    raw = file_of(filled).read_bytes()
    for row in rows_of(DIGESTS[40:43]):
        flip(file_of(filled), raw.index(row.tobytes()) + 20)
    compute = Compute(DIGESTS)
    np.testing.assert_array_equal(get(filled, DIGESTS, compute), rows_of(DIGESTS))
    assert compute.asked == [[40, 41, 42]]


@pytest.mark.parametrize("column", ["fingerprint", "model"])
def test_a_row_that_damage_gives_to_another_model_is_not_taken(tmp_path, column):
    """Its checksum is of the model as well."""
    for model, digests in (("model-a", DIGESTS[:5]), ("model-b", DIGESTS[5:10])):
        get(tmp_path, digests, Compute(digests), model=model)
    change = {
        "fingerprint": "UPDATE models SET fingerprint = 'model-c' WHERE fingerprint = 'model-b'",
        "model": "UPDATE rows SET model = (SELECT id FROM models WHERE fingerprint = 'model-a')",
    }
    with sqlite3.connect(file_of(tmp_path)) as db:
        db.execute(change[column])
    db.close()
    compute = Compute(DIGESTS[5:10])
    get(tmp_path, DIGESTS[5:10], compute, model={"fingerprint": "model-c"}.get(column, "model-a"))
    assert compute.asked == [[0, 1, 2, 3, 4]]


def test_truncated_anywhere(filled):
    whole = file_of(filled).read_bytes()
    rng = np.random.default_rng(1)
    sizes = [0, 5, 60, 62, 70, 99, 100, 101, 16384, *rng.integers(512, len(whole), 12).tolist()]
    n_lost = []
    for size in sizes:
        file_of(filled).write_bytes(whole[:size])
        n_lost.append(assert_heals(filled))
    assert min(n_lost) < 200, "rows before the cut are kept"


def test_flipped_bits_in_the_header_lose_rows_or_are_refused(filled):
    whole = file_of(filled).read_bytes()
    for offset in [*range(20), *range(20, 60, 5), *range(60, 72), *range(72, 100, 5)]:
        file_of(filled).write_bytes(whole)
        flip(file_of(filled), offset, 4)
        if offset < 16 or 60 <= offset < 64 or 68 <= offset < 72:  # whose file, and which version
            with pytest.raises(CacheFormatError, match=r"embeddings\.sqlite"):
                get(filled, DIGESTS, never)
        else:
            assert_heals(filled)


def test_verify_drops_damaged_rows_only(filled):
    raw = file_of(filled).read_bytes()
    for position in (10, 50):
        flip(file_of(filled), raw.index(rows_of(DIGESTS)[position].tobytes()) + 3)
    assert EmbeddingCache(filled).verify() == {"rows": 198, "dropped": 2}
    assert EmbeddingCache(filled).verify() == {"rows": 198, "dropped": 0}
    assert assert_heals(filled) == 2


def test_verify_rebuilds_a_damaged_file_with_the_rows_that_can_be_read(tmp_path, caplog):
    many = [digest_bytes(b"%d" % i) for i in range(3000)]
    get(tmp_path, many, Compute(many))
    whole = file_of(tmp_path).read_bytes()

    # a page of rows in the middle becomes zeros
    at = whole.index(rows_of(many[1500:1501]).tobytes()) // 16384 * 16384
    file_of(tmp_path).write_bytes(whole[:at] + bytes(16384) + whole[at + 16384 :])
    found = EmbeddingCache(tmp_path).verify()
    assert found["rows"] + found["dropped"] == 3000
    assert 2500 < found["rows"] < 3000
    assert EmbeddingCache(tmp_path).verify() == {"rows": found["rows"], "dropped": 0}
    assert assert_heals(tmp_path, many) == found["dropped"]


def test_a_damaged_file_keeps_what_can_be_read_when_rows_are_added(tmp_path, caplog):
    many = [digest_bytes(b"%d" % i) for i in range(3000)]
    get(tmp_path, many, Compute(many))
    with open(file_of(tmp_path), "r+b") as file:
        file.truncate(file_of(tmp_path).stat().st_size * 2 // 3)
    with caplog.at_level(logging.WARNING, "dnm_sklearn"):
        assert 0 < assert_heals(tmp_path, many) < 2000
    assert "is damaged" in caplog.text


def test_cleared_and_refilled_by_another_process(tmp_path):
    first = EmbeddingCache(tmp_path)
    first.get_or_compute("model-a", WIDTH, DIGESTS[:100], Compute(DIGESTS))
    EmbeddingCache(tmp_path).clear()
    get(tmp_path, DIGESTS[::-1], Compute(DIGESTS[::-1]))
    np.testing.assert_array_equal(
        first.get_or_compute("model-a", WIDTH, DIGESTS, never), rows_of(DIGESTS)
    )


def test_cleared_while_rows_are_computed(tmp_path):
    def chunks(index):
        EmbeddingCache(tmp_path).clear()
        yield rows_of(DIGESTS)

    get(tmp_path, DIGESTS, chunks)
    assert assert_heals(tmp_path) == 0


def test_folder_removed_beside_a_running_process(filled):
    for path in sorted(filled.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    filled.rmdir()
    assert assert_heals(filled) == 200


def test_file_of_another_cache_put_in_the_place(filled, tmp_path):
    other = tmp_path / "other"
    get(other, DIGESTS, lambda i: [np.zeros((len(i), WIDTH))], model="model-b")
    file_of(filled).write_bytes(file_of(other).read_bytes())
    compute = Compute(DIGESTS)
    np.testing.assert_array_equal(get(filled, DIGESTS, compute), rows_of(DIGESTS))
    assert compute.n_computed == 200


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "sqlite")) as db:
        db.execute("CREATE TABLE mine (x)")
    contents = [b"GIF89a something else entirely" * 40, (tmp_path / "sqlite").read_bytes()]

    for content in contents:
        file_of(tmp_path).write_bytes(content)
        looked = EmbeddingCache(tmp_path)
        for use in (
            lambda: get(tmp_path, DIGESTS, never),
            looked.info,
            looked.verify,
            looked.clear,
            partial(looked.digest_files, [__file__]),
        ):
            with pytest.raises(CacheFormatError, match="is not a cache file of dnm_sklearn"):
                use()
        assert file_of(tmp_path).read_bytes() == content


def test_a_newer_file_is_refused_but_can_be_cleared(filled):
    with closing(sqlite3.connect(file_of(filled))) as db:
        db.execute("PRAGMA user_version=2")
    for use in (lambda: get(filled, DIGESTS, never), EmbeddingCache(filled).info):
        with pytest.raises(CacheFormatError, match=r"format 2.*reads format 1.*clear"):
            use()
    EmbeddingCache(filled).clear()
    assert assert_heals(filled) == 200


def test_another_width_is_a_clear_error(filled):
    with pytest.raises(CacheFormatError, match=r"rows of width 16 .* width 17 were asked for"):
        EmbeddingCache(filled).get_or_compute("model-a", 17, DIGESTS, never)
    assert assert_heals(filled) == 0


# ---------------------------------------------------------------- journals


def journal_mode(folder):
    with closing(sqlite3.connect(file_of(folder))) as db:
        return db.execute("PRAGMA journal_mode").fetchone()[0]


@pytest.mark.parametrize("is_local", [True, False])
def test_a_write_ahead_log_is_for_disks_of_this_machine(tmp_path, monkeypatch, is_local):
    monkeypatch.setattr(_cache_file, "_is_local", lambda folder: is_local)
    get(tmp_path, DIGESTS, Compute(DIGESTS))
    assert journal_mode(tmp_path) == ("wal" if is_local else "delete")
    assert assert_heals(tmp_path) == 0


def test_a_cache_that_moved_to_a_network_gives_up_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache_file, "_is_local", lambda folder: True)
    get(tmp_path, DIGESTS[:100], Compute(DIGESTS))
    monkeypatch.setattr(_cache_file, "_is_local", lambda folder: False)
    get(tmp_path, DIGESTS, Compute(DIGESTS))
    assert journal_mode(tmp_path) == "delete"
    assert assert_heals(tmp_path) == 0

    # back on a disk of this machine: another one may still look at it
    monkeypatch.setattr(_cache_file, "_is_local", lambda folder: True)
    EmbeddingCache(tmp_path).save_facts("a", {})
    assert journal_mode(tmp_path) == "delete"


def test_the_longest_mount_point_says_whether_a_folder_is_local(tmp_path, monkeypatch):
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:9 / /home rw shared:5 - nfs4 server:/home rw\n"
        "3 1 8:2 / /data\\040disk rw - xfs /dev/sdb1 rw\n"
        "4 1 8:2 / /twice rw - xfs /dev/sdb1 rw\n"
        "5 1 8:2 / /twice rw - cifs //server/twice rw\n"
    )
    monkeypatch.setattr(_cache_file.Path, "read_text", lambda self, **kwargs: mounts)
    found = {}
    for folder in ("/var/cache", "/home/me", "/homes", "/data disk/cache", "/twice/a"):
        found[folder] = _cache_file._is_local.__wrapped__(_cache_file.Path(folder))
    assert found == {
        "/var/cache": True,
        "/home/me": False,
        "/homes": True,
        "/data disk/cache": True,
        "/twice/a": False,
    }


# ---------------------------------------------------------------- full disks, read-only folders


def in_child(code, **options):
    """Run code in a process of its own, with the tests' definitions at hand."""
    start = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_cache import *\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code], text=True, capture_output=True, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FILL_A_LIMITED_DISK = """
import pathlib, resource, signal, warnings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = pathlib.Path(sys.argv[1])
for n_bytes in map(int, sys.argv[2:]):
    EmbeddingCache(folder).clear()
    if n_bytes > 120_000:
        get(folder, DIGESTS[:10], Compute(DIGESTS))
    # No file may grow beyond this: a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = get(folder, DIGESTS, Compute(DIGESTS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    assert [one.category for one in caught] in ([], [CacheWriteWarning]), caught
    assert all("free some space" in str(one.message) for one in caught)
    assert all(str(folder) in str(one.message) for one in caught)
    if n_bytes > 120_000:
        get(folder, DIGESTS[:10], never)
    print(n_bytes, len(caught), EmbeddingCache(folder).count_rows())
    assert_heals(folder)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
def test_full_disk(tmp_path):
    rng = np.random.default_rng(4)
    limits = [0, 100, 20_000, 110_000, *rng.integers(120_001, 300_000, 12).tolist()]
    code = f"sys.argv[1:] = {[str(tmp_path), *map(str, limits)]!r}\n{FILL_A_LIMITED_DISK}"
    lines = [tuple(map(int, line.split())) for line in in_child(code).splitlines()]
    assert [limit for limit, _, _ in lines] == limits
    assert all(n_kept in (0, 10, 200) for _, _, n_kept in lines)
    assert {n_warnings for _, n_warnings, _ in lines} == {0, 1}
    assert not list(tmp_path.glob("*.new*"))


def test_folder_that_cannot_be_made(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("in the way")
    os.utime(in_the_way, (1, 2))
    with pytest.warns(CacheWriteWarning, match="could not be saved in the cache folder") as caught:
        got = get(in_the_way, DIGESTS, Compute(DIGESTS))
    assert len(caught) == 1
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    with pytest.warns(CacheWriteWarning, match="Digests of image files could not be saved"):
        assert EmbeddingCache(in_the_way).digest_files([in_the_way]) == [digest_file(in_the_way)]


READ_ONLY = """
import pathlib, warnings
folder = pathlib.Path(sys.argv[1])
np.testing  # imported while this may be read
if os.getuid() == 0:
    os.setuid(65534)
np.testing.assert_array_equal(get(folder, DIGESTS[:100], never), rows_of(DIGESTS[:100]))
get(folder, DIGESTS[:50], never, cap=10**9)
assert EmbeddingCache(folder).count_rows() == 100
assert EmbeddingCache(folder).load_facts("model") == {"width": 16}
compute = Compute(DIGESTS)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    got = get(folder, DIGESTS, compute)
np.testing.assert_array_equal(got, rows_of(DIGESTS))
assert compute.n_computed == 100
assert [one.category for one in caught] == [CacheWriteWarning], caught
assert "make the folder writable" in str(caught[0].message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
@pytest.mark.parametrize("left_by", ["a writer", "a reader", "a killed writer"])
def test_read_only_cache_is_read(tmp_path, left_by, monkeypatch):
    monkeypatch.setattr(_cache_file, "_is_local", lambda folder: True)
    folder = tmp_path / "cache"
    get(folder, DIGESTS[:100], Compute(DIGESTS))
    EmbeddingCache(folder).save_facts("model", {"width": 16})
    if left_by == "a reader":
        get(folder, DIGESTS[:100], never)
    elif left_by == "a killed writer":
        # a process that dies with its connection open leaves a log
        code = (
            f"db = sqlite3.connect({str(file_of(folder))!r}, isolation_level=None)\n"
            "db.execute('PRAGMA wal_autocheckpoint=0')\n"
            "db.execute('INSERT INTO facts VALUES (1, 2, 3)')\n"
            "os._exit(0)\n"
        )
        in_child(code)
        assert (folder / "embeddings.sqlite-wal").stat().st_size > 0

    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)
    folder.chmod(0o555)
    # Root may write everywhere; who takes its place must be able to go there.
    for parent in [tmp_path, *tmp_path.parents]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o755)
    try:
        in_child(
            f"sys.argv[1:] = [{str(folder)!r}]\n{READ_ONLY}",
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        folder.chmod(0o755)


# ---------------------------------------------------------------- the cap


def database_bytes(folder):
    return file_of(folder).stat().st_size


def test_rows_used_longest_ago_are_evicted(tmp_path):
    many = [digest_bytes(b"%d" % i) for i in range(4000)]
    old, used, new, newest = many[:1000], many[1000:2000], many[2000:3000], many[3000:]
    cap = 650_000  # room for about 2,500 rows
    for part in (used, old):
        get(tmp_path, part, Compute(part), cap=cap)
    get(tmp_path, used, never, cap=cap)

    get(tmp_path, new, Compute(new), cap=cap)
    get(tmp_path, used, never, cap=cap)
    compute = Compute(newest)
    get(tmp_path, newest, compute, cap=cap)
    assert compute.n_computed == 1000
    get(tmp_path, used, never, cap=cap)
    get(tmp_path, newest, never, cap=cap)
    assert database_bytes(tmp_path) <= cap
    assert 2000 <= EmbeddingCache(tmp_path).count_rows() < 3000
    assert EmbeddingCache(tmp_path).verify()["dropped"] == 0


def test_models_share_the_cap(tmp_path):
    many = [digest_bytes(b"%d" % i) for i in range(1000)]
    for model in ("model-a", "model-b"):
        get(tmp_path, many, Compute(many), cap=450_000, model=model)
    old, new = EmbeddingCache(tmp_path).info()["models"]
    assert 0 < old["rows"] < 1000 == new["rows"]
    assert database_bytes(tmp_path) <= 450_000


def test_a_call_that_needs_more_than_the_cap_keeps_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache_rows, "COMMIT_SECONDS", 0)
    many = [digest_bytes(b"%d" % i) for i in range(4000)]
    cap = 350_000

    def chunks(index):
        for start in range(0, len(index), 500):
            yield rows_of([many[i] for i in index[start : start + 500]])

    with pytest.warns(CacheWriteWarning, match="reached its cap of 350000 bytes") as caught:
        got = get(tmp_path, many, chunks, cap=cap)
    assert len(caught) == 1
    np.testing.assert_array_equal(got, rows_of(many))
    n_kept = EmbeddingCache(tmp_path).count_rows()
    assert 500 < n_kept < 4000
    assert database_bytes(tmp_path) <= cap

    # what was kept is found again, and not evicted for the rest
    compute = Compute(many)
    with pytest.warns(CacheWriteWarning, match="cap"):
        np.testing.assert_array_equal(get(tmp_path, many, compute, cap=cap), rows_of(many))
    assert compute.n_computed == 4000 - n_kept


def test_a_smaller_cap_shrinks_the_file(tmp_path):
    many = [digest_bytes(b"%d" % i) for i in range(6000)]
    get(tmp_path, many, Compute(many))
    before = database_bytes(tmp_path)
    get(tmp_path, DIGESTS, Compute(DIGESTS), cap=before // 3)
    assert database_bytes(tmp_path) <= before // 3
    get(tmp_path, DIGESTS, never)
    assert EmbeddingCache(tmp_path).verify()["dropped"] == 0


def test_a_cap_below_an_empty_file_keeps_nothing(tmp_path):
    with pytest.warns(CacheWriteWarning, match="cap of 1000 bytes"):
        got = get(tmp_path, DIGESTS, Compute(DIGESTS), cap=1000)
    np.testing.assert_array_equal(got, rows_of(DIGESTS))
    assert EmbeddingCache(tmp_path).count_rows() == 0


@pytest.mark.parametrize("width", [1, 512, 3000, 5000, 20_000])
def test_the_cap_holds_for_rows_of_any_width(tmp_path, width):
    cap = 1_000_000
    with pytest.warns(CacheWriteWarning, match="cap"):
        EmbeddingCache(tmp_path, cap).get_or_compute(
            "wide",
            width,
            many := [digest_bytes(b"%d" % i) for i in range(20_000 if width == 1 else 600)],
            lambda index: [np.ones((len(index), width))],
        )
    assert database_bytes(tmp_path) <= cap
    n_kept = EmbeddingCache(tmp_path).count_rows()
    assert 0 < n_kept < len(many)


# ---------------------------------------------------------------- digests of files


@pytest.fixture
def files(tmp_path):
    paths = [str(tmp_path / f"{i}.jpg") for i in range(150)]
    for i, path in enumerate(paths):
        with open(path, "wb") as file:
            file.write(b"content %03d" % i)
    os.utime(paths[-1], (1, 2))  # however fast they were made, not all times are one
    return paths


@pytest.fixture
def settled(monkeypatch):
    """Files need not be two seconds old."""
    monkeypatch.setattr(cache, "SETTLED_NS", 0)


def count_reads(monkeypatch):
    reads, real = [], digest._read
    monkeypatch.setattr(digest, "_read", lambda path: reads.append(path) or real(path))
    return reads


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(tmp_path, files, monkeypatch):
    first = EmbeddingCache(tmp_path).digest_files(files)
    assert first == [digest_file(path) for path in files]
    reads = count_reads(monkeypatch)
    again = EmbeddingCache(tmp_path)
    assert again.digest_files(files[::-1]) == first[::-1]
    assert reads == []
    with open(files[3], "ab") as file:
        file.write(b"more")
    assert again.digest_files(files)[3] == digest_bytes(b"content 003more")
    assert reads == [files[3]]
    assert again.info()["files"] == 150, "a changed file replaces its record"


@pytest.mark.usefixtures("settled")
def test_same_size_rewrite_with_its_times_restored(tmp_path, files):
    EmbeddingCache(tmp_path).digest_files(files)
    before = os.stat(files[5])
    time.sleep(0.02)  # the clock that stamps files is coarse
    with open(files[5], "r+b") as file:
        file.write(b"CONTENT")
    os.utime(files[5], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(files[5])
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert EmbeddingCache(tmp_path).digest_files(files)[5] == digest_bytes(b"CONTENT 005")


def test_young_files_are_read_every_time(tmp_path, files, monkeypatch):
    os.utime(files[0], ns=(1, 1))  # an old modification time does not make a file old
    looked = EmbeddingCache(tmp_path)
    looked.digest_files(files)
    assert looked.info()["files"] == 0
    reads = count_reads(monkeypatch)
    looked.digest_files(files[:20])
    assert reads == files[:20]

    time.sleep(2.1)
    looked.digest_files(files)
    assert looked.info()["files"] == 150


@pytest.mark.parametrize(("age", "n_kept"), [(2 * 10**9 - 1, 0), (2 * 10**9, 3)])
def test_a_file_is_settled_after_two_seconds(tmp_path, files, monkeypatch, age, n_kept):
    """File systems count times in steps of up to two seconds."""
    looked = EmbeddingCache(tmp_path)
    for path in files[:3]:
        found = os.stat(path)
        now = digest.last_change_ns(found) + age
        clock = SimpleNamespace(st_mtime_ns=now, st_dev=found.st_dev)
        monkeypatch.setattr(looked, "_look_at_clock", lambda clock=clock: clock)
        looked.digest_files([path])
    assert looked.info()["files"] == n_kept


def test_a_file_is_as_old_as_when_it_was_read(tmp_path, files, monkeypatch):
    """However long the reading takes, a change shortly before it is a recent one."""
    real = digest._read
    reading = iter([2.1])

    def slow(path):
        found = real(path)
        time.sleep(next(reading, 0))
        return found

    monkeypatch.setattr(digest, "_read", slow)
    looked = EmbeddingCache(tmp_path)
    looked.digest_files(files[:3])
    assert looked.info()["files"] == 0


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_the_clock_of_the_file_system_counts_not_that_of_the_process(tmp_path, monkeypatch, hours):
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + hours * 3600 * 10**9)
    monkeypatch.setattr(time, "time", lambda: real() / 1e9 + hours * 3600)
    path = tmp_path / "image"
    looked = EmbeddingCache(tmp_path / "cache")
    for i in range(50):
        with open(path, "r+b" if i else "wb") as file:
            file.write(b"version %02d" % i)
        assert looked.digest_files([path]) == [digest_bytes(b"version %02d" % i)]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(("age", "is_kept"), [(3600, False), (25 * 3600, True)])
def test_on_another_file_system_a_file_must_be_a_day_old(
    tmp_path, files, monkeypatch, age, is_kept
):
    real = os.fstat

    def fstat(fd):
        found = real(fd)
        if found.st_size == 0:  # the file that shows the clock of the cache's file system
            fields = list(found)
            fields[2] += 1
            times = {
                "st_mtime_ns": found.st_mtime_ns + age * 10**9,
                "st_ctime_ns": 0,
                "st_atime_ns": 0,
            }
            return os.stat_result(fields, times)
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    looked = EmbeddingCache(tmp_path)
    looked.digest_files(files)
    assert looked.info()["files"] == (150 if is_kept else 0)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("stamp", [0, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 123])
def test_where_all_times_are_one_the_content_is_read_each_time(tmp_path, monkeypatch, stamp):
    """Another image of a file system, mounted in the place of the first."""

    def with_one_time(real):
        def look(file, **options):
            times = {"st_mtime_ns": stamp, "st_ctime_ns": stamp, "st_atime_ns": stamp}
            return os.stat_result(list(real(file, **options)), times)

        return look

    folder = tmp_path / "data"
    folder.mkdir()
    looked = EmbeddingCache(tmp_path / "cache")
    for content in (b"first ", b"second"):
        (folder / "image.bmp").write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", with_one_time(os.stat))
            patch.setattr(os, "fstat", with_one_time(os.fstat))
            assert looked.digest_files([folder / "image.bmp"]) == [digest_bytes(content)]
    assert looked.info()["files"] == 0


@pytest.mark.usefixtures("settled")
def test_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, files, monkeypatch):
    real = digest._read

    def changing(path):
        found, before, _ = real(path)
        with open(path, "ab") as file:
            file.write(b"!")
        return found, before, os.stat(path)

    monkeypatch.setattr(digest, "_read", changing)
    looked = EmbeddingCache(tmp_path)
    looked.digest_files(files[:1])
    assert looked.info()["files"] == 0


@pytest.mark.usefixtures("settled")
def test_unreadable_files_have_no_digest(tmp_path, files):
    files[4], files[6], files[8] = str(tmp_path / "no such file"), str(tmp_path), "nul\0"
    looked = EmbeddingCache(tmp_path)
    for paths in (files, files[:10]):
        digests = looked.digest_files(paths)
        assert [i for i, one in enumerate(digests) if one is None] == [4, 6, 8]
    assert looked.digest_files([]) == []


@pytest.mark.usefixtures("settled")
def test_damaged_digests_are_taken_again(tmp_path, files):
    folder = tmp_path / "cache"
    right = EmbeddingCache(folder).digest_files(files)
    rng = np.random.default_rng(5)
    for _ in range(40):
        flip(
            file_of(folder),
            int(rng.integers(100, database_bytes(folder))),
            1 << int(rng.integers(8)),
        )
        assert EmbeddingCache(folder).digest_files(files) == right


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("column", ["digest", "identity"])
def test_a_digest_given_to_another_file_is_not_used(tmp_path, files, column):
    right = EmbeddingCache(tmp_path).digest_files(files)
    with closing(sqlite3.connect(file_of(tmp_path), isolation_level=None)) as db:
        db.execute(f"UPDATE files SET {column} = (SELECT {column} FROM files LIMIT 1)")
    assert EmbeddingCache(tmp_path).digest_files(files) == right


# ---------------------------------------------------------------- facts about models


def test_facts(tmp_path):
    looked = EmbeddingCache(tmp_path)
    looked.save_facts("a model", {"fingerprint": "0a", "width": 3, "bias": None})
    looked.save_facts("another", {})
    looked.save_facts("a model", {"fingerprint": "0b"})
    assert looked.load_facts("a model") == {"fingerprint": "0b"}
    assert looked.load_facts("a mode") is None

    with closing(sqlite3.connect(file_of(tmp_path), isolation_level=None)) as db:
        db.execute("UPDATE facts SET content = '{}' WHERE setting = 'a model'")
    assert looked.load_facts("a model") is None
    assert looked.load_facts("another") == {}


def test_hits_import_neither_torch_nor_open_clip(filled, files):
    code = (
        "import sys, numpy as np\n"
        "from dnm_sklearn.embedding.cache import EmbeddingCache\n"
        "from dnm_sklearn._utils.digest import digest_bytes\n"
        f"cache = EmbeddingCache({str(filled)!r})\n"
        "digests = [digest_bytes(b'image %d' % i) for i in range(200)]\n"
        f"rows = cache.get_or_compute('model-a', {WIDTH}, digests, None)\n"
        f"cache.digest_files({files!r})\n"
        "heavy = {'torch', 'open_clip', 'sklearn', 'scipy', 'PIL', 'pyod'} & set(sys.modules)\n"
        "assert len(rows) == 200 and not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
