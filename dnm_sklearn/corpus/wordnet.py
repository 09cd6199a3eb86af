"""The shipped WordNet 3.0 list and its named selections."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from dnm_sklearn._utils.did_you_mean import did_you_mean
from dnm_sklearn.corpus.columns import shipped_blocks
from dnm_sklearn.corpus.corpus import Corpus
from dnm_sklearn.corpus.neighbours import NEAR

# What the papers leave out, see `load_corpus`.
_NEGLABEL_EXCLUDES = frozenset({"noun.animal", "noun.food"})
_EXCLUDES = {
    "wordnet": frozenset[str](),
    "wordnet-neglabel": _NEGLABEL_EXCLUDES,
    "wordnet-csp": _NEGLABEL_EXCLUDES | {"noun.person", "noun.quantity", "noun.group", "adj.pert"},
}


def corpus_names() -> tuple[str, ...]:
    """Names of the shipped selections, for :func:`load_corpus`.

    Returns
    -------
    tuple of str
        The names.

    Examples
    --------
    >>> from dnm_sklearn.corpus import corpus_names
    >>> corpus_names()
    ('wordnet', 'wordnet-neglabel', 'wordnet-csp')
    """
    return tuple(_EXCLUDES)


@lru_cache(maxsize=1)
def lexicographer_files() -> Mapping[str, tuple[str, ...]]:
    """Give the shipped list as it is: lexicographer file of WordNet 3.0 -> words, read-only.

    Nouns come first, then adjectives, by WordNet's file number. A file holds the first lemma of
    each of its synsets, lower-cased, with spaces for underscores, in database order, each word
    once. A word may stand in several files.
    """
    # Each block is the name of a file and its words.
    blocks = shipped_blocks("wordnet30.txt.xz")
    return MappingProxyType({file: tuple(words) for file, *words in blocks})


@lru_cache(maxsize=len(_EXCLUDES))
def _load(name: str) -> Corpus:
    """Make a selection; a word of several of its files stands under the first."""
    # A dict keeps the order in which words came, and the first file of each.
    rows: dict[str, str] = {}
    for file, words in lexicographer_files().items():
        if file not in _EXCLUDES[name]:
            for word in words:
                rows.setdefault(word, file)

    pos = ["noun" if file.startswith("noun.") else "adjective" for file in rows.values()]
    return Corpus(rows, pos, list(rows.values()), name=name)


def load_corpus(name: str = "wordnet-neglabel") -> Corpus:
    """Load one of the shipped selections of WordNet 3.0.

    * ``wordnet``: every noun and adjective file.
    * ``wordnet-neglabel``: without noun.animal and noun.food; what NegLabel (arXiv 2403.20078)
      mines.
    * ``wordnet-csp``: without noun.person, noun.quantity, noun.group and adj.pert as well; what CSP
      (NeurIPS 2024) and DNM (arXiv 2605.23797) mine.

    Names are ordered by lexicographer file (nouns first, then adjectives, by WordNet's file
    number), within a file by the database. A word of several files *of the selection* stands once,
    under the first of them; a word that is a noun and an adjective is therefore a noun, unless the
    selection leaves out its noun files. (So a selection can hold words that
    ``load_corpus("wordnet").filter(exclude_lexname=...)`` drops.)

    Parameters
    ----------
    name : {"wordnet", "wordnet-neglabel", "wordnet-csp"}, default="wordnet-neglabel"
        The selection.

    Returns
    -------
    Corpus
        The same immutable object at every call in a process.

    Raises
    ------
    ValueError
        If there is no such selection.
    TypeError
        If `name` is not a string.

    Notes
    -----
    The authors' lists were made in another way from the same WordNet (some of their words still
    carry a bracket of its source files), and which of a word's files counts depended on the order
    of a directory. Their ``wordnet-csp`` has 47,327 nouns and 9,293 adjectives; ours has 0.1 %
    fewer nouns and 9.8 % more adjectives, as their adj.all is a text about 8 % shorter than that of
    all first lemmas.

    Examples
    --------
    >>> from dnm_sklearn.corpus import load_corpus
    >>> load_corpus("wordnet-csp")
    Corpus('wordnet-csp', 57,493 names: 47,287 nouns, 10,206 adjectives)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be one of {corpus_names()}, got {type(name).__name__}.")
    if name == NEAR:
        raise ValueError(
            f"{NEAR!r} depends on the class names: Corpus.related(class_names), or "
            f'corpus="{NEAR}" of a detector.'
        )
    if name not in _EXCLUDES:
        raise ValueError(
            f"There is no shipped corpus {name!r}.{did_you_mean(name, corpus_names(), n=1)} Known: "
            f"{', '.join(map(repr, corpus_names()))}. For a corpus of your own use Corpus(names) "
            "or Corpus.from_file(path)."
        )

    return _load(name)
