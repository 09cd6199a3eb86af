"""GL-MCM: an image is ID if the whole of it, or some part of it, matches a class name."""

from __future__ import annotations

from math import isqrt
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.explain import NegativeLabels
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.parameters import Classes, Memory, Prompt
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.embedding.inputs import infer_input_type
from dnm_sklearn.scoring import glmcm


@fill_parameters(parameters.PARAGRAPHS)
class GLMCMDetector(BaseOODDetector):
    """GL-MCM: MCM of the whole image plus the best MCM of its patches.

    For pictures of several things, where one that holds an ID object *somewhere* is to be ID. On
    pictures of single objects it is no better than :class:`MCMDetector`.

    X are images, encoded by ``CLIPEmbedder.encode_local``, or a 3-D float array (n, 1 + P, D) that
    it gave, the whole image first.

    Parameters
    ----------
    {classes}
        At least two.
    {embedder, prompt, temperature}
        1.0 is the paper's.
    {memory, contamination}
        There is no zero-shot threshold: calibrate, or give images to ``fit``.
    {ood_label, device}
    local_weight : float, default=1.0
        The paper's lambda: 0 = single centred objects (MCM), 1 = objects anywhere; the larger, the
        more one patch decides.
    top_k : int, default=1
        Patches whose mean counts; 1 is GL-MCM.

    Attributes
    ----------
    class_names_ : ndarray of shape (K,)
        Class names.
    class_embeddings_ : ndarray of shape (K, D)
        Unit text embeddings of the classes.
    score_unit_ : float
        Score difference that one logit of the model makes where all probabilities are alike.
    threshold_ : float or None
        Threshold on ``decision_function``.

    Notes
    -----
    ``score_samples`` is the paper's sum of probabilities.

    References
    ----------
    Miyai et al., "GL-MCM: Global and Local Maximum Concept Matching for Zero-Shot
    Out-of-Distribution Detection", IJCV 2025, arXiv:2304.04521.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import EmbeddingTable, GLMCMDetector
    >>> table = EmbeddingTable(["cat", "dog"], np.eye(2, 3))
    >>> det = GLMCMDetector(["cat", "dog"], embedder=table, temperature=0.1).fit()
    >>> nothing, cat = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    >>> scores = det.decision_function(np.array([[nothing, nothing], [nothing, cat]]))
    >>> bool(scores[0] > scores[1])
    True
    """

    info = DetectorInfo(
        name="GL-MCM",
        title="GL-MCM: Global and Local Maximum Concept Matching for Zero-Shot "
        "Out-of-Distribution Detection",
        year=2025,
        venue="IJCV",
        url="https://arxiv.org/abs/2304.04521",
        needs=("class names", "patch embeddings"),
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOODDetector._parameter_constraints,
        "local_weight": [Interval(Real, 0, None, closed="left")],
        "top_k": [Interval(Integral, 1, None, closed="left")],
    }

    local_weight: float
    top_k: int

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
        local_weight: float = 1.0,
        top_k: int = 1,
    ) -> None:
        self._store(locals())

    def _fit_text(self) -> None:
        if len(self.class_names_) < 2:
            raise ValueError("GL-MCM needs at least two classes: the softmax over one is always 1.")

        # What one logit of the model's moves a probability by, near 1 / K. Kept, because the
        # model's scale is not at hand where a file was loaded.
        scale = self.embedder_.logit_scale_ * self.temperature_
        self.score_unit_ = float(1 / (scale * len(self.class_names_)))

    def _set_width(self, rows: np.ndarray | None) -> None:
        # Rows are (n, 1 + P, D); the width is the last.
        super()._set_width(None if rows is None else rows[:, 0])

    # -- images to rows -----------------------------------------------------------------------

    def _embed(self, X: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(X, np.ndarray) and X.ndim == 3 and X.dtype.kind == "f":
            rows = self._checked_patches(X)
        elif infer_input_type(X) == "embeddings":
            raise ValueError(
                "GL-MCM scores patches: X must be images, or a 3-D float array (n, 1 + patches, "
                "width) of CLIPEmbedder.encode_local. Embeddings of whole images are for "
                "MCMDetector."
            )
        elif not hasattr(self.embedder_, "encode_local"):
            raise ValueError(
                f"{self.embedder_!r} cannot encode the patches of images: use a CLIPEmbedder, or "
                "give the 3-D array that its encode_local returned."
            )
        else:
            rows = self.embedder_.encode_local(X)

        if reset:
            self.n_features_in_ = rows.shape[2]
        elif rows.shape[2] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[2]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return rows, np.isnan(rows).any(axis=(1, 2))

    def _checked_patches(self, X: np.ndarray) -> np.ndarray:
        if X.shape[1] < 2:
            raise ValueError(
                f"X of shape {X.shape} has no patches: it must be (n, 1 + patches, width), the "
                "whole image first."
            )
        lengths = np.linalg.norm(X.astype(np.float64), axis=2, keepdims=True)
        if not np.isfinite(X).all() or not (lengths > 0).all():
            bad = ~np.isfinite(X).all(axis=(1, 2)) | (lengths == 0).any(axis=(1, 2))
            raise ValueError(
                f"X holds NaN, infinity or rows of zeros (first in image {int(np.argmax(bad))}): "
                "remove those images."
            )
        return (X / lengths).astype(np.float32)

    # -- scores -------------------------------------------------------------------------------

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        return glmcm.global_local_mcm(
            embeddings,
            self.class_embeddings_,
            temperature=self.temperature_,
            local_weight=self.local_weight,
            top_k=self.top_k,
            device=self._scoring_device(),
        )

    def _score_unit(self) -> float:
        return self.score_unit_

    def _class_index(self, rows: np.ndarray) -> np.ndarray:
        return super()._class_index(rows[:, 0])

    def _explain_rows(
        self,
        rows: np.ndarray,
        index: np.ndarray,
        negatives: NegativeLabels | None,
        top_k: int | None,
    ) -> dict[str, np.ndarray]:
        # By labels only the whole image is explained; patches are shown by explain_map.
        return super()._explain_rows(rows[:, 0], index, negatives, top_k)

    def explain_map(self, X: Any) -> np.ndarray:
        """OOD share of each patch: one minus its largest probability of a class name.

        Parameters
        ----------
        X : images or array-like of shape (n, 1 + P, D)
            As in ``score_samples``. Of an array the patches are taken as a square grid, unless the
            embedder knows better.

        Returns
        -------
        ndarray of shape (n, h, w), float64
            In [0, 1 - 1 / K], higher = more OOD, from the top left of the (cropped) picture. At
            T = 1 all values lie close together: show them between their least and largest. NaN for
            an unreadable image.

        Raises
        ------
        ValueError
            If the patches of an array form no square.
        """
        check_is_fitted(self, "class_embeddings_")
        rows, failed = self._embed(X, reset=False)
        height, width = self._grid(rows.shape[1] - 1)

        shares = np.full((len(rows), height, width), np.nan)
        if not failed.all():
            probability = glmcm.patch_mcm(
                rows[~failed],
                self.class_embeddings_,
                temperature=self.temperature_,
                device=self._scoring_device(),
            )
            shares[~failed] = 1 - probability[:, 1:].reshape(-1, height, width)
        return shares

    def _grid(self, n_patches: int) -> tuple[int, int]:
        """Rows and columns of the patches."""
        side = isqrt(n_patches)
        if side * side == n_patches:
            return side, side
        grid = getattr(self.embedder_, "patch_grid_", None)
        if grid is None or grid[0] * grid[1] != n_patches:
            raise ValueError(
                f"{n_patches} patches form no square: give images, so that the embedder's model "
                "says how they lie."
            )
        return grid
