"""Tables that a notebook shows in the place of a ``repr``: one file's text, no style sheet."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from dnm_sklearn._utils.safe_text import visible

# Pixels of the side of a thumbnail, and how many stand in a row.
_SIDE, _MOST = 48, 8


class Html(str):
    """Text that is HTML already."""


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table with a caption; cells are escaped, but for those of :func:`thumbnails`."""
    columns = "".join(f"<th style='text-align:left'>{_cell(name)}</th>" for name in head)
    lines = []
    for row in rows:
        cells = "".join(f"<td style='text-align:left'>{_cell(value)}</td>" for value in row)
        lines.append(f"<tr>{cells}</tr>")
    caption = f"<caption style='caption-side:top;text-align:left'>{_cell(title)}</caption>"
    body = "".join(lines)
    return f"<table>{caption}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    """The HTML of one value."""
    if isinstance(value, Html):
        return value
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return escape(visible(text))


def thumbnails(images: Any) -> Html:
    """Small pictures, evenly taken from arrays of pixels; nothing where there are none."""
    # Paths are not read to be shown, and embeddings cannot be seen.
    is_pixels = isinstance(images, np.ndarray) and images.ndim == 4 and images.dtype == np.uint8
    if not is_pixels or not len(images):
        return Html()
    from PIL import Image

    shown = []
    for index in np.unique(np.linspace(0, len(images) - 1, _MOST).astype(int)):
        picture = Image.fromarray(images[index])
        picture.thumbnail((_SIDE, _SIDE))
        file = BytesIO()
        picture.save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode("ascii")
        shown.append(
            f"<img alt='' src='data:image/png;base64,{data}' width='{picture.width}' "
            "style='display:inline-block;margin:1px'/>"
        )
    return Html("".join(shown))
