"""Pictures of 64 x 64 pixels out of icons, in whole numbers: the same bits on every machine.

An icon is drawn turned by up to 8 degrees, at 70 to 95 % of the picture, on a background that is
plain, a gradient or coarse noise. Icons are RGBA with colours multiplied by alpha.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

SIZE = 64
ICON = 72

# Cosines and sines of 0 to 8 degrees, times 2**16. Written out: no library's rounding is in them.
_COS = np.array([65536, 65526, 65496, 65446, 65376, 65287, 65177, 65048, 64898])
_SIN = np.array([0, 1144, 2287, 3430, 4572, 5712, 6850, 7987, 9121])

# Pictures that are drawn together. Each such part has random numbers of its own: another number
# here gives other pictures.
_PART = 64
# Four channels of 8 bits in one number of 64 bits, 16 bits for each: one product weighs all four.
_PLACES = np.array([0, 16, 32, 48], dtype=np.uint64)
_LOW_BYTES = np.uint64(0x00FF00FF00FF00FF)
_HALVES = np.uint64(0x0080008000800080)
# Cells of the coarsest and the finest noise of a background.
_CELLS = (2, 3, 4, 5, 6)


class _Dice:
    """Random whole numbers that depend on a word alone."""

    def __init__(self, word: str) -> None:
        # The raw numbers of a bit generator never change; the methods of Generator may.
        self._source = np.random.PCG64(int.from_bytes(blake2b(word.encode()).digest()[:16], "big"))

    def roll(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Return numbers from `low` to `high`, both included."""
        raw = self._source.random_raw(int(np.prod(shape))) >> np.uint64(11)
        return low + (raw % np.uint64(high - low + 1)).astype(np.int64).reshape(shape)


def draw_icons(pixels: np.ndarray, palettes: np.ndarray, line: np.ndarray, seed: str) -> np.ndarray:
    """Draw each icon on a background of its own: uint8 of shape (n, 64, 64, 3).

    `pixels` of shape (n, 72, 72) are numbers of colours in `palettes`, uint8 of shape (n, m, 4). Of
    icons for which `line` of shape (n,) is true only the alpha counts: they get an ink that the
    background lets be seen.
    """
    out = np.empty((len(pixels), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(pixels), _PART):
        part = slice(start, start + _PART)
        dice = _Dice(f"{seed} {start}")
        out[part] = _draw_part(pixels[part], palettes[part], line[part], dice)
    return out


def _draw_part(
    pixels: np.ndarray, palettes: np.ndarray, line: np.ndarray, dice: _Dice
) -> np.ndarray:
    n = len(pixels)
    ground = _backgrounds(n, dice)
    # Two pixels of nothing around: every place outside is sampled there.
    icons = np.zeros((n, ICON + 4, ICON + 4), np.uint64)
    icons[:, 2:-2, 2:-2] = _packed(palettes)[np.arange(n)[:, None, None], pixels]
    drawn = _warp(icons, _maps(n, dice))

    colour, alpha = drawn[..., :3], drawn[..., 3:].astype(np.int32)
    inks = _inks(ground, dice)
    inked = (alpha[line] * inks[line, None, None] + 127) // 255
    picture = colour.astype(np.int32)
    picture[line] = inked
    picture += (ground * (255 - alpha) + 127) // 255
    return np.minimum(picture, 255).astype(np.uint8)


def draw_textures(n: int, seed: str) -> np.ndarray:
    """Draw patterns that show no thing: noise, stripes, checks, plaid, dots and waves, in turn."""
    dice = _Dice(seed)
    two = dice.roll(0, 255, n, 2, 3)
    y, x = np.mgrid[:SIZE, :SIZE]
    out = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for i in range(n):
        step, a, b = (int(dice.roll(*limits, 1)[0]) for limits in ((3, 12), (-4, 4), (1, 4)))
        slant = (a * x + b * y) // (2 * step)
        cells = int(dice.roll(1, 4, 1)[0])
        mask = (
            enlarge(dice.roll(0, 255, 1, 4 << cells, 4 << cells, 1), SIZE)[0, ..., 0],
            slant % 2 * 255,
            (x // step + y // step) % 2 * 255,
            (x // step % 2 + y // step % 2) * 127,
            ((x % (2 * step) - step) ** 2 + (y % (2 * step) - step) ** 2 < step * step // 2) * 255,
            np.abs((x + abs(y % (4 * step) - 2 * step)) % (2 * step) - step) * 255 // step,
        )[i % 6]
        weight = mask[..., None]
        out[i] = (two[i, 0] * weight + two[i, 1] * (255 - weight) + 127) // 255
    return out


def enlarge(grids: np.ndarray, size: int) -> np.ndarray:
    """Enlarge square grids of whole numbers, (n, m, m, c), to (n, size, size, c), bilinearly."""
    m = grids.shape[1]
    # Where the middle of each pixel lies between the middles of two cells, in 1/256 of a cell.
    at = np.clip((2 * np.arange(size) + 1) * m * 128 // size - 128, 0, (m - 1) * 256)
    low, part = at // 256, at % 256
    high = np.minimum(low + 1, m - 1)
    rows = grids[:, low] * (256 - part)[:, None, None] + grids[:, high] * part[:, None, None]
    return (rows[:, :, low] * (256 - part)[:, None] + rows[:, :, high] * part[:, None]) >> 16


def _backgrounds(n: int, dice: _Dice) -> np.ndarray:
    """Return backgrounds, (n, 64, 64, 3): plain, gradient, or noise; 35 % of them near white."""
    light = dice.roll(1, 100, n) <= 35
    near_white = np.repeat(dice.roll(224, 255, n, 1), 3, axis=1)
    base = np.where(light[:, None], near_white, dice.roll(0, 255, n, 3))

    kind = dice.roll(0, 2, n)
    slopes = dice.roll(-32, 32, n, 2, 3)
    cells = dice.roll(_CELLS[0], _CELLS[-1], n)
    strength = dice.roll(0, 60, n)
    values = (
        dice.roll(-255, 255, n, _CELLS[-1], _CELLS[-1], 3) * strength[:, None, None, None] // 255
    )

    ground = np.zeros((n, SIZE, SIZE, 3), np.int32)
    line = (np.arange(SIZE) * 2 + 1 - SIZE)[:, None]
    for i in np.flatnonzero(kind):
        if kind[i] == 1:
            ground[i] = (line[:, None] * slopes[i, 0] + line * slopes[i, 1]) // SIZE
        else:
            ground[i] = enlarge(values[i : i + 1, : cells[i], : cells[i]], SIZE)[0]

    # Near white changes less: it stays near white.
    ground[light] = ground[light] * 3 // 10
    ground += base[:, None, None].astype(np.int32)
    return np.clip(ground, 0, 255, out=ground)


def _inks(grounds: np.ndarray, dice: _Dice) -> np.ndarray:
    """Return inks, (n, 3): white on dark and black on light, or a colour, 40 %."""
    n = len(grounds)
    dark = grounds.sum((1, 2, 3)) < 128 * grounds[0].size
    colour = dice.roll(0, 255, n, 3)
    colour = np.where(dark[:, None], 140 + colour * 115 // 255, colour // 2)
    black_or_white = np.where(dark, 255, 0)[:, None]
    plain = dice.roll(1, 100, n) <= 60
    return np.where(plain[:, None], black_or_white, colour).astype(np.int32)


def _maps(n: int, dice: _Dice) -> np.ndarray:
    """Return how to sample icons, (n, 4): cosine and sine over scale, times 2**16, and shifts."""
    scale = dice.roll(70, 95, n)
    degrees = dice.roll(-8, 8, n)
    # From picture to icon: a smaller icon means larger steps.
    step = np.array([_COS[abs(degrees)], np.sign(degrees) * _SIN[abs(degrees)]])
    step = step * ICON * 100 // (SIZE * scale)
    # Up to 70 % of the room beside the icon, in half pixels.
    shift = dice.roll(-70, 70, 2, n) * (100 - scale) * SIZE // 10_000
    return np.concatenate([step, shift]).T


def _packed(palettes: np.ndarray) -> np.ndarray:
    """Pack colours of four bytes, (n, m, 4), into numbers (n, m)."""
    return (palettes.astype(np.uint64) << _PLACES).sum(axis=-1, dtype=np.uint64)


def _warp(icons: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Sample packed icons with their margins bilinearly: uint8 of shape (n, 64, 64, 4)."""
    n, side = len(icons), icons.shape[1]
    # Twice the distance of pixels from the middle, then their places in the icon times 2**16.
    line = 2 * np.arange(SIZE) + 1 - SIZE
    cos, sin, right, down = maps.T[..., None, None]
    u, v = line[None, None, :] - right, line[None, :, None] - down
    middle = (side << 15) - 2**15
    y, x = (
        np.clip(at // 2 + middle, 0, (side - 2) << 16)
        for at in (cos * v - sin * u, cos * u + sin * v)
    )

    # 1/256 of a pixel is as fine as colours of 256 levels can show.
    at = (np.arange(n)[:, None, None] * side + (y >> 16)) * side + (x >> 16)
    fy, fx = ((one >> 8 & 255).astype(np.uint64) for one in (y, x))
    flat = icons.ravel()
    upper = _between(flat[at], flat[at + 1], fx)
    lower = _between(flat[at + side], flat[at + side + 1], fx)
    mixed = _between(upper, lower, fy)
    return (mixed[..., None] >> _PLACES).astype(np.uint8)


def _between(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Mix packed colours: b has `part` of 256."""
    # No channel reaches the next: 255 * 256 + 128 < 2**16.
    return (a * (np.uint64(256) - part) + b * part + _HALVES) >> np.uint64(8) & _LOW_BYTES
