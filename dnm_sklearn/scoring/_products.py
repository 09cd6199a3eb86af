"""Matrix products on the device that holds them, and work shared out among the cores of a CPU.

On a CPU the product is numpy's: OpenBLAS is up to 1.7 times as fast as the MKL inside torch on
AMD's processors, and as fast on others. But its threads spin for a while after each product, and
those of torch before and after each operation: two libraries that share the cores call by call wait
for each other. Here both use one thread, and tiles of the work go to threads of our own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Task = TypeVar("Task")

# Multiplications (or as much other work) below which threads cost more than they save.
_LEAST_SHARED = 2**22

_LOCAL = threading.local()
_BLAS_LOCK = threading.Lock()


def multiply(rows: torch.Tensor, columns: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Write ``rows @ columns`` into `out` and return it; all are on one device and need no gradient."""
    import torch

    if out.device.type == "cpu":
        np.matmul(rows.numpy(), columns.numpy(), out=out.numpy())
        return out
    return torch.mm(rows, columns, out=out)


def scratch(n_numbers: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return memory for `n_numbers`, good until the same thread asks again.

    Fresh pages can cost as much as the work that is done in them.
    """
    import torch

    if device.type != "cpu":
        return torch.empty(n_numbers, dtype=dtype, device=device)
    n_bytes = n_numbers * dtype.itemsize
    held = getattr(_LOCAL, "memory", None)
    if held is None or len(held) < n_bytes:
        held = _LOCAL.memory = torch.empty(n_bytes, dtype=torch.uint8)
    return held[:n_bytes].view(dtype)


class Workers:
    """As many threads as torch has at present, for the work of one call; a GPU needs none.

    Inside its context numpy's BLAS, and torch in the calling thread, use one thread on a CPU.

    Parameters
    ----------
    device : torch.device
        Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self.n = torch.get_num_threads() if device.type == "cpu" else 1
        self._on_cpu = device.type == "cpu"

    def __enter__(self) -> Workers:
        if self._on_cpu:
            # numpy's threads are a setting of the process: one caller at a time changes it, and
            # changes it back.
            self._limits_blas = _BLAS_LOCK.acquire(blocking=False)
            if self._limits_blas:
                self._blas_limit = _controller("blas").limit(limits=1).__enter__()
            self._torch_limit = _controller("openmp").limit(limits=1).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._on_cpu:
            self._torch_limit.__exit__(*error)
            if self._limits_blas:
                self._blas_limit.__exit__(*error)
                _BLAS_LOCK.release()

    def wanted(self, n_multiplications: int) -> int:
        """Return how many threads work of this size is worth."""
        return self.n if n_multiplications >= _LEAST_SHARED else 1

    def share(
        self, work: Callable[[Iterator[Task]], Any], tasks: Sequence[Task], n_multiplications: int
    ) -> None:
        """Call `work` in several threads, each with an iterator over the tasks that no other has taken.

        Parameters
        ----------
        work : callable
            Takes its tasks one by one, and writes where no other task writes.
        tasks : sequence
        n_multiplications : int
            Size of all tasks together; small work is done in this thread.

        Raises
        ------
        Exception
            What `work` raised first.
        """
        n_threads = min(self.wanted(n_multiplications), len(tasks))
        if n_threads <= 1:
            work(iter(tasks))
            return
        pool, left = _pool(n_threads), _Shared(tasks)
        parts = [pool.submit(work, left) for _ in range(n_threads)]
        wait(parts)
        for part in parts:
            part.result()


class _Shared(Iterator[Any]):
    """An iterator that several threads may take from."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __next__(self) -> Any:
        with self._lock:
            return next(self._items)


@cache
def _controller(user_api: str) -> Any:
    """The thread pools of numpy's BLAS or of torch, which are loaded by the time of the first product.

    A limit restores all pools of its controller, so each has its own.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api=user_api)


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, "dnm_sklearn", initializer=_use_one_thread)


def _use_one_thread() -> None:
    """Let torch's operations in this thread use no others."""
    import torch

    torch.get_num_threads()  # takes over the global number, once: what follows is not overwritten
    _controller("openmp").limit(limits=1)


def _forget_threads() -> None:
    """Start anew in a forked process: threads do not survive a fork, and the lock may have been held."""
    global _BLAS_LOCK
    _BLAS_LOCK = threading.Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
