"""Work in batches: threads that run ahead, a progress bar, and retreat when memory runs out."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "halving",
    "is_out_of_memory",
    "prefetch",
    "progress",
    "resolve_workers",
    "torch_threads",
]

In = TypeVar("In")
Out = TypeVar("Out")


def resolve_workers(num_workers: int | str) -> int:
    """Give the number of decoding threads.

    Parameters
    ----------
    num_workers : int or "auto"
        "auto" is the number of usable CPUs, at most 16; 0 decodes in the calling thread.

    Returns
    -------
    int
        Threads.
    """
    if not isinstance(num_workers, str):
        return int(num_workers)
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        usable = os.cpu_count() or 1
    return min(16, usable)


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Limit the threads in which torch computes, and give them back afterwards.

    Parameters
    ----------
    n_threads : int or None
        None changes nothing.

    Examples
    --------
    >>> from dnm_sklearn.embedding.stream import torch_threads
    >>> with torch_threads(1):
    ...     pass
    """
    if n_threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prefetch(
    function: Callable[[In], Out], items: Iterable[In], n_workers: int, ahead: int
) -> Generator[Out, None, None]:
    """Map a function over items in order, working ahead of the consumer in threads.

    Threads rather than processes: decoding and resizing release the interpreter's lock, and nothing
    can dead-lock on a fork made after other libraries started threads.

    Parameters
    ----------
    function : callable
        Called once an item.
    items : iterable
        Arguments.
    n_workers : int
        Threads; 0 calls in the consumer's thread.
    ahead : int
        Results held at most before the consumer takes them.

    Yields
    ------
    object
        ``function(item)``, in order.
    """
    if n_workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="dnm-decode")
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def progress(total: int, verbose: bool, what: str) -> Any:
    """Make a progress bar that shows only on a terminal and only when the work is long.

    Parameters
    ----------
    total : int
        Units of work.
    verbose : bool
        False for no bar at all.
    what : str
        Text beside the bar.

    Returns
    -------
    tqdm.tqdm
        The bar, to be used as a context manager.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=what, disable=None if verbose else True, delay=1.0, leave=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an allocation failure, on any device, from other errors.

    Parameters
    ----------
    error : BaseException
        What a model raised.

    Returns
    -------
    bool
        True for an allocation failure.
    """
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def halving(
    encode: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, what: str
) -> list[np.ndarray]:
    """Encode a batch; when memory runs out, encode its halves.

    Parameters
    ----------
    encode : callable
        Batch to rows.
    batch : ndarray
        Inputs, first axis is the batch.
    what : str
        "image" or "prompt", for the message.

    Returns
    -------
    list of ndarray
        Rows of the parts in order; more than one part tells the caller to use smaller batches.

    Raises
    ------
    MemoryError
        If a single input does not fit.
    """
    try:
        return [encode(batch)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise MemoryError(
                f"One {what} alone does not fit into the device's memory ({error}). Use "
                "device='cpu', a smaller model, or precision='fp16', or free memory with "
                "dnm_sklearn.embedding.release_models()."
            ) from error
    _empty_device_cache()
    middle = len(batch) // 2
    return [*halving(encode, batch[:middle], what), *halving(encode, batch[middle:], what)]


def _empty_device_cache() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
