"""Stand-in for the encoder of a loaded detector whose file cannot hold it."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from dnm_sklearn.embedding.inputs import embedding_rows, input_kind

__all__ = ["AbsentEmbedder"]


class AbsentEmbedder(BaseEstimator):
    """Stands for an encoder that a file cannot hold; embeddings pass through, images and texts need the real one.

    Parameters
    ----------
    name : str
        Class of the encoder that the detector was fitted with.
    fingerprint : str
        Its identity.
    width : int
        Width of the embeddings.
    logit_scale : float
        Its logit scale.

    Examples
    --------
    >>> from dnm_sklearn.embedding.placeholder import AbsentEmbedder
    >>> AbsentEmbedder("EmbeddingTable", "0f", 2).encode_image([[0.0, 2.0]]).tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, name: str, fingerprint: str, width: int, logit_scale: float = 100.0) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.width = width
        self.logit_scale = logit_scale

    @property
    def fingerprint_(self) -> str:
        """Identity of the encoder it stands for."""
        return self.fingerprint

    @property
    def logit_scale_(self) -> float:
        """Logit scale of the encoder it stands for."""
        return float(self.logit_scale)

    def fit(self, X: Any = None, y: Any = None) -> AbsentEmbedder:
        """Do nothing.

        Parameters
        ----------
        X, y : ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : object
        """
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Normalise embeddings; the same as `encode_image`.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, D), float32
        """
        return self.encode_image(X)

    def encode_image(self, X: Any) -> np.ndarray:
        """Normalise embeddings.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, D), float32

        Raises
        ------
        ValueError
            If X holds raw images.
        """
        if input_kind(X) == "images":
            raise ValueError(self._missing("images"))
        return embedding_rows(X, width=self.width)

    def encode_text(
        self, names: Any, prompt: Any = "{}", *, return_norm: bool = False
    ) -> np.ndarray:
        """Refuse: the vectors of texts are with the encoder it stands for.

        Parameters
        ----------
        names, prompt, return_norm
            As in `CLIPEmbedder`.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(self._missing("texts"))

    def _missing(self, what: str) -> str:
        return (
            f"The detector was saved with a {self.name}, which is not in the file, so it takes "
            f"embeddings only, no {what}. Load it with load(path, embedder=...) and the "
            f"{self.name} it was fitted with."
        )
