"""Embeddings of the patches of an image, from towers whose last step is attention.

The last attention is replaced by the identity: each place keeps its own value, projected as the
pooled one is (Zhou et al., "Extract Free Dense Labels from CLIP", ECCV 2022; GL-MCM's recipe).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from dnm_sklearn._utils.device import torch_threads
from dnm_sklearn.embedding.open_clip.model import LoadedModel
from dnm_sklearn.embedding.pipeline import ImageEncoder

if TYPE_CHECKING:
    import torch

# The model is shared by all embedders of a process, and the hook stands on it.
_hook_lock = Lock()


class LocalEncoder(ImageEncoder):
    """Images to rows that hold the global embedding, then those of all patches."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.is_async = loaded.is_async
        height, width = patch_grid(loaded.model.visual)
        self.n_rows = 1 + height * width
        # So many times as many numbers leave the model.
        self.image_batch_size = max(1, loaded.image_batch_size // 4)

    def preprocess(self, image: Any) -> np.ndarray:
        """As the model does."""
        return self.loaded.preprocess(image)

    def collate(self, pixels: list[np.ndarray]) -> Any:
        """As the model does."""
        return self.loaded.collate(pixels)

    def forward(self, batch: Any) -> np.ndarray:
        """Encode a batch to (b, (1 + P) * d) float32, each of its 1 + P parts of unit length."""
        import torch

        loaded = self.loaded
        with torch.inference_mode(), torch_threads(loaded._image_threads), loaded._autocast():
            pixels = loaded._normalised(batch.to(loaded.device, non_blocking=True))
            rows = local_rows(loaded.model.visual, pixels).float()
            rows = torch.nn.functional.normalize(rows, dim=-1)
        return loaded._check_rows(rows.flatten(1).cpu().numpy(), "images")


def patch_grid(visual: Any) -> tuple[int, int]:
    """Rows and columns of the patches of an image tower; refuses towers without such patches."""
    kind = _kind(visual)
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    if kind == "vit":
        rows, columns = visual.grid_size
        return int(rows), int(columns)
    # CLIP's ResNets halve the image five times.
    return height // 32, width // 32


def local_rows(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Global and local embeddings of normalised pixels, (b, 1 + P, d), not of unit length."""
    import torch

    if _kind(visual) == "vit":
        block = visual.transformer.resblocks[-1]
        with _inputs_of(block) as caught:
            pooled = visual(pixels)
        tokens = caught()
        if not visual.transformer.batch_first:
            tokens = tokens.transpose(0, 1)
        local = _values_of_block(block, tokens)[:, 1:]
        local = visual.ln_post(local)
        if visual.proj is not None:
            local = local @ visual.proj
    else:
        with _inputs_of(visual.attnpool) as caught:
            pooled = visual(pixels)
        pool = visual.attnpool
        local = pool.c_proj(pool.v_proj(caught().flatten(2).transpose(1, 2)))

    return torch.cat([pooled.unsqueeze(1), local.to(pooled.dtype)], dim=1)


def _values_of_block(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The last block with the identity in place of its attention."""
    import torch

    attention = block.attn
    width = tokens.shape[-1]
    weight = attention.in_proj_weight[2 * width :]
    bias = attention.in_proj_bias[2 * width :]
    value = torch.nn.functional.linear(block.ln_1(tokens), weight, bias)
    value = tokens + block.ls_1(attention.out_proj(value))
    return value + block.ls_2(block.mlp(block.ln_2(value)))


def _kind(visual: Any) -> str:
    """Tell which tower it is: "vit" or "resnet"; others have no place for the recipe."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    # Exactly these classes: a subclass may compute something else.
    if type(visual) is ModifiedResNet:
        return "resnet"
    if (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and type(visual.transformer.resblocks[-1]) is ResidualAttentionBlock
    ):
        return "vit"
    raise NotImplementedError(
        f"Patch embeddings are for CLIP's own image towers, vision transformers that pool their "
        f"class token and ModifiedResNets (ViT-B-32, ViT-B-16, ViT-L-14, RN50, ...), not for "
        f"{type(visual).__name__} with other pooling (SigLIP, CoCa, towers of timm)."
    )


@contextmanager
def _inputs_of(module: Any) -> Iterator[Callable[[], torch.Tensor]]:
    """Catch what a module is given, while the model runs inside."""
    caught: list[torch.Tensor] = []

    def keep(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        caught.append(inputs[0])

    with _hook_lock:
        hook = module.register_forward_pre_hook(keep)
        try:
            yield lambda: caught[-1]
        finally:
            hook.remove()
