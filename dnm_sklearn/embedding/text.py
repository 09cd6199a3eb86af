"""Names to prompts to vectors: prompts of one length together, in a context cut to that length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dnm_sklearn._utils.device import retry_in_halves, torch_threads
from dnm_sklearn._utils.progress import progress
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding.inputs import to_unit_rows
from dnm_sklearn.exceptions import TruncatedPromptWarning

_PLACEHOLDER = "{}"


def check_prompt(prompt: str | Sequence[str]) -> tuple[str, ...]:
    """Check a prompt template or an ensemble of them, and give it as a tuple."""
    templates = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if not templates:
        raise ValueError(
            "prompt is an empty list: give a template such as 'a photo of a {}', or '{}' for none."
        )
    for template in templates:
        if not isinstance(template, str) or _PLACEHOLDER not in template:
            raise ValueError(
                f"The prompt {template!r} has no '{{}}' where the class name goes: write, for "
                "example, 'a photo of a {}', or '{}' for the bare name."
            )
    return templates


def encode_names(
    digest: str,
    templates: tuple[str, ...],
    fingerprint: str,
    names: list[str],
    encode: Callable[[Sequence[str]], tuple[np.ndarray, list[str]]],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Encode distinct names: unit rows (m, d), raw norms (m,) and the prompts that were cut.

    This is the function that `joblib.Memory` caches: in its key `digest` stands for `names`, and
    `fingerprint` for the model behind `encode`, which gives raw rows and the prompts it cut. Over
    several templates rows and norms are means.
    """
    total = np.zeros(())
    norms = np.zeros(len(names))
    truncated: list[str] = []
    for template in templates:
        # Not str.format: braces in names are left alone.
        raw, cut = encode([template.replace(_PLACEHOLDER, name) for name in names])
        truncated += cut

        raw = np.asarray(raw, dtype=np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", raw, raw))
        has_direction = np.isfinite(lengths) & (lengths > 0)
        if not has_direction.all():
            name = names[int(np.argmin(has_direction))]
            raise RuntimeError(
                f"The text tower gave no direction for {name!r} under the prompt {template!r}."
            )
        total = total + raw / lengths[:, None]
        norms += lengths / len(templates)
    rows = to_unit_rows(total, name="The mean over the prompts")
    return rows, norms.astype(np.float32), truncated


def warn_truncated(prompts: Sequence[str], total: int, context_length: int | None) -> None:
    """Warn once about the prompts of a call, of `total`, that were cut."""
    first = prompts[0] if len(prompts[0]) <= 60 else prompts[0][:57] + "..."
    limit = "" if context_length is None else f" of {context_length} tokens"
    warn(
        f"{len(prompts)} of {total} prompts are longer than the model's context{limit} and were "
        f"cut (the first: {first!r}). A class name should fit: shorten it, or its template "
        "(prompt='{}' is the bare name). Of a large corpus a small proportion of cut labels "
        "does little harm.",
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
    what: str = "prompts",
) -> np.ndarray:
    """Encode token rows (m, context) to raw rows (m, width), short prompts together and cut short.

    `lengths` says how many leading tokens decide each prompt's embedding; None if all do (towers
    that are not causal, or pool at the end of the context). `batch_size` is a limit in prompts.
    """
    m, context = tokens.shape
    used = np.full(m, context) if lengths is None else np.asarray(lengths)
    order = np.argsort(used, kind="stable")
    rows = np.empty((m, width), dtype=np.float32)
    scale = 1.0  # falls below 1 when memory runs out
    start = 0
    with progress(m, verbose, what) as bar:
        while start < m:
            # As many prompts as fill a batch, if all were as short as the first.
            size = max(1, int(scale * tokens_per_batch / used[order[start]]))
            size = min(size, batch_size or size)
            chosen = order[start : start + size]
            longest = int(used[chosen[-1]])

            # One length makes no padding: stop where it ends, unless that halves the batch.
            if longest > used[chosen[0]] and len(chosen) == size:
                same = int(np.searchsorted(used[chosen], used[chosen[0]], side="right"))
                if same >= size // 2:
                    chosen, longest = chosen[:same], int(used[chosen[0]])

            batch = np.ascontiguousarray(tokens[chosen, :longest])
            parts = retry_in_halves(encode, batch, "prompt")
            if len(parts) > 1:
                scale *= max(map(len, parts)) / len(chosen)
            rows[chosen] = np.concatenate(parts)
            start += len(chosen)
            bar.update(len(chosen))
    return rows


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenise with a tokenizer of open_clip (m, context); also say which prompts were cut (m,)."""
    import torch

    # Whatever the process has set; and in a forked one, where torch would wait for threads.
    with torch.device("cpu"), torch_threads(None):
        tokens = tokenizer(list(prompts)).numpy().astype(np.int64, copy=False)
    context = tokens.shape[1]

    # The tokenizer cuts in silence, so the lengths are found anew, with the special tokens.
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
