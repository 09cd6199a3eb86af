"""Threads of our own, while numpy and torch use one thread each."""

import multiprocessing
import sys
import threading
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from dnm_sklearn._utils import threads
from dnm_sklearn._utils.threads import Threads

MUCH = 2**40


@pytest.fixture
def three_threads():
    """The number of torch and of BLAS is 3."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with threadpool_limits(3, user_api="blas"):
        yield
    torch.set_num_threads(before)


def n_blas_threads():
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return max((pool["num_threads"] for pool in pools), default=1)


def thread_counts():
    return torch.get_num_threads(), n_blas_threads()


@pytest.mark.usefixtures("three_threads")
def test_every_task_is_done_once_in_order_in_threads_of_our_own():
    with Threads() as own:
        done = own.map(lambda task: (task, threading.get_ident()), range(50), MUCH)
    assert [task for task, _ in done] == list(range(50))
    assert threading.get_ident() not in {thread for _, thread in done}


def test_small_work_stays_in_the_calling_thread():
    with Threads() as own:
        idents = own.map(lambda _: threading.get_ident(), range(8), 10)
    assert idents == [threading.get_ident()] * 8


@pytest.mark.usefixtures("three_threads")
def test_inside_one_thread_each_for_blas_and_torch_and_afterwards_as_before():
    before = thread_counts()
    with Threads() as own:
        inside = [thread_counts(), *own.map(lambda _: thread_counts(), range(9), MUCH)]
        with Threads():
            assert n_blas_threads() == 1
        assert n_blas_threads() == 1
    assert inside == [(1, 1)] * 10
    assert thread_counts() == before
    assert not [t for t in threading.enumerate() if t.name.startswith("dnm_sklearn")]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
@pytest.mark.usefixtures("three_threads")
def test_torch_starts_no_threads_inside_ours():
    def n_threads():
        return len(list(Path("/proc/self/task").iterdir()))

    def started(_):
        before = n_threads()
        torch.zeros(2**20).exp_()  # MKL's, where torch has it
        torch.zeros(2**20).add_(1)  # OpenMP's
        return n_threads() - before

    barrier = threading.Barrier(3)
    with Threads() as own:
        own.map(lambda _: barrier.wait(20), range(3), MUCH)  # all of ours are there
        assert sum(own.map(started, range(9), MUCH)) == 0


@pytest.mark.usefixtures("three_threads")
def test_threads_are_restored_after_an_error_which_is_the_one_raised():
    before = thread_counts()

    def fail(task):
        raise ValueError(f"task {task}")

    with pytest.raises(ValueError, match="task 0"), Threads() as own:
        own.map(fail, range(4), MUCH)
    assert thread_counts() == before


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("first_out", ["first", "last"])
def test_overlapping_contexts_leave_blas_as_it_was(first_out):
    before = n_blas_threads()
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def hold():
        with Threads():
            seen.append(n_blas_threads())
            entered.set()
            leave.wait(20)
        left.set()

    thread = threading.Thread(target=hold)
    with Threads():
        thread.start()
        assert entered.wait(20)
        if first_out == "last":
            leave.set()
            assert left.wait(20)
            assert n_blas_threads() == 1
    leave.set()
    thread.join()
    assert seen == [1]
    assert n_blas_threads() == before
    with Threads():
        assert n_blas_threads() == 1


@pytest.mark.usefixtures("three_threads")
def test_not_used_it_changes_nothing_and_works_in_the_calling_thread():
    before = thread_counts()
    with Threads(used=False) as own:
        assert thread_counts() == before
        idents = own.map(lambda _: threading.get_ident(), range(8), MUCH)
    assert idents == [threading.get_ident()] * 8


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("three_threads")
def test_a_process_that_is_forked_while_another_thread_is_inside_limits_blas_too():
    def count(queue):
        with Threads():
            queue.put(n_blas_threads())

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=count, args=(queue,))
    with threads._BLAS_LOCK:
        process.start()
    assert queue.get(timeout=30) == 1
    process.join(30)
    assert process.exitcode == 0
