"""A small world of names, text vectors and image embeddings on which every detector must do well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnm_sklearn.embedding import EmbeddingTable

__all__ = ["EmbeddingWorld", "make_embedding_world"]


@dataclass(frozen=True)
class EmbeddingWorld:
    """What :func:`make_embedding_world` returns.

    Attributes
    ----------
    names : list of str
        The K class names.
    words : list of str
        The corpus.
    table : EmbeddingTable
        Text vectors of both.
    X : ndarray of shape (2 n, D)
        Unit image embeddings, the ID half first.
    y : ndarray of shape (2 n,)
        0 = ID, 1 = OOD.
    """

    names: list[str]
    words: list[str]
    table: EmbeddingTable
    X: np.ndarray
    y: np.ndarray

    @property
    def X_id(self) -> np.ndarray:
        """The ID images."""
        return self.X[self.y == 0]


def make_embedding_world(
    n_classes=8, n_corpus=60, n_images=40, dim=32, noise=0.5, random_state=0
) -> EmbeddingWorld:
    """Draw text vectors at random, ID images near class vectors and OOD images near corpus vectors.

    Parameters
    ----------
    n_classes, n_corpus : int
        Names and corpus words.
    n_images : int, default=40
        Images of each kind.
    dim : int, default=32
        Width.
    noise : float, default=0.5
        Length of the noise added to a unit vector; 0.5 leaves the kinds well apart.
    random_state : int, default=0
        Seed.

    Returns
    -------
    EmbeddingWorld

    Examples
    --------
    >>> from dnm_sklearn.testing import make_embedding_world
    >>> make_embedding_world().X.shape
    (80, 32)
    """
    rng = np.random.default_rng(random_state)
    names = [f"class {i}" for i in range(n_classes)]
    words = [f"word {i}" for i in range(n_corpus)]
    text = _unit(rng.normal(size=(n_classes + n_corpus, dim)))
    table = EmbeddingTable(names + words, text, norms=rng.uniform(5, 12, size=len(text)))
    nearest = np.concatenate(
        [rng.integers(n_classes, size=n_images), n_classes + rng.integers(n_corpus, size=n_images)]
    )
    X = _unit(text[nearest] + noise * _unit(rng.normal(size=(2 * n_images, dim))))
    return EmbeddingWorld(names, words, table, X, np.repeat([0, 1], n_images))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
