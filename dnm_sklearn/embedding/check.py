"""What a user gave as ``embedder=``, to an encoder that belongs to the caller."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.base import clone

from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn.embedding.clip import CLIPEmbedder
from dnm_sklearn.embedding.protocol import Embedder

# How far from 1 the length of a unit row in float16 can be.
_UNIT_TOLERANCE = 0.01
# Rows whose length is looked at: an encoder normalises all rows or none.
_MOST_ROWS = 1000


def check_embedder(
    embedder: Any = None, memory: Any = None, cache_size: int | str | None = None
) -> Any:
    """Give the caller's own encoder: a clone, or a new one of a model name; no model is loaded.

    An encoder whose parameters ``memory`` or ``cache_size`` are None gets those given here.
    """
    if embedder is None:
        return CLIPEmbedder(memory=memory, cache_size=cache_size)
    if isinstance(embedder, str):
        return CLIPEmbedder(embedder, memory=memory, cache_size=cache_size)

    problem = _problem(embedder)
    if problem:
        raise TypeError(
            "embedder must be a CLIPEmbedder, a model name such as 'ViT-B-16-quickgelu/openai', an "
            f"EmbeddingTable, or an object with {', '.join(_members().values())} (see "
            f"dnm_sklearn.embedding.Embedder); got {problem}."
        )

    # safe=False: what is no estimator is copied.
    own = clone(embedder, safe=False)
    given = {"memory": memory, "cache_size": cache_size}
    parameters = own.get_params(deep=False) if hasattr(own, "get_params") else {}
    for name, value in given.items():
        if value is not None and parameters.get(name, value) is None:
            own.set_params(**{name: value})
    return own


def _problem(embedder: Any) -> str:
    """Say why an object is no encoder; "" of one that is."""
    if isinstance(embedder, type):
        return f"the class {embedder.__name__} (give an instance)"
    missing = [shown for name, shown in _members().items() if not _has(embedder, name)]
    return f"a {type(embedder).__name__}, which lacks {', '.join(missing)}" if missing else ""


def _members() -> dict[str, str]:
    """Members of `Embedder`: name -> as a message shows it, methods with their arguments."""
    shown = {}
    for name, member in vars(Embedder).items():
        if name.startswith("_"):
            continue
        shown[name] = name
        if not isinstance(member, property):
            arguments = list(inspect.signature(member).parameters)[1:]
            shown[name] = f"{name}({', '.join(arguments)})"
    return shown


def _has(embedder: Any, name: str) -> bool:
    """Tell whether an object has a member, without computing a property, which may load a model."""
    absent = object()
    if inspect.getattr_static(embedder, name, absent) is not absent:
        return True
    # An object that passes attributes on to another can only be asked.
    return hasattr(type(embedder), "__getattr__") and hasattr(embedder, name)


def checked_rows(embedder: Any, method: str, rows: Any, n_rows: int | None = None) -> np.ndarray:
    """Give what a method of an encoder returned, if it is what `Embedder` says: unit rows."""
    rows = np.asarray(to_numpy(rows))
    if rows.ndim != 2 or rows.dtype.kind != "f" or (n_rows is not None and len(rows) != n_rows):
        wanted = "n" if n_rows is None else n_rows
        raise ValueError(
            f"{type(embedder).__name__}.{method} gave {rows.dtype} of shape {rows.shape}; an "
            f"encoder gives float32 of shape ({wanted}, d) (see dnm_sklearn.embedding.Embedder)."
        )
    lengths = np.linalg.norm(rows[:_MOST_ROWS].astype(np.float64), axis=1)
    # NaN stands for an image that could not be read, and zeros for one that integers rounded away.
    wrong = (np.abs(lengths - 1) > _UNIT_TOLERANCE) & (lengths != 0)
    if wrong.any():
        raise ValueError(
            f"{type(embedder).__name__}.{method} gave a row of length {lengths[wrong][0]:.3g}; an "
            "encoder gives unit rows (see dnm_sklearn.embedding.Embedder): divide each by its "
            "length."
        )
    return rows
