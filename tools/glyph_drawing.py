"""Draw Unicode characters from the fonts that matplotlib bundles, and vary the pictures.

Shared by ``train_glyphclip.py`` and ``build_glyph_images.py``.
"""

from __future__ import annotations

import math
import string
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

FONT_DIR = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TRAIN_FONTS = [
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
]
TEXT_FONTS = ["cmr10", "cmb10", "cmti10", "cmtt10", "cmss10"]  # only their Latin letters and digits are sound
HELD_OUT_FONTS = [
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"),
    *("DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic"),
]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

IMAGE_SIZE = 64
CANVAS = 96  # glyphs are drawn once at this size, then warped down to IMAGE_SIZE
EM = 64  # font size on the canvas, in pixels
BASELINE = 68  # row of the baseline on the canvas


def caption(code: int) -> str:
    """Return the caption of a character: its Unicode name in lower-case words."""
    return unicodedata.name(chr(code)).lower()


def algorithmic(name: str) -> bool:
    """Tell whether a Unicode name only spells its code point or a syllable."""
    return name.startswith(("CJK ", "HANGUL SYLLABLE", "TANGUT ", "NUSHU CHARACTER", "KHITAN SMALL SCRIPT CHAR"))


def is_held_out(code: int) -> bool:
    """Tell whether a character is kept out of training in every font."""
    return code >= 0x80 and code % 12 == 5


def charmap(font: str) -> set[int]:
    """Return the visible, named characters that a font draws."""
    codes = set(FT2Font(str(FONT_DIR / f"{font}.ttf")).get_charmap())
    if font in TEXT_FONTS:
        codes &= {ord(c) for c in LETTERS + string.digits}
    return {c for c in codes if unicodedata.name(chr(c), "") and unicodedata.category(chr(c))[0] not in "ZC"}


def draw_glyph(code: int, font: ImageFont.FreeTypeFont, path: Path) -> np.ndarray:
    """Draw one character, light on dark, on the canvas.

    The size of the em is the same for all characters (the case of "o" shows in its size); only a glyph that
    would not fit is shrunk. The baseline has a fixed row, the columns are centred.

    Parameters
    ----------
    code : int
        Code point.
    font : FreeTypeFont
        The font at size ``EM``.
    path : Path
        File of the font, to load it smaller for a glyph that is too large.

    Returns
    -------
    ndarray of shape (CANVAS, CANVAS), uint8
        Zeros if the font draws nothing.
    """
    text, margin = chr(code), 4
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    room = CANVAS - 2 * margin
    largest = max(right - left, bottom - top)
    if largest > room:
        font = ImageFont.truetype(str(path), int(EM * room / largest), layout_engine=ImageFont.Layout.BASIC)
        left, top, right, bottom = font.getbbox(text, anchor="ls")
    y = min(max(BASELINE, margin - top), CANVAS - margin - bottom)
    image = Image.new("L", (CANVAS, CANVAS))
    ImageDraw.Draw(image).text((CANVAS / 2 - (left + right) / 2, y), text, fill=255, font=font, anchor="ls")
    return np.asarray(image)


def draw_fonts(fonts: list[str], codes: set[int] | None = None) -> tuple[torch.Tensor, list[int], list[str]]:
    """Draw characters in fonts.

    Parameters
    ----------
    fonts : list of str
        Names of font files, without ``.ttf``.
    codes : set of int, optional
        Characters to draw; all but the held-out ones if None.

    Returns
    -------
    images : Tensor of shape (n, CANVAS, CANVAS), uint8
        The glyphs; those that a font draws empty are left out.
    code_of : list of int
        Code point of each image.
    font_of : list of str
        Font of each image.
    """
    images, code_of, font_of = [], [], []
    for name in fonts:
        path = FONT_DIR / f"{name}.ttf"
        font = ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC)
        wanted = charmap(name)
        for code in sorted(c for c in wanted if not is_held_out(c)) if codes is None else sorted(wanted & codes):
            image = draw_glyph(code, font, path)
            if image.max() > 128:
                images.append(image)
                code_of.append(code)
                font_of.append(name)
    return torch.from_numpy(np.stack(images)), code_of, font_of


def dilate(x: torch.Tensor, across: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """Return the largest value over horizontal and over vertical neighbours, each where it is asked for.

    Parameters
    ----------
    x : Tensor of shape (n, 1, H, W)
        Images.
    across, along : Tensor of shape (n,), bool
        Which images are widened horizontally, and which vertically: serif fonts have thick stems and thin bars.

    Returns
    -------
    Tensor of shape (n, 1, H, W)
        The images with thicker strokes.
    """
    wide = x.clone()
    wide[..., 1:] = torch.maximum(wide[..., 1:], x[..., :-1])
    wide[..., :-1] = torch.maximum(wide[..., :-1], x[..., 1:])
    x = torch.where(across[:, None, None, None], wide, x)
    high = x.clone()
    high[..., 1:, :] = torch.maximum(high[..., 1:, :], x[..., :-1, :])
    high[..., :-1, :] = torch.maximum(high[..., :-1, :], x[..., 1:, :])
    return torch.where(along[:, None, None, None], high, x)


def warp(images: torch.Tensor, rng: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Turn drawn glyphs into varied pictures.

    Stroke weight, scale, shift, rotation, shear, smooth distortion, blur, contrast, polarity and noise.

    Parameters
    ----------
    images : Tensor of shape (n, CANVAS, CANVAS), uint8
        Glyphs, light on dark.
    rng : Generator
        Source of randomness.
    strength : float, default=1.0
        Factor on the geometric changes; 0 leaves them out.

    Returns
    -------
    Tensor of shape (n, IMAGE_SIZE, IMAGE_SIZE), float32
        Grey values in [0, 1].
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=rng) * (high - low) + low

    x = images.to(torch.float32).div(255)[:, None]
    weight = uniform(-1.0, 1.0) * strength  # > 0.2 bolder, > 0.5 bolder twice, < -0.5 thinner
    sides = uniform(0, 3)
    across, along = sides < 2, (sides < 1) | (sides > 2)
    for over in (0.2, 0.5):
        bold = weight > over
        amount = ((weight[bold] - over) / 0.3).clamp(max=1)[:, None, None, None]
        x[bold] = torch.lerp(x[bold], dilate(x[bold], across[bold], along[bold]), amount)
    thin = weight < -0.5
    amount = ((-weight[thin] - 0.5) / 0.5)[:, None, None, None] * 0.7
    x[thin] = torch.lerp(x[thin], -dilate(-x[thin], across[thin], along[thin]), amount)

    angle = uniform(-1, 1) * math.radians(10) * strength
    shear = uniform(-0.25, 0.25) * strength
    size = torch.exp(uniform(-0.13, 0.13) * strength)
    aspect = torch.exp(uniform(-0.12, 0.12) * strength)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos * aspect, (cos * shear - sin) * aspect
    theta[:, 1, 0], theta[:, 1, 1] = sin / aspect, (sin * shear + cos) / aspect
    theta[:, :, 2] = uniform(-0.14, 0.14, 2) * strength
    grid = F.affine_grid(theta, [n, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    bend = torch.randn(n, 2, 5, 5, generator=rng) * (uniform(0, 0.05) * strength)[:, None, None, None]
    grid = grid + F.interpolate(bend, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear").permute(0, 2, 3, 1)
    x = F.grid_sample(x, grid, align_corners=False)

    sigma = (uniform(-0.8, 1.2).clamp(min=0) + 0.2)[:, None]
    taps = torch.exp(-(torch.arange(-2.0, 3.0)[None] ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum(1, keepdim=True))[:, None]
    x = F.conv2d(x.transpose(0, 1), taps[:, :, :, None], padding=(2, 0), groups=n)
    x = F.conv2d(x, taps[:, :, None], padding=(0, 2), groups=n)[0]

    ink, paper = uniform(0, 1), uniform(0, 1)
    low, high = torch.minimum(ink, paper), torch.maximum(ink, paper)
    spread = (0.35 - (high - low)).clamp(min=0)
    low, high = (low - spread / 2).clamp(0, 0.65), (high + spread / 2).clamp(0.35, 1)
    flip = (torch.rand(n, generator=rng) < 0.5)[:, None, None]
    x = torch.where(flip, 1 - x, x) * (high - low)[:, None, None] + low[:, None, None]
    x = x + torch.randn(x.shape, generator=rng) * uniform(0, 0.07)[:, None, None]
    return x.clamp(0, 1)
