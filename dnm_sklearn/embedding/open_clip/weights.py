"""The files that a model is read from, told apart by content, and what is known of the model.

A hit of the cache needs the model's fingerprint, and computing that takes the loaded weights. Facts
in the cache, good for as long as the files of weights and tokenizer hold the same, let a hit do
without torch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from dnm_sklearn._utils.digest import (
    SETTLED_NS,
    digest_files,
    file_identity,
    last_change_ns,
    times_tell,
)
from dnm_sklearn.embedding.cache import EmbeddingCache
from dnm_sklearn.embedding.open_clip.hub import SHIPPED, hub_files

# To be raised when the fields of ModelFacts change, or what a fingerprint covers.
_FACTS_FORMAT = 3

# Name, tag, device and precision of a model.
Setting = tuple[str, str | None, str, str]

# Digests of files that this process has read, by their identity.
_known_digests: dict[bytes, bytes] = {}


@dataclass(frozen=True)
class ModelFacts:
    """What embedders say of a model."""

    fingerprint: str  # of weights, preprocessing, tokenizer and precision
    width: int
    logit_scale: float  # exponentiated
    logit_bias: float | None
    context_length: int


def local_files(name: str, tag: str | None) -> list[Path]:
    """Files of this machine that a model's name points at; none for tags, hub names and ""."""
    if name in SHIPPED:
        files = sorted(SHIPPED[name].glob("*"))
    elif name.startswith("local-dir:"):
        files = sorted(Path(name.removeprefix("local-dir:")).expanduser().glob("*"))
    else:
        files = [Path(tag).expanduser()] if tag else []
    return [path.resolve() for path in files if path.is_file()]


def file_digests(paths: Sequence[Path], cache: EmbeddingCache | None = None) -> dict[str, str]:
    """Digests of files by path; files that cannot be read are left out."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue

        identity = file_identity(status)
        digest = _known_digests.get(identity)
        if digest is None:
            # The age when it is read, not after: a change meanwhile must not look old.
            age = time.time_ns() - last_change_ns(status)
            digest = cache.digest_files([path])[0] if cache else digest_files([path])[0].digest
            if digest is not None and age >= SETTLED_NS and times_tell([path], [status])[0]:
                _known_digests[identity] = digest
        if digest is not None:
            found[str(path)] = digest.hex()
    return found


def load_facts(cache: EmbeddingCache, setting: Setting) -> ModelFacts | None:
    """Give what the cache knows of a model; None if its files are not those of that time."""
    saved = cache.load_facts(_key(setting))
    if saved is None:
        return None

    # A folder may have got another file since.
    files = saved["files"]
    if not files.keys() >= {str(path) for path in local_files(*setting[:2])}:
        return None
    if file_digests([Path(path) for path in files], cache) != files:
        return None
    return ModelFacts(**saved["facts"])


def save_facts(
    cache: EmbeddingCache,
    setting: Setting,
    facts: ModelFacts | None,
    tokenizer_files: Sequence[Path] = (),
) -> None:
    """Keep facts of a model whose weights are files; None: forget those that are kept."""
    if facts is None:
        cache.save_facts(_key(setting), None)
        return

    weights = local_files(*setting[:2]) or hub_files(*setting[:2])
    if weights:
        files = file_digests([*weights, *tokenizer_files], cache)
        cache.save_facts(_key(setting), {"files": files, "facts": asdict(facts)})


def _key(setting: Setting) -> str:
    # "auto" means another thing where there is a GPU; looking for one must not import torch.
    gpu = [os.path.exists("/dev/nvidiactl"), os.environ.get("CUDA_VISIBLE_DEVICES")]
    return json.dumps([_FACTS_FORMAT, *setting, _versions(), gpu])


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    return tuple(metadata.version(name) for name in ("open_clip_torch", "torch"))
