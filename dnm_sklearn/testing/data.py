"""Small made-up data: names, text vectors and embeddings on which every detector does well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnm_sklearn._utils.validation import unit_rows
from dnm_sklearn.embedding import EmbeddingTable

__all__ = ["OODBlobs", "make_ood_blobs"]


@dataclass(frozen=True)
class OODBlobs:
    """What :func:`make_ood_blobs` returns.

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
    labels : list of str
        The class name of each ID image, "ood" for the others.
    """

    names: list[str]
    words: list[str]
    table: EmbeddingTable
    X: np.ndarray
    y: np.ndarray
    labels: list[str]

    @property
    def X_id(self) -> np.ndarray:
        """The ID images."""
        return self.X[self.y == 0]


def make_ood_blobs(
    n_classes: int = 8,
    n_corpus: int = 60,
    n_images: int = 40,
    dim: int = 32,
    noise: float = 0.5,
    random_state: int = 0,
) -> OODBlobs:
    """Draw text vectors at random, ID images near class vectors and OOD images near corpus vectors.

    Parameters
    ----------
    n_classes, n_corpus : int
        Numbers of class names and of corpus words.
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
    OODBlobs

    Examples
    --------
    >>> from dnm_sklearn.testing import make_ood_blobs
    >>> make_ood_blobs().X.shape
    (80, 32)
    """
    rng = np.random.default_rng(random_state)
    names = [f"class {i}" for i in range(n_classes)]
    words = [f"word {i}" for i in range(n_corpus)]
    vectors = unit_rows(rng.normal(size=(n_classes + n_corpus, dim)))
    # Raw norms differ, as a text tower's do: mining by norm must have something to order.
    table = EmbeddingTable(names + words, vectors, norms=rng.uniform(5, 12, size=len(vectors)))

    # The text that each image shows: a class for the first half, a word for the second.
    shown_class = rng.integers(n_classes, size=n_images)
    shown_word = n_classes + rng.integers(n_corpus, size=n_images)
    shown = np.concatenate([shown_class, shown_word])
    directions = unit_rows(rng.normal(size=(2 * n_images, dim)))
    X = unit_rows(vectors[shown] + noise * directions)

    labels = [names[i] for i in shown_class] + ["ood"] * n_images
    return OODBlobs(names, words, table, X, np.repeat([0, 1], n_images), labels)
