"""What all detectors share: names in, embeddings, scores, and the PyOD registration."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from pyod.models.base import BaseDetector as PyODBaseDetector
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from dnm_sklearn import scoring
from dnm_sklearn._utils.labels import ResolvedLabels, resolve_labels
from dnm_sklearn.detectors.decisions import DecisionMixin
from dnm_sklearn.detectors.explain import ExplainMixin
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.norms import warn_far_from_unit
from dnm_sklearn.detectors.saving import write_detector
from dnm_sklearn.embedding.check import check_embedder
from dnm_sklearn.embedding.inputs import infer_input_type, to_numpy
from dnm_sklearn.embedding.protocol import encoder_identity

_THRESHOLDERS = (HasMethods(["eval"]), HasMethods(["fit", "predict"]))


class BaseOODDetector(DecisionMixin, ExplainMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of the zero-shot OOD detectors.

    A subclass names its method in ``info``, prepares fitted arrays in :meth:`_fit_text` and scores
    embeddings in :meth:`_score_embeddings`; names, prompts, images, thresholds and the sign live
    here.

    Parameters
    ----------
    classes : list of str, dict or None, default=None
        ID class names. A dict maps a name to synonyms (put through `prompt`) or templates (strings
        with ``{}``) whose embeddings are averaged. None = names from `y` or `X` in :meth:`fit`.
    embedder : CLIPEmbedder, EmbeddingTable, str or None, default=None
        What turns names and images into vectors; a string is a model name ``"name/tag"``.
    prompt : str or list of str
        Template for class names; a list is an ensemble (mean of unit embeddings, renormalised).
    temperature : float or "auto", default="auto"
        Divides cosines; "auto" = 1 / the model's logit scale (0.01 for CLIP).
    memory : str, path, joblib.Memory or None, default=None
        Cache for embeddings and mining results.
    contamination : float, "auto" or PyThresh-style object, default="auto"
        A share in (0, 0.5] of the non-OOD rows given to `fit` to flag; "auto" keeps 95 % of rows
        known to be ID, else uses the method's zero-shot threshold, else (unlabelled X) 0.1. An
        object with ``eval(scores)``, or ``fit(scores)`` and ``labels_``, that returns 0/1 for the
        scores of those rows; a copy of it is used.
    ood_label : str, default="ood"
        The string in `y` that marks OOD rows, and that :meth:`predict_class` returns for them.
    """

    info: ClassVar[DetectorInfo]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        # One string, a path, a set or a generator is refused where names are read, which says what
        # to give instead.
        "classes": [
            "array-like",
            dict,
            None,
            *map(Hidden, (HasMethods(["__iter__"]), HasMethods(["__fspath__"]))),
        ],
        "embedder": [str, HasMethods(["encode_text", "encode_image"]), None],
        "prompt": [str, list, tuple],
        "temperature": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "memory": [str, HasMethods(["cache"]), HasMethods(["__fspath__"]), None],
        "contamination": [
            StrOptions({"auto"}),
            Interval(Real, 0, 0.5, closed="right"),
            *_THRESHOLDERS,
        ],
        "ood_label": [str],
    }

    def __init__(
        self,
        classes=None,
        *,
        embedder=None,
        prompt="a photo of a {}",
        temperature="auto",
        memory=None,
        contamination="auto",
        ood_label="ood",
    ):
        self.classes = classes
        self.embedder = embedder
        self.prompt = prompt
        self.temperature = temperature
        self.memory = memory
        self.contamination = contamination
        self.ood_label = ood_label

    # -- what a method defines ------------------------------------------------------------------

    @abstractmethod
    def _fit_text(self) -> None:
        """Prepare fitted arrays from ``class_embeddings_``, ``embedder_`` and the parameters."""

    @abstractmethod
    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D); float64 (n,), higher = more ID."""

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        """Use the readable images given to ``fit`` (most methods need none)."""

    def _zero_shot_threshold(self) -> float | None:
        """Threshold on ``decision_function`` that needs no images, or None."""
        return None

    # -- fit --------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        """Fit on class names, and optionally on images that set the threshold.

        Parameters
        ----------
        X : images, array-like of shape (n, D), sequence of str or None, default=None
            Images or embeddings: they only set ``decision_scores_``, ``labels_`` and ``threshold_``
            (in ``ENLDetector`` rows that `y` says are ID enter the score too). Or, with neither
            `classes` nor string `y`, the class names.
        y : array-like of shape (n,) or None, default=None
            Strings = class names or `ood_label`; bool or {0, 1} = ID / OOD; integers in ``0..K-1``
            that include others, with `classes` given = class indices; other numbers are ignored.
            Without X, the class names.

        Returns
        -------
        self : object
            Fitted detector.

        Raises
        ------
        ValueError
            If there are no names, a parameter or an image is bad, or widths differ.
        """
        labels = resolve_labels(X, y, self.classes, self.ood_label)
        self.embedder_ = check_embedder(self.embedder, memory=self.memory)
        rows, failed = None, None
        if labels.images is not None:
            rows, failed = self._embed(labels.images, reset=True)
        self.class_names_ = np.asarray(labels.class_names)
        self.temperature_ = self._temperature()
        self.class_embeddings_ = self._encode_classes(labels)
        if rows is None:
            self.n_features_in_ = self.class_embeddings_.shape[1]
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif rows.shape[1] != self.class_embeddings_.shape[1]:
            raise ValueError(
                f"X has {rows.shape[1]} features, but the embedder's text vectors have "
                f"{self.class_embeddings_.shape[1]}; give embeddings of the same model."
            )
        self.embedder_fingerprint_ = encoder_identity(self.embedder_)
        self._fit_text()
        if rows is not None and failed is not None and not failed.all():
            self._fit_images(rows[~failed], labels.take(~failed))
        self._set_threshold(rows, failed, labels)
        return self

    def _temperature(self) -> float:
        if self.temperature != "auto":
            return float(self.temperature)
        return 1.0 / float(self.embedder_.logit_scale_)

    def _encode_classes(self, labels: ResolvedLabels) -> np.ndarray:
        """Unit text rows (K, D); several texts of a class are averaged and renormalised."""
        plain = [
            (i, text)
            for i, texts in enumerate(labels.prompts)
            for text in texts
            if "{}" not in text
        ]
        owner = [i for i, _ in plain]
        vectors = (
            [self.embedder_.encode_text([text for _, text in plain], self.prompt)] if plain else []
        )
        for i, texts in enumerate(labels.prompts):
            for template in (text for text in texts if "{}" in text):
                owner.append(i)
                vectors.append(self.embedder_.encode_text([labels.class_names[i]], template))
        stacked = np.concatenate(vectors)
        if owner == list(range(len(labels.class_names))):
            return stacked
        total = np.zeros((len(labels.class_names), stacked.shape[1]))
        np.add.at(total, owner, stacked)
        return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)

    # -- images to rows ---------------------------------------------------------------------------

    def _embed(self, X: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Unit rows (n, D) float32 of images or embeddings, and which rows could not be read (n,)."""
        if infer_input_type(X) == "embeddings":
            # An embedder in front (a pipeline's) with on_error="nan" gives a row of NaN for an
            # unreadable image.
            lenient = getattr(self.embedder_, "on_error", "raise") == "nan"
            finite = (
                "allow-nan" if lenient else False
            )  # where False, checked below with a message that names the row
            least = 1 if reset else 0
            X = validate_data(
                self,
                to_numpy(X),
                reset=reset,
                dtype="numeric",
                ensure_all_finite=finite,
                ensure_min_samples=least,
            )
            if not lenient and not (good := np.isfinite(X).all(axis=1)).all():
                raise ValueError(
                    f"X holds NaN or infinity (first in row {int(np.argmin(good))}): remove those "
                    "rows."
                )
            failed = np.isnan(X).all(axis=1) if lenient else np.zeros(len(X), dtype=bool)
            rows = np.full(X.shape, np.nan, dtype=np.float32)
            if not failed.all():
                warn_far_from_unit(X[~failed])
                if reset:
                    self.embedder_.fit(X[~failed])
                rows[~failed] = self.embedder_.encode_image(X[~failed])
            return rows, failed
        rows = self.embedder_.encode_image(X)
        if reset:
            self.n_features_in_ = rows.shape[1]
        return rows, np.isnan(rows).any(axis=1)

    # -- scores -------------------------------------------------------------------------------------

    def score_samples(self, X):
        """ID score of each row.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,), float64
            Higher = more ID; exactly ``-decision_function(X)``. NaN where an image could not be
            read (only with the embedder's ``on_error="nan"``).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        ValueError
            If X has NaN or zero rows or the wrong width.
        """
        check_is_fitted(self, "class_embeddings_")
        rows, failed = self._embed(X, reset=False)
        return self._score_rows(rows, failed)

    def _score_rows(self, rows: np.ndarray, failed: np.ndarray) -> np.ndarray:
        if not failed.any():
            return self._score_embeddings(rows)
        scores = np.full(len(rows), np.nan)
        if not failed.all():
            scores[~failed] = self._score_embeddings(rows[~failed])
        return scores

    def decision_function(self, X):
        """OOD score of each row (PyOD's sign).

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,), float64
            Higher = more OOD. Never changes the detector.
        """
        return -self.score_samples(X)

    def _nearest_class(self, rows: np.ndarray, failed: np.ndarray) -> np.ndarray:
        names = np.full(len(rows), self.ood_label, dtype=object)
        if not failed.all():
            names[~failed] = self.class_names_[
                scoring.class_index(rows[~failed], self.class_embeddings_)
            ]
        return names

    def save(self, path):
        """Write the fitted detector to a file that :func:`dnm_sklearn.load` reads.

        Parameters
        ----------
        path : str or path
            File to write; an existing one is replaced. It holds names, arrays and plain parameters,
            no weights, no ``memory``, and of the embedder its parameters and fingerprint.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        TypeError
            If a parameter is an object that cannot be written (a ``RandomState``, a thresholder).
        """
        write_detector(self, path)

    @property
    def failures_(self) -> list:
        """Images that the embedder could not read in its last call, as (index, image, message)."""
        check_is_fitted(self, "embedder_")
        return getattr(self.embedder_, "failures_", [])


PyODBaseDetector.register(BaseOODDetector)
