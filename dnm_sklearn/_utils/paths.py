"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Make a `Path` of what a user gave, with the user's folder in the place of a tilde.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dnm_sklearn._utils.paths import user_path
    >>> user_path("~/photos") == Path.home() / "photos", user_path("photos").as_posix()
    (True, 'photos')
    """
    # Not Path.expanduser, which raises for the name of no user, such as that of a file "~1.png".
    return Path(os.path.expanduser(path))
