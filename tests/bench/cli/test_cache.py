"""dnm-bench cache."""

import sqlite3
from contextlib import closing

import pytest
from bench_suite import invoke, score

from dnm_sklearn._utils.caching import cached, user_memory
from dnm_sklearn._utils.digest import digest_names
from dnm_sklearn.exceptions import CacheWriteWarning


@pytest.mark.filterwarnings("ignore")
def test_cache(photos, tmp_path):
    cache = tmp_path / "cache"
    assert score(photos, "-o", tmp_path / "a.csv", "--cache", cache).exit_code == 0
    result = invoke("cache", "info", cache)
    assert result.exit_code == 0
    assert "10 rows of 8" in result.output
    assert invoke("cache", "verify", cache).output.endswith("Nothing is damaged.\n")
    with closing(sqlite3.connect(cache / "embeddings.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE rows SET checksum = checksum + 1 WHERE id = 3")
    result = invoke("cache", "verify", cache)
    assert result.exit_code == 1
    assert "1 dropped" in result.output

    results = [*(cache / "joblib").rglob("output.pkl")]
    results[0].write_bytes(results[0].read_bytes()[:-1])
    result = invoke("cache", "verify", cache)
    assert result.exit_code == 1
    assert f"texts and mining: {len(results) - 1} results are whole, 1 dropped" in result.output
    assert invoke("cache", "verify", cache).exit_code == 0
    (cache / "mine.txt").write_text("stays")
    assert invoke("cache", "clear", cache).exit_code == 1
    assert invoke("cache", "clear", cache, "--yes").exit_code == 0
    assert "in all: 0 bytes" in invoke("cache", "info", cache).output
    assert (cache / "mine.txt").exists()
    assert invoke("cache", "info", tmp_path / "nowhere").exit_code == 2

    (cache / "embeddings.sqlite").write_text("somebody else's")
    for command in (("info", cache), ("verify", cache), ("clear", cache, "--yes")):
        result = invoke("cache", *command)
        assert result.exit_code == 2
        assert "is not a cache file of dnm_sklearn" in " ".join(result.output.split())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cache_size(photos, tmp_path):
    cache = tmp_path / "cache"
    options = ("-o", tmp_path / "a.csv", "--cache", cache, "--cache-size")
    with pytest.warns(CacheWriteWarning, match="cap of 1000 bytes"):
        assert score(photos, *options, "1 kB").exit_code == 0
    assert "0 rows of 8" in invoke("cache", "info", cache).output
    assert score(photos, *options, "20GB").exit_code == 0
    assert "10 rows of 8" in invoke("cache", "info", cache).output

    result = score(photos, *options, "much")
    assert result.exit_code == 2
    assert "cache_size must be a number of bytes" in " ".join(result.output.split())


def test_the_users_own_folder(monkeypatch, tmp_path):
    folder = tmp_path / "user"
    monkeypatch.setenv("DNM_SKLEARN_CACHE", str(folder))
    for command in (("info",), ("verify",), ("clear", "--yes")):
        result = invoke("cache", *command)
        assert result.exit_code == 0
        assert f"nothing yet in the user's cache folder {folder}" in result.output
    assert not folder.exists()

    cached(user_memory(), digest_names, [])(["cat"])
    said = invoke("cache", "info").output
    assert said.startswith(f"folder: {folder}\n")
    assert "texts and mining: 1 results" in said
    assert invoke("cache", "verify").output.endswith("Nothing is damaged.\n")
    assert invoke("cache", "clear").exit_code == 1
    assert invoke("cache", "clear", "--yes").exit_code == 0
    assert "texts and mining: 0 results" in invoke("cache", "info").output
