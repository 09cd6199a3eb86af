"""Images as small pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import Any

from dnm_sklearn.embedding.images import read_rgb

# Pixels of a side on the page; files have twice as many for screens of high density.
SIDE = 96


def thumbnail(image: Any) -> str:
    """Write an image as a small JPEG in a data URI."""
    small = read_rgb(image)
    small.thumbnail((SIDE * 2, SIDE * 2))

    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
