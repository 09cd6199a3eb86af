"""What torch is told about the device: compiling for it, and arithmetic that is what its name says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dnm_sklearn._utils.warnings import warn

__all__ = ["compile_batches", "ieee_convolutions", "warn_of_emulation"]


def compile_batches(rows: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Compile a function of a batch, once for all lengths of the batch.

    Parameters
    ----------
    rows : callable
        From a tensor (b, ...) to a tensor (b, ...).

    Returns
    -------
    callable
        The same function. It compiles when it is first called, and raises RuntimeError where torch
        cannot.
    """
    import torch

    compiled = torch.compile(rows)

    def call(batch: Any) -> Any:
        n_rows = len(batch)
        if n_rows == 1:  # a length that the compiler would compile for again
            batch = torch.cat([batch, batch])
        torch._dynamo.maybe_mark_dynamic(batch, 0)
        try:
            return compiled(batch)[:n_rows]
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise RuntimeError(
                "compile=True: torch could not compile the image tower "
                f"({str(error).strip().partition(chr(10))[0]}). It needs a C++ compiler for a CPU "
                "and Triton for a GPU: install it, or use compile=False."
            ) from error

    return call


@contextmanager
def ieee_convolutions() -> Iterator[None]:
    """Keep cuDNN from TF32, which rounds float32 to eleven bits: rows of one precision are one row in every cache."""
    import torch

    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except (
        RuntimeError
    ):  # someone has chosen a precision by torch's newer interface, which forbids this one
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def warn_of_emulation(device: Any) -> None:
    """Warn if a CUDA device emulates bfloat16.

    Parameters
    ----------
    device : torch.device
        With an index or without.

    Warns
    -----
    UserWarning
        For cards older than NVIDIA's Ampere.
    """
    import torch

    if torch.version.hip is None and torch.cuda.get_device_capability(device)[0] < 8:
        warn(
            f"precision='bf16': {torch.cuda.get_device_name(device)} has no bfloat16 units and "
            "emulates them, slowly. Use precision='fp16' (or 'auto').",
        )
