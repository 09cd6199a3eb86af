"""Products, work shared among threads, and exponentials in tiles, against plain float64."""

import multiprocessing
import sys
import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from dnm_sklearn.scoring import _exponentials, _products
from dnm_sklearn.scoring._exponentials import Exponentials
from dnm_sklearn.scoring._products import Workers, multiply, scratch

CPU = torch.device("cpu")
MUCH = 2**40


def workers(n_threads):
    found = Workers(CPU)
    found.n = n_threads
    return found


def n_blas_threads():
    return max(
        (pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiply_writes_into_a_part_of_a_matrix(dtype):
    rng = np.random.default_rng(0)
    rows, columns = (
        torch.from_numpy(rng.standard_normal(shape)).to(dtype) for shape in ((5, 7), (7, 4))
    )
    whole = torch.full((5, 9), -1.0, dtype=dtype)
    multiply(rows, columns, whole[:, 2:6])
    np.testing.assert_allclose(whole[:, 2:6], rows.double() @ columns.double(), rtol=1e-5)
    assert (whole[:, [0, 1, 6, 7, 8]] == -1).all()


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_every_task_is_done_once(n_threads):
    done = []

    def work(left):
        for task in left:
            done.append((task, threading.get_ident()))

    workers(n_threads).share(work, range(50), MUCH)
    assert sorted(task for task, _ in done) == list(range(50))
    own = threading.get_ident()
    assert all((thread == own) == (n_threads == 1) for _, thread in done)


def test_small_work_stays_in_the_calling_thread():
    threads = []
    workers(4).share(lambda left: threads.extend(threading.get_ident() for _ in left), range(8), 10)
    assert threads == [threading.get_ident()] * 8


def test_inside_one_thread_each_for_blas_and_torch_and_afterwards_as_before():
    before = torch.get_num_threads(), n_blas_threads()
    inside = []
    with workers(2) as shared:
        inside.append((torch.get_num_threads(), n_blas_threads()))
        with Workers(CPU):
            assert n_blas_threads() == 1
        assert n_blas_threads() == 1
        shared.share(
            lambda left: [inside.append((torch.get_num_threads(), n_blas_threads())) for _ in left],
            [1, 2],
            MUCH,
        )
    assert inside == [(1, 1)] * 3
    assert (torch.get_num_threads(), n_blas_threads()) == before


def test_threads_are_restored_after_an_error_which_is_the_one_raised():
    before = torch.get_num_threads(), n_blas_threads()

    def fail(left):
        for task in left:
            raise ValueError(f"task {task}")

    with pytest.raises(ValueError, match="task"), workers(2) as shared:
        shared.share(fail, range(4), MUCH)
    assert (torch.get_num_threads(), n_blas_threads()) == before


def test_overlapping_users_leave_the_blas_threads_as_they_were():
    before = n_blas_threads()
    entered, leave, seen = threading.Event(), threading.Event(), []

    def hold():
        with Workers(CPU):
            seen.append(n_blas_threads())
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    with Workers(CPU):
        thread.start()
        assert entered.wait(20)
    leave.set()
    thread.join()
    assert seen == [1]
    assert n_blas_threads() == before
    with Workers(CPU):
        assert n_blas_threads() == 1


def test_scratch_is_reused_by_its_thread_alone():
    first, second = scratch(10, torch.float32, CPU), scratch(5, torch.float64, CPU)
    assert second.dtype == torch.float64
    assert len(second) == 5
    assert first.data_ptr() == scratch(10, torch.float32, CPU).data_ptr()
    found = []
    thread = threading.Thread(target=lambda: found.append(scratch(10, torch.float32, CPU)))
    thread.start()
    thread.join()
    assert found[0].data_ptr() != first.data_ptr()


def _in_a_fork(queue):
    done = []
    workers(2).share(lambda left: done.extend(left), range(6), MUCH)
    queue.put(sorted(done))


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
def test_a_forked_process_has_threads_of_its_own():
    workers(2).share(lambda left: list(left), range(6), MUCH)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_in_a_fork, args=(queue,))
    process.start()
    assert queue.get(timeout=30) == list(range(6))
    process.join(30)
    assert process.exitcode == 0


@pytest.mark.parametrize("tile", [1, 13, 2**20])
@pytest.mark.parametrize("few", [1, 4])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_exponentials_are_the_naive_sums(monkeypatch, tile, few, n_threads):
    monkeypatch.setattr(_exponentials, "tile_numbers", lambda device: tile)
    monkeypatch.setattr(_exponentials, "_FEW_GROUPS", few)
    monkeypatch.setattr(_products, "_LEAST_SHARED", 0)
    rng = np.random.default_rng(1)
    rows, text = rng.standard_normal((11, 6)) * 20, rng.standard_normal((17, 6))
    offset = np.where(rng.random(17) < 0.4, -np.inf, rng.standard_normal(17))
    weight, log_weight = rng.random(17), rng.standard_normal(11)
    sizes = [3, 1, 2, 5]
    held = Exponentials(torch.from_numpy(text))
    with workers(n_threads) as shared:
        log_sums = held.fill(shared, torch.from_numpy(rows), torch.from_numpy(offset))
        row_sums = held.row_sums(shared, torch.from_numpy(weight))
        log_weight[4] = -np.inf
        by_group = held.column_sums(shared, torch.from_numpy(log_weight) - log_sums, sizes)
    logits = np.asarray(rows @ text.T + offset, dtype=np.longdouble)
    mass = np.exp(logits)
    np.testing.assert_allclose(log_sums, np.log(mass.sum(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(row_sums, np.log((mass * weight).sum(axis=1)), rtol=1e-12)
    shares = np.exp(log_weight)[:, None] * mass / mass.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        by_group, np.add.reduceat(shares, [0, 3, 4, 6]), rtol=1e-9, atol=1e-300
    )


def test_exponentials_of_nothing():
    held = Exponentials(torch.eye(3))
    with Workers(CPU) as shared:
        assert held.fill(shared, torch.empty(0, 3)).shape == (0,)
        assert held.column_sums(shared, torch.empty(0, dtype=torch.float64), []).shape == (0, 3)


def test_a_tile_of_silent_labels_does_not_spoil_the_row():
    held = Exponentials(torch.eye(2))
    silent = torch.full((2,), -torch.inf)
    with Workers(CPU) as shared:
        assert held.fill(shared, torch.eye(2), silent).tolist() == [-np.inf, -np.inf]
