"""The cache among processes: killed writers, claims, readers beside writers, forks."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from dnm_sklearn._utils.digest import digest_bytes
from dnm_sklearn.embedding import _cache_claims, _cache_rows
from dnm_sklearn.embedding._cache_claims import Claim, claimed_digests
from dnm_sklearn.embedding.cache import EmbeddingCache

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these processes are forked")

WIDTH = 16
DIGESTS = [digest_bytes(b"image %d" % i) for i in range(4000)]


@pytest.fixture(autouse=True)
def commit_at_once(monkeypatch):
    monkeypatch.setattr(_cache_rows, "COMMIT_SECONDS", 0)


def rows_of(digests):
    raw = np.frombuffer(b"".join(digests), "u1").reshape(len(digests), -1)
    return (raw[:, :WIDTH] / np.float32(7)).astype("float32")


def get(folder, digests, compute):
    return EmbeddingCache(folder).get_or_compute("model", WIDTH, digests, compute)


def computing(digests, log=None, chunk=30, seconds=0.0):
    """Right rows in chunks; each digest really computed is one line of the open file `log`."""

    def compute(index):
        for start in range(0, len(index), chunk):
            wanted = [digests[i] for i in index[start : start + chunk]]
            time.sleep(seconds)
            if log is not None:
                os.write(log, b"".join(one.hex().encode() + b"\n" for one in wanted))
            yield rows_of(wanted)

    return compute


def never(index):
    raise AssertionError(f"rows {index} should have been kept")


def fork(work):
    """Run `work` in a child process that exits without pytest's clean-up."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def wait_for(pid, seconds=60):
    end = time.monotonic() + seconds
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"still waiting after {seconds} s")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(found[1]) == 0


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def claimed(folder, model="model"):
    """Digests of rows that somebody computes now; the lock keeps out those who begin to."""
    with EmbeddingCache(folder)._file.locked():
        return claimed_digests(folder / "embeddings.claims", model)


def test_writers_killed_at_random_points(tmp_path):
    rng = np.random.default_rng(0)
    n_reported, start = 0, 0
    for _ in range(60):
        read_end, write_end = os.pipe()

        def write(start=start, write_end=write_end):
            for i in range(start, len(DIGESTS) - 4, 4):
                part = DIGESTS[i : i + 4]
                get(tmp_path, part, computing(part))
                os.write(write_end, i.to_bytes(4, "little"))

        pid = fork(write)
        os.close(write_end)
        reports = os.read(read_end, 4)  # at work
        time.sleep(rng.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        while part := os.read(read_end, 1 << 16):
            reports += part
        os.close(read_end)

        done = int.from_bytes(reports[-4:], "little") + 4
        n_reported += done - start
        rows = get(tmp_path, DIGESTS[:done], never)
        np.testing.assert_array_equal(rows, rows_of(DIGESTS[:done]))
        start = done
    assert n_reported >= 240
    assert EmbeddingCache(tmp_path).verify()["dropped"] == 0


def test_a_killed_writer_keeps_what_it_had_committed_of_a_long_call(tmp_path):
    pid = fork(lambda: get(tmp_path, DIGESTS, computing(DIGESTS, chunk=10, seconds=0.02)))
    wait_until(lambda: EmbeddingCache(tmp_path).count_rows() >= 30)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    n_kept = EmbeddingCache(tmp_path).count_rows()
    asked = []

    def compute(index):
        asked.extend(index.tolist())
        return computing(DIGESTS, chunk=4000)(index)

    np.testing.assert_array_equal(get(tmp_path, DIGESTS, compute), rows_of(DIGESTS))
    assert len(asked) == 4000 - n_kept


def test_two_writers_compute_each_row_once(tmp_path):
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(seed):
        rng = np.random.default_rng(seed)
        for _ in range(15):
            part = [DIGESTS[i] for i in rng.integers(0, 1000, 100)]
            np.testing.assert_array_equal(get(tmp_path, part, computing(part, log)), rows_of(part))

    pids = [fork(lambda seed=seed: write(seed)) for seed in range(2)]
    for pid in pids:
        wait_for(pid)
    os.close(log)
    counts = Counter((tmp_path / "log").read_text().split())
    assert len(counts) > 800
    assert set(counts.values()) == {1}
    assert EmbeddingCache(tmp_path).verify() == {"rows": len(counts), "dropped": 0}


def test_threads_of_one_cache_compute_each_row_once(tmp_path):
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    shared = EmbeddingCache(tmp_path)
    errors = []

    def write(seed):
        rng = np.random.default_rng(seed)
        for _ in range(8):
            part = [DIGESTS[i] for i in rng.integers(0, 600, 100)]
            got = shared.get_or_compute("model", WIDTH, part, computing(part, log))
            if not np.array_equal(got, rows_of(part)):
                errors.append(seed)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(log)
    assert not errors
    assert set(Counter((tmp_path / "log").read_text().split()).values()) == {1}


def test_others_wait_only_for_rows_that_they_need(tmp_path):
    """While one process embeds, others read, embed other rows, look at the cache and check it."""
    get(tmp_path, DIGESTS[:50], computing(DIGESTS))
    release, hold = os.pipe()

    def work(index):
        os.read(release, 1)
        yield rows_of([DIGESTS[100 + i] for i in index])

    pid = fork(lambda: get(tmp_path, DIGESTS[100:200], work))
    try:
        wait_until(lambda: claimed(tmp_path))
        get(tmp_path, DIGESTS[:50], never)
        get(tmp_path, DIGESTS[:60], computing(DIGESTS))
        assert EmbeddingCache(tmp_path).verify() == {"rows": 60, "dropped": 0}

        # whoever needs one of the rows waits for it, and computes the rest meanwhile
        asked = []
        wanted = [*DIGESTS[50:70], DIGESTS[150]]

        def rest(index):
            asked.append(index.tolist())
            os.write(hold, b"!")
            return computing(wanted)(index)

        np.testing.assert_array_equal(get(tmp_path, wanted, rest), rows_of(wanted))
        assert asked == [list(range(10, 20))]
        wait_for(pid)
    finally:
        os.close(release)
        os.close(hold)


def test_rows_of_a_claim_are_given_as_they_are_committed(tmp_path):
    release, hold = os.pipe()

    def work(index):
        yield rows_of(DIGESTS[:40])
        os.read(release, 1)
        yield rows_of(DIGESTS[40:80])

    pid = fork(lambda: get(tmp_path, DIGESTS[:80], work))
    wait_until(lambda: claimed(tmp_path))
    np.testing.assert_array_equal(get(tmp_path, DIGESTS[:40], never), rows_of(DIGESTS[:40]))
    os.write(hold, b"!")
    wait_for(pid)
    os.close(release)
    os.close(hold)


def test_calls_that_wait_for_each_other_go_on(tmp_path):
    """Each needs a row that the other claims, and that is not kept (it is not finite)."""
    both = threading.Barrier(2)
    done = []

    def ask(mine, others):
        def compute(index):
            if not met:
                met.append(True)
                both.wait(20)
            return [np.full((len(index), WIDTH), np.nan, "float32")]

        met = []
        done.append(EmbeddingCache(tmp_path).get_or_compute("model", WIDTH, [mine], compute))
        done.append(get(tmp_path, [mine, others], compute))

    threads = [threading.Thread(target=ask, args=pair) for pair in (DIGESTS[:2], DIGESTS[1::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 4


def test_claims_of_a_killed_process_end_at_once(tmp_path):
    pid = fork(lambda: get(tmp_path, DIGESTS[:100], computing(DIGESTS, seconds=60)))
    claims = tmp_path / "embeddings.claims"
    wait_until(lambda: len(claimed(tmp_path)) == 100)
    assert claimed(tmp_path, "another model") == set()

    # the claim of a process that is there is not taken over
    waiting = threading.Thread(target=get, args=(tmp_path, DIGESTS[:1], computing(DIGESTS)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    waiting.join(20)
    assert not waiting.is_alive()
    assert EmbeddingCache(tmp_path).count_rows() == 1
    assert list(claims.iterdir()) == []


def test_claims_of_a_killed_process_end_though_its_worker_lives(tmp_path):
    """A forked data-loading worker has the lock file of its killed parent open."""
    read_end, write_end = os.pipe()

    def hold():
        def compute(index):
            worker = fork(lambda: time.sleep(60))
            os.write(write_end, worker.to_bytes(4, "little"))
            time.sleep(60)
            yield rows_of(DIGESTS[:1])

        get(tmp_path, DIGESTS[:1], compute)

    holder = fork(hold)
    worker = int.from_bytes(os.read(read_end, 4), "little")
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        os.kill(worker, 0)
        wait_for(fork(lambda: get(tmp_path, DIGESTS[:1], computing(DIGESTS))), seconds=20)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(read_end)
        os.close(write_end)


def test_a_forked_child_does_not_end_the_claims_of_its_parent(tmp_path):
    claims = tmp_path / "embeddings.claims"
    claims.mkdir()
    with Claim(claims) as claim:
        claim.begin("model", DIGESTS[:3])

        def leave():
            claim.end()  # as an error that unwinds the child's stack does

        wait_for(fork(leave))

        def look():
            assert claimed_digests(claims, "model") == set(DIGESTS[:3])

        wait_for(fork(look))
        assert claimed_digests(claims, "model") == set(DIGESTS[:3])
    assert list(claims.iterdir()) == []


def test_a_claim_that_ends_while_it_is_looked_at(tmp_path, monkeypatch):
    claim = Claim(tmp_path)
    claim.begin("model", DIGESTS[:3])
    monkeypatch.setattr(_cache_claims, "_may_run", lambda *_: claim.end() is None)
    assert claimed_digests(tmp_path, "model") == set()


def test_other_files_beside_the_claims_are_left_alone(tmp_path):
    for name in ("notes.txt", "a.1.b", f"host.1.{'g' * 32}"):
        (tmp_path / name).write_text("mine")
    left = tmp_path / f"elsewhere.1.{'0' * 32}"
    left.write_text("")
    assert claimed_digests(tmp_path, "model") == set()
    assert len(list(tmp_path.iterdir())) == 3
    assert not left.exists()


def test_a_child_forked_during_the_work_uses_the_cache(tmp_path):
    """Also while another thread reads and writes: no connection is open at the fork."""
    stop = threading.Event()

    def use():
        for i in range(10_000):
            part = DIGESTS[1000 + i % 3000 :][:2]
            get(tmp_path, part, computing(part))
            if stop.is_set():
                return

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for i in range(20):
            part = DIGESTS[i : i + 1]

            def child(part=part):
                np.testing.assert_array_equal(get(tmp_path, part, computing(part)), rows_of(part))
                get(tmp_path, part, never)

            wait_for(fork(child), seconds=30)
    finally:
        stop.set()
        thread.join()
    get(tmp_path, DIGESTS[:20], never)
    assert EmbeddingCache(tmp_path).verify()["dropped"] == 0


def test_readers_beside_a_writer_and_clearing(tmp_path):
    """Readers never see a wrong row, also while another process clears and rewrites the cache."""

    def write():
        for round_ in range(4):
            for i in range(0, 200, 20):
                part = DIGESTS[i : i + 20]
                get(tmp_path, part, computing(part))
            if round_ < 3:
                EmbeddingCache(tmp_path).clear()

    pid = fork(write)
    n_hits = 0
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        request = _cache_rows.Request("model", WIDTH, DIGESTS[:200])
        EmbeddingCache(tmp_path)._file.read(request.fill)
        found = [i for i, digest in enumerate(DIGESTS[:200]) if digest not in request.missing]
        right = rows_of(DIGESTS[:200])
        np.testing.assert_array_equal(request.rows[found], right[found])
        n_hits += len(found)
    assert n_hits > 0
    get(tmp_path, DIGESTS[:200], never)


def test_a_spawned_process_finds_rows_and_waits_for_those_it_needs(tmp_path):
    get(tmp_path, DIGESTS[:50], computing(DIGESTS))
    code = (
        "import sys, numpy as np\n"
        "from dnm_sklearn.embedding.cache import EmbeddingCache\n"
        "from dnm_sklearn._utils.digest import digest_bytes\n"
        f"cache = EmbeddingCache({str(tmp_path)!r})\n"
        "digests = [digest_bytes(b'image %d' % i) for i in range(51)]\n"
        f"cache.get_or_compute('model', {WIDTH}, digests[:50], None)\n"
        "print('hits', flush=True)\n"
        f"cache.get_or_compute('model', {WIDTH}, digests[50:], None)\n"
        "print('waited', flush=True)\n"
    )

    def compute(index):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout.readline() == "hits\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        yield rows_of(DIGESTS[50:51])

    children = []
    get(tmp_path, DIGESTS[50:51], compute)
    assert children[0].communicate(timeout=20)[0] == "waited\n"


def test_a_process_of_another_machine_is_not_looked_for_here(tmp_path, monkeypatch):
    """Its number means nothing here; whether it lives, its lock says."""
    gone = fork(lambda: None)
    os.waitpid(gone, 0)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(_cache_claims.socket, "gethostname", lambda: "elsewhere")
        elsewhere.setattr(_cache_claims.os, "getpid", lambda: gone)
        claim = Claim(tmp_path)
    with claim:
        claim.begin("model", DIGESTS[:3])
        assert claimed_digests(tmp_path, "model") == set(DIGESTS[:3])
    assert claimed_digests(tmp_path, "model") == set()
