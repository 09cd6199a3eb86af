"""What is known of a model without loading it: small records beside the cached rows.

A cache hit needs the model's fingerprint. Computing it takes the loaded weights; a record of it,
valid while the weights' files are unchanged, lets a hit do without torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dnm_sklearn.embedding.open_clip.registry import parse_model_name, weights_identity

__all__ = ["ModelFacts", "StaleRecordError", "forget", "recall", "remember"]

FOLDER_NAME = "model_records"


class StaleRecordError(RuntimeError):
    """A record disagrees with the loaded model; it was removed, and the work can be done again."""


@dataclass(frozen=True)
class ModelFacts:
    """What embedders say of a model.

    Parameters
    ----------
    fingerprint : str
        blake2b of the weights, preprocessing, tokenizer and precision.
    width : int
        Width of the embeddings.
    logit_scale : float
        Exponentiated.
    logit_bias : float or None
        None where the model has none.
    context_length : int
        Tokens a prompt may have.
    """

    fingerprint: str
    width: int
    logit_scale: float
    logit_bias: float | None
    context_length: int


def recall(folder: Path, setting: Sequence[str]) -> ModelFacts | None:
    """Look a model up.

    Parameters
    ----------
    folder : pathlib.Path
        The cache folder.
    setting : sequence of str
        The parameters ``model``, ``device`` and ``precision``.

    Returns
    -------
    ModelFacts or None
        None if there is no record, or it is damaged, or a file of the weights has changed.
    """
    try:
        record = json.loads(_path(folder, setting).read_text(encoding="utf-8"))
        if not record["files"] or record["files"] != _stat(file[0] for file in record["files"]):
            return None
        local = _local_files(setting[0])
        return ModelFacts(**record["facts"]) if local in ([], record["files"]) else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def remember(folder: Path, setting: Sequence[str], facts: ModelFacts) -> None:
    """Write a record, if the model's weights are files; failing to write is no error.

    Parameters
    ----------
    folder : pathlib.Path
        The cache folder.
    setting : sequence of str
        As for `recall`.
    facts : ModelFacts
        What the loaded model says.
    """
    files = _local_files(setting[0]) or _hub_files(setting[0])
    if not files:
        return
    path = _path(folder, setting)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"files": files, "facts": asdict(facts)}, file)
        os.replace(name, path)


def forget(folder: Path, setting: Sequence[str]) -> None:
    """Remove a record.

    Parameters
    ----------
    folder : pathlib.Path
        The cache folder.
    setting : sequence of str
        As for `recall`.
    """
    _path(folder, setting).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    return tuple(metadata.version(name) for name in ("open_clip_torch", "torch"))


def _path(folder: Path, setting: Sequence[str]) -> Path:
    # "auto" means another thing where there is a GPU; looking for one must not import torch.
    gpu = [os.path.exists("/dev/nvidiactl"), os.environ.get("CUDA_VISIBLE_DEVICES")]
    key = json.dumps([1, list(setting), _versions(), gpu])
    return (
        folder / FOLDER_NAME / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"
    )


def _stat(paths: Any) -> list[list[Any]]:
    return [[str(path), (stat := os.stat(path)).st_size, stat.st_mtime_ns] for path in paths]


def _local_files(model: str) -> list[list[Any]]:
    return [list(file) for file in weights_identity(*parse_model_name(model))]


def _hub_files(model: str) -> list[list[Any]]:
    """Weights of a tag or a hub repository in the Hugging Face cache; nothing is downloaded."""
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    name, tag = parse_model_name(model)
    if name.startswith("hf-hub:"):
        repository, names = name.removeprefix("hf-hub:"), ["open_clip_config.json"]
    else:
        record = open_clip.get_pretrained_cfg(name, tag) if tag else {}
        parts = str(record.get("hf_hub") or "").split("/")
        if len(parts) < 2:
            return []
        repository, names = "/".join(parts[:2]), [part for part in parts[2:] if part]
    weights = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    found = [try_to_load_from_cache(repository, file) for file in [*names, *weights]]
    paths = [path for path in found if isinstance(path, str)]
    return _stat(paths) if any(Path(path).name != "open_clip_config.json" for path in paths) else []
