"""Parameters that several detectors share: what each may be, and what its documentation says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import joblib
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, StrOptions

from dnm_sklearn._utils.validation import TEMPERATURES
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.corpus.neighbours import Synsets as Synsets

Constraints = dict[str, Any]

# Types of the constructors' parameters. Arrays and Series of strings are iterables of them.
Classes = Iterable[str] | Mapping[str, str | Sequence[str]] | None
Prompt = str | Sequence[str]
Memory = str | os.PathLike[str] | joblib.Memory | None
CorpusLike = Corpus | Iterable[str] | os.PathLike[str] | None
Refine = Callable[[str, list[str]], bool] | str | None

# -- what a value may be --------------------------------------------------------------------------

COMMON: Constraints = {
    # One string, a path, a set or a generator is refused where names are read, which says what to
    # give instead.
    "classes": [
        "array-like",
        dict,
        None,
        Hidden(HasMethods(["__iter__"])),
        Hidden(HasMethods(["__fspath__"])),
    ],
    # Checked where it is made an encoder, by a message that names all that one needs.
    "embedder": "no_validation",
    "prompt": [str, list, tuple],
    "temperature": [StrOptions({"auto"}), Interval(Real, *TEMPERATURES, closed="both")],
    "memory": [str, HasMethods(["cache"]), HasMethods(["__fspath__"]), None],
    "contamination": [
        StrOptions({"auto"}),
        Interval(Real, 0, 0.5, closed="right"),
        # Thresholders: PyThresh's, and what PyOD calls.
        HasMethods(["eval"]),
        HasMethods(["fit", "predict"]),
    ],
    "ood_label": [str],
    "device": [str],
}

CORPUS: Constraints = {
    "corpus": [Corpus, "array-like", str, None],
    "synsets": [dict, None],
    "adjective_prompt": [str, list, tuple],
}

REFINE: Constraints = {"refine": [StrOptions({"wordnet"}), callable, None]}

GROUPS: Constraints = {
    "quantile": [Interval(Real, 0, 1, closed="both")],
    "n_groups": [Interval(Integral, 1, None, closed="left")],
    "exclude_class_names": ["boolean"],
    "random_state": ["random_state"],
}

# NegLabel's mining, which CSP and AdaNeg share.
PERCENTILE_MINING: Constraints = {
    "mining": [StrOptions({"percentile", "none"})],
    "fraction": [Interval(Real, 0, 1, closed="both")],
    "max_similarity": [Interval(Real, -1, 1, closed="both"), None],
}

# Weights and scales that scores are multiplied with: beyond, they overflow.
LARGEST_WEIGHT = 1e6

STREAM: Constraints = {
    "adaptation": [StrOptions({"transductive", "frozen"})],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
}

# -- what the documentation says ------------------------------------------------------------------

# Filled into docstrings by `fill_parameters`; {default} is the default in the class's signature.
PARAGRAPHS = """
classes : list of str, dict or None, default={default}
    ID class names. A dict maps a name to synonyms (put through `prompt`) or templates (strings
    with ``{}``) whose embeddings are averaged. None = names from `y` or `X` in ``fit``.

embedder : CLIPEmbedder, EmbeddingTable, str or None, default={default}
    What turns names and images into vectors; a string is a model name ``"name/tag"``, None =
    ``CLIPEmbedder()``.

prompt : str or list of str, default={default}
    Template for class names (and for nouns of a corpus); a list is an ensemble (mean of unit
    embeddings, renormalised).

temperature : float or "auto", default={default}
    Divides cosines. "auto" = 1 / the model's logit scale (0.01 for CLIP).

memory : "auto", str, path, joblib.Memory or None, default={default}
    Where texts and mined labels are kept: a folder or a cache. "auto" keeps the text bank of a
    shipped corpus only, in the user's cache folder (see :doc:`/guide/caching`). None keeps nothing.

contamination : float, "auto" or PyThresh-style object, default={default}
    A proportion in (0, 0.5] of the non-OOD rows given to ``fit`` to flag. "auto" keeps 95 % of
    rows known to be ID, else uses the method's zero-shot threshold (``predict`` then warns once),
    but 0.1 of unlabelled X where no rule for it is known to hold. An
    object with ``eval(scores)``, or ``fit(scores)`` and ``labels_``, returns 0/1 for the scores
    of those rows; a copy of it is used.

ood_label : str, default={default}
    The string in `y` that marks OOD rows, and that ``predict_class`` returns for them.

device : str, default={default}
    Where scores are computed, as torch names it. "auto" = the embedder's device if it has one,
    else the GPU if there is one.

corpus : Corpus, list of str, str or None, default={default}
    Candidate labels: a :class:`~dnm_sklearn.corpus.Corpus`, names, the name of a shipped list, or
    "wordnet-near", the neighbours of the class names (:meth:`~dnm_sklearn.corpus.Corpus.related`).
    With an ``EmbeddingTable`` None = all its other names.

synsets : dict or None, default={default}
    Class name -> WordNet 3.0 id such as "n01440764", for what WordNet is asked (here the corpus
    "wordnet-near", and `refine` where there is one). None: the most frequent sense of each name has
    neighbours, and every sense has kinds.

adjective_prompt : str or list of str, default={default}
    Template for adjectives.

refine : {"wordnet"}, callable or None, default={default}
    Drop bad negative labels before anything else. "wordnet" = NegRefine's filter by WordNet: nouns
    that are proper nouns in all their senses, and those with a sense below a sense of a class name
    (kinds of a class). A callable gets a label and the list of class names, a language model's
    verdict say, and returns True to drop it.

mining : {"percentile", "none"}, default={default}
    "percentile" keeps the labels that are farthest from the class names; "none" keeps the corpus
    as given.

quantile : float, default={default}
    Quantile over the class names of a candidate's cosines: its closeness to the classes.

fraction : float, default={default}
    Proportion of nouns, and of adjectives, to keep (the farthest); at least one label is kept.

n_groups : int, default={default}
    Groups that the kept labels are dealt into; the score is the mean over groups.

max_similarity : float or None, default={default}
    Drop candidates with a larger cosine to any class name first (CSP's duplicate rule).

exclude_class_names : bool, default={default}
    Drop candidates equal to a class name, ignoring case.

batch_size : int, default={default}
    Images scored at once in a stream.

adaptation : {"transductive", "frozen"}, default={default}
    "transductive": ``decision_function(X)`` scores X as a stream on a scratch copy of the state.
    "frozen": it scores with the present state. Neither changes the detector.

random_state : int, RandomState instance or None, default={default}
    Seed of the grouping, drawn once at fit; None keeps the mined order.
"""
