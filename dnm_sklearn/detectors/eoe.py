"""EOE: class names against names of outliers that a user, or a language model, thinks of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.names import unique_names
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import CorpusDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Synsets
from dnm_sklearn.embedding import Embedder, EmbeddingTable
from dnm_sklearn.scoring import eoe

Describe = Callable[[list[str]], Iterable[str]]


@fill_parameters(parameters.PARAGRAPHS)
class EOEDetector(CorpusDetector):
    """EOE: the best class name minus a part of the best outlier name, in one softmax over both.

    The outlier names are few and thought of for the task: by the user (`corpus`), or by a function
    of the class names (`describe`), in which any language model can stand. None is needed or
    shipped.

    Parameters
    ----------
    {classes, embedder, prompt, temperature}
        1.0 is the paper's.
    {memory, contamination}
        No rule is known to hold: the zero-shot threshold depends on the outlier names. See
        :doc:`/thresholds`.
    {ood_label, device}
    corpus : Corpus, list of str, str or None, default=None
        The outlier names, all through `prompt`. Without `describe`, and with an ``EmbeddingTable``,
        None = all its other names.
    {synsets}
    describe : callable or None, default=None
        ``describe(class_names) -> names``: a list of strings to a list of strings, called once at
        each fit, in place of `corpus`. A detector with one is saved after
        ``set_params(describe=None)``; the names stay in ``negative_labels_``.
    outlier_weight : float, default=0.25
        The paper's beta.
    {exclude_class_names}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (L,), ndarray (L, D)
        The outlier names and their unit embeddings.
    score_unit_ : float
        Score difference that one logit of the model makes where all probabilities are alike.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the paper's difference of two probabilities. At T = 1 all probabilities are
    near 1 / (K + L), and scores lie close together.

    References
    ----------
    Cao et al., "Envisioning Outlier Exposure by Large Language Models for Out-of-Distribution
    Detection", ICML 2024, arXiv:2406.00806.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, EOEDetector
    >>> table = EmbeddingTable(["cat", "dog", "fox", "wolf"], np.eye(4))
    >>> def describe(class_names):
    ...     return ["fox", "wolf"]  # what a language model answers
    >>> det = EOEDetector(["cat", "dog"], embedder=table, describe=describe).fit()
    >>> scores = det.decision_function(np.eye(4))
    >>> bool(scores[:2].max() < scores[2:].min())
    True
    """

    info = DetectorInfo(
        name="EOE",
        title="Envisioning Outlier Exposure by Large Language Models for Out-of-Distribution "
        "Detection",
        year=2024,
        venue="ICML",
        url="https://arxiv.org/abs/2406.00806",
        needs=("class names", "outlier names"),
    )
    _kept_params = ("outlier_weight",)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CorpusDetector._parameter_constraints,
        "describe": [None, callable],
        "outlier_weight": [Interval(Real, 0, None, closed="left")],
        "exclude_class_names": ["boolean"],
    }

    describe: Describe | None
    outlier_weight: float
    exclude_class_names: bool

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "a photo of a {}",
        temperature: float | Literal["auto"] = 1.0,
        memory: Memory = "auto",
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        corpus: CorpusLike = None,
        synsets: Synsets = None,
        describe: Describe | None = None,
        outlier_weight: float = 0.25,
        exclude_class_names: bool = True,
    ) -> None:
        self._store(locals())

    @property
    def adjective_prompt(self) -> Prompt:
        """All outlier names are nouns here."""
        return self.prompt

    def _given_corpus(self) -> Corpus:
        if self.describe is None:
            if self.corpus is None and not isinstance(self.embedder_, EmbeddingTable):
                raise ValueError(
                    "EOE needs names of outliers: give corpus=[...], or describe=, a function of "
                    "the list of class names that returns some (a language model's answer, say). "
                    "NegLabelDetector does without."
                )
            return super()._given_corpus()

        if self.corpus is not None:
            raise ValueError(
                "corpus= and describe= both give the outlier names: leave one of them out."
            )
        names = unique_names(self.describe(self.class_names_.tolist()), "describe(class_names)")
        if not names:
            raise ValueError("describe(class_names) returned no name; EOE needs one at least.")
        return Corpus(names, name="described")

    def _bank(self) -> Corpus | None:
        # A description is of the user's classes.
        return super()._bank() if self.describe is None else None

    def _fit_text(self) -> None:
        corpus = self._candidates(exclude_class_names=self.exclude_class_names)
        self._keep_labels(corpus, self._encode_corpus(corpus)[0])

        # What one logit of the model's moves a probability by, near 1 / (K + L). Kept, because
        # the model's scale is not at hand where a file was loaded.
        scale = self.embedder_.logit_scale_ * self.temperature_
        self.score_unit_ = float(1 / (scale * self._n_labels()))

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return eoe.outlier_exposure(
            embeddings,
            self.class_embeddings_,
            self.negative_embeddings_,
            temperature=self.temperature_,
            outlier_weight=self.outlier_weight_,
            device=self._scoring_device(),
        )

    def _n_labels(self) -> int:
        return len(self.class_names_) + len(self.negative_labels_)

    def _score_unit(self) -> float:
        return self.score_unit_

    def _zero_shot_threshold(self) -> float:
        return zero_shot.eoe_threshold(self._n_labels(), self.outlier_weight)

    def _zero_shot_doubt(self) -> str:
        return "its constant was fitted with the words of a corpus as outlier names"
