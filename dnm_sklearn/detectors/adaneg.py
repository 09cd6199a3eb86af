"""AdaNeg: proxies of the labels, learned from confident test images."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from sklearn.utils._param_validation import Interval, StrOptions

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.calibration import zero_shot
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.negative_label import MinedLabelsDetector
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt, Refine, Synsets
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.streams.adaneg import STATE_NAMES, LabelMemoryStream


@fill_parameters(parameters.PARAGRAPHS)
class AdaNegDetector(StreamingDetector, MinedLabelsDetector):
    """AdaNeg: NegLabel with label proxies that confident test images draw towards the image space.

    Images whose grouped NegLabel score S_nl is confident are remembered under their nearest class
    or negative label, the ones of lowest entropy where there are more than `memory_length`. A
    label's proxy is made of its text and its images; S_ada is the grouped score against the
    proxies. The result is ``(S_ada + w * S_nl) / (1 + w)``.

    The method is **transductive**: by default the scores of an image depend on the images before it
    and in its batch.

    Parameters
    ----------
    {classes, embedder, prompt, temperature, memory, contamination}
        The zero-shot threshold is ``log Q - 4.57``, as a stream ``log Q - 7.3``, Q labels per
        group; see :doc:`/thresholds`. A threshold that images set at fit stays: scores may drift
        away from it as the detector adapts.
    {ood_label, device, corpus, synsets}
        Without a table None = "wordnet-neglabel".
    {adjective_prompt, refine, mining, quantile, fraction}
    memory_length : int, default=10
        Images remembered per label.
    proxy : {"task", "sample"}, default="task"
        "task" = the mean over a label's slots; "sample" = a mean weighted for each image scored by
        ``exp(-beta * (1 - cos(image, slot)))``. Both are renormalised.
    beta : float, default=5.5
        Sharpness of the weights of ``proxy="sample"``.
    static_weight : float, default=0.1
        w, the paper's lambda: weight of the static score.
    gap : float, default=0.5
        g in [0, 1]: an image is confident if S_nl is above ``(1 + g) / 2`` (ID) or below ``(1 - g)
        / 2`` (OOD).
    {n_groups, max_similarity, exclude_class_names, batch_size}
        It changes results: a batch is remembered before it is scored.
    {adaptation, random_state}

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
    memory_features_ : ndarray of shape (S, D)
        Features of remembered images.
    memory_label_ : ndarray of int of shape (S,)
        Label each belongs to: 0..K-1 a class, K + i the negative label ``permutation_[i]``, -1 a
        free place.
    memory_entropy_ : ndarray of shape (S,)
        Entropy over its side's labels each was stored with.
    n_seen_ : int
        Images learned from since fit.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    ``expit(score_samples(X))`` is ``(S_ada + w * S_nl) / (1 + w)``. The authors' code stops
    replacing images once an entropy is NaN (0 * log 0 in half precision) and never fills its last
    slot; this one does neither.

    References
    ----------
    Zhang and Zhang, "AdaNeg: Adaptive Negative Proxy Guided OOD Detection with Vision-Language
    Models", NeurIPS 2024, arXiv:2410.20149.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import AdaNegDetector, EmbeddingTable
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = AdaNegDetector(["cat", "dog"], embedder=table, fraction=1.0, n_groups=1).fit()
    >>> det.predict(np.eye(4)).tolist()
    [0, 0, 1, 1]
    >>> det.partial_fit([[0.9, 0.1, 0.0, 0.1]]).n_seen_
    1
    """

    info = DetectorInfo(
        name="AdaNeg",
        title="AdaNeg: Adaptive Negative Proxy Guided OOD Detection with Vision-Language Models",
        year=2024,
        venue="NeurIPS",
        url="https://arxiv.org/abs/2410.20149",
        needs=("class names", "corpus", "test stream"),
        test_time=True,
    )
    _state_names = STATE_NAMES
    _kept_params = ("memory_length", "proxy", "beta", "static_weight", "gap")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MinedLabelsDetector._parameter_constraints,
        **parameters.REFINE,
        **parameters.PERCENTILE_MINING,
        **parameters.STREAM,
        "memory_length": [Interval(Integral, 1, None, closed="left")],
        "proxy": [StrOptions({"task", "sample"})],
        "beta": [Interval(Real, 0, parameters.LARGEST_WEIGHT, closed="both")],
        "static_weight": [Interval(Real, 0, parameters.LARGEST_WEIGHT, closed="both")],
        "gap": [Interval(Real, 0, 1, closed="both")],
    }

    memory_length: int
    proxy: str
    beta: float
    static_weight: float
    gap: float

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
        memory_length: int = 10,
        proxy: str = "task",
        beta: float = 5.5,
        static_weight: float = 0.1,
        gap: float = 0.5,
        n_groups: int = 5,
        max_similarity: float | None = None,
        exclude_class_names: bool = True,
        batch_size: int = 256,
        adaptation: Literal["transductive", "frozen"] = "transductive",
        random_state: Any = 0,
    ) -> None:
        self._store(locals())

    # -- stream -------------------------------------------------------------------------------

    def _open_stream(self) -> LabelMemoryStream:
        return LabelMemoryStream(
            self.class_embeddings_,
            # Dealt into groups: label K + i of the memory is row i of these.
            self.group_embeddings_,
            temperature=self.temperature_,
            n_groups=self.n_groups_,
            memory_length=self.memory_length_,
            proxy=self.proxy_,
            beta=self.beta_,
            static_weight=self.static_weight_,
            gap=self.gap_,
            device=self._scoring_device(),
        )

    def _initial_state(self) -> dict[str, Any]:
        stream = self._open_stream()
        stream.start()  # with an empty memory: the proxies are the labels' texts
        return stream.state()

    # -- threshold ----------------------------------------------------------------------------

    def _zero_shot_threshold(self) -> float:
        return zero_shot.adaneg_threshold(self._group_size(), stream=self._is_transductive())

    def _zero_shot_doubt(self) -> str:
        if self._is_transductive():
            return "in a stream scores move with the images around, and only mixed ones were tried"
        return super()._zero_shot_doubt()
