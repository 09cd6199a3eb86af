"""What an encoder is: what detectors, pipelines, files and the benchmark ask of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

if TYPE_CHECKING:
    from typing_extensions import Self


class Embedder(Protocol):
    """What turns images and names into unit vectors of one space.

    Any object with these six members can be the ``embedder`` of a detector; it need not inherit
    from anything. `CLIPEmbedder`, `EmbeddingTable` and the ``FakeEmbedder`` of
    :mod:`dnm_sklearn.testing` have them.

    A detector works on its own copy, made by :func:`sklearn.base.clone`: of an estimator an
    unfitted one, of any other object a deep copy. An encoder with heavy weights may define
    ``__sklearn_clone__`` and return itself. Beyond the six, a few attributes are used where an
    encoder has them: ``memory`` (a parameter that is None takes the detector's), ``failures_`` and
    ``on_error`` (images that could not be read), ``logit_bias_``, ``model`` (the model's name).

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn import MCMDetector
    >>> class Letters:
    ...     logit_scale_ = 10.0
    ...     fingerprint_ = "letters-1"
    ...     def fit(self, X=None, y=None):
    ...         return self
    ...     def transform(self, X):
    ...         return self.encode_image(X)
    ...     def encode_image(self, X):
    ...         X = np.asarray(X, dtype=np.float32)
    ...         return X / np.linalg.norm(X, axis=1, keepdims=True)
    ...     def encode_text(self, names, prompt="{}", *, return_norm=False):
    ...         rows = np.array([np.eye(26)[ord(name[0]) - ord("a")] for name in names], np.float32)
    ...         return (rows, np.ones(len(rows), np.float32)) if return_norm else rows
    >>> detector = MCMDetector(["ant", "bee"], embedder=Letters()).fit()
    >>> detector.score_samples(np.eye(26)[:3]).round(2).tolist()
    [-0.31, -0.31, -0.69]
    """

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Return the encoder itself; nothing need be learned.

        Parameters
        ----------
        X : images, array-like of shape (n, d), or None, default=None
            What the detector is fitted on.
        y : ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : object
            The encoder.
        """
        ...

    def transform(self, X: Any) -> np.ndarray:
        """Encode images; the same as `encode_image`, under the name that a pipeline calls.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n, d)
            See `encode_image`.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows.
        """
        ...

    def encode_image(self, X: Any) -> np.ndarray:
        """Encode images to unit rows; precomputed embeddings pass through, normalised.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n, d)
            Images as the encoder takes them. A 2-D numeric array of any dtype but uint8 always
            holds embeddings.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows, NaN where an image could not be read and this is no error.
        """
        ...

    def encode_text(
        self, names: Sequence[str], prompt: str | Sequence[str] = "{}", *, return_norm: bool = False
    ) -> Any:
        """Encode names under a prompt to unit rows.

        Parameters
        ----------
        names : sequence of str
            Texts; repetitions are allowed.
        prompt : str or sequence of str, default="{}"
            Template with ``{}`` where the name goes; of several templates the mean of the unit
            embeddings, normalised again.
        return_norm : bool, default=False
            Also return the norms before normalisation.

        Returns
        -------
        rows : ndarray of shape (m, d), float32
            Unit rows.
        norms : ndarray of shape (m,), float32
            Only if `return_norm`.
        """
        ...

    @property
    def logit_scale_(self) -> float:
        """Logit scale of the model, exponentiated (100 for CLIP): 1 / its temperature."""
        ...

    @property
    def fingerprint_(self) -> str:
        """What tells this model from any other, in keys of caches and in files.

        Behind a hyphen may stand what changes embeddings only by rounding (the precision).
        """
        ...


def encoder_identity(embedder: Embedder) -> str:
    """Name the model behind an encoder, whatever device and precision it runs in."""
    return str(embedder.fingerprint_).partition("-")[0]


class FixedEmbedder:
    """What encoders share that have nothing to learn or to set: copies and clones are the object.

    A subclass gives `encode_image`, `encode_text`, `logit_scale_` and `fingerprint_`.
    """

    logit_bias_: float | None = None
    encode_image: Callable[[Any], np.ndarray]

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Do nothing: the encoder is complete.

        Parameters
        ----------
        X, y : ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : object
            The encoder.
        """
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode images; the same as `encode_image`.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n, d)
            See `encode_image`.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows.
        """
        return self.encode_image(X)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Encode images; the same as `encode_image`.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n, d)
            See `encode_image`.
        y : ignored
            Present for scikit-learn's API.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows.
        """
        return self.encode_image(X)

    def __sklearn_clone__(self) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict) -> Self:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        return Tags(
            estimator_type="transformer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float32"]),
            input_tags=InputTags(),
            requires_fit=False,
        )
