"""open_clip models: names, loading, and one shared copy of each in a process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnm_sklearn.embedding.open_clip.model import LoadedModel

__all__ = [
    "get_model",
    "parse_model_name",
    "release_models",
]

SHIPPED = "glyphclip"
_SCHEMES = ("hf-hub:", "local-dir:")

_registry: dict[tuple[Any, ...], LoadedModel] = {}
_registry_lock = threading.Lock()
_loading_locks: dict[tuple[Any, ...], threading.Lock] = {}


def parse_model_name(model: str) -> tuple[str, str | None]:
    """Split ``"name/tag"``.

    Parameters
    ----------
    model : str
        ``"ViT-B-16-quickgelu/openai"`` (an open_clip name and pretrained tag, or a checkpoint's
        path in the tag's place), ``"ViT-B-16-quickgelu/"`` (random weights), ``"hf-hub:org/repo"``,
        ``"local-dir:/path"``, or ``"glyphclip"`` (the shipped model).

    Returns
    -------
    name : str
        The model's name, with its scheme if it has one.
    tag : str or None
        What is behind the first ``/``; None for the kinds that have no tag.

    Raises
    ------
    ValueError
        If there is neither a tag nor a scheme.

    Examples
    --------
    >>> from dnm_sklearn.embedding.open_clip.registry import parse_model_name
    >>> parse_model_name("ViT-B-16-quickgelu/openai"), parse_model_name("hf-hub:org/repo")
    (('ViT-B-16-quickgelu', 'openai'), ('hf-hub:org/repo', None))
    """
    if model == SHIPPED:
        return model, None
    for scheme in _SCHEMES:
        if model.startswith(scheme):
            if not model[len(scheme) :].strip():
                raise ValueError(
                    f"model={model!r} has nothing behind {scheme!r}: write {scheme}org/repo or a "
                    "folder."
                )
            return model, None
    name, slash, tag = model.partition("/")
    if not slash or not name:
        raise ValueError(
            f"model={model!r} is not of the form 'name/tag': write, for example, "
            f"'ViT-B-16-quickgelu/openai', "
            f"'ViT-B-16-quickgelu/' for random weights, 'ViT-B-16-quickgelu//path/to/checkpoint', "
            f"'hf-hub:org/repo', "
            f"'local-dir:/path' or {SHIPPED!r}."
        )
    return name, tag


def shown_model_name(model: str) -> str:
    """Name a model in files that others read: of weights on this machine the file's or folder's name, not its path.

    Parameters
    ----------
    model : str
        See `parse_model_name`; anything else is given back as it is.

    Returns
    -------
    str
        Weights of equal names are told apart by the fingerprint that stands beside the name.

    Examples
    --------
    >>> from dnm_sklearn.embedding.open_clip.registry import shown_model_name
    >>> shown_model_name("ViT-B-16//home/me/tuned.pt"), shown_model_name("ViT-B-16-quickgelu/openai")
    ('ViT-B-16/tuned.pt', 'ViT-B-16-quickgelu/openai')
    """
    if model.startswith("local-dir:"):
        return f"local-dir:{Path(model.removeprefix('local-dir:')).name}"
    if model.startswith(_SCHEMES):
        return model
    name, slash, tag = model.partition("/")
    return f"{name}/{Path(tag).name}" if slash else model


def release_models() -> int:
    """Forget all loaded models, so that their memory can be freed.

    Embedders load them again when they are used.

    Returns
    -------
    int
        How many were forgotten.

    Examples
    --------
    >>> from dnm_sklearn.embedding import release_models
    >>> forgotten = release_models()
    >>> release_models()
    0
    """
    import gc
    import sys

    with _registry_lock:
        count = len(_registry)
        _registry.clear()
        _loading_locks.clear()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return count


def get_model(model: str, device: str = "auto", precision: str = "auto") -> LoadedModel:
    """Give the process's one copy of a model, loading it at first use; thread-safe.

    Parameters
    ----------
    model : str
        See `parse_model_name`.
    device : str, default="auto"
        "auto" is CUDA where there is one, else the CPU.
    precision : {"auto", "fp32", "fp16", "bf16"}, default="auto"
        "auto" is float32 on the CPU and float16 autocast on CUDA.

    Returns
    -------
    LoadedModel
        The model with its preprocessing and tokenizer.

    Raises
    ------
    ValueError
        If the name, tag or device is unknown.
    WeightsUnavailableError
        If the weights are not here and cannot be downloaded.
    """
    name, tag = parse_model_name(model)
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    key = (name, tag, precision, device, weights_identity(name, tag))
    with _registry_lock:
        found = _registry.get(key)
        lock = _loading_locks.setdefault(key, threading.Lock())
    if found is not None:
        return found
    from dnm_sklearn.embedding.open_clip.build import load_model

    with lock:
        with _registry_lock:
            found = _registry.get(key)
        if found is None:
            found = load_model(name, tag, device, precision)
            with _registry_lock:
                _registry[key] = found
    return found


def resolve_device(device: str) -> str:
    """Turn a device parameter into the name of a device that exists.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps", ...

    Returns
    -------
    str
        The device, with its index on CUDA.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a torch device: use 'auto', 'cpu' or 'cuda'."
        ) from error
    if parsed.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = (
            parsed.index
            if parsed.index is not None
            else (torch.cuda.current_device() if count else 0)
        )
        if index >= count:
            raise ValueError(
                f"device={device!r} does not exist here ({count} CUDA devices): use device='auto'."
            )
        return f"cuda:{index}"
    return str(parsed)


def resolve_precision(precision: str, device: str) -> str:
    """Turn "auto" into the precision that a device is best at.

    Parameters
    ----------
    precision : {"auto", "fp32", "fp16", "bf16"}
        What was asked for.
    device : str
        A resolved device.

    Returns
    -------
    {"fp32", "fp16", "bf16"}
        float16 on CUDA (ten bits of mantissa against bfloat16's seven, at the same speed).
    """
    if precision != "auto":
        return precision
    return "fp16" if device.startswith("cuda") else "fp32"


def weights_identity(name: str, tag: str | None) -> tuple[Any, ...]:
    """Identify the local files that hold a model's weights, so that new weights are a new model.

    Parameters
    ----------
    name, tag : str
        As from `parse_model_name`.

    Returns
    -------
    tuple
        Path, size and modification time of each file; empty for tags, hub names and random weights.
    """
    if name == SHIPPED:
        files = sorted((Path(__file__).parents[1] / SHIPPED).glob("*"))
    elif name.startswith("local-dir:"):
        files = sorted(Path(name.removeprefix("local-dir:")).expanduser().glob("*"))
    else:
        files = [Path(tag).expanduser()] if tag else []
    found = [(path, path.stat()) for path in files if path.is_file()]
    return tuple((str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in found)
