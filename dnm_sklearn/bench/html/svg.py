"""Small plots as inline SVG, each with a title and a description for those who cannot see it."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = ("#0b5fa5", "#c1440e", "#2b7a3d", "#7d3c98", "#a67c00", "#0e7c86", "#b0305c", "#555555")
DASHES = ("", "6 3", "2 3", "9 3 2 3")
_WIDTH, _HEIGHT = 420, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
_ids = itertools.count()


@dataclass(frozen=True)
class Line:
    """A curve, or some points.

    Parameters
    ----------
    label : str
        What it is.
    x, y : sequence of float
        Points.
    key : str
        What a filter of the page matches; default: the label.
    style : int
        Number of its colour and dashes; default: its place among the lines.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    key: str = ""
    style: int | None = None


def escape(text: object) -> str:
    """Make any text safe within HTML and SVG, in elements and in quoted attributes.

    Parameters
    ----------
    text : object
        Its ``str`` is taken; control characters and lone surrogates become a replacement mark.

    Returns
    -------
    str

    Examples
    --------
    >>> from dnm_sklearn.bench.html.svg import escape
    >>> escape("<b>'x'</b>")
    '&lt;b&gt;&#x27;x&#x27;&lt;/b&gt;'
    """
    clean = "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0) else "\ufffd"
        for c in str(text)
    )
    return html.escape(clean.encode("utf-8", "replace").decode("utf-8"), quote=True)


def style_of(number: int) -> tuple[str, str]:
    """Return colour and dashes of the curve of a number: no two of 32 are alike.

    Parameters
    ----------
    number : int
        From 0.

    Returns
    -------
    tuple of (str, str)
    """
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    diagonal: bool = False,
    points: bool = False,
) -> str:
    """Draw curves.

    Parameters
    ----------
    lines : sequence of Line
        Styled by their position.
    title, description : str
        The text alternative.
    x_label, y_label : str
        Of the axes.
    x_range, y_range : tuple of float
        Of the axes.
    diagonal : bool, default=False
        Whether to draw the line of chance.
    points : bool, default=False
        Whether to mark the points.

    Returns
    -------
    str
        An ``svg`` element.
    """
    x_of, y_of = _scale(x_range, _LEFT, _WIDTH - _RIGHT), _scale(y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = _axes(x_range, y_range, x_label, y_label)
    if diagonal:
        ends = f'x1="{_LEFT}" y1="{_HEIGHT - _BOTTOM}" x2="{_WIDTH - _RIGHT}" y2="{_TOP}"'
        parts.append(f'<line class="chance" {ends}/>')
    for number, line in enumerate(lines):
        colour, dash = style_of(number if line.style is None else line.style)
        place = [(x_of(x), y_of(y)) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        body = f'<polyline points="{path}" fill="none" stroke-width="1.8" {style}/>'
        if points:
            body += "".join(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in place
            )
        parts.append(f'<g data-key="{escape(line.key or line.label)}">{body}</g>')
    return _svg(parts, title, description)


def scatter(
    lines: Sequence[Line], *, title: str, description: str, x_label: str, y_label: str
) -> str:
    """Draw one labelled point a line, on a logarithmic x axis and a y axis in percent.

    Parameters
    ----------
    lines : sequence of Line
        Of one point each.
    title, description : str
        The text alternative.
    x_label, y_label : str
        Of the axes.

    Returns
    -------
    str
        An ``svg`` element.
    """
    width = 500
    xs = [math.log10(max(line.x[0], 1e-6)) for line in lines]
    x_range = (math.floor(min(xs)), max(math.ceil(max(xs)), math.floor(min(xs)) + 1))
    x_of, y_of = (
        _scale(x_range, _LEFT, width - _RIGHT),
        _scale((0.0, 100.0), _HEIGHT - _BOTTOM, _TOP),
    )
    parts = _axes(x_range, (0.0, 100.0), x_label, y_label, width=width, log=True)
    taken: list[tuple[float, float]] = []
    for number, (x, line) in enumerate(zip(xs, lines, strict=True)):
        colour, _ = style_of(number if line.style is None else line.style)
        cx, cy = x_of(x), y_of(line.y[0])
        right = cx < 0.65 * width
        ty = _free_height(cx, cy + 4, taken)
        taken.append((cx, ty))
        anchor = "" if right else ' text-anchor="end"'
        words = f'<text x="{cx + (9 if right else -9):.1f}" y="{ty:.1f}"{anchor}>{escape(line.label)}</text>'
        dot = f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="5" fill="{colour}"/>'
        if abs(ty - 4 - cy) > 1:
            ends = f'x1="{cx:.1f}" y1="{cy:.1f}" x2="{cx + (8 if right else -8):.1f}" y2="{ty - 4:.1f}"'
            dot = f'<line {ends} stroke="{colour}" stroke-width=".8"/>{dot}'
        parts.append(f'<g data-key="{escape(line.key or line.label)}">{dot}{words}</g>')
    return _svg(parts, title, description, width=width)


def histogram(
    id_scores: np.ndarray,
    ood_scores: np.ndarray,
    threshold: float | None,
    *,
    title: str,
    description: str,
) -> str:
    """Draw the shares of ID and OOD scores in bins, with the threshold.

    Parameters
    ----------
    id_scores, ood_scores : ndarray
        Higher = more OOD; finite.
    threshold : float or None
        Where it is drawn, if it lies in the range.
    title, description : str
        The text alternative.

    Returns
    -------
    str
        An ``svg`` element.
    """
    both = np.concatenate([id_scores, ood_scores])
    low, high = (float(v) for v in np.quantile(both, [0.002, 0.998]))
    if threshold is not None and math.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 41)
    shares = [
        np.histogram(np.clip(s, low, high), edges)[0] / max(1, len(s))
        for s in (id_scores, ood_scores)
    ]
    top = max(float(s.max()) for s in shares) or 1.0
    x_of, y_of = (
        _scale((low, high), _LEFT, _WIDTH - _RIGHT),
        _scale((0.0, 100 * top), _HEIGHT - _BOTTOM, _TOP),
    )
    parts = _axes((low, high), (0.0, 100 * top), "OOD score (higher = more OOD)", "% of the images")
    floor = _HEIGHT - _BOTTOM
    for share, kind in zip(shares, ("id", "ood"), strict=True):
        outline = [f"{x_of(low):.1f},{floor}"]
        for i, value in enumerate(share):
            y = y_of(100 * float(value))
            outline += [f"{x_of(edges[i]):.1f},{y:.1f}", f"{x_of(edges[i + 1]):.1f},{y:.1f}"]
        outline.append(f"{x_of(high):.1f},{floor}")
        parts.append(f'<polygon class="h-{kind}" points="{" ".join(outline)}"/>')
    if threshold is not None and math.isfinite(threshold):
        x = x_of(threshold)
        parts.append(f'<line class="cut" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{floor}"/>')
    return _svg(parts, title, description)


def _free_height(x: float, y: float, taken: list[tuple[float, float]]) -> float:
    """Height of a label that meets no other, as near to its point as can be."""
    for shift in sorted(range(-260, 261, 13), key=abs):
        inside = _TOP + 8 <= y + shift <= _HEIGHT - _BOTTOM - 2
        if inside and not any(
            abs(y + shift - other) < 12.5 and abs(x - ox) < 190 for ox, other in taken
        ):
            return y + shift
    return y


def _scale(values: tuple[float, float], start: float, end: float) -> Callable[[float], float]:
    low, high = values
    return lambda v: start + (end - start) * (min(max(v, low), high) - low) / (high - low)


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * k for k in (1, 2, 2.5, 5, 10) if (high - low) / (step * k) <= 5.01)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
    *,
    width: int = _WIDTH,
    log: bool = False,
) -> list[str]:
    x_of, y_of = _scale(x_range, _LEFT, width - _RIGHT), _scale(y_range, _HEIGHT - _BOTTOM, _TOP)
    floor, right = _HEIGHT - _BOTTOM, width - _RIGHT
    parts = []
    for value in _ticks(*y_range):
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in range(int(x_range[0]), int(x_range[1]) + 1) if log else _ticks(*x_range):
        x = x_of(value)
        said = f"{10.0**value:g}" if log else f"{value:g}"
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{floor}"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{said}</text>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    turn = (_TOP + floor) / 2
    parts.append(
        f'<text transform="translate(13,{turn:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return parts


def _svg(parts: list[str], title: str, description: str, *, width: int = _WIDTH) -> str:
    name = f"plot{next(_ids)}"
    head = f'<svg viewBox="0 0 {width} {_HEIGHT}" role="img" aria-labelledby="{name}t {name}d">'
    words = f'<title id="{name}t">{escape(title)}</title><desc id="{name}d">{escape(description)}</desc>'
    return head + words + "".join(parts) + "</svg>"
