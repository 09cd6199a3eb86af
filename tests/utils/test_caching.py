"""The last result that a process keeps."""

from concurrent.futures import ThreadPoolExecutor

from dnm_sklearn._utils.caching import LastResult


def test_the_last_result_is_made_once_and_replaced_by_the_next():
    made, last = [], LastResult()

    def get(key):
        return last.get(key, lambda: made.append(key) or [key])

    assert get("a") is get("a")
    assert get("b") == ["b"]
    assert get("a") == ["a"]
    assert made == ["a", "b", "a"]


def test_threads_never_get_the_result_of_another_key():
    last = LastResult()
    keys = [f"key {i % 3}" for i in range(3000)]
    with ThreadPoolExecutor(8) as executor:
        results = executor.map(lambda key: last.get(key, lambda: f"result of {key}"), keys)
        assert list(results) == [f"result of {key}" for key in keys]
