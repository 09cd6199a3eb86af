"""Where torch computes, in how many threads, and what to do when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.forks import torch_was_forked

if TYPE_CHECKING:
    import torch


def resolve_device(device: Any) -> torch.device:
    """Return the torch device that a parameter means; "auto" is the GPU if there is one.

    A CUDA device always has its index, so that "cuda" and "cuda:0" are the same. A name that torch
    does not know, and a device that this machine does not have, are ValueErrors.
    """
    # Here, not at the top: importing torch takes seconds, and cached results need none of it.
    import torch

    asked = device
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={asked!r} is not a torch device: use 'auto', 'cpu' or 'cuda'."
        ) from error

    if resolved.type != "cuda":
        return resolved

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ValueError(f"device={str(asked)!r}, but torch finds no GPU: use 'auto' or 'cpu'.")

    index = torch.cuda.current_device() if resolved.index is None else resolved.index
    if index >= count:
        raise ValueError(
            f"device={str(asked)!r}, but the last of the {count} CUDA devices here is "
            f"'cuda:{count - 1}': use that, or 'auto'."
        )

    return torch.device("cuda", index)


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Limit the threads in which torch computes, and restore them afterwards; None = no limit.

    In a forked process it is one thread always: torch would wait for those of the parent.
    """
    if torch_was_forked():
        n_threads = 1
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


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell an allocation failure, on any device, from other errors."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    # "out of memory" is CUDA's, "can't allocate memory" torch's own allocator's on the CPU.
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def retry_in_halves(encode: Callable[[Any], np.ndarray], batch: Any, what: str) -> list[np.ndarray]:
    """Encode a batch, in halves if memory runs out; several parts ask for smaller batches."""
    try:
        return [encode(batch)]
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise MemoryError(
                f"One {what} alone does not fit into the device's memory ({error}). Use "
                "device='cpu', a smaller model, or precision='fp16', or free memory with "
                "dnm_sklearn.embedding.release_models()."
            ) from error

    # Outside the handler: the error's traceback holds the tensors of the batch that failed.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

    middle = len(batch) // 2
    first = retry_in_halves(encode, batch[:middle], what)
    return first + retry_in_halves(encode, batch[middle:], what)
