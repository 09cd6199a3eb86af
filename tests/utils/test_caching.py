"""Results kept in this process."""

import threading

import pytest

from dnm_sklearn._utils.caching import RecentResults, as_memory


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
