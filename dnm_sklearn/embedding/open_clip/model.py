"""A loaded open_clip model: preprocessing, tokenizer, both towers and their fingerprint."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from functools import partial
from typing import Any

import numpy as np

from dnm_sklearn.embedding.device import compile_batches, ieee_convolutions, warn_of_emulation
from dnm_sklearn.embedding.stream import torch_threads
from dnm_sklearn.embedding.text import encode_tokens, hub_tokens, simple_tokens

__all__ = ["LoadedModel"]

# Towers of at most this many weights (the shipped model's; published ones are larger) run in one
# thread of the CPU. Their operations are so short that several threads wait for each other many
# times as long as they compute wherever the processors are not all free: on two busy cores, 3 to 50
# times.
_SMALL_TOWER = 1 << 21
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


class LoadedModel:
    """A model ready for use, shared by all embedders of a process; immutable.

    Parameters
    ----------
    model : torch.nn.Module
        An open_clip model on the CPU.
    tokenizer : callable
        Its tokenizer.
    width : int
        Width of its embeddings.
    device : str
        Where to run it.
    precision : {"fp32", "fp16", "bf16"}
        float32, or autocast to the half precision.
    description : dict
        What else decides the embeddings, for the fingerprint (JSON).
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

        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer = tokenizer
        self.width = width
        self.device = torch.device(device)
        self.precision = precision
        self.preprocess_cfg = dict(model.visual.preprocess_cfg)
        self.logit_scale = float(model.logit_scale.detach().float().exp().reshape(-1)[0])
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach().float().reshape(-1)[0])
        self.context_length = int(tokenizer.context_length)
        self._description = description
        self._fingerprint: str | None = None
        self._lock = threading.Lock()
        self._compiled: LoadedModel | None = None
        self._image_rows: Callable[[Any], Any] = self._plain_rows
        self._tower = _causal_tower(self.model)
        if self.runs_ahead:
            self._copies = torch.cuda.Stream(self.device)
            if precision == "bf16":
                warn_of_emulation(self.device)
            if precision != "fp32":
                self.model.visual.to(memory_format=torch.channels_last)
        transform = image_transform_v2(PreprocessCfg(**self.preprocess_cfg), is_train=False)
        self._geometry, self._mean, self._std = _split_transform(transform, self.device)
        size = self.preprocess_cfg["size"]
        height, width_px = (size, size) if isinstance(size, int) else tuple(size)
        pixels = (256 if self.device.type != "cpu" else 4 * torch.get_num_threads()) * 224 * 224
        self.image_batch_size = int(np.clip(pixels // (height * width_px), 1, 512))
        n_image = sum(weight.numel() for weight in self.model.visual.parameters())
        n_text = sum(weight.numel() for weight in self.model.parameters()) - n_image
        self._image_threads, self._text_threads = (
            1 if n_weights <= _SMALL_TOWER and self.device.type == "cpu" else None
            for n_weights in (n_image, n_text)
        )
        self._tokens_per_batch = 1 << (16 if self.device.type != "cpu" else 11)

    @property
    def fingerprint(self) -> str:
        """blake2b of the weights, preprocessing and tokenizer, a hyphen, and the precision."""
        with self._lock:
            if self._fingerprint is None:
                self._fingerprint = self._compute_fingerprint()
            return f"{self._fingerprint}-{self.precision}"

    @property
    def cuts_context(self) -> bool:
        """Whether the text tower is causal and pools at the end-of-text token."""
        return self._tower is not None

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

    def _autocast(self) -> Any:
        import torch

        if self.precision == "fp32":
            return ieee_convolutions() if self.runs_ahead else nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, _DTYPES[self.precision]))

    def _check_rows(self, rows: np.ndarray, what: str) -> np.ndarray:
        if not np.isfinite(rows).all():
            raise RuntimeError(
                f"The model gave NaN or infinity for {what} in precision {self.precision!r}: use "
                "precision='fp32' or 'bf16'."
            )
        return rows

    def prepare(self, image: Any) -> np.ndarray:
        """Resize and crop a picture as the model wants it.

        Parameters
        ----------
        image : PIL.Image.Image
            In mode "RGB".

        Returns
        -------
        ndarray of shape (h, w, 3), uint8, or of shape (3, h, w), float32
            Pixels; floats only for preprocessing that is not open_clip's own.
        """
        return np.asarray(self._geometry(image))

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Encode prepared pictures.

        Parameters
        ----------
        pixels : ndarray of shape (b, h, w, 3), uint8
            As from `prepare`.

        Returns
        -------
        ndarray of shape (b, d), float32
            Raw embeddings.
        """
        import torch

        with torch.inference_mode(), torch_threads(self._image_threads):
            rows = self._forward_pixels(torch.from_numpy(pixels).to(self.device)).cpu().numpy()
        return self._check_rows(rows, "images")

    @property
    def runs_ahead(self) -> bool:
        """Whether the model computes beside Python, so that `start_pixels` gains time."""
        return self.device.type == "cuda"

    def start_pixels(self, pixels: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
        """Begin to encode prepared pictures on a GPU.

        They are copied through page-locked memory on a stream of their own, while the model works
        on the batch before.

        Parameters
        ----------
        pixels : sequence of ndarray of shape (h, w, 3), uint8
            As from `prepare`.

        Returns
        -------
        callable
            Waits, and returns the raw embeddings of shape (b, d), float32.
        """
        import torch

        dtype = getattr(torch, pixels[0].dtype.name)
        held = torch.empty((len(pixels), *pixels[0].shape), dtype=dtype, pin_memory=True)
        np.stack(pixels, out=held.numpy())
        compute = torch.cuda.current_stream(self.device)
        with torch.inference_mode():
            with torch.cuda.stream(self._copies):
                batch = held.to(self.device, non_blocking=True)
            compute.wait_stream(self._copies)
            batch.record_stream(compute)
            rows = self._forward_pixels(batch)
            fetched = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            fetched.copy_(rows, non_blocking=True)
            # A blocking event leaves the core to the decoding threads, where others spin on it.
            done = compute.record_event(torch.cuda.Event(blocking=True))

        def finish() -> np.ndarray:
            done.synchronize()
            return self._check_rows(fetched.numpy(), "images")

        return finish

    def _forward_pixels(self, batch: Any) -> Any:
        """Raw embeddings, float32 on the device, of prepared pixels on the device."""
        with self._autocast():
            return self._image_rows(batch)

    def _plain_rows(self, batch: Any) -> Any:
        return self.model.encode_image(self._normalised(batch), normalize=False).float()

    def compiled(self) -> LoadedModel:
        """Give the same model with its image tower compiled.

        Returns
        -------
        LoadedModel
            Shares the weights; one for all who ask. It compiles at its first batch.
        """
        with self._lock:
            if self._compiled is None:
                twin = copy(self)
                twin._image_rows = compile_batches(self._plain_rows)
                twin._compiled = self._compiled = twin
            return self._compiled

    def _normalised(self, batch: Any) -> Any:
        """Float pixels (b, 3, h, w) as the model takes them, of prepared ones."""
        if self._mean is None:
            return batch
        return batch.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std)

    def encode_prompts(
        self, prompts: Sequence[str], *, batch_size: int | None = None, verbose: bool = False
    ) -> tuple[np.ndarray, list[str]]:
        """Encode texts.

        Parameters
        ----------
        prompts : sequence of str
            Distinct texts.
        batch_size : int, optional
            Prompts a batch at most.
        verbose : bool, default=False
            Show a bar on a terminal.

        Returns
        -------
        rows : ndarray of shape (m, d), float32
            Raw embeddings.
        truncated : list of str
            The prompts that were longer than the context.
        """
        from open_clip.tokenizer import SimpleTokenizer

        simple = isinstance(self.tokenizer, SimpleTokenizer) and self.tokenizer.reduction_fn is None
        tokens, cut = (simple_tokens if simple else hub_tokens)(self.tokenizer, prompts)
        rows = encode_tokens(
            tokens,
            None if self._tower is None else self._tower.lengths(tokens),
            self._encode_batch,
            width=self.width,
            tokens_per_batch=self._tokens_per_batch,
            batch_size=batch_size,
            verbose=verbose,
        )
        return rows, [prompt for prompt, was_cut in zip(prompts, cut, strict=True) if was_cut]

    def _encode_batch(self, tokens: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode(), self._autocast(), torch_threads(self._text_threads):
            batch = torch.from_numpy(tokens).to(self.device)
            tower = self._tower or partial(self.model.encode_text, normalize=False)
            return self._check_rows(tower(batch).float().cpu().numpy(), "prompts")


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
        if self.pool_type == "argmax":
            return tokens.argmax(axis=1) + 1
        return (tokens == self.eos_id).argmax(axis=1) + 1

    def __call__(self, tokens: Any) -> Any:
        import torch

        tower = self.tower
        length = tokens.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        position = (
            tokens.argmax(dim=-1)
            if self.pool_type == "argmax"
            else (tokens == self.eos_id).int().argmax(dim=-1)
        )
        x = tower.ln_final(x[torch.arange(len(x), device=x.device), position])
        if tower.text_projection is None:
            return x
        if isinstance(tower.text_projection, torch.nn.Linear):
            return tower.text_projection(x)
        return x @ tower.text_projection


def _causal_tower(model: Any) -> _CausalTower | None:
    """Find out whether the context may be cut; None where that is not certain."""
    import torch
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    if type(model) is CLIP:
        tower, pool_type, eos_id = model, model.text_pool_type, getattr(model, "text_eos_id", None)
    elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
        tower, pool_type, eos_id = (
            model.text,
            model.text.pool_type,
            getattr(model.text, "eos_id", None),
        )
        if (
            tower.cls_emb is not None
            or tower.output_tokens
            or getattr(tower, "use_pad_mask", False)
        ):
            return None
    else:
        return None
    mask = tower.attn_mask
    if pool_type not in ("argmax", "eos") or not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return None
    causal = torch.full_like(mask, float("-inf")).triu_(1)
    return _CausalTower(tower, pool_type, eos_id) if torch.equal(mask, causal) else None


def _split_transform(transform: Any, device: Any) -> tuple[Any, Any, Any]:
    """Split open_clip's preprocessing: geometry in the decoding threads, arithmetic on the device."""
    import torch
    from torchvision.transforms import Compose, Normalize

    steps = list(transform.transforms)
    if (
        len(steps) >= 2
        and isinstance(steps[-1], Normalize)
        and "ToTensor" in type(steps[-2]).__name__
    ):
        mean = torch.tensor(steps[-1].mean, dtype=torch.float32, device=device).reshape(1, 3, 1, 1)
        std = torch.tensor(steps[-1].std, dtype=torch.float32, device=device).reshape(1, 3, 1, 1)
        return Compose(steps[:-2]), mean, std
    return transform, None, None


def _tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    inner = getattr(tokenizer, "tokenizer", None)
    ranks = getattr(tokenizer, "bpe_ranks", {})
    return {
        "class": type(tokenizer).__name__,
        "context": int(tokenizer.context_length),
        "vocabulary": getattr(tokenizer, "vocab_size", getattr(inner, "vocab_size", None)),
        "name": str(getattr(inner, "name_or_path", "")).rsplit("/", 1)[-1],
        "merges": hashlib.blake2b(repr(list(ranks)).encode(), digest_size=16).hexdigest(),
    }
