"""Results kept in this process."""

import os
import threading
from pathlib import Path

import joblib
import pytest

from dnm_sklearn._utils.caching import (
    RecentResults,
    as_memory,
    cache_folder,
    cached,
    forget_recent_results,
)
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
        assert cached(as_memory(tmp_path), twice, [])(4) == 8
        (record,) = tmp_path.rglob("func_code.py")
        record.write_bytes(b"\xff\xfe")
        with pytest.warns(CacheWriteWarning):
            assert cached(as_memory(tmp_path), twice, [])(4) == 8

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
