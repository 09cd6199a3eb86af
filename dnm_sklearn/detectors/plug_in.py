"""What plug-ins share: a base detector, fitted on the same names and images, that they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone

from dnm_sklearn._utils.labels import ResolvedLabels, resolve_labels
from dnm_sklearn.detectors import parameters
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.detectors.enl import ENLDetector
from dnm_sklearn.detectors.explain import NegativeLabels
from dnm_sklearn.detectors.streaming import StreamingDetector
from dnm_sklearn.streams.base import BASE_STATE, StaticStream, TransformedStream


class PlugInDetector(StreamingDetector):
    """Base class of the methods that go on top of any detector.

    At fit a copy of `base` becomes ``base_``, with the class names, the embedder and the images of
    the plug-in. Of the parameters `classes`, `embedder`, `prompt`, `memory` and `corpus` the
    plug-in's own are used where they are given, else the base's. The base's stream, if it learns
    from test images, is part of the plug-in's, and its state of the plug-in's.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOODDetector._parameter_constraints,
        **parameters.STREAM,
        "prompt": [str, list, tuple, None],
        "base": [BaseOODDetector, None],
        "corpus": parameters.CORPUS["corpus"],
        "guard": ["boolean"],
    }

    base: BaseOODDetector | None
    corpus: Any
    guard: bool
    base_: BaseOODDetector

    # -- fit ----------------------------------------------------------------------------------

    def _given_base(self) -> BaseOODDetector:
        """The base as it was given; without one the method to begin with."""
        return ENLDetector() if self.base is None else self.base

    def _setting(self, name: str) -> Any:
        own, base = getattr(self, name), self._given_base()
        if own is not None or not hasattr(base, name):
            return own
        return base._setting(name)

    def _fit_text(self) -> None:
        own = clone(self._given_base())
        settings = {
            "classes": self._classes_of_base(),
            "embedder": self.embedder_,
            "prompt": self._setting("prompt"),
            "memory": self._setting("memory"),
            "ood_label": self.ood_label,
            # Its threshold is read, so it has no images of its own to set one.
            "contamination": "auto",
            "corpus": self._setting("corpus"),
        }
        if self.device != "auto":
            settings["device"] = self.device
        known = own.get_params(deep=False)
        self.base_ = own.set_params(**{k: v for k, v in settings.items() if k in known})
        self.base_._validate_params()

    def _classes_of_base(self) -> Any:
        classes = self._setting("classes")
        return self.class_names_.tolist() if classes is None else classes

    def _fit_images(self, embeddings: np.ndarray, labels: ResolvedLabels) -> None:
        """Fit the base on the images too, if it is known which of them are ID."""
        if labels.is_ood is None:
            return
        if "contamination" in self.base_.get_params(deep=False):
            self.base_.set_params(contamination=self.contamination)
        self._fit_base(labels, embeddings)

    def _finish_fit(self, readable: np.ndarray | None) -> None:
        # Without images that say anything of the base it is fitted on names alone.
        if not hasattr(self.base_, "class_embeddings_"):
            names = resolve_labels(None, None, self._classes_of_base(), self.ood_label)
            self._fit_base(names, None)
        super()._finish_fit(readable)

    def _fit_base(self, labels: ResolvedLabels, rows: np.ndarray | None) -> None:
        """Fit the base with this encoder itself, and on rows that need not be embedded again."""
        self.base_._check_id_images(labels)
        self.base_.embedder_ = self.embedder_
        if rows is not None:
            self.base_.n_features_in_ = rows.shape[1]
        failed = None if rows is None else np.zeros(len(rows), dtype=bool)
        self.base_._fit_rows(labels, rows, failed)

    # -- the base as a stream -----------------------------------------------------------------

    def _learning_base(self) -> StreamingDetector | None:
        """The base, if its own stream is part of this one."""
        base = self.base_
        return base if isinstance(base, StreamingDetector) and base._is_transductive() else None

    def _base_stream(self, transform: Callable[[np.ndarray], np.ndarray]) -> TransformedStream:
        """The base as a stream, its scores transformed; without a state if it does not learn."""
        base = self._learning_base()
        stream = StaticStream(self.base_._score_frozen) if base is None else base._open_stream()
        return TransformedStream(stream, transform)

    def _initial_base_state(self) -> dict[str, Any]:
        """State of the base's stream after fit."""
        base = self._learning_base()
        return {} if base is None else base._initial_state()

    def _state(self) -> dict[str, Any]:
        base = self._learning_base()
        return {**super()._state(), BASE_STATE: {} if base is None else base._state()}

    def _keep(self, state: dict[str, Any]) -> None:
        super()._keep(state)
        base = self._learning_base()
        if base is not None:
            base._keep(state[BASE_STATE])

    # -- reasons ------------------------------------------------------------------------------

    def _negative_labels(self) -> NegativeLabels | None:
        return self.base_._negative_labels()

    def _explain_rows(
        self,
        rows: np.ndarray,
        index: np.ndarray,
        negatives: NegativeLabels | None,
        top_k: int | None,
    ) -> dict[str, np.ndarray]:
        # The base's labels; what the plug-in knows of test images follows.
        table = self.base_._explain_rows(rows, index, negatives, top_k)
        return self._with_test_images(table, rows[index], index)

    def _with_test_images(
        self, table: dict[str, np.ndarray], rows: np.ndarray, index: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The table with what test images say of the images `index`, whose rows are `rows`."""
        return table
