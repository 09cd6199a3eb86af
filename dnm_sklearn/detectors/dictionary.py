"""OODD: a dictionary of the most suspicious test images, on top of any detector."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.explain import with_more_evidence
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt
from dnm_sklearn.detectors.plug_in import PlugInDetector
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.streams.dictionary import STATE_NAMES, SuspiciousImagesStream

# A base whose confidence of the class names' own texts spreads by less than this is no match for
# cosines between images, which spread by about 0.1.
_LEAST_SPREAD = 0.01


@fill_parameters(parameters.PARAGRAPHS)
class DictionaryDetector(PlugInDetector):
    """OODD: the ID confidence of a base, less the cosine to the k-th most similar suspicious image.

    It goes on top of any detector. The `queue_length` test images of lowest confidence seen so far
    are kept; an image that is like them is scored down. A batch is queued before it is scored, and
    its rows are compared with each other and with themselves.

    It **amplifies its base**: a good one gets better, a weak one worse, as its queue fills with ID
    images. Measured in :doc:`/detectors`.

    Parameters
    ----------
    {classes, embedder}
        Here None = the base's.
    prompt : str, list of str or None, default=None
        Template for class names. None = the base's.
    {temperature}
        It has no effect on this score, and is there because all detectors share their parameters.
    memory : "auto", str, path, joblib.Memory or None, default=None
        As elsewhere (of ``ENLDetector``, say). None = the base's.
    {contamination}
        There is no zero-shot threshold: call ``calibrate``, or give images at fit.
    {ood_label, device}
    base : detector or None, default=None
        Whose score it improves; a copy is fitted on the same names and images. Its `ood_label` and
        `batch_size` play no part. One that learns from test images goes on doing so; with
        ``adaptation="frozen"`` it does not. None = ``ENLDetector()``.
    corpus : Corpus, list of str, str or None, default=None
        The base's corpus, if it has one. None = the base's.
    queue_length : int, default=2048
        Images kept.
    n_neighbors : int, default=5
        k.
    exclude_self : bool, default=False
        Do not count an image in the queue as its own nearest.
    guard : bool, default=True
        Queue only images that the base flags (its threshold, without images its zero-shot one), so
        that a stream of ID images does not fill the queue; until k images are in, compare with the
        mean cosine between images. False = as released, every image is queued while there is room.
    {adaptation, batch_size}
        Also of a base that learns. It changes results.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    base_ : detector
        The fitted base.
    queue_images_, queue_confidence_ : ndarray of shape (q, D) and (q,)
        The images kept, in order of arrival, and the base's confidence of each.
    image_sum_, n_seen_ : ndarray of shape (D,), int
        Sum and number of the images learned from since fit.
    threshold_ : float or None
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is in [-1, 1] and no log-odds: the confidence is the base's log-odds as a
    probability (ENL's from its threshold on, as long as no ID images have set their level), the
    softmax of MCM, the cosine of Max-logit. MCM at its paper's temperature of 1 has confidences
    near 1 / K that hardly differ; the dictionary alone then decides, and a warning says so.

    References
    ----------
    Yang et al., "OODD: Test-time Out-of-Distribution Detection with Dynamic Dictionary", CVPR 2025,
    arXiv:2503.10468.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import DictionaryDetector, EmbeddingTable, NegLabelDetector
    >>> table = EmbeddingTable(["dog", "cat", "truck", "teapot"], np.eye(4))
    >>> base = NegLabelDetector(fraction=1.0, n_groups=1)
    >>> det = DictionaryDetector(["dog", "cat"], embedder=table, base=base, n_neighbors=1).fit()
    >>> det.decision_function(np.eye(4)).round(2).tolist()
    [-1.0, -1.0, 1.0, 1.0]
    >>> len(det.partial_fit(np.eye(4)).queue_images_)
    2
    """

    info = DetectorInfo(
        name="OODD",
        title="OODD: Test-time Out-of-Distribution Detection with Dynamic Dictionary",
        year=2025,
        venue="CVPR",
        url="https://arxiv.org/abs/2503.10468",
        needs=("class names", "corpus", "test stream", "ID images (optional)"),
        test_time=True,
    )
    _state_names = STATE_NAMES
    _kept_params = ("queue_length", "n_neighbors", "exclude_self", "guard")
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PlugInDetector._parameter_constraints,
        "queue_length": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "exclude_self": ["boolean"],
    }

    queue_length: int
    n_neighbors: int
    exclude_self: bool

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt | None = None,
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = None,
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
        base: BaseOODDetector | None = None,
        corpus: CorpusLike = None,
        queue_length: int = 2048,
        n_neighbors: int = 5,
        exclude_self: bool = False,
        guard: bool = True,
        adaptation: Literal["transductive", "frozen"] = "transductive",
        batch_size: int = 64,
    ) -> None:
        self._store(locals())

    # -- fit ----------------------------------------------------------------------------------

    def _fit_text(self) -> None:
        super()._fit_text()
        needed = self.n_neighbors + int(self.exclude_self)
        if needed > self.queue_length:
            raise ValueError(
                f"The queue of {self.queue_length} images never holds the {needed} that are "
                "compared with: raise queue_length or lower n_neighbors."
            )

    def _finish_fit(self, readable: np.ndarray | None) -> None:
        super()._finish_fit(readable)
        base = type(self.base_).__name__
        if self.guard and self.base_.threshold_ is None:
            warn(
                f"{base} has no threshold, so any image may enter the dictionary: a stream of ID "
                "images will fill it. Give ID images at fit."
            )
        spread = np.ptp(self.base_._id_confidence(self.base_._score_frozen(self._probes())))
        if spread < _LEAST_SPREAD:
            warn(
                f"The ID confidence of {base} hardly differs between inputs (by {spread:.2g}), so "
                "the dictionary outweighs it. Give it a lower temperature, or use another base."
            )

    def _probes(self) -> np.ndarray:
        """Rows of which a base should be sure, the class texts, and one that it should not."""
        mean = self.class_embeddings_.mean(axis=0, dtype=float)
        away = -mean / max(float(np.linalg.norm(mean)), np.finfo(float).eps)
        return np.vstack([self.class_embeddings_, away]).astype(np.float32)

    # -- stream -------------------------------------------------------------------------------

    def _open_stream(self) -> SuspiciousImagesStream:
        largest = np.inf
        if self.guard_ and self.base_.threshold_ is not None:
            largest = float(self.base_._id_confidence(np.array([-self.base_.threshold_]))[0])
        return SuspiciousImagesStream(
            self._base_stream(self.base_._id_confidence),
            self.class_embeddings_.shape[1],
            queue_length=self.queue_length_,
            n_neighbors=self.n_neighbors_,
            largest_confidence=largest,
            exclude_self=self.exclude_self_,
            device=self._scoring_device(),
        )

    def _initial_state(self) -> dict[str, Any]:
        stream = self._open_stream()
        stream.start(self._initial_base_state())
        return stream.state()

    def _score_unit(self) -> float:
        # The dictionary's part is a cosine.
        return self.temperature_

    # -- what was learned ---------------------------------------------------------------------

    def _with_test_images(
        self, table: dict[str, np.ndarray], rows: np.ndarray, index: np.ndarray
    ) -> dict[str, np.ndarray]:
        nearness = self._present_stream().nearness(rows, np.zeros(len(rows), dtype=bool))
        return with_more_evidence(table, "dictionary", index, "images kept as suspicious", nearness)
