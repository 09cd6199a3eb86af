"""Names to prompts to vectors: length classes and a context cut to what a prompt needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding.stream import halving, progress
from dnm_sklearn.exceptions import TruncatedPromptWarning

__all__ = [
    "TruncatedPromptWarning",
    "check_names",
    "check_prompt",
    "encode_tokens",
    "fill",
    "warn_truncated",
]

PLACEHOLDER = "{}"


def check_names(names: Iterable[str], what: str = "names") -> list[str]:
    """Check a sequence of texts.

    Parameters
    ----------
    names : iterable of str
        Class names or labels; a `Corpus` is one.
    what : str, default="names"
        What to call them in messages.

    Returns
    -------
    list of str
        The names, unchanged.

    Raises
    ------
    TypeError
        If `names` is a single string or holds something that is no string.
    """
    if isinstance(names, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{what} must be a list of strings, got the single string {names!r}: give [{names!r}]."
        )
    listed = names.tolist() if isinstance(names, np.ndarray) else list(names)
    for index, name in enumerate(listed):
        if not isinstance(name, str):
            raise TypeError(
                f"{what} must hold strings, but {what}[{index}] is {type(name).__name__} {name!r}. "
                "Images go to encode_image or transform."
            )
    return [str(name) for name in listed]


def check_prompt(prompt: str | Sequence[str]) -> tuple[str, ...]:
    """Check a prompt template or an ensemble of them.

    Parameters
    ----------
    prompt : str or sequence of str
        Templates, each with ``{}`` where the name goes.

    Returns
    -------
    tuple of str
        The templates.

    Raises
    ------
    ValueError
        If there is none, or one has no ``{}``.

    Examples
    --------
    >>> from dnm_sklearn.embedding.text import check_prompt
    >>> check_prompt("a photo of a {}")
    ('a photo of a {}',)
    """
    templates = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if not templates:
        raise ValueError(
            "prompt is an empty list: give a template such as 'a photo of a {}', or '{}' for none."
        )
    for template in templates:
        if not isinstance(template, str) or PLACEHOLDER not in template:
            raise ValueError(
                f"The prompt {template!r} has no '{{}}' where the class name goes: write, for "
                "example, 'a photo of a {}', or '{}' for the bare name."
            )
    return templates


def fill(template: str, names: Iterable[str]) -> list[str]:
    """Put names into a template; braces in names are left alone.

    Parameters
    ----------
    template : str
        With ``{}``.
    names : iterable of str
        Names.

    Returns
    -------
    list of str
        Prompts.
    """
    return [template.replace(PLACEHOLDER, name) for name in names]


def warn_truncated(prompts: Sequence[str], total: int, context_length: int | None) -> None:
    """Warn once about all prompts of a call that were cut.

    Parameters
    ----------
    prompts : sequence of str
        The prompts that were too long, at least one.
    total : int
        How many prompts the call had.
    context_length : int or None
        The model's context, in tokens.
    """
    first = prompts[0] if len(prompts[0]) <= 60 else prompts[0][:57] + "..."
    limit = "" if context_length is None else f" of {context_length} tokens"
    warn(
        f"{len(prompts)} of {total} prompts are longer than the model's context{limit} and were "
        f"cut (the first: {first!r}). A class name should fit: shorten it, or its template "
        "(prompt='{}' is the bare name). Of a large corpus a small share of cut labels does "
        "little harm.",
        TruncatedPromptWarning,
    )


def encode_tokens(
    tokens: np.ndarray,
    lengths: np.ndarray | None,
    encode: Callable[[np.ndarray], np.ndarray],
    *,
    width: int,
    tokens_per_batch: int,
    batch_size: int | None = None,
    verbose: bool = False,
) -> np.ndarray:
    """Encode token rows, prompts of one length together, each batch cut to its longest.

    Parameters
    ----------
    tokens : ndarray of shape (m, context), int64
        Tokenised prompts.
    lengths : ndarray of shape (m,) or None
        How many leading tokens decide each prompt's embedding; None if all do (towers that are not
        causal, or pool at the end of the context).
    encode : callable
        Tokens of shape (b, l) to raw rows of shape (b, width).
    width : int
        Embedding width.
    tokens_per_batch : int
        Tokens in a batch, about.
    batch_size : int, optional
        Prompts in a batch at most.
    verbose : bool, default=False
        Show a bar on a terminal.

    Returns
    -------
    ndarray of shape (m, width), float32
        Raw rows, in the order of `tokens`.
    """
    m, context = tokens.shape
    used = np.full(m, context) if lengths is None else np.asarray(lengths)
    order = np.argsort(used, kind="stable")
    rows = np.empty((m, width), dtype=np.float32)
    scale = 1.0
    start = 0
    with progress(m, verbose, "prompts") as bar:
        while start < m:
            size = max(1, int(scale * tokens_per_batch / used[order[start]]))
            size = min(size, batch_size or size)
            chosen = order[start : start + size]
            longest = int(used[chosen[-1]])
            if longest > used[chosen[0]] and len(chosen) == size:
                same = int(np.searchsorted(used[chosen], used[chosen[0]], side="right"))
                if same >= size // 2:
                    chosen, longest = chosen[:same], int(used[chosen[0]])
            parts = halving(encode, np.ascontiguousarray(tokens[chosen, :longest]), "prompt")
            if len(parts) > 1:
                scale *= max(len(part) for part in parts) / len(chosen)
            rows[chosen] = np.concatenate(parts)
            start += len(chosen)
            bar.update(len(chosen))
    return rows


def simple_tokens(tokenizer: Any, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenise as open_clip's SimpleTokenizer does, and say which prompts were cut.

    Parameters
    ----------
    tokenizer : open_clip.tokenizer.SimpleTokenizer
        The tokenizer, without a reduction mask.
    prompts : sequence of str
        Texts.

    Returns
    -------
    tokens : ndarray of shape (m, context), int64
        Token ids, zero behind the end-of-text token.
    cut : ndarray of bool of shape (m,)
        Which prompts were longer than the context.
    """
    context = int(tokenizer.context_length)
    sot, eot = tokenizer.sot_token_id, tokenizer.eot_token_id
    tokens = np.zeros((len(prompts), context), dtype=np.int64)
    cut = np.zeros(len(prompts), dtype=bool)
    for row, prompt in enumerate(prompts):
        ids = [sot, *tokenizer.encode(prompt), eot]
        if len(ids) > context:
            cut[row] = True
            ids = [*ids[: context - 1], eot]
        tokens[row, : len(ids)] = ids
    return tokens, cut


def hub_tokens(tokenizer: Any, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenise with any other tokenizer of open_clip, and say which prompts were cut.

    Parameters
    ----------
    tokenizer : callable
        open_clip's HFTokenizer or SigLipTokenizer, or a SimpleTokenizer with a reduction mask.
    prompts : sequence of str
        Texts.

    Returns
    -------
    tokens : ndarray of shape (m, context), int64
        Token ids as the tokenizer pads them.
    cut : ndarray of bool of shape (m,)
        Which prompts were longer than the context.
    """
    tokens = tokenizer(list(prompts)).numpy().astype(np.int64)
    context = tokens.shape[1]
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        lengths = [len(tokenizer.encode(prompt)) + 2 for prompt in prompts]
    else:
        clean = getattr(tokenizer, "clean_fn", None)
        if clean is None:
            from open_clip.tokenizer import basic_clean, canonicalize_text

            def clean(text: str) -> str:
                return canonicalize_text(basic_clean(text))

        clips = getattr(tokenizer, "tokenizer_mode", "") == "clips"
        ids = inner(
            [clean(p) for p in prompts],
            add_special_tokens=not clips,
            padding=False,
            truncation=False,
        )
        lengths = [len(row) + (3 if clips else 0) for row in ids["input_ids"]]
    return tokens, np.asarray(lengths, dtype=np.int64).reshape(len(prompts)) > context
