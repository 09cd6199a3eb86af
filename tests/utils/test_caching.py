"""Results kept in this process."""

import os
import random
import shutil
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest

from dnm_sklearn._utils.caching import (
    RecentResults,
    as_memory,
    cache_folder,
    cached,
    forget_recent_results,
)
from dnm_sklearn._utils.checked_store import drop_damaged_results
from dnm_sklearn.exceptions import CacheWriteWarning


def test_the_last_used_are_kept():
    recent = RecentResults(max_items=2)
    made = []

    def get(key):
        return recent.get(key, lambda: made.append(key) or key.upper())

    assert [get(key) for key in "abab"] == list("ABAB")
    assert made == ["a", "b"]
    get("a")
    get("c")  # b was used longer ago than a
    get("a")
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]


def test_an_error_is_not_kept():
    recent = RecentResults(max_items=1)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 / 0)
    assert recent.get("a", lambda: 5) == 5


def test_many_threads_get_the_result_of_their_key():
    recent = RecentResults(max_items=2)
    wrong = []

    def work(key):
        for _ in range(200):
            if recent.get(key, lambda: key * 10) != key * 10:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(key,)) for key in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_new_cache_folder_is_its_owners_alone(tmp_path):
    as_memory(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    as_memory(str(tmp_path / "old"))
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o755


def test_all_recent_results_are_forgotten_at_once():
    recent = RecentResults(max_items=1)
    made = []
    for _ in range(2):
        recent.get("a", lambda: made.append(1))
        forget_recent_results()
    assert made == [1, 1]


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for memory in ("~/cache", Path("~/cache"), joblib.Memory(tmp_path / "cache")):
        assert cache_folder(memory) == str(tmp_path / "cache")
        assert os.fspath(as_memory(memory).location) == str(tmp_path / "cache")
    assert os.listdir(tmp_path) == ["cache"]
    assert cache_folder(None) is None
    assert cache_folder(joblib.Memory(None)) is None


calls = []


def twice(number):
    calls.append(number)
    if number < 0:
        raise OSError("the function's own")
    return 2 * number


@pytest.fixture
def folder_without_rights(tmp_path, monkeypatch):
    """A folder where nothing can be made, for root too, whom permissions do not stop."""
    mkdir = os.mkdir

    def refuse(path, *args, **kwargs):
        if os.path.exists(path) or not str(path).startswith(str(tmp_path)):
            return mkdir(path, *args, **kwargs)
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    return tmp_path


class TestUnusableCaches:
    def test_a_folder_that_cannot_be_written_to(self, folder_without_rights):
        with pytest.warns(CacheWriteWarning, match="could not be saved in the cache folder"):
            assert cached(as_memory(folder_without_rights), twice, [])(4) == 8

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.warns(CacheWriteWarning, match="could not be saved in the cache folder"):
            assert cached(as_memory(tmp_path / "file" / "cache"), twice, [])(4) == 8

    def test_a_damaged_record(self, tmp_path):
        for number in (4, 5):
            cached(as_memory(tmp_path), twice, [])(number)
        (record,) = tmp_path.rglob("func_code.py")
        for damaged in (b"\xff\xfe", record.read_bytes().replace(b"line: ", b"line: x")):
            record.write_bytes(damaged)
            with pytest.warns(CacheWriteWarning, match="damaged"):
                assert cached(as_memory(tmp_path), twice, [])(4) == 8

        # It was written anew, and does not vouch for what was there before.
        calls.clear()
        for number in (4, 5):
            cached(as_memory(tmp_path), twice, [])(number)
        assert calls == [5]

    def test_an_error_of_the_function_stays_one(self, tmp_path):
        calls.clear()
        with pytest.raises(OSError, match="the function's own"):
            cached(as_memory(tmp_path), twice, [])(-1)
        assert calls == [-1]

    def test_what_is_kept_is_read(self, tmp_path):
        calls.clear()
        for _ in range(2):
            assert cached(as_memory(tmp_path), twice, [])(3) == 6
        assert calls == [3]


def squares(n):
    calls.append(n)
    return np.arange(n, dtype=np.float32) ** 2, [str(n)]


def flip_a_bit(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


class TestDamagedResults:
    @pytest.mark.parametrize("file", ["output.pkl", "output.blake2b"])
    def test_one_bit_costs_a_warning_and_no_more(self, tmp_path, file):
        whole, names = cached(as_memory(tmp_path), squares, [])(20)
        (path,) = tmp_path.rglob(file)
        rng = random.Random(0)
        for _ in range(40):
            flip_a_bit(path, rng)
            calls.clear()
            with pytest.warns(CacheWriteWarning, match="is damaged and is computed again"):
                again = cached(as_memory(tmp_path), squares, [])(20)
            np.testing.assert_array_equal(again[0], whole)
            assert again[1] == names
            assert calls == [20]

        # What was computed again is kept.
        assert cached(as_memory(tmp_path), squares, [])(20)[1] == names
        assert calls == [20]

    def test_a_damaged_result_is_not_unpickled(self, tmp_path, monkeypatch):
        cached(as_memory(tmp_path), squares, [])(20)
        (path,) = tmp_path.rglob("output.pkl")
        path.write_bytes(path.read_bytes()[:-1])
        monkeypatch.setattr("joblib._store_backends.numpy_pickle.load", None)
        with pytest.warns(CacheWriteWarning, match="damaged"):
            cached(as_memory(tmp_path), squares, [])(20)

    @pytest.mark.parametrize("file", ["output.pkl", "output.blake2b"])
    def test_half_a_result_counts_as_none(self, tmp_path, file):
        cached(as_memory(tmp_path), squares, [])(20)
        next(tmp_path.rglob(file)).unlink()
        calls.clear()
        assert cached(as_memory(tmp_path), squares, [])(20)[1] == ["20"]
        assert calls == [20]

    @pytest.mark.parametrize("options", [{"mmap_mode": "r"}, {"compress": True}, {}])
    def test_a_users_own_cache_is_checked_too(self, tmp_path, options):
        memory = joblib.Memory(tmp_path, verbose=0, **options)
        for _ in range(2):
            np.testing.assert_array_equal(cached(memory, squares, [])(5)[0], [0, 1, 4, 9, 16])
        (path,) = tmp_path.rglob("output.pkl")
        flip_a_bit(path, random.Random(0))
        with pytest.warns(CacheWriteWarning, match="damaged"):
            assert cached(memory, squares, [])(5)[0].sum() == 30

    def test_all_are_looked_at(self, tmp_path):
        for n in (3, 4, 5):
            cached(as_memory(tmp_path), squares, [])(n)

        # A result of another package has no digest.
        joblib.Memory(tmp_path, verbose=0).cache(twice)(3)
        assert drop_damaged_results(tmp_path) == (3, 0)
        flip_a_bit(next(tmp_path.rglob("squares/*/output.pkl")), random.Random(0))
        assert drop_damaged_results(tmp_path) == (2, 1)
        assert drop_damaged_results(tmp_path) == (2, 0)
        assert len(list(tmp_path.rglob("output.pkl"))) == 3

    def test_a_folder_that_is_removed_meanwhile(self, tmp_path, monkeypatch):
        dump = joblib.dump

        def remove_first(*args, **kwargs):
            shutil.rmtree(tmp_path / "joblib")
            return dump(*args, **kwargs)

        monkeypatch.setattr(joblib, "dump", remove_first)
        calls.clear()
        with pytest.warns(CacheWriteWarning, match="could not be saved"):
            assert cached(as_memory(tmp_path), squares, [])(20)[1] == ["20"]
        assert calls == [20]
