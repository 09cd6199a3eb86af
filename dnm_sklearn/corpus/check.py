"""Anything that stands for a corpus, to a :class:`Corpus`."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dnm_sklearn.corpus.corpus import Corpus
from dnm_sklearn.corpus.neighbours import NEAR, Synsets
from dnm_sklearn.corpus.wordnet import corpus_names, load_corpus

_HOW_TO_NAME = (
    "Give a list of strings, a path to a text file with one name per line, or one of the shipped "
    f"selections: {', '.join(map(repr, corpus_names()))}; with class names also {NEAR!r}."
)


def shipped_corpus(corpus: object) -> Corpus | None:
    """The shipped selection that a corpus or a name is, whole; None of anything else."""
    name = corpus.name if isinstance(corpus, Corpus) else corpus
    if not isinstance(name, str) or name not in corpus_names():
        return None
    shipped = load_corpus(name)
    # A corpus of the user's may have that name too.
    return None if isinstance(corpus, Corpus) and corpus != shipped else shipped


def check_corpus(
    corpus: Corpus | Iterable[str] | str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    synsets: Synsets = None,
) -> Corpus:
    """Make a `Corpus` of anything that stands for one.

    That is a corpus (returned as it is), names, a text file with one name per line, or the name of
    a shipped selection (see :func:`load_corpus`), which is never taken as a file. "wordnet-near" is
    near to `class_names`, whose `synsets` are those of :meth:`Corpus.related`.
    """
    if isinstance(corpus, Corpus):
        return corpus
    if isinstance(corpus, str) and corpus in corpus_names():
        return load_corpus(corpus)
    if isinstance(corpus, str) and corpus == NEAR and class_names is not None:
        return Corpus.related(class_names, synsets=synsets)
    if isinstance(corpus, (str, os.PathLike)):
        if os.path.isfile(os.path.expanduser(corpus)):
            return Corpus.from_file(corpus)
        # Of a string that is neither a selection nor a file, guess which one was meant.
        text = os.fspath(corpus)
        is_bare = isinstance(corpus, str) and os.path.basename(text) == text
        if is_bare and not text.lower().endswith((".txt", ".tsv")):
            return load_corpus(text)
        raise FileNotFoundError(f"There is no corpus file {text!r}. {_HOW_TO_NAME}")
    if isinstance(corpus, Iterable) and not isinstance(corpus, (bytes, bytearray)):
        return Corpus(corpus)

    raise TypeError(f"corpus cannot be {type(corpus).__name__}. {_HOW_TO_NAME}")
