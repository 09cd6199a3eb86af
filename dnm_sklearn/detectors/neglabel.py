"""NegLabel: negative labels far from every class name."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import NegativeLabelDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Refine, Synsets
from dnm_sklearn.embedding import Embedder


@fill_parameters(parameters.PARAGRAPHS)
class NegLabelDetector(NegativeLabelDetector):
    """NegLabel: the probability of the class names in a softmax with mined negative labels.

    Parameters
    ----------
    {classes, embedder, prompt, temperature, memory, contamination}
        The zero-shot threshold is ``log Q - 4.24 - 0.157 log K``, Q labels per group; see
        :doc:`/thresholds`.
    {ood_label, device, corpus, synsets}
        Without a table None = "wordnet-neglabel".
    {adjective_prompt, refine, mining, quantile, fraction, n_groups, max_similarity}
    {exclude_class_names, random_state}

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    negative_corpus_, negative_labels_, negative_embeddings_ : Corpus, ndarray (M,), ndarray (M, D)
        The mined labels and their unit embeddings.
    n_groups_ : int
        Groups used.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the log-odds of the paper's value: ``expit(score_samples(X))`` is the mean
    over groups of ``S / (S + N_j)``.

    References
    ----------
    Jiang et al., "Negative Label Guided OOD Detection with Pretrained Vision-Language Models", ICLR
    2024, arXiv:2403.20078.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, NegLabelDetector
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = NegLabelDetector(["cat", "dog"], embedder=table, fraction=1.0, n_groups=1).fit()
    >>> sorted(det.negative_labels_.tolist())
    ['teapot', 'truck']
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    """

    info = DetectorInfo(
        name="NegLabel",
        title="Negative Label Guided OOD Detection with Pretrained Vision-Language Models",
        year=2024,
        venue="ICLR",
        url="https://arxiv.org/abs/2403.20078",
        needs=("class names", "corpus"),
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NegativeLabelDetector._parameter_constraints,
        **parameters.REFINE,
        **parameters.PERCENTILE_MINING,
    }

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
        adjective_prompt: Prompt = "This is a {} photo",
        refine: Refine = None,
        mining: str = "percentile",
        quantile: float = 0.95,
        fraction: float = 0.15,
        n_groups: int = 100,
        max_similarity: float | None = None,
        exclude_class_names: bool = True,
        random_state: Any = 0,
    ) -> None:
        self._store(locals())
