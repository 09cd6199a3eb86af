"""The row store among processes: killed writers, two at once, readers beside them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from dnm_sklearn.embedding.recordlog import folder_lock
from dnm_sklearn.embedding.store import RowStore, digest_bytes

WIDTH = 16
DIGESTS = [digest_bytes(b"image %d" % i) for i in range(4000)]


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """A killed process loses nothing it wrote, synced or not; syncing is slow on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def rows_of(digests):
    raw = np.frombuffer(b"".join(digests), "u1").reshape(len(digests), -1)
    return (raw[:, :WIDTH] / np.float32(7)).astype("float32")


def computing(digests, log=None):
    """Right rows; each digest really computed is one line of the open file `log`."""

    def compute(index):
        wanted = [digests[i] for i in index]
        if log is not None:
            os.write(log, b"".join(digest.hex().encode() + b"\n" for digest in wanted))
        return rows_of(wanted)

    return compute


def stored(folder, digests):
    """Which of these digests the store has; every row it gives must be right."""
    missing = []

    def compute(index):
        missing.extend(index.tolist())
        raise KeyError

    store, there = RowStore(folder, "k", WIDTH), np.ones(len(digests), bool)
    try:
        rows = store.get_or_compute(digests, compute, chunk_size=None)
    except KeyError:
        there[missing] = False
        kept = [digest for digest, is_there in zip(digests, there, strict=True) if is_there]
        rows = store.get_or_compute(kept, None)
        digests = kept
    np.testing.assert_array_equal(rows, rows_of(digests) if digests else rows)
    return there


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


def wait_for(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_writers_killed_at_200_random_points(tmp_path):
    rng = np.random.default_rng(0)
    n_reported, n_kills_at_work = 0, 0
    for round_ in range(200):
        if round_ % 20 == 0:
            RowStore(tmp_path, "k", WIDTH).clear()
            start = 0
        read_end, write_end = os.pipe()

        def write(start=start, write_end=write_end):
            store = RowStore(tmp_path, "k", WIDTH)
            for i in range(start, len(DIGESTS) - 4, 4):
                part = DIGESTS[i : i + 4]
                store.get_or_compute(part, computing(part))
                os.write(write_end, i.to_bytes(4, "little"))

        pid = fork(write)
        os.close(write_end)
        reports = os.read(read_end, 4)  # at work
        time.sleep(rng.uniform(0, 0.006))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        n_kills_at_work += os.WIFSIGNALED(status)
        while part := os.read(read_end, 1 << 16):
            reports += part
        os.close(read_end)
        done = int.from_bytes(reports[-4:], "little") + 4
        n_reported += done - start
        assert stored(tmp_path, DIGESTS[:done]).all(), "a row reported as stored was lost"
        start = done
    assert n_kills_at_work == 200
    assert n_reported > 800
    assert RowStore(tmp_path, "k", WIDTH).verify()["dropped"] == 0


class Killed(BaseException):
    """Stands for SIGKILL: nothing that expects an OSError cleans up after it."""


def test_writer_killed_at_every_kind_of_byte(tmp_path, monkeypatch):
    """A death after any number of bytes of the write stream, new files and old."""
    real = os.pwrite
    # One block of 8 rows: two headers, 8 rows of 64 bytes, 8 records of 40 bytes.
    total = 2 * 512 + 8 * (4 * WIDTH + 40)
    rng = np.random.default_rng(1)
    for n_bytes in sorted(
        {0, 511, 512, 1023, 1024, total - 1, *rng.integers(0, total, 150).tolist()}
    ):
        left = n_bytes

        def pwrite(fd, data, offset):
            nonlocal left
            if left <= 0:
                raise Killed
            written = real(fd, bytes(data)[:left], offset)
            left -= written
            return written

        folder = tmp_path / str(n_bytes)
        for part in (DIGESTS[:8], DIGESTS[8:16]):
            left = n_bytes
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", pwrite)
                try:
                    RowStore(folder, "k", WIDTH).get_or_compute(part, computing(part))
                except Killed:
                    pass
                else:
                    assert left >= 0
            stored(folder, DIGESTS[:16])
            store = RowStore(folder, "k", WIDTH)
            np.testing.assert_array_equal(
                store.get_or_compute(part, computing(part)), rows_of(part)
            )
            assert stored(folder, part).all()
        assert len(store) == 16
        assert sorted(path.name for path in store.path.iterdir()) == [
            "index.bin",
            "lock",
            "rows.bin",
        ]


def test_two_writers_compute_each_digest_once(tmp_path):
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(seed):
        rng = np.random.default_rng(seed)
        store = RowStore(tmp_path, "k", WIDTH)
        for _ in range(40):
            part = [DIGESTS[i] for i in rng.integers(0, 1500, 100)]
            np.testing.assert_array_equal(
                store.get_or_compute(part, computing(part, log), chunk_size=30), rows_of(part)
            )

    pids = [fork(lambda seed=seed: write(seed)) for seed in range(2)]
    for pid in pids:
        wait_for(pid)
    os.close(log)
    counts = Counter((tmp_path / "log").read_text().split())
    assert len(counts) > 1300
    assert set(counts.values()) == {1}
    assert RowStore(tmp_path, "k", WIDTH).verify() == {"rows": len(counts), "dropped": 0}


def test_two_threads_of_one_store_compute_each_digest_once(tmp_path):
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = RowStore(tmp_path, "k", WIDTH)
    errors = []

    def write(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            part = [DIGESTS[i] for i in rng.integers(0, 600, 100)]
            got = store.get_or_compute(part, computing(part, log), chunk_size=30)
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


def test_readers_beside_a_writer_and_clearing(tmp_path):
    """Readers never see a wrong row, also while another process clears and rewrites the store."""

    def write():
        store = RowStore(tmp_path, "k", WIDTH)
        for round_ in range(6):
            for i in range(0, 200, 4):
                part = DIGESTS[i : i + 4]
                store.get_or_compute(part, computing(part))
            if round_ < 5:
                store.clear()

    pid = fork(write)
    reader, n_hits = RowStore(tmp_path, "k", WIDTH), 0
    wanted = np.frombuffer(b"".join(DIGESTS[:200]), "<u8").reshape(200, 4)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        out, found = np.zeros((200, WIDTH), "float32"), np.zeros(200, bool)
        reader._files.read_into(out, found, wanted)
        np.testing.assert_array_equal(out[found], rows_of(DIGESTS[:200])[found])
        n_hits += int(found.sum())
    assert n_hits > 0
    assert stored(tmp_path, DIGESTS[:200]).all()


def test_lock_is_free_when_its_holder_dies_though_its_worker_lives(tmp_path):
    """A forked data-loading worker must not keep the lock of its killed parent."""
    read_end, write_end = os.pipe()

    def hold():
        with folder_lock(tmp_path):
            worker = fork(lambda: time.sleep(60))
            os.write(write_end, worker.to_bytes(4, "little"))
            time.sleep(60)

    holder = fork(hold)
    worker = int.from_bytes(os.read(read_end, 4), "little")
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        os.kill(worker, 0)
        start = time.monotonic()
        waiter = fork(lambda: folder_lock(tmp_path).__enter__())
        while os.waitpid(waiter, os.WNOHANG) == (0, 0):
            assert time.monotonic() - start < 20, "the lock is still held"
            time.sleep(0.01)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(read_end)
        os.close(write_end)


def test_spawned_process_finds_rows_and_waits_for_the_lock(tmp_path):
    store = RowStore(tmp_path, "k", WIDTH)
    store.get_or_compute(DIGESTS[:50], computing(DIGESTS[:50]))
    code = (
        "import sys, numpy as np\n"
        "from dnm_sklearn.embedding.store import RowStore, digest_bytes\n"
        f"store = RowStore({str(tmp_path)!r}, 'k', {WIDTH})\n"
        "digests = [digest_bytes(b'image %d' % i) for i in range(50)]\n"
        "store.get_or_compute(digests, None)\n"
        "print('hits', flush=True)\n"
        f"store.get_or_compute([digest_bytes(b'new')], lambda i: np.ones((1, {WIDTH})))\n"
        "print('written', flush=True)\n"
    )
    with folder_lock(store.path):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "hits\n"  # readers take no lock
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
    assert child.communicate(timeout=20)[0] == "written\n"
    assert len(store) == 51
