"""Rényi: the class names against a soft worst case of all labels, solved exactly."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Synsets
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.scoring import renyi

# Of tails from 2 to 8 % that were tried, all are about as good; softer and harder ones are worse.
_TAIL = 0.03
# The worst case must rest on several labels, or one false negative decides.
_FEWEST_LABELS = 5


@fill_parameters(parameters.PARAGRAPHS)
class RenyiDetector(NegativeLabelDetector):
    """Rényi worst case: the class names against a soft mean of the top labels of the corpus.

    NegLabel's score compares the class names with the worst single corpus label, about. This one
    compares them with the worst case over a Rényi ball of label distributions, which is a soft mean
    of the `tail` nearest labels, class names included. The paper's order and radius act together as
    that one proportion; the minimum that defines the worst case is found exactly.

    Parameters
    ----------
    {classes, embedder, prompt, temperature, memory, contamination}
        The zero-shot threshold is a rule for ``tail_`` near 3 %; see :doc:`/thresholds`.
    {ood_label, device, corpus, synsets}
        Without a table None = "wordnet-csp".
    {adjective_prompt, mining, quantile}
    noun_fraction, adjective_fraction : float, default=0.15, 0.1
        Proportions of nouns and of adjectives to keep; at least one label is kept.
    {max_similarity, exclude_class_names}
    tail : float or "auto", default="auto"
        Proportion of all labels in (0, 1) that the worst case rests on. "auto" = 0.03, or as many
        as 5 labels are of a smaller corpus. With less than one label it is the nearest label alone.
    radius : float or None, default=None
        The paper's radius of the ball, in place of `tail`: above 1, and with the released solver
        above 0. None = by `tail`.
    order : float, default=1.05
        The paper's Rényi order, in (1, 2). Given the tail it changes little.
    solver : {"exact", "released"}, default="exact"
        "exact" finds the minimum. "released" takes the authors' few steps towards it, which end far
        from it: their start and number act as two more parameters.
    beta_start, n_steps, learning_rate : float, int, float, default=-0.12, 15, 0.01
        Start (a cosine), number and length of the released solver's steps; its values for ViT-B/32.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (M,), ndarray (M, D)
        The mined labels and their unit embeddings.
    radius_, tail_ : float
        The radius used, and the proportion of the K + M labels that it stands for (1 = all).
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the log-sum-exp of the class names minus the worst case, a log-ratio. A
    copy of every label changes no ranking.

    References
    ----------
    "A Closer Look at Negative-Label Guided OOD Detection", ICML 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, RenyiDetector
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = RenyiDetector(["cat", "dog"], embedder=table, mining="none", tail=0.4).fit()
    >>> scores = det.decision_function(np.eye(4))
    >>> bool(scores[:2].max() < scores[2:].min())
    True
    """

    info = DetectorInfo(
        name="Renyi",
        title="A Closer Look at Negative-Label Guided OOD Detection",
        year=2026,
        venue="ICML",
        url="https://github.com/60pen9/A-Close-Look-at-Negative-Label-Guided-OOD-Detection-in-Pre-trained-VLMs",
        needs=("class names", "corpus"),
    )
    _default_corpus = "wordnet-csp"
    _kept_params = ("order", "solver", "beta_start", "n_steps", "learning_rate")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        **parameters.PERCENTILE_MINING,
        "noun_fraction": [Interval(Real, 0, 1, closed="both")],
        "adjective_fraction": [Interval(Real, 0, 1, closed="both")],
        "tail": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "radius": [None, Interval(Real, 0, None, closed="neither")],
        "order": [Interval(Real, 1, 2, closed="neither")],
        "solver": [StrOptions({"exact", "released"})],
        "beta_start": [Interval(Real, None, None, closed="neither")],
        "n_steps": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
    }

    # All labels are one group.
    n_groups = 1
    random_state = None

    noun_fraction: float
    adjective_fraction: float
    tail: float | Literal["auto"]
    radius: float | None
    order: float
    solver: Literal["exact", "released"]
    beta_start: float
    n_steps: int
    learning_rate: float

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "the nice {}",
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = "auto",
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        corpus: CorpusLike = None,
        synsets: Synsets = None,
        adjective_prompt: Prompt = "this is a {} photo",
        mining: str = "percentile",
        quantile: float = 0.95,
        noun_fraction: float = 0.15,
        adjective_fraction: float = 0.1,
        max_similarity: float | None = 0.95,
        exclude_class_names: bool = True,
        tail: float | Literal["auto"] = "auto",
        radius: float | None = None,
        order: float = 1.05,
        solver: Literal["exact", "released"] = "exact",
        beta_start: float = -0.12,
        n_steps: int = 15,
        learning_rate: float = 0.01,
    ) -> None:
        self._store(locals())

    def _fractions(self) -> tuple[float, float]:
        return self.noun_fraction, self.adjective_fraction

    def _fit_text(self) -> None:
        self._check_ball()
        super()._fit_text()

        n_labels = len(self.class_names_) + len(self.negative_labels_)
        if self.radius is not None:
            self.radius_ = float(self.radius)
        else:
            # Of few labels all but one: a mean over all of them is no worst case.
            fewest = min(_FEWEST_LABELS, n_labels - 1) / n_labels
            tail = max(_TAIL, fewest) if self.tail == "auto" else self.tail
            self.radius_ = renyi.radius_of_tail(tail, self.order)
        self.tail_ = min(renyi.tail_of_radius(self.radius_, self.order), 1.0)

        if self.tail_ * n_labels < 1:
            warn(
                f"tail_={self.tail_:.3g} of {n_labels} labels is less than one label: the worst "
                "case is the nearest label alone, and single false negatives decide. Raise tail, "
                "or leave it at its default.",
            )

    def _check_ball(self) -> None:
        """Refuse what says two things, or has no minimum."""
        if self.radius is not None and self.tail != "auto":
            raise ValueError(
                f"tail={self.tail!r} and radius={self.radius!r} are two ways to give one number: "
                "leave one of them out."
            )
        if self.radius is not None and self.radius <= 1 and self.solver == "exact":
            raise ValueError(
                f"radius={self.radius!r} must be above 1 with solver='exact': with less the worst "
                "case has no minimum. Give tail= instead, or solver='released'."
            )

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        labels = (embeddings, self.class_embeddings_, self.negative_embeddings_)
        ball: dict[str, Any] = {
            "temperature": self.temperature_,
            "order": self.order_,
            "radius": self.radius_,
            "device": self._scoring_device(),
        }
        if self.solver_ == "exact":
            return renyi.renyi_log_ratio(*labels, **ball)
        return renyi.stepped_renyi_log_ratio(
            *labels,
            **ball,
            beta_start=self.beta_start_,
            n_steps=self.n_steps_,
            learning_rate=self.learning_rate_,
        )

    def _zero_shot_threshold(self) -> float:
        return zero_shot.renyi_threshold(len(self.class_names_))

    def _zero_shot_doubt(self) -> str:
        if self.solver != "exact" or not 0.02 < self.tail_ < 0.1:
            return "its constants are for solver='exact' and a tail near 3 %"
        return super()._zero_shot_doubt()
