from .corpus import Corpus
from .wordnet import corpus_names, load_corpus

__all__ = ["Corpus", "corpus_names", "load_corpus"]
