"""What all encoders share: validation, prompts, caching and the scikit-learn surface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, validate_data

from dnm_sklearn._utils.caching import as_memory, cache_folder, cached
from dnm_sklearn._utils.digest import digest_names
from dnm_sklearn._utils.names import check_names, distinct
from dnm_sklearn._utils.per_thread import PerThread
from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding.cache import EmbeddingCache, size_in_bytes
from dnm_sklearn.embedding.inputs import infer_input_type, to_unit_rows
from dnm_sklearn.embedding.pipeline import ImageEncoder, encode_images, resolve_workers
from dnm_sklearn.embedding.protocol import encoder_identity
from dnm_sklearn.embedding.pyod_encoder import PyODEncoderMixin
from dnm_sklearn.embedding.text import check_prompt, encode_names, warn_truncated
from dnm_sklearn.exceptions import (
    CacheFormatError,
    CacheWriteWarning,
    UnreadableImageWarning,
)


class BaseEmbedder(
    PyODEncoderMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Base of encoders; a subclass gives the model, this class everything around it.

    A subclass defines ``_image_encoder``, ``_encode_prompts``, ``fingerprint_``,
    ``embedding_dim_`` and ``logit_scale_``; see :doc:`/own_encoder`. Of the attributes below it
    makes those parameters that its users should set. It then takes images of all kinds, in
    batches, from files in threads, with unreadable ones and a cache; and prompts, also ensembles.

    Attributes
    ----------
    memory, cache_size, on_error, batch_size, num_workers, verbose
        As in `CLIPEmbedder`.
    failures_ : list of (int, str, str)
        Position, description and reason of the images that could not be read in the last call of
        `encode_image` on images; of threads that share an embedder each reads its own.
    """

    failures_: Any = PerThread()

    # Of parameters that a subclass says nothing of, nothing is checked.
    _parameter_constraints: dict[str, Any] = {}

    memory: Any = None
    cache_size: Any = None
    on_error: str = "raise"
    batch_size: Any = "auto"
    num_workers: Any = 0
    verbose: Any = False

    # Of a copy that encodes a text bank: where texts are kept in the place of `memory`, and what
    # a bar says that is encoded.
    _bank_memory: Any = None
    _bank_title: str = ""

    # -- what a subclass defines ----------------------------------------------------------------

    def _image_encoder(self) -> ImageEncoder:
        """Give the image tower, loaded."""
        raise NotImplementedError

    def _encode_prompts(self, prompts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Encode distinct prompts to raw rows (m, d); also those that were cut."""
        raise NotImplementedError

    def _context_length(self) -> int | None:
        """Tokens that a prompt may have, None if that is not known."""
        return None

    def _has_fixed_weights(self) -> bool:
        """Whether the fingerprint is of the weights themselves, and they are the same every day."""
        return False

    @property
    def fingerprint_(self) -> str:
        """Identity of everything that decides the embeddings."""
        raise NotImplementedError

    @property
    def embedding_dim_(self) -> int:
        """Width of the embeddings."""
        raise NotImplementedError

    @property
    def logit_scale_(self) -> float:
        """The model's logit scale, exponentiated."""
        raise NotImplementedError

    @property
    def logit_bias_(self) -> float | None:
        """The model's logit bias, None where it has none."""
        return None

    # -- what users call ------------------------------------------------------------------------

    def fit(self, X: Any = None, y: Any = None) -> BaseEmbedder:
        """Check the parameters; nothing is learned and no model is loaded.

        Parameters
        ----------
        X : images, array-like of shape (n, d), or None, default=None
            Of a 2-D numeric array the width is recorded; everything else is ignored.
        y : ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : object
            The embedder.
        """
        self._validate_params()

        if X is not None and infer_input_type(X) == "embeddings":
            validate_data(self, to_numpy(X), dtype="numeric", ensure_all_finite=True)
        else:
            # An earlier fit may have recorded the width of its embeddings.
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode images; the same as `encode_image`.

        Parameters
        ----------
        X : sequence of images, Dataset, or array-like of shape (n, d)
            See `encode_image`.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows.
        """
        return self.encode_image(X)

    def encode_image(self, X: Any) -> np.ndarray:
        """Encode images to unit rows; precomputed embeddings pass through, normalised.

        Parameters
        ----------
        X : sequence of images, Dataset, or array-like of shape (n, d)
            Paths (a ``str`` is always a file), PIL images, uint8 arrays, a uint8 array of shape
            (n, height, width[, 3]), a torch Dataset (items may be ``(image, target)``), or a 2-D
            numeric array of any dtype but uint8 = embeddings. Images are converted as a viewer
            would: EXIF orientation, transparency on white, palettes, grey, 16 bits, CMYK.

        Returns
        -------
        ndarray of shape (n, d), float32
            Unit rows. With ``on_error="nan"`` an unreadable image is a row of NaN, and
            ``failures_`` lists it.

        Raises
        ------
        ValueError
            If an image is unreadable and ``on_error="raise"``, if an array holds NaN, infinity or a
            row of zeros, or if its width is not the one given to `fit`.
        """
        self._validate_params()

        if infer_input_type(X) == "embeddings":
            X = to_numpy(X)
            if self._has_width():
                # The width must be that given to fit.
                X = validate_data(self, X, dtype="numeric", reset=False)
            else:
                # Nothing is recorded: to transform changes no estimator.
                X = check_array(X, dtype="numeric", estimator=self, input_name="X")
            return to_unit_rows(X)

        return self._encode_raw_images(X)

    def encode_text(
        self, names: Iterable[str], prompt: str | Sequence[str] = "{}", *, return_norm: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Encode names under a prompt to unit rows.

        Parameters
        ----------
        names : iterable of str
            Texts, repetitions allowed (each distinct one is encoded once); a `Corpus` is one.
        prompt : str or sequence of str, default="{}"
            Template with ``{}`` where the name goes. Of several templates the unit embeddings are
            averaged and normalised again.
        return_norm : bool, default=False
            Also return the norms before normalisation.

        Returns
        -------
        rows : ndarray of shape (m, d), float32
            Unit rows, in the order of `names`.
        norms : ndarray of shape (m,), float32
            Raw norms, of several templates their mean. Only if `return_norm`.

        Raises
        ------
        TypeError
            If `names` is a string or holds something else than strings.
        ValueError
            If a template has no ``{}``.
        """
        self._validate_params()
        listed = check_names(names, hint="; images go to encode_image or transform")
        templates = check_prompt(prompt)

        unique, index = distinct(listed)
        if unique:
            self._check_identity()
            rows, norms, truncated = self._encode_distinct(unique, templates)
            if truncated:
                warn_truncated(truncated, len(unique) * len(templates), self._context_length())
        else:
            rows, norms = np.empty((0, self.embedding_dim_), np.float32), np.empty(0, np.float32)

        # Back to one row per given name.
        if len(unique) < len(listed):
            rows, norms = rows[index], norms[index]
        return (rows, norms) if return_norm else rows

    def cache_info(self) -> dict[str, Any]:
        """Say what the image cache in ``memory`` holds.

        Returns
        -------
        dict
            ``location``, the folder, which is None without a cache. With one also ``path``, the
            file that holds the images' embeddings; ``fingerprint`` and ``width`` of this model and
            its number of ``rows``; ``bytes`` that the file takes with the rows of all models; and
            ``cache_size``, the cap on these in bytes or None.
        """
        cache = self._named_cache()
        if cache is None:
            return {"location": None}

        info = cache.info()
        n_rows = {model["fingerprint"]: model["rows"] for model in info["models"]}
        return {
            "location": str(cache.folder),
            "path": info["path"],
            "fingerprint": self.fingerprint_,
            "width": self.embedding_dim_,
            "rows": n_rows.get(self.fingerprint_, 0),
            "bytes": info["bytes"],
            "cache_size": cache.max_bytes,
        }

    # -- internals ------------------------------------------------------------------------------

    def _check_identity(self) -> None:
        """Compare the model with that of a saved detector, which `load` has noted here."""
        expected = self.__dict__.get("expected_fingerprint_")
        if expected is not None and encoder_identity(self) != expected:
            raise ValueError(
                f"This detector was fitted and saved with another model than {self!r} is here "
                f"(fingerprint {expected[:12]}..., here {encoder_identity(self)[:12]}...): its "
                "text vectors do not fit. Give load(path, embedder=...) the model it was fitted "
                "with, or fit again."
            )

    def _encode_raw_images(self, X: Any) -> np.ndarray:
        self._check_identity()
        width = self.embedding_dim_
        if self._has_width() and self.n_features_in_ != width:
            raise ValueError(
                f"This {type(self).__name__} was fitted on embeddings of width "
                f"{self.n_features_in_}, but its model gives {width}: fit it on the images, or "
                "use the model the embeddings came from."
            )

        cache = self._embedding_cache()
        fingerprint = "" if cache is None else self.fingerprint_
        return self._encode_through(X, self._image_encoder, width, cache, fingerprint)

    def _encode_through(
        self,
        X: Any,
        make_encoder: Callable[[], ImageEncoder],
        width: int,
        cache: EmbeddingCache | None,
        fingerprint: str,
    ) -> np.ndarray:
        """Unit rows (n, width) that an encoder makes of images, one warning if some failed."""
        rows, failures = encode_images(
            X,
            make_encoder,
            width,
            batch_size=None if self.batch_size == "auto" else self.batch_size,
            num_workers=resolve_workers(self.num_workers),
            on_error=self.on_error,
            verbose=bool(self.verbose),
            cache=cache,
            fingerprint=fingerprint,
        )
        self.failures_ = failures

        # One warning for a call, however many images failed.
        if failures:
            index, name, reason = failures[0]
            warn(
                f"{len(failures)} of {len(rows)} images could not be read and have rows of "
                f"NaN; the first is image {index} ({name}): {reason}. The attribute failures_ "
                "lists them all.",
                UnreadableImageWarning,
            )
        return rows

    def _encode_distinct(
        self, names: list[str], templates: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Encode distinct names, through the cache where there is one."""
        encode = encode_names
        memory = self._text_memory()
        if cache_folder(memory) is not None:
            # In the key the digest stands for the names, the fingerprint for the model.
            encode = cached(as_memory(memory), encode_names, ignore=["names", "encode"])

        return encode(
            digest=digest_names(names),
            templates=templates,
            fingerprint=self.fingerprint_,
            names=names,
            encode=self._encode_prompts,
        )

    def _text_memory(self) -> Any:
        """Where texts are kept."""
        return self.memory if self._bank_memory is None else self._bank_memory

    def _has_width(self) -> bool:
        """Tell whether embeddings have been seen, whose width then stands in n_features_in_."""
        return "n_features_in_" in self.__dict__

    def _embedding_cache(self) -> EmbeddingCache | None:
        """Give the cache of images' embeddings; None where there is none, or none to be used."""
        cache = self._named_cache()
        try:
            if cache is not None:
                cache.check()
        except CacheFormatError as error:
            warn(f"The cache is not used, nothing is kept: {error}", CacheWriteWarning)
            return None
        return cache

    def _named_cache(self) -> EmbeddingCache | None:
        """Give the cache of images' embeddings in the folder that `memory` names."""
        folder = cache_folder(self.memory)
        if folder is None:
            return None
        cap = None if self.cache_size is None else size_in_bytes(self.cache_size)
        return EmbeddingCache(folder, cap)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_in_ if self._has_width() else self.embedding_dim_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
