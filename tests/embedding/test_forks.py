"""A process forked after a model ran, in several threads of torch, does not wait for ever."""

import multiprocessing
import os
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dnm_sklearn import NegLabelDetector  # noqa: E402
from dnm_sklearn._utils import forks  # noqa: E402
from dnm_sklearn._utils.caching import RecentResults  # noqa: E402
from dnm_sklearn._utils.device import torch_threads  # noqa: E402
from dnm_sklearn._utils.tensors import to_numpy  # noqa: E402
from dnm_sklearn.embedding import CLIPEmbedder, release_models  # noqa: E402
from dnm_sklearn.embedding.open_clip import build, model, registry  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked there"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

IMAGES = [np.random.default_rng(i).integers(0, 256, (60, 60, 3), dtype=np.uint8) for i in range(16)]
NAMES = [f"name {i}" for i in range(60)]
BFLOAT16 = torch.zeros((400, 400), dtype=torch.bfloat16)


@pytest.fixture(autouse=True)
def _two_threads_for_all_towers(monkeypatch):
    """Let the shipped model compute in threads of torch, as published models do."""
    monkeypatch.setattr(model, "_SMALL_TOWER", 0)
    release_models()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.exp(torch.zeros(2**20))  # the threads are there now
    yield
    torch.set_num_threads(before)
    release_models()


def result_in_child(work):
    """What `work()` gives in a forked process, which has 60 seconds."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work()))
    process.start()
    sender.close()
    try:
        assert receiver.poll(60), "the child hangs"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


WORK = {
    "images": lambda: CLIPEmbedder("pictoclip").encode_image(IMAGES),
    "names": lambda: CLIPEmbedder("pictoclip").encode_text(NAMES),
    "a tensor": lambda: to_numpy(BFLOAT16),
}


@pytest.mark.parametrize("name", WORK)
def test_what_ran_in_the_parent_runs_in_its_child(name):
    np.testing.assert_allclose(result_in_child(WORK[name]), WORK[name](), atol=1e-5)


def test_a_child_loads_a_model_that_its_parent_has_not():
    rows = result_in_child(WORK["images"])
    np.testing.assert_allclose(rows, WORK["images"](), atol=1e-5)
    np.testing.assert_allclose(result_in_child(WORK["images"]), rows, atol=1e-5)


def test_a_compiled_tower_is_not_used_in_a_child():
    """Its program has a number of threads built in."""

    def is_plain():
        loaded = registry.get_model("pictoclip", "cpu")
        return loaded.compiled() is loaded

    assert not is_plain()
    assert result_in_child(is_plain)


def test_pools_and_data_loaders_score():
    detector = NegLabelDetector(
        NAMES[:5], embedder=CLIPEmbedder("pictoclip"), corpus=NAMES[5:], n_groups=1
    )
    want = detector.fit().decision_function(IMAGES)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map_async(detector.decision_function, [IMAGES[:8], IMAGES[8:]]).get(60)
    np.testing.assert_allclose(np.concatenate(parts), want, atol=1e-4)

    class Scores(torch.utils.data.Dataset):
        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, i):
            return detector.decision_function([IMAGES[i]])[0]

    loader = torch.utils.data.DataLoader(
        Scores(), batch_size=4, num_workers=2, timeout=60, multiprocessing_context="fork"
    )
    np.testing.assert_allclose(np.concatenate([np.asarray(x) for x in loader]), want, atol=1e-4)


def test_a_child_forked_while_other_threads_encode():
    want = WORK["images"]()
    stop = threading.Event()

    def keep_encoding():
        while not stop.is_set():
            WORK["images"]()
            WORK["names"]()

    thread = threading.Thread(target=keep_encoding)
    thread.start()
    try:
        for _ in range(4):
            np.testing.assert_allclose(result_in_child(WORK["images"]), want, atol=1e-5)
    finally:
        stop.set()
        thread.join()


def test_locks_that_a_thread_holds_are_free_in_a_child():
    recent = RecentResults(max_items=2)
    loaded = registry.get_model("pictoclip", "cpu")
    locks = [recent._lock, loaded._lock, registry._registry_lock, build._shipped_lock]
    locks += registry._loading_locks.values()
    assert len(locks) >= 5

    held, stop = threading.Event(), threading.Event()

    def hold():
        for lock in locks:
            lock.lock.acquire()
        held.set()
        stop.wait(60)
        for lock in locks:
            lock.lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        assert result_in_child(lambda: [lock.lock.acquire(blocking=False) for lock in locks]) == [
            True
        ] * len(locks)
        assert not any(lock.lock.acquire(blocking=False) for lock in locks)
    finally:
        stop.set()
        thread.join()
    with locks[0]:
        assert not locks[0].lock.acquire(blocking=False)
    assert locks[0].lock.acquire(blocking=False)
    locks[0].lock.release()


def test_a_block_of_the_parents_may_be_left_in_a_child():
    lock = forks.ForkSafeLock()

    def leave():
        lock.__exit__()
        return True

    with lock:
        assert result_in_child(leave)


def test_only_children_are_limited_to_one_thread():
    def n_threads():
        with torch_threads(None):
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads(), forks.torch_was_forked()

    assert n_threads() == (2, 2, False)
    assert result_in_child(n_threads) == (1, 2, True)
