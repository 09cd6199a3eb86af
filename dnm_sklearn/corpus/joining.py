"""Adjectives joined to superclasses: "rusty" to "rusty place", as CSP takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from dnm_sklearn.corpus.corpus import Corpus

# The authors' fourteen superclasses.
SUPERCLASSES = (
    "environment", "space", "object", "scene", "place", "item", "area", "view", "thing", "pattern",
    "structure", "landscape", "vista", "creature",
)  # fmt: skip
# Lexicographer file of an adjective that is joined to a superclass already, so that it is not
# joined again.
JOINED = "adj.joined"


def join_adjectives(
    corpus: Corpus,
    superclasses: Sequence[str] = SUPERCLASSES,
    random_state: Any = 0,
    has: Callable[[str], bool] | None = None,
) -> Corpus:
    """Join each adjective of a corpus to a superclass drawn for it.

    Adjectives whose lexicographer file is ``JOINED`` stay as they are. `has` tells the joined names
    that can be had: where the one drawn cannot, the next superclass (in their order, from the one
    drawn on) whose joined name can takes its place.

    Examples
    --------
    >>> from dnm_sklearn.corpus import Corpus
    >>> from dnm_sklearn.corpus.joining import join_adjectives
    >>> join_adjectives(Corpus(["teapot", "rusty"], ["noun", "adjective"])).names
    ('teapot', 'rusty vista')
    """
    bare = np.flatnonzero(corpus.is_adjective & (corpus.lexname != JOINED))
    if not len(bare):
        return corpus

    drawn = check_random_state(random_state).randint(len(superclasses), size=len(bare))

    # Position by position, so that a corpus with its order keeps it.
    names, lexname = list(corpus.names), corpus.lexname.astype(object)
    for i, first in zip(bare, drawn.tolist(), strict=True):
        names[i] = _joined(names[i], [*superclasses[first:], *superclasses[:first]], has)
    lexname[bare] = JOINED
    return Corpus(names, corpus.part_of_speech, lexname.tolist(), name=f"{corpus.name} (joined)")


def _joined(adjective: str, superclasses: Sequence[str], has: Callable[[str], bool] | None) -> str:
    """Join an adjective to the first superclass, or to the first with a name that can be had."""
    joined = [f"{adjective} {superclass}" for superclass in superclasses]
    if has is None:
        return joined[0]
    return next((name for name in joined if has(name)), joined[0])
