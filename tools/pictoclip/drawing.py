"""Pictures for pictoclip, as training varies them and as tests show them.

They are icons of the pack, drawn on backgrounds.

All functions work on a batch and on any device. Icons are RGBA with colours multiplied by alpha
("premultiplied"): so they can be turned and blurred without dark rims.
"""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

SIZE = 72
PER_ROW = 32

# open_clip's default normalisation.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def load_sheets(folder: Path, kind: str, count: int) -> torch.Tensor:
    """Read the icons of a kind.

    They are uint8 of shape (count, 72, 72, 4), or (count, 72, 72) for line icons.
    """

    def read(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            sheet = np.asarray(image if image.mode == "RGBA" else image.convert("L"))
        rest = sheet.shape[2:]
        cut = sheet.reshape(-1, SIZE, PER_ROW, SIZE, *rest).swapaxes(1, 2)
        return cut.reshape(-1, SIZE, SIZE, *rest)

    with ThreadPoolExecutor(8) as pool:
        sheets = list(pool.map(read, sorted(folder.glob(f"{kind}_[0-9][0-9].webp"))))
    return torch.from_numpy(np.concatenate(sheets)[:count])


class Dice:
    """Random numbers of one seeded generator on a device."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        # For numbers that the host needs: it does not wait for the device.
        self.python = random.Random(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Return uniform numbers."""
        return torch.rand(*shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> torch.Tensor:
        """Return standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def happens(self, n: int, probability: float) -> torch.Tensor:
        """Return 1 with a probability and else 0, of shape (n, 1, 1, 1)."""
        return (self.uniform(n, 1, 1, 1) < probability).float()


def premultiplied(icons: torch.Tensor) -> torch.Tensor:
    """Turn uint8 RGBA of shape (n, H, W, 4) into premultiplied floats of shape (n, 4, H, W)."""
    x = icons.permute(0, 3, 1, 2).float() / 255
    return torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], dim=1)


def inked(alpha: torch.Tensor, ink: torch.Tensor) -> torch.Tensor:
    """Draw shapes of shape (n, H, W) or (n, 1, H, W) in inks of shape (n, 3, 1, 1)."""
    alpha = alpha.reshape(len(alpha), 1, *alpha.shape[-2:])
    return torch.cat([alpha * ink, alpha], dim=1)


def backgrounds(n: int, size: int, dice: Dice, strength: float = 1.0) -> torch.Tensor:
    """Return backgrounds of shape (n, 3, size, size).

    Each is plain, a gradient, or coarse noise; 35 % are near white.
    """
    light = dice.happens(n, 0.35)
    base = light * dice.uniform(n, 1, 1, 1, low=0.88) + (1 - light) * dice.uniform(n, 3, 1, 1)

    # A third of them each: plain, gradient, noise of a 2 x 2 to 6 x 6 grid.
    kind = dice.uniform(n, 1, 1, 1)
    line = torch.linspace(-1, 1, size, device=dice.device)
    angle = dice.uniform(n, 1, 1, 1, high=2 * math.pi)
    ramp = angle.cos() * line[None, None, :, None] + angle.sin() * line[None, None, None, :]
    gradient = ramp * dice.uniform(n, 3, 1, 1, low=-0.35, high=0.35)
    cells = dice.python.randint(2, 6)
    noise = F.interpolate(
        dice.normal(n, 3, cells, cells), size, mode="bilinear", align_corners=False
    )
    noise = noise * dice.uniform(n, 1, 1, 1, high=0.3)
    change = gradient * ((kind > 1 / 3) & (kind < 2 / 3)) + noise * (kind >= 2 / 3)
    return (base + strength * change * (1 - 0.7 * light)).clamp(0, 1)


def contrasting_inks(background: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Return inks of shape (n, 3, 1, 1) that the background lets be seen.

    They are black or white, or a random colour.
    """
    n = len(background)
    dark_ground = (background.mean((1, 2, 3), keepdim=True) < 0.5).float()
    colour = dice.uniform(n, 3, 1, 1)
    colour = dark_ground * (0.55 + 0.45 * colour) + (1 - dark_ground) * 0.5 * colour
    plain = dice.happens(n, 0.6)
    return plain * dark_ground.expand(n, 3, 1, 1) + (1 - plain) * colour


def to_input(pictures: torch.Tensor) -> torch.Tensor:
    """Normalise pictures of shape (n, 3, H, W) in 0 to 1 as open_clip does."""
    mean = torch.tensor(MEAN, device=pictures.device)[:, None, None]
    std = torch.tensor(STD, device=pictures.device)[:, None, None]
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def warp(
    x: torch.Tensor, matrix: torch.Tensor, size: int, bend: torch.Tensor | None = None
) -> torch.Tensor:
    """Sample icons through affine maps of shape (n, 2, 3).

    With a bend of shape (n, 2, k, k), if there is one.
    """
    # Halve first where two source pixels or more meet in one: no pixel is skipped.
    if size <= SIZE // 2:
        x = F.avg_pool2d(x, 2)
    grid = F.affine_grid(matrix, [len(x), 4, size, size], align_corners=False)
    if bend is not None:
        grid = grid + F.interpolate(bend, size, mode="bicubic", align_corners=True).permute(
            0, 2, 3, 1
        )
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def affine(
    scale: torch.Tensor,
    angle: torch.Tensor,
    shift: torch.Tensor,
    stretch: torch.Tensor,
    shear: torch.Tensor,
    mirror: torch.Tensor,
) -> torch.Tensor:
    """Return the maps from picture to icon; each argument has shape (n,), the shift (n, 2)."""
    cos, sin = angle.cos(), angle.sin()
    # The map goes from output to input: a smaller icon means larger steps.
    x_step, y_step = mirror / (scale * stretch), stretch / scale
    rows = [
        cos * x_step,
        (sin + shear) * x_step,
        -shift[:, 0] * x_step,
        -sin * y_step,
        cos * y_step,
        -shift[:, 1] * y_step,
    ]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)


def show(icons: torch.Tensor, size: int, dice: Dice) -> torch.Tensor:
    """Draw icons as the suite's tests show them.

    A random background, scale .70 to .95, up to 8 degrees.

    Parameters
    ----------
    icons : uint8 tensor of shape (n, 72, 72, 4), or (n, 72, 72) for line icons
        From `load_sheets`.
    size : int
        Side of the pictures.
    dice : Dice
        Random numbers.

    Returns
    -------
    float tensor of shape (n, 3, size, size)
        Values from 0 to 1.
    """
    n = len(icons)
    ground = backgrounds(n, size, dice, strength=0.4)
    x = (
        premultiplied(icons)
        if icons.ndim == 4
        else inked(icons.float() / 255, contrasting_inks(ground, dice))
    )
    one = torch.ones(n, device=dice.device)
    scale = dice.uniform(n, low=0.70, high=0.95)
    angle = dice.uniform(n, low=-8, high=8) * math.pi / 180
    shift = dice.uniform(n, 2, low=-1, high=1) * (1 - scale)[:, None] * 0.7
    x = warp(x, affine(scale, angle, shift, one, 0 * one, one), size)
    return (x[:, :3] + (1 - x[:, 3:]) * ground).clamp(0, 1)


def restyle(x: torch.Tensor, dice: Dice, strength: float) -> torch.Tensor:
    """Change the colours and the style of icons, as another vendor might.

    Tint, shading, outline, bare edges.
    """
    n = len(x)
    rgb, alpha = x[:, :3], x[:, 3:]

    # Colours: a matrix near the identity turns hues, gains and contrast change them; 8 % swap
    # channels.
    eye = torch.eye(3, device=dice.device)
    mix = eye + 0.18 * strength * dice.normal(n, 3, 3)
    swapped = eye[torch.argsort(dice.uniform(n, 3), dim=1)]
    mix = torch.where(dice.uniform(n, 1, 1) < 0.08, swapped, mix)
    rgb = torch.einsum("nij,njhw->nihw", mix, rgb)
    contrast = 1 + 0.35 * strength * dice.uniform(n, 1, 1, 1, low=-1)
    lift = 0.15 * strength * dice.uniform(n, 3, 1, 1, low=-1)
    rgb = contrast * rgb + alpha * (0.5 - 0.5 * contrast + lift)

    # Shading from one side, as in drawings with gradients.
    line = torch.linspace(-1, 1, SIZE, device=dice.device)
    turn = dice.uniform(n, 1, 1, 1, high=2 * math.pi)
    ramp = turn.cos() * line[None, None, :, None] + turn.sin() * line[None, None, None, :]
    rgb = rgb * (1 + dice.happens(n, 0.4) * 0.4 * strength * ramp * dice.uniform(n, 1, 1, 1))
    grey = dice.happens(n, 0.12)
    rgb = grey * rgb.mean(1, keepdim=True) + (1 - grey) * rgb
    rgb = torch.minimum(rgb.clamp_min(0), alpha)

    # Bare edges of the drawing, in one ink: 10 %.
    luminance = F.pad(rgb.mean(1, keepdim=True) + 0.5 * alpha, (1, 1, 1, 1))
    steps = (luminance[..., 1:-1, 2:] - luminance[..., 1:-1, :-2]).abs()
    steps = steps + (luminance[..., 2:, 1:-1] - luminance[..., :-2, 1:-1]).abs()
    edges = inked((2.5 * steps).clamp(0, 1), dice.uniform(n, 3, 1, 1, high=0.6))
    bare = dice.happens(n, 0.10 * strength)
    x = bare * edges + (1 - bare) * torch.cat([rgb, alpha], dim=1)

    # A dark or white outline around the drawing: 20 %.
    alpha = x[:, 3:]
    ring = F.max_pool2d(alpha, 5, 1, 2) * (1 - alpha) * dice.happens(n, 0.20)
    return x + inked(ring, dice.happens(n, 0.4) * 0.95 + dice.uniform(n, 3, 1, 1, high=0.25) * 0.2)


def vary(
    colour: torch.Tensor, line: torch.Tensor, size: int, dice: Dice, strength: float
) -> torch.Tensor:
    """Draw training pictures of shape (n + m, 3, size, size).

    From colour icons (n, 72, 72, 4) and line icons (m, 72, 72).
    """
    n = len(colour) + len(line)
    ground = backgrounds(n, size, dice)
    line_x = inked(line.float() / 255, contrasting_inks(ground[len(colour) :], dice))
    x = torch.cat([restyle(premultiplied(colour), dice, strength), line_x])

    # Turn, shift, stretch, bend.
    s = strength
    scale = dice.uniform(n, low=0.62, high=1.05)
    angle = dice.uniform(n, low=-22, high=22) * s * math.pi / 180
    shift = dice.uniform(n, 2, low=-0.2, high=0.2) * s
    stretch = (0.13 * s * dice.uniform(n, low=-1)).exp()
    shear = 0.15 * s * dice.uniform(n, low=-1)
    mirror = torch.where(dice.uniform(n) < 0.5, 1.0, -1.0)
    bend = dice.normal(n, 2, 4, 4) * dice.uniform(n, 1, 1, 1, high=0.07) * s
    x = warp(x, affine(scale, angle, shift, stretch, shear, mirror), size, bend)

    # A quarter lose a rectangle.
    place = torch.linspace(0, 1, size, device=dice.device)
    corner, side = dice.uniform(n, 2, 1), dice.uniform(n, 2, 1, low=0.1, high=0.4)
    inside = ((place - corner).abs() < side / 2).float()
    hole = inside[:, 0, :, None] * inside[:, 1, None, :]
    x = x * (1 - hole[:, None] * dice.happens(n, 0.25 * s))
    y = x[:, :3] + (1 - x[:, 3:]) * ground

    # The picture as a whole: light, blur, noise.
    gain = 1 + 0.2 * s * dice.uniform(n, 3, 1, 1, low=-1)
    y = y * gain + 0.1 * s * dice.uniform(n, 1, 1, 1, low=-1)
    blurred = F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
    blur = dice.happens(n, 0.2) * dice.uniform(n, 1, 1, 1)
    y = blur * blurred + (1 - blur) * y
    y = y + dice.normal(*y.shape) * dice.happens(n, 0.15) * dice.uniform(n, 1, 1, 1, high=0.1)
    return y.clamp(0, 1)
