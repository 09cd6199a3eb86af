"""A loaded open_clip model: preprocessing, tokenizer, both towers and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dnm_sklearn._utils.device import resolve_device, torch_threads
from dnm_sklearn._utils.digest import digest_file
from dnm_sklearn._utils.forks import ForkSafeLock, torch_was_forked
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding.open_clip.geometry import split_transform
from dnm_sklearn.embedding.open_clip.hub import tokenizer_files
from dnm_sklearn.embedding.pipeline import ImageEncoder
from dnm_sklearn.embedding.text import encode_tokens, tokenize

# Towers of at most this many weights (the shipped model's; published ones are larger) run in one
# thread of the CPU. Their operations are so short that several threads wait for each other many
# times as long as they compute wherever the processors are not all free: on two busy cores, 3 to 50
# times.
_SMALL_TOWER = 1 << 21
# Images of 224 x 224 pixels in a batch (more of smaller ones, up to _MOST_IMAGES): enough to fill a
# GPU; on a CPU a few for each thread.
_IMAGES_ON_GPU = 256
_IMAGES_PER_THREAD = 4
_MOST_IMAGES = 512
# Prompts are counted in tokens, since their length decides their cost.
_TOKENS_ON_GPU = 1 << 16
_TOKENS_ON_CPU = 1 << 11
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


class LoadedModel(ImageEncoder):
    """A model ready for use, shared by all embedders of a process; immutable.

    `model` and `tokenizer` are open_clip's, the model still on the CPU; `width` is that of its
    embeddings; `description` (JSON) is what else decides them, for the fingerprint.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        width: int,
        device: str,
        precision: str,
        description: dict[str, Any],
    ) -> None:
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.device = resolve_device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer
        self.width = width
        self.precision = precision
        self.preprocess_cfg = dict(model.visual.preprocess_cfg)
        self.logit_scale = float(model.logit_scale.detach().float().exp().reshape(-1)[0])
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach().float().reshape(-1)[0])
        self.context_length = int(tokenizer.context_length)

        self._description = description
        self._fingerprint: str | None = None
        self._lock = ForkSafeLock()
        self._compiled: LoadedModel | None = None
        self._image_rows: Callable[[Any], Any] = self._plain_rows
        self._tower = _causal_tower(self.model)

        on_cpu = self.device.type == "cpu"
        self.is_async = self.device.type == "cuda"
        if self.is_async:
            if precision == "bf16":
                _warn_of_emulation(self.device)
            if precision != "fp32":
                # Half-precision convolutions on CUDA want the channels last.
                self.model.visual.to(memory_format=torch.channels_last)

        transform = image_transform_v2(PreprocessCfg(**self.preprocess_cfg), is_train=False)
        self._geometry, self._mean, self._std = split_transform(transform, self.device)
        size = self.preprocess_cfg["size"]
        height, width_px = (size, size) if isinstance(size, int) else tuple(size)
        n_images = _IMAGES_PER_THREAD * torch.get_num_threads() if on_cpu else _IMAGES_ON_GPU
        self.image_batch_size = int(
            np.clip(n_images * 224 * 224 // (height * width_px), 1, _MOST_IMAGES)
        )
        self._tokens_per_batch = _TOKENS_ON_CPU if on_cpu else _TOKENS_ON_GPU

        n_image = sum(weight.numel() for weight in self.model.visual.parameters())
        n_text = sum(weight.numel() for weight in self.model.parameters()) - n_image
        # Of a table of token vectors a text only looks some up: it is no work.
        tables = [part for part in self.model.modules() if isinstance(part, torch.nn.Embedding)]
        n_text -= sum(table.weight.numel() for table in tables)
        self._image_threads, self._text_threads = (
            1 if n_weights <= _SMALL_TOWER and on_cpu else None for n_weights in (n_image, n_text)
        )

    # -- identity -----------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """blake2b of the weights, preprocessing and tokenizer, a hyphen, and the precision."""
        with self._lock:
            if self._fingerprint is None:
                self._fingerprint = self._compute_fingerprint()
            return f"{self._fingerprint}-{self.precision}"

    @property
    def tokenizer_files(self) -> list[Path]:
        """Files of a tokenizer of Hugging Face, which can change while the weights stay."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        return [] if inner is None else tokenizer_files(inner)

    def _compute_fingerprint(self) -> str:
        import torch

        digest = hashlib.blake2b(digest_size=20)
        head = {
            "format": 1,
            "preprocess": self.preprocess_cfg,
            "tokenizer": _tokenizer_identity(self.tokenizer),
            "config": self._description,
        }
        digest.update(json.dumps(head, sort_keys=True, default=str).encode())
        for name, value in sorted(self.model.state_dict().items()):
            tensor = value.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(memoryview(tensor.view(torch.uint8).numpy()))
        return digest.hexdigest()

    # -- precision ----------------------------------------------------------------------------

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self.precision == "fp32":
            return _ieee_convolutions() if self.device.type == "cuda" else nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, _DTYPES[self.precision]))

    def _check_rows(self, rows: np.ndarray, what: str) -> np.ndarray:
        if not np.isfinite(rows).all():
            raise RuntimeError(
                f"The model gave NaN or infinity for {what} in precision {self.precision!r}: use "
                "precision='fp32' or 'bf16'."
            )
        return rows

    # -- images -------------------------------------------------------------------------------

    def preprocess(self, image: Any) -> np.ndarray:
        """Resize and crop an RGB image: (h, w, 3) uint8, or what a foreign transform gives."""
        return np.asarray(self._geometry(image))

    def collate(self, pixels: list[np.ndarray]) -> Any:
        """Stack preprocessed images; for a GPU in page-locked memory, so that the copy is fast."""
        import torch

        batch = torch.empty(
            (len(pixels), *pixels[0].shape),
            dtype=getattr(torch, pixels[0].dtype.name),
            device="cpu",
            pin_memory=self.device.type == "cuda",
        )
        np.stack(pixels, out=batch.numpy())
        return batch

    def forward(self, batch: Any) -> np.ndarray:
        """Encode a batch of `collate` to raw rows (b, d), float32."""
        import torch

        with torch.inference_mode(), torch_threads(self._image_threads), self._autocast():
            rows = self._image_rows(batch.to(self.device, non_blocking=True)).cpu().numpy()
        return self._check_rows(rows, "images")

    def _plain_rows(self, batch: Any) -> Any:
        return self.model.encode_image(self._normalised(batch), normalize=False).float()

    def _normalised(self, batch: Any) -> Any:
        """Float pixels (b, 3, h, w) as the model takes them, of preprocessed ones."""
        if self._mean is None:
            return batch
        return batch.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std)

    def compiled(self) -> LoadedModel:
        """Give the same model, weights shared, with an image tower that compiles at first use."""
        if torch_was_forked():
            # Compiled programs have their number of threads built in, which are not there.
            return self
        with self._lock:
            if self._compiled is None:
                twin = copy(self)
                twin._image_rows = _compile_batches(self._plain_rows)
                twin._compiled = self._compiled = twin
            return self._compiled

    # -- texts --------------------------------------------------------------------------------

    def encode_prompts(
        self,
        prompts: Sequence[str],
        *,
        batch_size: int | None = None,
        verbose: bool = False,
        what: str = "prompts",
    ) -> tuple[np.ndarray, list[str]]:
        """Encode distinct texts to raw rows (m, d), float32; also those longer than the context."""
        tokens, cut = tokenize(self.tokenizer, prompts)
        rows = encode_tokens(
            tokens,
            None if self._tower is None else self._tower.lengths(tokens),
            self._encode_tokens,
            width=self.width,
            tokens_per_batch=self._tokens_per_batch,
            batch_size=batch_size,
            verbose=verbose,
            what=what,
        )
        return rows, [prompt for prompt, was_cut in zip(prompts, cut, strict=True) if was_cut]

    def _encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode(), self._autocast(), torch_threads(self._text_threads):
            batch = torch.from_numpy(tokens).to(self.device)
            tower = self._tower or partial(self.model.encode_text, normalize=False)
            return self._check_rows(tower(batch).float().cpu().numpy(), "prompts")


# -- the text tower on a context cut short ----------------------------------------------------


class _CausalTower:
    """A causal text tower that pools at the end-of-text token, on a context cut short.

    Exact: with a causal mask a token sees only what precedes it, so nothing behind the pooled token
    can change it.
    """

    def __init__(self, tower: Any, pool_type: str, eos_id: int | None) -> None:
        self.tower = tower
        self.pool_type = pool_type
        self.eos_id = eos_id

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens up to and with the pooled one."""
        # The end-of-text token has the largest number of CLIP's vocabulary: argmax finds it.
        if self.pool_type == "argmax":
            return tokens.argmax(axis=1) + 1
        return (tokens == self.eos_id).argmax(axis=1) + 1

    def __call__(self, tokens: Any) -> Any:
        """Encode tokens (b, length); the steps of open_clip's own encode_text."""
        import torch

        tower = self.tower
        length = tokens.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])

        # Of each prompt only the token at its end, as `lengths` finds it.
        is_end = tokens if self.pool_type == "argmax" else (tokens == self.eos_id).int()
        x = tower.ln_final(x[torch.arange(len(x), device=x.device), is_end.argmax(dim=-1)])

        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def _causal_tower(model: Any) -> _CausalTower | None:
    """Find out whether the context may be cut; None where that is not certain."""
    import torch
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    # Exactly these classes: a subclass may compute something else.
    if type(model) is CLIP:
        tower, pool_type, eos_id = model, model.text_pool_type, getattr(model, "text_eos_id", None)
    elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
        tower, pool_type = model.text, model.text.pool_type
        eos_id = getattr(tower, "eos_id", None)
        # An appended class token, all tokens as output, or a mask of padding see the whole context.
        if tower.cls_emb is not None or tower.output_tokens:
            return None
        if getattr(tower, "use_pad_mask", False):
            return None
    else:
        return None

    mask = tower.attn_mask
    if pool_type not in ("argmax", "eos") or not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return None
    causal = torch.full_like(mask, float("-inf")).triu_(1)
    return _CausalTower(tower, pool_type, eos_id) if torch.equal(mask, causal) else None


# -- tokenizer -------------------------------------------------------------------------------


def _tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    inner = getattr(tokenizer, "tokenizer", None)
    ranks = getattr(tokenizer, "bpe_ranks", {})
    return {
        "class": type(tokenizer).__name__,
        "context": int(tokenizer.context_length),
        "vocabulary": getattr(tokenizer, "vocab_size", getattr(inner, "vocab_size", None)),
        "name": str(getattr(inner, "name_or_path", "")).rsplit("/", 1)[-1],
        "merges": hashlib.blake2b(repr(list(ranks)).encode(), digest_size=16).hexdigest(),
        # Only of Hugging Face's, so that those of open_clip keep their fingerprints.
        **({} if inner is None else {"content": _hub_content(inner)}),
    }


def _hub_content(tokenizer: Any) -> str:
    """Digest what a tokenizer of Hugging Face makes of texts: vocabulary, rules, special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        # One in Python, which has no more than its files to tell of.
        with TemporaryDirectory() as folder:
            rules = [digest_file(path).hex() for path in tokenizer.save_vocabulary(folder)]
    else:
        # Without what the last call asked for.
        known = json.loads(backend.to_str())
        rules = [part for part in known.items() if part[0] not in ("truncation", "padding")]

    special = {**tokenizer.special_tokens_map, **tokenizer.get_added_vocab()}
    text = json.dumps([type(tokenizer).__name__, rules, special], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# -- what torch is told -----------------------------------------------------------------------


def _compile_batches(rows: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Compile a function of a batch at its first call, once for all lengths of the batch."""
    import torch

    compiled = torch.compile(rows)

    def call(batch: Any) -> Any:
        n_rows = len(batch)
        if n_rows == 1:
            # A length for which the compiler would make a program of its own.
            batch = torch.cat([batch, batch])
        torch._dynamo.maybe_mark_dynamic(batch, 0)
        try:
            return compiled(batch)[:n_rows]
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            first_line = str(error).strip().partition("\n")[0]
            raise RuntimeError(
                f"compile=True: torch could not compile the image tower ({first_line}). It needs a "
                "C++ compiler for a CPU and Triton for a GPU: install it, or use compile=False."
            ) from error

    return call


@contextmanager
def _ieee_convolutions() -> Iterator[None]:
    """Keep cuDNN from TF32, which rounds float32 to eleven bits.

    Rows of one precision are one row in every cache, whatever GPU made them.
    """
    import torch

    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:
        # The user has chosen a precision by torch's newer interface, which forbids this one.
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _warn_of_emulation(device: Any) -> None:
    """Warn if a CUDA device emulates bfloat16, as NVIDIA's cards before Ampere (8.0) do."""
    import torch

    if torch.version.hip is None and torch.cuda.get_device_capability(device)[0] < 8:
        warn(
            f"precision='bf16': {torch.cuda.get_device_name(device)} has no bfloat16 units and "
            "emulates them, slowly. Use precision='fp16' (or 'auto').",
        )
