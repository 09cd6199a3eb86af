"""The hint at the end of an error about an unknown name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str,
    known: Iterable[str],
    *,
    n: int = 2,
    cutoff: float = 0.5,
    key: Callable[[str], str] = str.lower,
) -> str:
    """Give `` Did you mean 'A' or 'B'?`` for the known names nearest to `name`, or an empty string.

    `n` is the largest number of names, `cutoff` the smallest similarity (0 to 1, as for
    ``difflib.get_close_matches``), `key` what of a name is compared. The hint begins with a space.

    Examples
    --------
    >>> from dnm_sklearn._utils.did_you_mean import did_you_mean
    >>> did_you_mean("iforrest", ["KNN", "IForest"])
    " Did you mean 'IForest'?"
    >>> did_you_mean("zebra", ["KNN", "IForest"])
    ''
    """
    name_of_key: dict[str, str] = {}
    for one in known:
        name_of_key.setdefault(key(one), one)

    close = get_close_matches(key(name), name_of_key, n=n, cutoff=cutoff)
    if not close:
        return ""

    return f" Did you mean {' or '.join(repr(name_of_key[one]) for one in close)}?"
