"""Images of a page: as small pictures, and by their paths below a folder."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import Any

from dnm_sklearn._utils.safe_text import file_name_text
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


def common_folder(paths: Sequence[str]) -> str:
    """Give the folder that all image files lie in."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def path_below(path: str, folder: str) -> str:
    """Name a file by its path below a folder, whose own place is nobody's business."""
    return file_name_text(os.path.relpath(os.path.abspath(path), folder)).replace(os.sep, "/")
