"""What all detectors share: names in, embeddings, scores, and the PyOD registration."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pyod.models.base import BaseDetector as PyODBaseDetector
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from dnm_sklearn import scoring
from dnm_sklearn._utils.all_or_nothing import all_or_nothing
from dnm_sklearn._utils.caching import own_memory
from dnm_sklearn._utils.docs import fill_parameters
from dnm_sklearn._utils.fit_context import fit_context
from dnm_sklearn._utils.labels import ResolvedLabels, resolve_labels, turned_labels
from dnm_sklearn._utils.tensors import to_numpy
from dnm_sklearn._utils.validation import check_scores, check_temperature
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.explain import ExplainMixin
from dnm_sklearn.detectors.info import DetectorInfo
from dnm_sklearn.detectors.label_doubts import first_doubles, warn_if_misread
from dnm_sklearn.detectors.parameters import Classes, Memory, Prompt
from dnm_sklearn.detectors.pyod_methods import PyODMethodsMixin
from dnm_sklearn.detectors.saving import write_detector
from dnm_sklearn.embedding import Embedder
from dnm_sklearn.embedding.check import check_embedder, checked_rows
from dnm_sklearn.embedding.inputs import infer_input_type, to_unit_rows, warn_far_from_unit
from dnm_sklearn.embedding.protocol import encoder_identity
from dnm_sklearn.embedding.text import check_prompt

if TYPE_CHECKING:
    from typing_extensions import Self


@fill_parameters(parameters.PARAGRAPHS)
class BaseOODDetector(PyODMethodsMixin, ExplainMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of the zero-shot OOD detectors.

    A subclass names its method in ``info``, prepares fitted arrays in :meth:`_fit_text` and scores
    embeddings in :meth:`_score_embeddings`; names, prompts, images, thresholds and the sign live
    here.

    Parameters
    ----------
    {classes, embedder, prompt, temperature, memory, contamination, ood_label, device}
    """

    info: ClassVar[DetectorInfo]

    # Parameters that scores go by after fit, kept under their names with "_": what set_params says
    # acts at the next fit.
    _kept_params: ClassVar[tuple[str, ...]] = ()
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = parameters.COMMON

    def __init__(
        self,
        classes: Classes = None,
        *,
        embedder: Embedder | str | None = None,
        prompt: Prompt = "a photo of a {}",
        temperature: float | Literal["auto"] = "auto",
        memory: Memory = None,
        contamination: Any = "auto",
        ood_label: str = "ood",
        device: str = "auto",
    ) -> None:
        self.classes = classes
        self.embedder = embedder
        self.prompt = prompt
        self.temperature = temperature
        self.memory = memory
        self.contamination = contamination
        self.ood_label = ood_label
        self.device = device

    def _store(self, given: dict[str, Any]) -> None:
        """Keep the parameters of a constructor, its ``locals()``, under their names."""
        del given["self"]
        self.__dict__.update(given)

    # -- what a method defines ----------------------------------------------------------------

    def _setting(self, name: str) -> Any:
        """A parameter; of a plug-in's that is not given, its base's."""
        return getattr(self, name)

    def _id_confidence(self, scores: np.ndarray) -> np.ndarray:
        """ID scores (n,) on a scale from 0 to 1; for methods whose scores are log-odds."""
        return expit(scores)

    @abstractmethod
    def _fit_text(self) -> None:
        """Prepare fitted arrays from ``class_embeddings_``, ``embedder_`` and the parameters."""

    def _check_before_encoding(self) -> None:
        """Raise for what can be told from the parameters alone, before texts are encoded."""
        check_prompt(self._setting("prompt"))

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        """Use the readable images given to ``fit``, one at least; most methods need none."""

    def _finish_fit(self, readable: np.ndarray | None) -> None:
        """End the fit, before any image is scored.

        `readable` says which rows of X went to :meth:`_fit_images`, bool (n,); None without images.
        """

    @abstractmethod
    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D); float64 (n,), higher = more ID."""

    def _score_frozen(self, embeddings: np.ndarray) -> np.ndarray:
        """Score unit rows, each on its own; differs for methods that learn from test images."""
        return self._score_embeddings(embeddings)

    def _zero_shot_threshold(self) -> float | None:
        """Threshold on ``decision_function`` that needs no images, or None."""
        return None

    def _zero_shot_doubt(self) -> str:
        # The rules' constants are in units of logits at the model's own temperature.
        if self.temperature == "auto":
            return ""
        return f"its constants are for the model's own temperature, not {self.temperature:g}"

    # -- fit ----------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Fit on class names, and optionally on images that set the threshold.

        Parameters
        ----------
        X : images, array-like of shape (n, D), sequence of str or None, default=None
            Images or embeddings: they only set ``decision_scores_``, ``labels_`` and ``threshold_``
            (in ``ENLDetector`` rows that `y` says are ID enter the score too). Or, with neither
            `classes` nor string `y`, the class names.
        y : array-like of shape (n,) or None, default=None
            Strings = class names or `ood_label`; bool, or numbers in {0, 1} = ID / OOD; with
            `classes` given, other integers in ``0..K-1`` = positions in it, and -1 among them =
            OOD. Numbers without such a reading are not used, with a warning. Without X, the class
            names.

        Returns
        -------
        self : object
            Fitted detector.

        Raises
        ------
        ValueError
            If there are no names, a parameter or an image is bad, or widths differ; or if y has two
            labels of which the greater means ID, which ``scoring="roc_auc"`` takes for OOD.
        """
        # A fit that fails leaves what an earlier one has made.
        with all_or_nothing(self):
            self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> None:
        """All of the fit."""
        labels = resolve_labels(X, y, self._setting("classes"), self.ood_label)
        if labels.images is not None:
            turned = turned_labels(y, self.ood_label, greater="ood")
            if turned:
                raise ValueError(
                    f"{turned}: give bool (True = OOD) as y, and the class names as classes=[...]."
                )
        # What can be refused at once is, before a model is loaded and thousands of texts encoded.
        self._check_contamination(with_images=labels.images is not None)
        self._check_id_images(labels)
        self._check_before_encoding()
        memory = own_memory(self._setting("memory"))
        self.embedder_ = check_embedder(self._setting("embedder"), memory=memory)

        # Images before names: a bad image then costs no encoding of thousands of texts.
        rows, failed = None, None
        if labels.images is not None:
            rows, failed = self._embed(labels.images, reset=True)
        self._fit_rows(labels, rows, failed)

    def _fit_rows(
        self, labels: ResolvedLabels, rows: np.ndarray | None, failed: np.ndarray | None
    ) -> None:
        """Fit with ``embedder_``, on names and on rows that it has embedded."""
        self.temperature_ = self._temperature()
        for name in self._kept_params:
            setattr(self, f"{name}_", getattr(self, name))
        class_embeddings = self._encode_classes(labels)
        first = first_doubles(class_embeddings, labels.class_names)
        labels = labels.merge(first)
        self.class_names_ = np.asarray(labels.class_names)
        self.class_embeddings_ = class_embeddings[np.unique(first)]
        self._set_width(rows)
        self.embedder_fingerprint_ = encoder_identity(self.embedder_)

        self._fit_text()
        readable = None if failed is None else ~failed
        if rows is not None and readable is not None:
            known = labels.take(readable)
            self._check_id_images(known)
            if readable.any():
                warn_if_misread(rows[readable], known, self.class_embeddings_)
                self._fit_images(rows[readable], known)
        self._finish_fit(readable)
        self._set_threshold(rows, failed, labels.is_ood)
        # As scikit-learn's LabelEncoder leaves it: see `classes_`.
        self._y_is_two_classes = labels.is_ood is not None and labels.class_index is None

    @property
    def classes_(self) -> np.ndarray:
        """What ``cross_val_predict`` wants of the y given to fit: [0, 1], if it was 0/1 or bool.

        For ``cross_val_predict(detector, X, y, method="decision_function")``, which encodes y as
        integers; other y would be misread there, and so has no such attribute.
        """
        if getattr(self, "_y_is_two_classes", False):
            return np.array([0, 1])
        raise AttributeError(
            f"{type(self).__name__} has classes_ only after a fit with y of 0/1 or bool. "
            "cross_val_predict encodes names in y as integers, of which fit cannot tell the "
            "meaning: give y as bool (True = OOD), leave it out, or use OODClassifier."
        )

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and return ``labels_``, the decision on the rows given to fit.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images or embeddings.
        y : array-like of shape (n,) or None, default=None
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD.
        """
        self.fit(X, y)._check_threshold()
        return self.labels_

    def _check_id_images(self, labels: ResolvedLabels) -> None:
        """Refuse a fit without the ID images that the method needs, and say what it lacks."""
        if not self.info.needs_id_images:
            return

        name = type(self).__name__
        if labels.images is None and labels.is_ood is None:
            raise ValueError(
                f"{name} learns from ID images: fit(X, y) with images and their class names. "
                "NegLabelDetector and others need the names only."
            )
        if labels.is_ood is None:
            raise ValueError(
                f"{name} requires y to be passed, but the target y is None or says nothing of ID: "
                "give the class name of each image, or 0 for ID and 1 for OOD."
            )
        if labels.is_ood.all():
            raise ValueError(
                f"{name} learns from ID images, but no readable row of X is ID "
                f"(n_samples={len(labels.is_ood)})."
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.info.needs_id_images
        return tags

    def _id_images(
        self, embeddings: np.ndarray, labels: ResolvedLabels
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows known to be ID (n, D), and the class of each (n,)."""
        assert labels.is_ood is not None  # see _check_id_images
        is_id = ~labels.is_ood
        X = embeddings[is_id]
        # A y of 0 and 1 names no class: then the nearest.
        if labels.class_index is None:
            return X, self._class_index(X)
        return X, labels.class_index[is_id]

    def _temperature(self) -> float:
        """The temperature that scores use."""
        if self.temperature != "auto":
            return float(self.temperature)
        try:
            return check_temperature(1.0 / float(self.embedder_.logit_scale_))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(
                f'temperature="auto" is 1 / the logit scale of {self.embedder_!r}, and that scale '
                f"is {self.embedder_.logit_scale_!r}: give a temperature."
            ) from error

    def _encode_classes(self, labels: ResolvedLabels) -> np.ndarray:
        """Unit text rows (K, D); several texts of a class are averaged and renormalised."""
        names, owners = [], []
        templates = []
        for i, texts in enumerate(labels.prompts):
            for text in texts:
                if "{}" in text:
                    templates.append((i, text))
                else:
                    names.append(text)
                    owners.append(i)

        # Names and synonyms go through the prompt together; a template holds its own class's name.
        prompt = self._setting("prompt")
        vectors = [self.embedder_.encode_text(names, prompt)] if names else []
        for i, template in templates:
            vectors.append(self.embedder_.encode_text([labels.class_names[i]], template))
            owners.append(i)

        stacked = checked_rows(self.embedder_, "encode_text", np.concatenate(vectors), len(owners))
        if owners == list(range(len(labels.class_names))):
            return stacked  # one text per class, in order: there is nothing to average

        total = np.zeros((len(labels.class_names), stacked.shape[1]))
        np.add.at(total, owners, stacked)
        return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)

    def _set_width(self, rows: np.ndarray | None) -> None:
        """Set ``n_features_in_`` by the texts where there are no images, else compare the two."""
        width = self.class_embeddings_.shape[1]
        if rows is None:
            self.n_features_in_ = width
            # Left by an earlier fit on a table with column names.
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif rows.shape[1] != width:
            raise ValueError(
                f"X has {rows.shape[1]} features, but the embedder's text vectors have {width}; "
                "give embeddings of the same model."
            )

    def _scoring_device(self) -> str:
        """Where scores are computed: `device`, else the embedder's, else "auto"."""
        if self.device != "auto":
            return self.device
        import torch

        # An embedder that is given embeddings only may name a device that is not there; and scores
        # are reduced in float64, which Apple's GPU does not have.
        own = str(getattr(self.embedder_, "device", "auto"))
        kind = own.partition(":")[0]
        followed = kind == "cpu" or (kind == "cuda" and torch.cuda.is_available())
        return own if followed else "auto"

    # -- images to rows -----------------------------------------------------------------------

    def _embed(self, X: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Unit rows (n, D) float32 of images or embeddings, and which could not be read (n,)."""
        if infer_input_type(X) == "images":
            rows = checked_rows(self.embedder_, "encode_image", self.embedder_.encode_image(X))
            if reset:
                self.n_features_in_ = rows.shape[1]
            return rows, np.isnan(rows).any(axis=1)

        # An embedder in front (a pipeline's) with on_error="nan" gives a row of NaN for an
        # unreadable image. With any other, NaN is refused by `to_unit_rows`.
        lenient = getattr(self.embedder_, "on_error", "raise") == "nan"
        X = validate_data(
            self,
            to_numpy(X),
            reset=reset,
            dtype="numeric",
            ensure_all_finite="allow-nan" if lenient else False,
            ensure_min_samples=1 if reset else 0,
        )
        failed = np.zeros(len(X), dtype=bool)
        if lenient:
            failed = np.isnan(X[:, 0])
            failed[failed] = np.isnan(X[failed]).all(axis=1)

        # Rows may be gigabytes: where all are readable they are copied but once, normalised.
        readable = X[~failed] if failed.any() else X
        rows = to_unit_rows(readable)
        if len(readable):
            warn_far_from_unit(readable)
            if reset:
                self.embedder_.fit(readable)
        if len(readable) == len(X):
            return rows, failed
        with_gaps = np.full(X.shape, np.nan, dtype=np.float32)
        with_gaps[~failed] = rows
        return with_gaps, failed

    # -- scores -------------------------------------------------------------------------------

    def score_samples(self, X: Any) -> np.ndarray:
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

    def _score_rows(
        self, rows: np.ndarray, failed: np.ndarray, *, frozen: bool = False
    ) -> np.ndarray:
        """ID scores (n,) of embedded rows, NaN where `failed`; `frozen`: each row on its own."""
        score = self._score_frozen if frozen else self._score_embeddings
        if not failed.any():
            return check_scores(score(rows))

        scores = np.full(len(rows), np.nan)
        if not failed.all():
            scores[~failed] = check_scores(score(rows[~failed]))
        return scores

    def decision_function(self, X: Any) -> np.ndarray:
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
        """Name of the class nearest to each row (n,), `ood_label` where `failed`."""
        names = np.full(len(rows), self.ood_label, dtype=object)
        if not failed.all():
            names[~failed] = self.class_names_[self._class_index(rows[~failed])]
        return names

    def _class_index(self, rows: np.ndarray) -> np.ndarray:
        return scoring.class_index(rows, self.class_embeddings_, device=self._scoring_device())

    # -- files --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted detector to a file that :func:`dnm_sklearn.load` reads.

        Parameters
        ----------
        path : str or path
            File to write; an existing one is replaced. It holds names, arrays and plain parameters,
            no weights, no ``memory``, no ``device``, and of the embedder its parameters and
            fingerprint.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        TypeError
            If a parameter is an object that cannot be written (a ``RandomState``, a thresholder).
        """
        write_detector(self, path)

    @property
    def failures_(self) -> list[Any]:
        """Images that the embedder could not read in its last call, as (index, image, message).

        Of threads that share a detector each reads its own.
        """
        check_is_fitted(self, "embedder_")
        return getattr(self.embedder_, "failures_", [])


PyODBaseDetector.register(BaseOODDetector)
