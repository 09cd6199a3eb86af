"""Building an open_clip model from its name: tags, activations, preprocessing, and clear errors."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dnm_sklearn._utils.device import torch_threads
from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn._utils.forks import ForkSafeLock
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding.open_clip.hub import (
    SHIPPED,
    asking_hub,
    check_weights,
    damaged_weights,
    fetch_weights,
    is_unavailable,
    shown,
    tokenizer_unavailable,
    weights_unavailable,
)
from dnm_sklearn.embedding.open_clip.model import LoadedModel
from dnm_sklearn.exceptions import (
    FileContentError,
    RandomWeightsWarning,
    WeightsUnavailableError,
)

_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
_shipped_lock = ForkSafeLock()


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


@contextmanager
def _torch_defaults() -> Iterator[None]:
    """Build with torch's own defaults, float32 on the CPU, whatever else the process has set."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


def _tag_record(name: str, tag: str) -> dict[str, Any]:
    """Check a model's name and tag against open_clip's tables."""
    import open_clip

    if name not in open_clip.list_models():
        hint = did_you_mean(name, open_clip.list_models(), n=3)
        raise ValueError(
            f"open_clip has no model named {name!r}.{hint} open_clip.list_models() lists them all."
        )

    record = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if not tag or record or os.path.isfile(os.path.expanduser(tag)):
        return dict(record)
    if "/" in tag or tag.endswith((".pt", ".pth", ".bin", ".safetensors")):
        raise ValueError(
            f"The checkpoint {tag!r} of model={f'{name}/{tag}'!r} does not exist: check the path."
        )

    plain = name.removesuffix("-quickgelu")
    if plain != name and open_clip.get_pretrained_cfg(plain, tag):
        raise ValueError(
            f"The weights {tag!r} were trained with GELU, not the QuickGELU of {name!r}: use "
            f"{f'{plain}/{tag}'!r}."
        )

    tags = open_clip.list_pretrained_tags_by_model(name)
    near = difflib.get_close_matches(tag, tags, 3, 0.4) or tags[:5]
    raise ValueError(
        f"open_clip has no weights {tag!r} for {name!r}, and no file of that name exists; it has "
        f"{', '.join(map(repr, near)) or 'none'}. A tag may also be the path of a checkpoint, or "
        "empty for random weights."
    )


def _agreed_preprocessing(name: str) -> dict[str, Any]:
    """Give the preprocessing on which all published weights of a model agree."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    records = [
        {k: open_clip.get_pretrained_cfg(name, t).get(k) for k in _PREPROCESS_KEYS} for t in tags
    ]
    distinct = {json.dumps(record, sort_keys=True) for record in records}
    return records[0] if len(distinct) == 1 else {}


def _is_torchscript(path: str) -> bool:
    """Tell OpenAI's original archives, which are TorchScript and QuickGELU, from state dicts."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        # Below the archive's one top folder, where torch looks for it: an entry of that name
        # elsewhere makes no TorchScript, and must not let a pickle pass for one.
        entries = [entry.partition("/")[2] for entry in archive.namelist()]
        return "constants.pkl" in entries


def load_model(
    name: str, tag: str | None, device: str, precision: str, *, torchscript: bool = False
) -> LoadedModel:
    """Build a model from its parsed name, load its weights and put it on its device."""
    import open_clip
    import torch
    from safetensors import SafetensorError

    source, options, tokenizer_options = _recipe(name, tag, torchscript)
    is_reachable = check_weights(name, tag)
    with asking_hub(is_reachable):
        fetch_weights(name, tag)
        config = _config(source)
    config["quick_gelu"] = options.get("quick_gelu", config.get("quick_gelu", False))

    # Random weights ("name/") are the same in each process, and leave the user's generator alone.
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
    with (
        warnings.catch_warnings(),
        _quiet_root_logger(),
        torch.random.fork_rng(devices=[]),
        _torch_defaults(),
        asking_hub(is_reachable),
        torch_threads(None),
    ):
        # The activation is right: `_recipe` has taken it from the weights' record.
        warnings.filterwarnings("ignore", message=".*QuickGELU mismatch.*")
        torch.manual_seed(seed)
        try:
            model = open_clip.create_model(source, device="cpu", **options)
        except ImportError as error:
            raise _missing_package(name, tag, error) from error
        except pickle.UnpicklingError as error:
            raise FileContentError(
                f"The checkpoint of model={shown(name, tag)!r} holds something else than tensors, "
                "or is damaged; nothing of it was run. Use one that holds weights only, best as "
                f".safetensors. ({str(error).splitlines()[0][:200]})"
            ) from error
        except SafetensorError as error:
            raise damaged_weights(name, tag, error) from error
        except Exception as error:
            if is_unavailable(error, name, tag):
                # Without the hundred lines of those who tried to download it: the message has the
                # first one.
                raise weights_unavailable(name, tag, error) from None
            raise
        try:
            tokenizer = open_clip.get_tokenizer(source, **tokenizer_options)
        except ImportError as error:
            raise _missing_package(name, tag, error) from error
        except Exception as error:
            raise tokenizer_unavailable(name, tag, config, error) from None
        width = int(config["embed_dim"])
        return LoadedModel(model, tokenizer, width, device, precision, config)


def _missing_package(name: str, tag: str | None, error: ImportError) -> ImportError:
    return ImportError(
        f"model={shown(name, tag)!r} needs a package that is not installed ({error}): pip install "
        "transformers sentencepiece"
    )


def _recipe(
    name: str, tag: str | None, torchscript: bool = False
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Give open_clip's name of a model, and options for its model and its tokenizer."""
    if name in SHIPPED:
        return _shipped_recipe(name)
    if tag is None:
        if name.startswith("local-dir:"):
            name = f"local-dir:{Path(name.removeprefix('local-dir:')).expanduser()}"
        return name, {"require_pretrained": True}, {}

    record = _tag_record(name, tag)
    if record:
        quick_gelu = bool(record.get("quick_gelu", False))
        return name, {"pretrained": tag, "require_pretrained": True, "quick_gelu": quick_gelu}, {}

    # No published weights: a checkpoint of the user's, or random ones. Of a checkpoint only tensors
    # are read: anything else in a pickle could run code.
    options: dict[str, Any] = {"force_preprocess_cfg": _agreed_preprocessing(name)}
    options["weights_only"] = True
    if tag:
        path = os.path.expanduser(tag)
        options.update(pretrained=path, require_pretrained=True)
        if _is_torchscript(path):
            if not torchscript:
                raise FileContentError(
                    f"The checkpoint {tag!r} of model={shown(name, tag)!r} is a TorchScript "
                    "archive, which is a program and not only weights. If you trust its source, "
                    "load it with CLIPEmbedder(..., torchscript=True); else use the weights as "
                    ".safetensors."
                )
            # OpenAI's own archive; torch reads TorchScript only with weights_only=False.
            options.update(quick_gelu=True, weights_only=False)
    else:
        options["pretrained_text"] = False
        warn(
            f"model={f'{name}/'!r} has an empty tag: the weights are random, for tests and timing "
            "only.",
            RandomWeightsWarning,
        )
    return name, options, {}


def _shipped_recipe(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    import open_clip

    folder = SHIPPED[name]
    weights = folder / f"{name}.safetensors"
    if not weights.is_file():
        raise WeightsUnavailableError(
            f"The shipped model is not in this installation ({name}/{weights.name} is missing): "
            "install dnm_sklearn again."
        )
    with _shipped_lock:
        if name not in open_clip.list_models():
            open_clip.add_model_config(folder / f"{name}.json")
    options = {"pretrained": str(weights), "require_pretrained": True}
    return name, options, {"bpe_path": str(folder / "bpe_vocab.txt.gz")}


def _config(source: str) -> dict[str, Any]:
    import open_clip

    try:
        config = open_clip.get_model_config(source)
    except FileNotFoundError as error:
        if source.startswith("hf-hub:"):
            raise weights_unavailable(source, None, error) from None
        raise FileNotFoundError(
            f"model={source!r}: the folder must hold open_clip_config.json and the weights "
            f"({error})."
        ) from error
    return dict(config)
