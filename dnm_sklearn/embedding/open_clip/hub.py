"""Where a model's files come from: this package, this machine, or a download; and if none works."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dnm_sklearn.exceptions import (
    FileContentError,
    TokenizerUnavailableError,
    WeightsUnavailableError,
)

# The small model in this package, which needs no download: its folder, by its name. It holds
# NAME.json, NAME.safetensors and the vocabulary of its tokenizer.
SHIPPED = {name: Path(__file__).parents[1] / name for name in ("pictoclip",)}
# The prompt that each of them was trained with.
SHIPPED_PROMPTS = {"pictoclip": "{}"}

CONFIG_NAME = "open_clip_config.json"
_WEIGHTS_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

# How long to wait for the first answer of a server. Downloads themselves are tried many times by
# those who make them, for up to a minute.
_SECONDS = 5


# What a Hugging Face tokenizer is read from, beside the vocabulary that its class names.
_TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def shown(name: str, tag: str | None) -> str:
    """Name a model as the user wrote it."""
    return name if tag is None else f"{name}/{tag}"


def _record(name: str, tag: str | None) -> dict[str, Any]:
    """What open_clip's tables say of a tag; empty for checkpoints and other names."""
    import open_clip

    return dict(open_clip.get_pretrained_cfg(name, tag) or {}) if tag else {}


def _in_hub(name: str, tag: str | None) -> tuple[str, list[str]]:
    """Repository of a model, "" if it has none, and the names that its weights may have."""
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:"), [*_WEIGHTS_NAMES]

    # A record may name a file below the repository: org/repo/file.
    parts = str(_record(name, tag).get("hf_hub") or "").split("/")
    if len(parts) < 2:
        return "", []
    return "/".join(parts[:2]), [part for part in parts[2:] if part] or [*_WEIGHTS_NAMES]


def hub_files(name: str, tag: str | None) -> list[Path]:
    """Weights of a tag or a hub repository in the Hugging Face cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    repository, names = _in_hub(name, tag)
    if not repository:
        return []
    wanted = [CONFIG_NAME, *names] if name.startswith("hf-hub:") else [*names, *_WEIGHTS_NAMES]
    found = [try_to_load_from_cache(repository, file) for file in dict.fromkeys(wanted)]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths if any(path.name != CONFIG_NAME for path in paths) else []


def tokenizer_files(tokenizer: Any) -> list[Path]:
    """Files of a Hugging Face tokenizer, in its folder or in the Hugging Face cache."""
    from huggingface_hub import try_to_load_from_cache

    source = str(tokenizer.name_or_path)
    names = sorted({*tokenizer.vocab_files_names.values(), *_TOKENIZER_NAMES})
    if Path(source).is_dir():
        return [path for path in (Path(source, name) for name in names) if path.is_file()]
    found = [try_to_load_from_cache(source, name) for name in names]
    return [Path(path) for path in found if isinstance(path, str)]


def check_weights(name: str, tag: str | None) -> bool:
    """Raise if a model must be downloaded and cannot be; else say whether to ask the hub."""
    from huggingface_hub import constants

    repository, _ = _in_hub(name, tag)
    url = constants.ENDPOINT if repository else str(_record(name, tag).get("url") or "")
    if not url or constants.HF_HUB_OFFLINE:
        return True

    # open_clip keeps what it downloads from other places by the name of the file.
    kept = Path("~/.cache/clip", url.rsplit("/", 1)[-1]).expanduser()
    if not repository and kept.is_file():
        return True

    problem = _why_unreachable(url)
    if problem is None:
        return True
    if hub_files(name, tag):
        return False
    raise weights_unavailable(name, tag, problem)


def fetch_weights(name: str, tag: str | None) -> None:
    """Download what a hub repository has of a model; raise if that fails.

    open_clip does it too, but tries one file name after the other, each for up to a minute, and
    tells the last error only: that the last name does not exist, though the disk was full.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, names = _in_hub(name, tag)
    if not repository or constants.HF_HUB_OFFLINE or hub_files(name, tag):
        return

    try:
        if name.startswith("hf-hub:"):
            hf_hub_download(repository, CONFIG_NAME)
        for file in names:
            try:
                hf_hub_download(repository, file)
                return
            except EntryNotFoundError:
                continue
    except Exception as error:
        if getattr(error, "errno", None) in _FULL_DISK:
            raise WeightsUnavailableError(
                f"There is no room for the weights of model={shown(name, tag)!r} in "
                f"{constants.HF_HUB_CACHE} ({_first_line(error)}): free some, or let HF_HOME point "
                "to a folder on another disk."
            ) from error
        raise weights_unavailable(name, tag, error) from None


def _why_unreachable(url: str) -> Exception | None:
    """Ask a server once; None if it answers, whatever it says."""
    from huggingface_hub import get_session

    try:
        # With the proxies and certificates that downloads have.
        get_session().head(url, timeout=_SECONDS)
    # Which errors there are depends on the library that asks.
    except Exception as error:
        return error
    return None


@contextmanager
def asking_hub(is_reachable: bool) -> Iterator[None]:
    """Let the Hugging Face libraries ask nobody for news where nobody answers."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_unavailable(error: Exception, name: str, tag: str | None) -> bool:
    """Whether a model could not be built because its weights could not be downloaded."""
    if tag is not None and os.path.isfile(os.path.expanduser(tag)):
        return False
    if name in SHIPPED or name.startswith("local-dir:"):
        return False

    # open_clip and huggingface_hub raise many types; these words are common to a failed download.
    text = str(error).lower()
    return isinstance(error, OSError) or any(
        part in text
        for part in (
            "failed to download",
            "failed initial config",
            "could not be loaded",
            "offline",
        )
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def weights_unavailable(name: str, tag: str | None, error: Exception) -> WeightsUnavailableError:
    """Say which file is missing, by what command it comes, and where it belongs."""
    repository, files = _in_hub(name, tag)
    if tag is None:
        local, create = "NAME//path/to/checkpoint.safetensors", f"open_clip.create_model({name!r})"
    else:
        local = f"{name}//path/to/checkpoint.safetensors"
        create = f"open_clip.create_model({name!r}, {tag!r})"

    fetch = f"hf download {repository}" if repository else f'python -c "import open_clip; {create}"'
    file = f"{files[0]} of {repository}" if repository else _record(name, tag).get("url", "a file")
    shipped = " or ".join(f"CLIPEmbedder({shipped!r})" for shipped in SHIPPED)
    return WeightsUnavailableError(
        f"The weights of model={shown(name, tag)!r} ({file}) are not on this machine and could not "
        f"be downloaded ({_first_line(error)}). On a machine with a connection run\n    {fetch}\n"
        "and copy its Hugging Face cache (~/.cache/huggingface, or where HF_HOME points; "
        "~/.cache/clip for files from elsewhere) to the same place on this one. Or point at files "
        f"you have: a checkpoint in the tag's place, CLIPEmbedder({local!r}), or a folder with "
        "open_clip_config.json and the weights, CLIPEmbedder('local-dir:/path/to/folder'). Without "
        f"any download there is the small shipped model: {shipped}."
    )


def damaged_weights(name: str, tag: str | None, error: Exception) -> FileContentError:
    """Say which file of weights cannot be read, and how to get it again."""
    cached = [str(path) for path in hub_files(name, tag) if path.name != CONFIG_NAME]
    if cached:
        where, fix = ", ".join(cached), "delete it, and the next use downloads it again"
    elif name in SHIPPED:
        where, fix = str(SHIPPED[name]), "install dnm_sklearn again"
    else:
        where, fix = tag or name.removeprefix("local-dir:"), "get it again from where it came"
    return FileContentError(
        f"The weights of model={shown(name, tag)!r} are damaged or no safetensors file ({where}: "
        f"{_first_line(error)}): {fix}."
    )


def tokenizer_unavailable(
    name: str, tag: str | None, config: dict[str, Any], error: Exception
) -> TokenizerUnavailableError:
    """Say which tokenizer is missing though the weights are there."""
    source = str((config.get("text_cfg") or {}).get("hf_tokenizer_name") or "")
    if name.startswith("local-dir:"):
        fix = "put its files (tokenizer_config.json and those beside it) into that folder"
    elif source:
        fix = (
            f"on a machine with a connection run\n    hf download {source}\nand copy its Hugging "
            "Face cache (~/.cache/huggingface, or where HF_HOME points) to this one"
        )
    else:
        fix = "load the model once on a machine with a connection, and copy ~/.cache to this one"
    return TokenizerUnavailableError(
        f"The weights of model={shown(name, tag)!r} are here, but its tokenizer{source and ' '}"
        f"{source} could not be loaded ({_first_line(error)}): {fix}."
    )
