"""Resizing and cropping an image to what a model takes, in memory that no image can blow up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnm_sklearn.exceptions import UnreadableImageError

# Pixels that an image may have between resizing and cropping: 50 MB. At 224 pixels an image gets
# there whose one side is 334 times the other.
_MOST_RESIZED = 1 << 24
# Pixels of the image that one pixel of the result depends on, in each direction: 2 of the finer of
# the two grids with bicubic interpolation, and some to be sure.
_REACH = 4


def split_transform(transform: Any, device: Any) -> tuple[Any, Any, Any]:
    """Split open_clip's preprocessing: geometry, then mean and deviation, applied on the device.

    The decoding threads then hand over uint8 pixels, a quarter of the bytes of floats.
    """
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
        return _Geometry(Compose(steps[:-2])), mean, std
    return transform, None, None


class _Geometry:
    """The steps of a transform up to the pixels; a thin image is cropped before it is resized."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform
        self._shortest = _shortest_edge(transform.transforms)

    def __call__(self, image: Any) -> Any:
        if self._shortest is None:
            return self._transform(image)

        (height, width), resample = self._shortest
        scale = max(width / image.width, height / image.height)
        if scale * image.width * scale * image.height <= _MOST_RESIZED:
            return self._transform(image)
        if height != width:
            raise UnreadableImageError(
                f"it is {image.width} x {image.height} pixels, too thin for a model of "
                f"{width} x {height}: crop it"
            )
        return _crop_resized(image, width, resample)


def _shortest_edge(steps: Sequence[Any]) -> tuple[tuple[int, int], Any] | None:
    """Height, width and interpolation of steps that resize by the shortest edge and then crop."""
    from torchvision.transforms import CenterCrop, functional

    crop = next((step for step in steps if isinstance(step, CenterCrop)), None)
    if crop is None:
        return None
    height, width = crop.size
    return (height, width), functional.pil_modes_mapping[steps[0].interpolation]


def _crop_resized(image: Any, size: int, resample: Any) -> Any:
    """Resize the shorter side to `size` and crop the centre, without making what is cropped off.

    The pixels are those of torchvision's Resize and CenterCrop.
    """
    shorter = min(image.size)
    # torchvision's rounding of the longer side, and its crop.
    resized = [int(size * side / shorter) for side in image.size]
    start = np.array([round((side - size) / 2) for side in resized])
    unit = np.array(image.size) / np.array(resized)
    first, last = start * unit, (start + size) * unit

    # Pillow takes the box in single precision: near 0 that is enough.
    reach = _REACH * np.maximum(unit, 1)
    corner = np.maximum(np.floor(first - reach), 0).astype(int)
    end = np.minimum(np.ceil(last + reach), image.size).astype(int)
    part = image.crop((*corner.tolist(), *end.tolist()))
    box = (*(first - corner).tolist(), *(last - corner).tolist())
    return part.resize((size, size), resample, box=box)
