"""Threads of our own for the parts of one computation, while numpy and torch use one thread each.

numpy (BLAS) and torch (OpenMP, MKL) each keep threads that spin for a while after their work, and
so slow each other down where they take turns. In the context of a :class:`Threads` both use one,
and the parts of the work go to threads of our own, as many as torch had.

Torch's limits belong to the calling thread. That of BLAS belongs to the process: of contexts that
overlap, in threads of the user's own, the first sets it and restores it. Who is still inside then
goes on, and products of numpy elsewhere meanwhile use one thread: slower, and never wrong. Our
threads end with the context and torch's are not used in it, so that a process which is forked later
waits for none of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from dnm_sklearn._utils.forks import ForkSafeLock

if TYPE_CHECKING:
    from typing_extensions import Self

Task = TypeVar("Task")
Result = TypeVar("Result")

# Held by the context that limits BLAS: two that restored what they found could leave it at one.
_BLAS_LOCK = ForkSafeLock()

# Multiplications of a product from which threads pay: threads cost about 1 ms, these about 5.
_WORTH_THREADS = 2**28


class Threads:
    """A context in which :meth:`map` computes in threads, where that pays.

    With ``used=False`` it changes nothing and computes in the calling thread: for work on a GPU.
    """

    def __init__(self, used: bool = True) -> None:
        self._used = used
        self.n_threads = 1

    def __enter__(self) -> Self:
        import torch

        self._stack = ExitStack()
        self._executor: Executor | None = None
        if self._used:
            self.n_threads = torch.get_num_threads()
            lock = _BLAS_LOCK.lock
            if lock.acquire(blocking=False):
                self._stack.callback(lock.release)
                self._stack.enter_context(_thread_pools("blas").limit(limits=1))
            self._stack.enter_context(_thread_pools("openmp").limit(limits=1))
            self._stack.callback(_set_mkl_threads, _set_mkl_threads(1))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def wanted(self, n_multiplications: int) -> int:
        """Return how many threads work of this size is worth."""
        return self.n_threads if n_multiplications >= _WORTH_THREADS else 1

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], n_multiplications: int
    ) -> list[Result]:
        """Return ``[function(task) for task in tasks]``; the work of all is `n_multiplications`."""
        if min(self.wanted(n_multiplications), len(tasks)) == 1:
            return [function(task) for task in tasks]

        if self._executor is None:
            self._executor = self._stack.enter_context(
                ThreadPoolExecutor(self.n_threads, "dnm_sklearn", _use_one_torch_thread)
            )
        return list(self._executor.map(function, tasks))


@cache
def _thread_pools(user_api: str) -> Any:
    """Return the threadpoolctl controller of numpy's BLAS, or of torch's OpenMP: a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api=user_api)


@cache
def _mkl_setter() -> Any:
    """Return the function that sets the threads of the MKL inside torch, where there is one.

    torch takes exponentials and logarithms of long arrays with MKL, which has a number of threads
    of its own. threadpoolctl does not see it, and ``torch.set_num_threads`` would also set it for
    threads of the user that have not used torch yet.
    """
    import torch

    library = ctypes.CDLL(torch._C.__file__)
    return getattr(library, "MKL_Set_Num_Threads_Local", None)


def _set_mkl_threads(n: int) -> int:
    """Set how many threads torch's MKL uses in the calling thread; return how many it used."""
    setter = _mkl_setter()
    return 0 if setter is None else setter(n)


def _use_one_torch_thread() -> None:
    """Let torch's operations in this thread, one of ours, use no others."""
    import torch

    # At its first use in a thread, torch sets the thread's limits to its own number: before ours.
    torch.get_num_threads()
    _thread_pools("openmp").limit(limits=1)
    _set_mkl_threads(1)
