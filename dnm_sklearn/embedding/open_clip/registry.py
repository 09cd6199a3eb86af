"""open_clip models: names, loading, and one shared copy of each in a process."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

from dnm_sklearn._utils.caching import forget_recent_results
from dnm_sklearn._utils.device import resolve_device
from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.forks import ForkSafeLock
from dnm_sklearn.embedding.open_clip.build import load_model
from dnm_sklearn.embedding.open_clip.hub import SHIPPED, SHIPPED_PROMPTS
from dnm_sklearn.embedding.open_clip.model import LoadedModel
from dnm_sklearn.embedding.open_clip.weights import file_digests, local_files

# What stands before names that have no tag.
_SCHEMES = ("hf-hub:", "local-dir:")

_registry: dict[tuple[Any, ...], LoadedModel] = {}
_registry_lock = ForkSafeLock()
_loading_locks: dict[tuple[Any, ...], ForkSafeLock] = {}


def parse_model_name(model: str) -> tuple[str, str | None]:
    """Split ``"name/tag"`` at its first ``/``; the tag is None for kinds of names without one."""
    if model in SHIPPED:
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
            "'ViT-B-16-quickgelu/openai', 'ViT-B-16-quickgelu/' for random weights, "
            "'ViT-B-16-quickgelu//path/to/checkpoint', 'hf-hub:org/repo', 'local-dir:/path', "
            f"{' or '.join(map(repr, SHIPPED))}.{did_you_mean(model, SHIPPED, cutoff=0.75)}"
        )
    return name, tag


def own_prompt(model: str | None) -> str | None:
    """Return the prompt that a model was trained with, None where that is not one."""
    return SHIPPED_PROMPTS.get(model or "")


def is_published(model: str) -> bool:
    """Whether a name stands for a shipped model, a published tag of open_clip, or random weights.

    Nothing that somebody put on this machine, or into a hub's repository, answers to such a name.
    """
    try:
        name, tag = parse_model_name(model)
    except ValueError:
        return False
    if tag is None:
        return name in SHIPPED

    import open_clip

    # Of a published tag open_clip takes its own weights, even where a file of that name lies here.
    is_model = name in open_clip.list_models()
    return is_model and (not tag or bool(open_clip.get_pretrained_cfg(name, tag)))


def shown_model_name(model: str) -> str:
    """Name a model in files that others read: no path of this machine, only its last part.

    Weights of equal names are told apart by the fingerprint that stands beside the name.
    """
    if model.startswith("local-dir:"):
        return f"local-dir:{Path(model.removeprefix('local-dir:')).name}"
    if model.startswith(_SCHEMES):
        return model
    name, slash, tag = model.partition("/")
    return f"{name}/{Path(tag).name}" if slash else model


def release_models() -> int:
    """Forget all loaded models, so that their memory can be freed.

    Also the corpus that the last fit with ``memory=`` embedded. Embedders load models again when
    they are used.

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
    with _registry_lock:
        count = len(_registry)
        _registry.clear()
        _loading_locks.clear()
    forget_recent_results()

    # Modules refer to each other in circles, which only the collector frees; torch then keeps the
    # memory for itself until it is told.
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return count


def get_model(
    model: str, device: str = "auto", precision: str = "auto", *, torchscript: bool = False
) -> LoadedModel:
    """Give the process's one copy of a model, loading it at first use; thread-safe."""
    name, tag = parse_model_name(model)
    device = str(resolve_device(device))
    precision = _resolve_precision(precision, device)
    # By the content of the weights, where they are files: new weights are a new model.
    weights = file_digests(local_files(name, tag))
    # What may be loaded is part of the key too: an embedder that forbids programs gets none that
    # another has loaded.
    key = (name, tag, precision, device, torchscript, *weights.items())
    with _registry_lock:
        found = _registry.get(key)
        lock = _loading_locks.setdefault(key, ForkSafeLock())
    if found is not None:
        return found

    # A lock for each model: two models load at the same time, one model once. Another thread may
    # have loaded it while this one waited.
    with lock:
        with _registry_lock:
            found = _registry.get(key)
        if found is None:
            found = load_model(name, tag, device, precision, torchscript=torchscript)
            with _registry_lock:
                _registry[key] = found
    return found


def _resolve_precision(precision: str, device: str) -> str:
    """Turn "auto" into the precision that a device is best at."""
    if precision != "auto":
        return precision
    # float16 has ten bits of mantissa against bfloat16's seven, at the same speed.
    return "fp16" if device.startswith("cuda") else "fp32"
