"""open_clip models: names, loading, and one shared copy of each in a process."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnm_sklearn.embedding.loaded import LoadedModel

__all__ = [
    "RandomWeightsWarning",
    "WeightsUnavailableError",
    "get_model",
    "parse_model_name",
    "release_models",
]

SHIPPED = "glyphclip"
_SCHEMES = ("hf-hub:", "local-dir:")
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")

_registry: dict[tuple[Any, ...], LoadedModel] = {}
_registry_lock = threading.Lock()
_loading_locks: dict[tuple[Any, ...], threading.Lock] = {}


class RandomWeightsWarning(UserWarning):
    """A model was asked for with an empty tag and has random weights."""


class WeightsUnavailableError(RuntimeError):
    """A model's weights are not on this machine and could not be downloaded."""


def parse_model_name(model: str) -> tuple[str, str | None]:
    """Split ``"name/tag"``.

    Parameters
    ----------
    model : str
        ``"ViT-B-16-quickgelu/openai"`` (an open_clip name and pretrained tag, or a checkpoint's path
        in the tag's place), ``"ViT-B-16-quickgelu/"`` (random weights), ``"hf-hub:org/repo"``,
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
    >>> from dnm_sklearn.embedding.models import parse_model_name
    >>> parse_model_name("ViT-B-16-quickgelu/openai"), parse_model_name("hf-hub:org/repo")
    (('ViT-B-16-quickgelu', 'openai'), ('hf-hub:org/repo', None))
    """
    if model == SHIPPED:
        return model, None
    for scheme in _SCHEMES:
        if model.startswith(scheme):
            if not model[len(scheme) :].strip():
                raise ValueError(f"model={model!r} has nothing behind {scheme!r}: write {scheme}org/repo or a folder.")
            return model, None
    name, slash, tag = model.partition("/")
    if not slash or not name:
        raise ValueError(
            f"model={model!r} is not of the form 'name/tag': write, for example, 'ViT-B-16-quickgelu/openai', "
            f"'ViT-B-16-quickgelu/' for random weights, 'ViT-B-16-quickgelu//path/to/checkpoint', 'hf-hub:org/repo', "
            f"'local-dir:/path' or {SHIPPED!r}."
        )
    return name, tag


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
    key = (name, tag, precision, device, _identity(name, tag))
    with _registry_lock:
        found = _registry.get(key)
        lock = _loading_locks.setdefault(key, threading.Lock())
    if found is not None:
        return found
    with lock:
        with _registry_lock:
            found = _registry.get(key)
        if found is None:
            found = _load(name, tag, device, precision)
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
        raise ValueError(f"device={device!r} is not a torch device: use 'auto', 'cpu' or 'cuda'.") from error
    if parsed.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = parsed.index if parsed.index is not None else (torch.cuda.current_device() if count else 0)
        if index >= count:
            raise ValueError(f"device={device!r} does not exist here ({count} CUDA devices): use device='auto'.")
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


def weights_file(name: str, tag: str | None) -> Path | None:
    """Give the local file that holds a model's weights, where the name says it.

    Parameters
    ----------
    name, tag : str
        As from `parse_model_name`.

    Returns
    -------
    pathlib.Path or None
        The file, or None for tags, hub names and random weights.
    """
    if name == SHIPPED:
        return next(iter(sorted(shipped_folder().glob("*.safetensors"))), None)
    if name.startswith("local-dir:"):
        from open_clip.factory import _find_checkpoint_in_dir

        folder = Path(name.removeprefix("local-dir:")).expanduser()
        with _quiet_root_logger():
            found = _find_checkpoint_in_dir(folder) if folder.is_dir() else None
        return Path(found) if found else None
    if tag and os.path.isfile(os.path.expanduser(tag)):
        return Path(tag).expanduser()
    return None


def shipped_folder() -> Path:
    """Give the folder of the shipped model.

    Returns
    -------
    pathlib.Path
        It holds the configuration, the weights and the vocabulary.
    """
    return Path(__file__).parent / SHIPPED


def _identity(name: str, tag: str | None) -> tuple[Any, ...]:
    path = weights_file(name, tag)
    if path is None:
        return ()
    stat = path.stat()
    return (str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip's calls of ``logging.warning`` from configuring the root logger."""
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _tag_record(name: str, tag: str) -> dict[str, Any]:
    """Check a model's name and tag against open_clip's tables."""
    import open_clip

    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), 3, 0.5)
        raise ValueError(
            f"open_clip has no model named {name!r}{'; did you mean ' + ' or '.join(map(repr, near)) if near else ''}? "
            "open_clip.list_models() lists them all."
        )
    record = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if not tag or record or os.path.isfile(os.path.expanduser(tag)):
        return dict(record)
    if "/" in tag or tag.endswith((".pt", ".pth", ".bin", ".safetensors")):
        raise ValueError(f"The checkpoint {tag!r} of model={f'{name}/{tag}'!r} does not exist: check the path.")
    plain = name.removesuffix("-quickgelu")
    if plain != name and open_clip.get_pretrained_cfg(plain, tag):
        raise ValueError(
            f"The weights {tag!r} were trained with GELU, not the QuickGELU of {name!r}: use {f'{plain}/{tag}'!r}."
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    near = difflib.get_close_matches(tag, tags, 3, 0.4) or tags[:5]
    raise ValueError(
        f"open_clip has no weights {tag!r} for {name!r}, and no file of that name exists; it has "
        f"{', '.join(map(repr, near)) or 'none'}. A tag may also be the path of a checkpoint, or empty for random "
        "weights."
    )


def _agreed_preprocessing(name: str) -> dict[str, Any]:
    """Give the preprocessing on which all published weights of a model agree."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    records = [{k: open_clip.get_pretrained_cfg(name, t).get(k) for k in _PREPROCESS_KEYS} for t in tags]
    distinct = {json.dumps(record, sort_keys=True) for record in records}
    return records[0] if len(distinct) == 1 else {}


def _is_torchscript(path: str) -> bool:
    """Tell OpenAI's original archives, which are TorchScript and QuickGELU, from state dicts."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.endswith("/constants.pkl") for entry in archive.namelist())


def _load(name: str, tag: str | None, device: str, precision: str) -> LoadedModel:
    import open_clip
    import torch

    from dnm_sklearn.embedding.loaded import LoadedModel

    options: dict[str, Any] = {}
    tokenizer_options: dict[str, Any] = {}
    source = name
    record: dict[str, Any] = {}
    if name == SHIPPED:
        source = f"local-dir:{shipped_folder()}"
        tokenizer_options = {"bpe_path": str(next(shipped_folder().glob("*bpe*")))}
    elif name.startswith("local-dir:"):
        source = f"local-dir:{Path(name.removeprefix('local-dir:')).expanduser()}"
    if tag is None:
        options["require_pretrained"] = True
    else:
        record = _tag_record(name, tag)
        if tag:
            path = os.path.expanduser(tag)
            options.update(pretrained=tag if record else path, require_pretrained=True)
            if not record and _is_torchscript(path):
                options.update(force_quick_gelu=True, weights_only=False)
        else:
            options["pretrained_text"] = False
            warnings.warn(
                f"model={f'{name}/'!r} has an empty tag: the weights are random, for tests and timing only.",
                RandomWeightsWarning,
                stacklevel=4,
            )
        if not record:
            options["force_preprocess_cfg"] = _agreed_preprocessing(name)
    config = _config(source)
    quick_gelu = bool(config.get("quick_gelu", False))
    if record:
        quick_gelu = bool(record.get("quick_gelu", False))
        options["quick_gelu"] = quick_gelu
    if options.get("force_quick_gelu"):
        quick_gelu = True
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
    with warnings.catch_warnings(), _quiet_root_logger(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message=".*QuickGELU mismatch.*")
        torch.manual_seed(seed)
        try:
            model = open_clip.create_model(source, device="cpu", **options)
            tokenizer = open_clip.get_tokenizer(source, **tokenizer_options)
        except ImportError as error:
            raise ImportError(
                f"model={_shown(name, tag)!r} needs a package that is not installed ({error}): pip install "
                "transformers sentencepiece"
            ) from error
        except Exception as error:
            if _is_unavailable(error, name, tag):
                raise WeightsUnavailableError(_unavailable_message(name, tag, record, error)) from error
            raise
    description = {"config": config, "quick_gelu": quick_gelu}
    return LoadedModel(model, tokenizer, int(config["embed_dim"]), device, precision, description)


def _config(source: str) -> dict[str, Any]:
    import open_clip

    try:
        config = open_clip.get_model_config(source)
    except FileNotFoundError as error:
        if source.startswith("hf-hub:"):
            raise WeightsUnavailableError(_unavailable_message(source, None, {}, error)) from error
        raise FileNotFoundError(
            f"model={source!r}: the folder must hold open_clip_config.json and the weights ({error})."
        ) from error
    return dict(config)


def _shown(name: str, tag: str | None) -> str:
    return name if tag is None else f"{name}/{tag}"


def _is_unavailable(error: Exception, name: str, tag: str | None) -> bool:
    if tag is not None and os.path.isfile(os.path.expanduser(tag)):
        return False
    if name == SHIPPED or name.startswith("local-dir:"):
        return False
    text = str(error).lower()
    return isinstance(error, OSError) or any(
        part in text for part in ("failed to download", "failed initial config", "could not be loaded", "offline")
    )


def _unavailable_message(name: str, tag: str | None, record: dict[str, Any], error: Exception) -> str:
    repository = name.removeprefix("hf-hub:") if tag is None else str(record.get("hf_hub") or "").strip("/")
    if repository.count("/") > 1:
        repository = "/".join(repository.split("/")[:2])
    create = f"open_clip.create_model({name!r}{'' if tag is None else f', {tag!r}'})"
    fetch = f"'hf download {repository}' or " if repository else ""
    first = str(error).strip().splitlines()
    return (
        f"The weights of model={_shown(name, tag)!r} are not on this machine and could not be downloaded "
        f"({first[0][:200] if first else type(error).__name__}). On a machine with a connection run {fetch}"
        f'python -c "import open_clip; {create}", and copy its Hugging Face cache (~/.cache/huggingface, or where '
        "HF_HOME points) here. Or point at files you have: a checkpoint as the tag, "
        f"CLIPEmbedder({f'{name}//path/to/checkpoint.safetensors' if tag is not None else 'ViT-B-16-quickgelu//path'!r}"
        "), or a folder with open_clip_config.json and weights, CLIPEmbedder('local-dir:/path/to/folder'). Nothing "
        f"needs to be downloaded for the small shipped model: CLIPEmbedder({SHIPPED!r})."
    )
