"""Where torch computes, and in how many threads; torch is imported at first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["resolve_device", "torch_threads"]


def resolve_device(device: Any = "auto") -> torch.device:
    """Return the torch device meant, with its index on CUDA; "auto" is CUDA if there is any."""
    import torch

    has_cuda = torch.cuda.is_available()
    if isinstance(device, str) and device == "auto":
        device = "cuda" if has_cuda else "cpu"

    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not a torch device: use 'auto', 'cpu' or 'cuda'."
        ) from error
    if resolved.type != "cuda":
        return resolved

    # "cuda" and "cuda:0" are one device and must be one key wherever a device is part of a key.
    n_devices = torch.cuda.device_count() if has_cuda else 0
    index = resolved.index
    if index is None:
        index = torch.cuda.current_device() if n_devices else 0
    if index >= n_devices:
        raise ValueError(
            f"device={str(device)!r} does not exist here ({n_devices} CUDA devices were found): "
            "use device='auto' or 'cpu'."
        )
    return torch.device("cuda", index)


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Limit the threads in which torch computes, and restore them afterwards; None = no limit."""
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
