"""Baselines that use class names alone: MCM, max-logit and energy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from dnm_sklearn import scoring
from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.calibration.model_facts import ModelFacts, model_facts
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.parameters import Classes, Memory, Prompt
from dnm_sklearn.embedding import Embedder


class _NamesOnlyDetector(BaseOODDetector):
    """A detector whose only fitted array is the class embeddings; its scores are in cosines."""

    def _fit_text(self) -> None:
        """Nothing beyond the class embeddings."""

    def _model_facts(self) -> ModelFacts | None:
        """What has been measured of the embedder's model under the prompt in use."""
        # A table's vectors have their prompt already, whatever the detector's is.
        prompt = getattr(self.embedder_, "prompt", self.prompt)
        return model_facts(getattr(self.embedder_, "model", None), prompt)

    def _zero_shot_doubt(self) -> str:
        # Cosines to class names differ from model to model by more than ID from OOD.
        if self._model_facts() is None:
            return (
                f"of {self.embedder_!r} with this prompt nobody has measured how well ID images "
                "match their class names (dnm-bench model-facts MODEL --images FOLDER does)"
            )
        return ""


@fill_parameters(parameters.PARAGRAPHS)
class MCMDetector(_NamesOnlyDetector):
    """Maximum concept matching: the largest softmax probability over the class names.

    Parameters
    ----------
    {classes}
        At least two.
    {embedder, prompt, temperature}
        1.0 is the paper's.
    {memory, contamination}
        The zero-shot threshold is ``log K - 0.15 (1 - |mean class embedding|**2) - 0.014``; see
        :doc:`/thresholds`.
    {ood_label, device}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the log of the largest softmax probability, higher = more ID.

    References
    ----------
    Ming et al., "Delving into Out-of-Distribution Detection with Vision-Language Representations",
    NeurIPS 2022, arXiv:2211.13445.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, MCMDetector
    >>> table = EmbeddingTable(["cat", "dog"], np.eye(2, 3))
    >>> det = MCMDetector(["cat", "dog"], embedder=table, temperature=0.1).fit()
    >>> scores = det.decision_function(np.array([[1.0, 0.1, 0.0], [0.1, 0.1, 1.0]]))
    >>> bool(scores[1] > scores[0])
    True
    """

    info = DetectorInfo(
        name="MCM",
        title="Delving into Out-of-Distribution Detection with Vision-Language Representations",
        year=2022,
        venue="NeurIPS",
        url="https://arxiv.org/abs/2211.13445",
        needs=("class names",),
    )

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "a photo of a {}",
        temperature: float | Literal["auto"] = 1.0,
        memory: Memory = None,
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
    ) -> None:
        self._store(locals())

    def _fit_text(self) -> None:
        # Whatever the image, the only class has probability 1.
        if len(self.class_names_) < 2:
            raise ValueError(
                f"MCM needs at least two classes, got only {str(self.class_names_[0])!r}: the "
                "softmax over one name is always 1. Use MaxLogitDetector for a single class."
            )

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return scoring.mcm(
            embeddings,
            self.class_embeddings_,
            temperature=self.temperature_,
            device=self._scoring_device(),
        )

    def _id_confidence(self, scores: np.ndarray) -> np.ndarray:
        return np.exp(scores)

    def _zero_shot_threshold(self) -> float:
        mean = self.class_embeddings_.mean(axis=0, dtype=float)
        return zero_shot.mcm_threshold(len(self.class_names_), mean @ mean, self.temperature_)

    def _zero_shot_doubt(self) -> str:
        if self.temperature_ != 1.0:
            return f"its constants are for temperature=1.0, not {self.temperature_:g}"
        return super()._zero_shot_doubt()


@fill_parameters(parameters.PARAGRAPHS)
class MaxLogitDetector(_NamesOnlyDetector):
    """Largest cosine to a class name.

    Parameters
    ----------
    {classes, embedder, prompt, temperature}
        It has no effect on this score, and is there because all detectors share their parameters.
    {memory, contamination}
        The zero-shot threshold is minus the 5 % quantile of what has been measured of the model
        (0.25 for ViT-B/32); see :doc:`/thresholds`.
    {ood_label, device}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the largest cosine, in [-1, 1].

    References
    ----------
    Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022,
    arXiv:1911.11132.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, MaxLogitDetector
    >>> det = MaxLogitDetector(["cat"], embedder=EmbeddingTable(["cat"], np.eye(1, 2))).fit()
    >>> det.decision_function(np.array([[2.0, 0.0], [-1.0, 0.0]])).tolist()
    [-1.0, 1.0]
    """

    info = DetectorInfo(
        name="MaxLogit",
        title="Scaling Out-of-Distribution Detection for Real-World Settings",
        year=2022,
        venue="ICML",
        url="https://arxiv.org/abs/1911.11132",
        needs=("class names",),
    )

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return scoring.max_logit(embeddings, self.class_embeddings_, device=self._scoring_device())

    def _score_unit(self) -> float:
        # A cosine over the temperature is a logit.
        return self.temperature_

    def _id_confidence(self, scores: np.ndarray) -> np.ndarray:
        return np.clip(scores, 0.0, 1.0)

    def _zero_shot_threshold(self) -> float:
        return zero_shot.max_logit_threshold(self._model_facts())


@fill_parameters(parameters.PARAGRAPHS)
class EnergyDetector(_NamesOnlyDetector):
    """Free energy of the class logits: ``T * logsumexp(cos / T)``.

    Parameters
    ----------
    {classes, embedder, prompt, temperature}
        A model's logit bias (SigLIP) shifts all energies alike and is left out.
    {memory, contamination}
        The zero-shot threshold is ``-0.236 - 0.005 log K``, which does not hold everywhere; see
        :doc:`/thresholds`.
    {ood_label, device}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    threshold_ : float
        Threshold on ``decision_function``.

    References
    ----------
    Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020, arXiv:2010.03759.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, EnergyDetector
    >>> det = EnergyDetector(["cat"], embedder=EmbeddingTable(["cat"], np.eye(1, 2))).fit()
    >>> bool(np.diff(det.decision_function(np.array([[1.0, 0.0], [0.0, 1.0]])))[0] > 0)
    True
    """

    info = DetectorInfo(
        name="Energy",
        title="Energy-based Out-of-distribution Detection",
        year=2020,
        venue="NeurIPS",
        url="https://arxiv.org/abs/2010.03759",
        needs=("class names",),
    )

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return scoring.energy(
            embeddings,
            self.class_embeddings_,
            temperature=self.temperature_,
            device=self._scoring_device(),
        )

    def _score_unit(self) -> float:
        # The energy over the temperature is a log-sum-exp of logits.
        return self.temperature_

    def _id_confidence(self, scores: np.ndarray) -> np.ndarray:
        # A cosine, and a little more for every class name that is as near.
        return np.clip(scores, 0.0, 1.0)

    def _zero_shot_threshold(self) -> float:
        return zero_shot.energy_threshold(len(self.class_names_), self._model_facts())

    def _zero_shot_doubt(self) -> str:
        return super()._zero_shot_doubt() or (
            "constants that flag 7 % of ID images on one data set flag 12 % on another"
        )
