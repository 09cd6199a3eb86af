"""Words: a small immutable :class:`Corpus`, and the WordNet 3.0 list that the negative-label methods share.

Importing this package is cheap; the shipped list is read when :func:`load_corpus` is first called.
"""

from dnm_sklearn.corpus.check import check_corpus
from dnm_sklearn.corpus.corpus import Corpus
from dnm_sklearn.corpus.wordnet import corpus_names, lexicographer_files, load_corpus

__all__ = ["Corpus", "check_corpus", "corpus_names", "lexicographer_files", "load_corpus"]
