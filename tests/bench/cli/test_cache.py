"""dnm-bench cache."""

import pytest
from bench_suite import invoke, score


@pytest.mark.filterwarnings("ignore")
def test_cache(photos, tmp_path):
    cache = tmp_path / "cache"
    assert score(photos, "-o", tmp_path / "a.csv", "--cache", cache).exit_code == 0
    result = invoke("cache", "info", cache)
    assert result.exit_code == 0
    assert "10 rows of 8" in result.output
    assert invoke("cache", "verify", cache).output.endswith("Nothing is damaged.\n")
    rows = next(cache.rglob("rows.bin"))
    content = bytearray(rows.read_bytes())
    content[-1] ^= 1
    rows.write_bytes(content)
    result = invoke("cache", "verify", cache)
    assert result.exit_code == 1
    assert "1 dropped" in result.output
    (cache / "mine.txt").write_text("stays")
    assert invoke("cache", "clear", cache).exit_code == 1
    assert invoke("cache", "clear", cache, "--yes").exit_code == 0
    assert "in all: 0 B" in invoke("cache", "info", cache).output
    assert (cache / "mine.txt").exists()
    assert invoke("cache", "info", tmp_path / "nowhere").exit_code == 2
