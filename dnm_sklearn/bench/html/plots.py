"""The report's plots: matplotlib figures as ``svg`` elements that stand inside the page.

Only this module imports matplotlib, and it is imported only when a report is made.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from sklearn.metrics import roc_curve

from dnm_sklearn._utils.safe_text import visible
from dnm_sklearn.plotting._axes import ID_COLOUR, OOD_COLOUR, THRESHOLD_COLOUR

# Eight colours that stay apart for most colour-blind readers, times four kinds of dashes (lengths
# of strokes and gaps in pixels): no two of 32 lines look alike.
COLOURS = (
    "#0b5fa5",
    "#c1440e",
    "#2b7a3d",
    "#7d3c98",
    "#a67c00",
    "#0e7c86",
    "#b0305c",
    "#555555",
)
DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 3), (9, 3, 2, 3))

# One inch has 72 units of SVG, so that at 72 dots per inch a size in points is a size in pixels.
_DPI = 72
_SIZE = (420, 320)
_SCATTER_SIZE, _LARGE_SIZE = (500, 320), (900, 480)
# More labels than this need the larger of the two.
_FEW_LABELS = 10
# Height of a line in a plot with a line of text for each method.
_LINE = 20
# Room for the tick labels and the axes' names, in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44

_TEXT_COLOUR, _GRID_COLOUR, _QUIET_COLOUR = "#39424f", "#e4e8ee", "#8a93a3"
_STYLE: dict[str, Any] = {
    # Words stay words: they can be searched, read aloud, and take the reader's fonts.
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    # Names of methods and sets are shown as they are; a "$" in them starts no formula.
    "text.parse_math": False,
    "text.color": _TEXT_COLOUR,
    "axes.labelcolor": _TEXT_COLOUR,
    "xtick.labelcolor": _TEXT_COLOUR,
    "ytick.labelcolor": _TEXT_COLOUR,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID_COLOUR,
    "grid.linewidth": 1,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    # Tick labels are whole numbers of the axis, not offsets from a number in a corner.
    "axes.formatter.useoffset": False,
    # Lengths of dashes are pixels, as in the legend of the page, not multiples of the line's width.
    "lines.scale_dashes": False,
    "lines.linewidth": 1.8,
    # A curve over 60,000 images has as many corners; those closer to the line than a third of a
    # pixel are left out of the page.
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}
# Distances of ticks that are easy to read, times any power of ten.
_TICK_STEPS = (1, 2, 2.5, 5, 10)

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"(?P<size>[\d.]+px) (?P<family>.+)")
# What matplotlib calls the groups of a plot that belong to a method, for the page's filter.
_KEY = "key-"

# A place, in pixels from the lower left corner.
Pixel = tuple[float, float]

_plot_numbers = itertools.count()


@dataclass(frozen=True)
class Series:
    """One line, or one point, of a plot; the page's filter hides it by its `key` (default: label).

    `style` is the number of its colour and dashes.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    key: str = ""
    style: int = 0


def style_of(number: int) -> tuple[str, tuple[int, ...]]:
    """Return colour and dashes of the line of a number: no two of 32 are alike."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def roc_points(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve with ID as positive: proportions of OOD and of ID images accepted."""
    is_id = np.repeat([True, False], [len(id_scores), len(ood_scores)])
    # Scores are higher for OOD images, so their negative is higher for the positive kind.
    accepted_ood, accepted_id, _ = roc_curve(is_id, -np.concatenate([id_scores, ood_scores]))
    return accepted_ood, accepted_id


def line_chart(
    lines: Sequence[Series],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    diagonal: bool = False,
    markers: bool = False,
) -> Markup:
    """Draw curves, with the line of chance or with marked points if wanted."""
    with _plot_style():
        axes = _new_axes(_SIZE, x_label, y_label)
        axes.set(xlim=x_range, ylim=y_range)

        if diagonal:
            axes.plot(x_range, y_range, color=_QUIET_COLOUR, linewidth=1, linestyle=(0, (3, 3)))

        for number, line in enumerate(lines):
            colour, dashes = style_of(line.style)
            axes.plot(
                line.x,
                line.y,
                color=colour,
                linestyle=(0, dashes) if dashes else "solid",
                marker="o" if markers else "",
                clip_on=False,
                gid=f"{_KEY}{number}",
            )

        return _to_svg(axes, title, description, _keys(lines))


def scatter(
    points: Sequence[Series], *, title: str, description: str, x_label: str, y_label: str
) -> Markup:
    """Draw one labelled point per series, on a logarithmic x axis and a y axis in percent."""
    size = _SCATTER_SIZE if len(points) <= _FEW_LABELS else _LARGE_SIZE
    with _plot_style():
        axes = _new_axes(size, x_label, y_label, "log")

        # From whole decade to whole decade; a time too short for the clock counts as a nanosecond.
        costs = [max(point.x[0], 1e-6) for point in points]
        first = math.floor(math.log10(min(costs)))
        last = max(math.ceil(math.log10(max(costs))), first + 1)
        # And up to the next multiple of ten above the highest point.
        highest = 10 * math.ceil(max(point.y[0] for point in points) / 10 + 0.1)
        axes.set(xlim=(10.0**first, 10.0**last), ylim=(0, min(highest, 100)))

        places = [(cost, point.y[0]) for cost, point in zip(costs, points, strict=True)]
        pixels = axes.transData.transform(places)
        labels = [visible(point.label) for point in points]
        label_places = _place_labels(pixels, labels, size)

        for number, point in enumerate(points):
            colour, _ = style_of(point.style)
            group = f"{_KEY}{number}"
            x, y = pixels[number]
            axes.plot(
                [x], [y], "o", color=colour, markersize=10, transform=None, clip_on=False, gid=group
            )
            _draw_label(axes, (x, y), label_places[number], labels[number], colour, group)

        return _to_svg(axes, title, description, _keys(points))


def rank_axis(
    labels: Sequence[str],
    mean_ranks: np.ndarray,
    alike: Sequence[tuple[int, int]],
    *,
    title: str,
    description: str,
) -> Markup:
    """Draw methods at their mean ranks, and a bar below each run (first, last) that is alike."""
    n_methods = len(labels)
    lowest, top = -1.0 - 0.5 * len(alike), n_methods + 0.5
    # Each label has a line of its own.
    size = (_LARGE_SIZE[0], _TOP + _BOTTOM + math.ceil(_LINE * (top - lowest)))
    with _plot_style():
        axes = _new_axes(size, "mean rank (1 = best)", "")
        axes.set(xlim=(0.8, n_methods + 0.2), ylim=(lowest, top))
        axes.set_yticks([])

        # Best on top, one line each; the label stands on the side with more room.
        for i, label in enumerate(labels):
            colour, _ = style_of(i)
            x, y = float(mean_ranks[i]), n_methods - i
            axes.plot([x], [y], "o", color=colour, markersize=8)
            left = x > (n_methods + 1) / 2
            axes.annotate(
                visible(label),
                (x, y),
                xytext=(-9 if left else 9, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                color=colour,
            )

        for i, (first, last) in enumerate(alike):
            ends = [float(mean_ranks[first]) - 0.05, float(mean_ranks[last]) + 0.05]
            axes.plot(ends, [-0.5 * (i + 1)] * 2, color=_TEXT_COLOUR, linewidth=4)

        return _to_svg(axes, title, description)


def histogram(
    id_scores: np.ndarray,
    ood_scores: np.ndarray,
    threshold: float | None,
    *,
    title: str,
    description: str,
) -> Markup:
    """Draw the proportions of ID and OOD scores in bins, and a finite threshold."""
    if threshold is not None and not math.isfinite(threshold):
        threshold = None
    low, high = _score_range(np.concatenate([id_scores, ood_scores]), threshold)
    edges = np.linspace(low, high, 41)

    with _plot_style():
        axes = _new_axes(_SIZE, "OOD score (higher = more OOD)", "% of the images")
        highest = 0.0

        for scores, colour, dashes in (
            (id_scores, ID_COLOUR, "solid"),
            (ood_scores, OOD_COLOUR, (0, (4, 2))),
        ):
            counts, _ = np.histogram(np.clip(scores, low, high), edges)
            percent = 100 * counts / len(scores)
            highest = max(highest, float(percent.max()))
            axes.stairs(
                percent,
                edges,
                fill=True,
                facecolor=(colour, 0.4),
                edgecolor=colour,
                linestyle=dashes,
                linewidth=1,
                clip_on=False,
            )

        axes.set(xlim=(low, high), ylim=(0, highest))
        if threshold is not None:
            axes.axvline(threshold, color=THRESHOLD_COLOUR, linewidth=2, clip_on=False)

        return _to_svg(axes, title, description)


def _score_range(scores: np.ndarray, threshold: float | None) -> tuple[float, float]:
    """Return the range of a histogram: most scores, and the threshold."""
    # The farthest 0.2 % on each side would leave most of the plot empty: they count in its ends.
    low, high = (float(value) for value in np.quantile(scores, [0.002, 0.998]))
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)

    # Equal scores, or scores as good as equal for numbers of their size, need some width too.
    size = max(1.0, abs(low), abs(high))
    if high - low <= 1e-9 * size:
        low, high = low - 0.5 * size, high + 0.5 * size
    return low, high


def _keys(series: Sequence[Series]) -> list[str]:
    return [visible(one.key or one.label) for one in series]


@contextmanager
def _plot_style() -> Iterator[None]:
    """Draw in the report's style, whatever the user's matplotlibrc says."""
    # Resetting the back end would load one with windows.
    style: Any = {**matplotlib.rcParamsDefault, **_STYLE}
    style.pop("backend")
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The reader's browser has glyphs that the font which measures the text has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _new_axes(size: tuple[int, int], x_label: str, y_label: str, x_scale: str = "linear") -> Axes:
    axes = _shared_axes(size, x_scale)
    for artist in (*axes.lines, *axes.patches, *axes.texts):
        artist.remove()
    axes.set_xlabel(visible(x_label))
    axes.set_ylabel(visible(y_label))
    return axes


# Making axes with all of their ticks takes longer than drawing them, and a report has hundreds.
@cache
def _shared_axes(size: tuple[int, int], x_scale: str) -> Axes:
    width, height = size
    # Without frames there is no ground either: the page shines through.
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, frameon=False)
    inside = Bbox.from_extents(_LEFT, _BOTTOM, width - _RIGHT, height - _TOP)
    place = inside.transformed(figure.transFigure.inverted()).bounds
    axes = figure.add_axes(place, frameon=False)

    # Nothing is drawn beyond the axes; without clipping, a line on their edge has its full width.
    axes.grid(True, clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_TICK_STEPS))
    if x_scale == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=_TICK_STEPS))
    return axes


def _draw_label(
    axes: Axes, point: Pixel, place: Pixel, label: str, colour: str, group: str
) -> None:
    """Write a label beside its point, with a line to it where the label had to move away."""
    if abs(place[1] - point[1]) > 1:
        x, y = zip(point, place, strict=True)
        axes.plot(x, y, color=colour, linewidth=0.8, transform=None, gid=group)

    axes.text(
        *place,
        label,
        transform=None,
        horizontalalignment="left" if place[0] > point[0] else "right",
        verticalalignment="center_baseline",
        gid=group,
    )


def _place_labels(points: np.ndarray, labels: Sequence[str], size: tuple[int, int]) -> list[Pixel]:
    """Find a place beside each point where its label meets no point and no other label, in pixels.

    The label stands left or right of the point, at its height or as near to it as there is room.
    """
    page = Bbox.from_extents(_LEFT, _BOTTOM - 6, *size)
    # At first, the points themselves.
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    places = []
    for (x, y), label in zip(points, labels, strict=True):
        candidates = list(_label_boxes(x, y, len(label)))
        # Where all is taken, two labels on each other are better than none.
        place, box = candidates[0]
        for other, its_box in candidates:
            is_inside = page.contains(*its_box.min) and page.contains(*its_box.max)
            if is_inside and not its_box.count_overlaps(taken):
                place, box = other, its_box
                break
        places.append(place)
        taken.append(box)
    return places


def _label_boxes(x: float, y: float, n_characters: int) -> Iterator[tuple[Pixel, Bbox]]:
    """Give the places of a label beside a point, the nearest first, each with its box."""
    # Seven pixels are a little more than the mean width of a character, 13 the height of a line.
    length = 7 * n_characters
    for shift in sorted(range(-455, 456, 13), key=abs):
        bottom = y + shift - 6
        yield (x + 9, y + shift), Bbox.from_bounds(x + 9, bottom, length, 12)
        yield (x - 9, y + shift), Bbox.from_bounds(x - 9 - length, bottom, length, 12)


def _to_svg(axes: Axes, title: str, description: str, keys: Sequence[str] = ()) -> Markup:
    """Write a figure as an ``svg`` element with a text alternative, for the inside of a page."""
    name = f"plot{next(_plot_numbers)}"

    # The salt makes the identifiers of one plot differ from those of all others of the page.
    matplotlib.rcParams["svg.hashsalt"] = name
    out = io.StringIO()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(out, metadata=no_metadata)
    root = ElementTree.fromstring(out.getvalue())
    for element in root.iter():
        _clean(element, keys)

    # A style sheet inside of the element would hold for the whole page; report.css has these rules.
    style = root.find("defs")
    if style is not None:
        root.remove(style)

    # The text alternative comes first.
    root.attrib = {
        "class": "plot" if figure.get_figwidth() * _DPI <= _SCATTER_SIZE[0] else "plot wide",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}t {name}d",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{name}{tag[0]}")
        element.text = visible(text)
        root.insert(place, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, keys: Sequence[str]) -> None:
    """Turn an element of a file into one of a page, and name the method that a group belongs to."""
    # An HTML page knows the name spaces of SVG by itself.
    element.tag = element.tag.removeprefix(_SVG)
    if _XLINK_HREF in element.attrib:
        element.set("href", element.attrib.pop(_XLINK_HREF))

    # Groups are named alike in all plots, and an identifier may stand on a page only once.
    if element.tag == "g":
        group = element.attrib.pop("id", "")
        if group.startswith(_KEY):
            element.set("data-key", keys[int(group.removeprefix(_KEY))])

    # The page forbids style attributes; what they say can be attributes of their own. Only "font"
    # is short for several.
    for rule in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in rule.partition(":"))
        font = _FONT.fullmatch(value) if name == "font" else None
        if font:
            element.set("font-size", font["size"])
            element.set("font-family", font["family"])
        elif name:
            element.set(name, value)

    # A tenth of a pixel is exact enough, and line ends between the points are not needed.
    path = element.get("d")
    if path is not None:
        path = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path)
        element.set("d", " ".join(path.split()))

    # Nor is the indentation.
    element.tail = None
    if element.text and not element.text.strip():
        element.text = None
