"""The detector to begin with: the recommended method, with nothing to choose."""

from __future__ import annotations

from typing import Any, ClassVar

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.enl import ENLDetector
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.parameters import Classes, CorpusLike, Memory, Prompt
from dnm_sklearn.embedding import Embedder


@fill_parameters(parameters.PARAGRAPHS)
class UnknownImageDetector(ENLDetector):
    """Flag the images that none of your class names covers: the recommended defaults.

    This is :class:`ENLDetector` as it is recommended, with the parameters that a first use needs.
    Of class names alone it makes a detector whose decisions can be used; with some ID images and a
    `y` that says so (their class names, or 0 for ID and 1 for OOD) it is better, with
    :meth:`calibrate` its error rate is guaranteed. The other detectors have more to set.

    Parameters
    ----------
    {classes, embedder, prompt, memory, contamination, device, corpus}
        All of them are used. Without a table None = "wordnet-neglabel".

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    threshold_ : float
        Threshold on ``decision_function``.

    Notes
    -----
    Other attributes are those of :class:`ENLDetector`.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, UnknownImageDetector
    >>> table = EmbeddingTable(["cat", "dog", "truck", "teapot"], np.eye(4))
    >>> det = UnknownImageDetector(embedder=table).fit(["cat", "dog"])
    >>> det.predict_class(np.eye(4)).tolist()
    ['cat', 'dog', 'ood', 'ood']
    """

    # Images are scored each on its own: it has no transductive mode to choose.
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="UnknownImage",
        title="Expectation-normalised labels",
        year=2026,
        venue="",
        url="",
        needs=("class names", "corpus", "ID images (optional)"),
        own=True,
    )

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "the nice {}",
        memory: Memory = "auto",
        contamination: Any = "auto",
        device: str = "auto",
        corpus: CorpusLike = None,
    ) -> None:
        super().__init__(
            classes,
            embedder=embedder,
            prompt=prompt,
            memory=memory,
            contamination=contamination,
            device=device,
            corpus=corpus,
        )
