"""Where torch computes, and in how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dnm_sklearn._utils.forks import torch_was_forked

if TYPE_CHECKING:
    import torch


def resolve_device(device: Any) -> torch.device:
    """Return the torch device that a parameter means; "auto" is the GPU if there is one.

    A CUDA device always has its index, so that "cuda" and "cuda:0" are the same. A name that torch
    does not know, and a device that this machine does not have, are ValueErrors.

    Examples
    --------
    >>> from dnm_sklearn._utils.device import resolve_device
    >>> resolve_device("cpu")
    device(type='cpu')
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
