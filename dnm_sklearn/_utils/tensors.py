"""Torch tensors as arrays, without importing torch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from dnm_sklearn._utils.device import torch_threads


def is_tensor(x: Any) -> bool:
    """Tell a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(X: Any) -> Any:
    """Give a torch tensor, of any device, dtype and gradient, as an array; all else as it is.

    Also each tensor of a list or tuple.

    Examples
    --------
    >>> import torch
    >>> from dnm_sklearn._utils.tensors import to_numpy
    >>> to_numpy(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    if isinstance(X, (list, tuple)):
        # Most lists hold none, and may be long: the first entry tells.
        return [to_numpy(x) for x in X] if len(X) and is_tensor(X[0]) else X
    if not is_tensor(X):
        return X
    torch = sys.modules["torch"]
    X = X.detach().cpu()
    # numpy has neither bfloat16 nor floats of eight bits. (In a forked process, in one thread.)
    if X.dtype.is_floating_point and X.dtype not in (torch.float16, torch.float32, torch.float64):
        with torch_threads(None):
            X = X.float()
    return X.numpy()


def as_floats(X: Any) -> np.ndarray:
    """Give numbers, a torch tensor's too, as an array of float64."""
    return np.asarray(to_numpy(X), dtype=float)
