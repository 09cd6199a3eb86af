"""What the test-time methods share: a state that a stream of test images changes, and ways to use it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any, ClassVar, Protocol

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn.detectors.base import BaseOODDetector


class Stream(Protocol):
    """A method's banks on a device and a copy of its state."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, whose arrays are copied."""

    def state(self) -> dict[str, Any]:
        """Return the state as numpy arrays and numbers."""

    def advance(self, batch: np.ndarray) -> np.ndarray:
        """Score unit rows (b, D), higher = more ID, and learn from them."""

    def frozen(self, rows: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D), higher = more ID, learning nothing."""


class StreamingDetector(BaseOODDetector):
    """Base class of the detectors that may learn from the images they score.

    A subclass names its state attributes in ``_state_names`` (numpy arrays and numbers, with
    ``n_seen_`` among them), sets them in :meth:`_fit_text` by calling :meth:`reset_adaptation`,
    makes the state after fit in
    :meth:`_initial_state`, and opens a :class:`Stream` on its fitted banks in :meth:`_open_stream`.
    It has the parameters `adaptation` and `batch_size`.

    * ``decision_function`` never changes the estimator. ``adaptation="transductive"`` scores X as a
      stream, batch by batch in the given order, on a scratch copy of the state: repeatable, but the
      score of an image depends on the images before it and in its batch. ``adaptation="frozen"``
      scores with the present state: order and company of the images play no part.
    * :meth:`partial_fit` and :meth:`score_stream` learn and keep; :meth:`reset_adaptation` forgets.

    An error leaves the state as it was: a new one is kept only once it is complete.
    """

    _state_names: ClassVar[tuple[str, ...]]

    _streaming_constraints: ClassVar[dict[str, list[Any]]] = {
        "adaptation": [StrOptions({"transductive", "frozen"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    @abstractmethod
    def _initial_state(self) -> dict[str, Any]:
        """Return the state after fit, the same at each call."""

    @abstractmethod
    def _open_stream(self) -> Stream:
        """Return a stream on the fitted banks, its state not loaded."""

    # -- state ----------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._state_names}

    def _keep(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: state[name] for name in self._state_names})

    def _loaded_stream(self) -> Stream:
        stream = self._open_stream()
        stream.load(self._state())
        return stream

    def reset_adaptation(self):
        """Forget what was learned from test images: back to the state after :meth:`fit`.

        Returns
        -------
        self : object
            The detector; its threshold and calibration stay.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        """
        check_is_fitted(self, "class_embeddings_")
        self._keep(self._initial_state())
        return self

    # -- learning -------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Learn from unlabelled test images, in batches of `batch_size`, and keep what was learned.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Test images in the order in which they came, or their embeddings; at least one.
            Unreadable images (with the embedder's ``on_error="nan"``) are left out.
        y : ignored
            Only for a detector that is not fitted: then ``fit(X, y)`` comes first, with the names
            from `classes`.

        Returns
        -------
        self : object
            The detector. Its threshold does not move.

        Raises
        ------
        ValueError
            If X is empty, has NaN or zero rows or the wrong width, or if the detector is neither
            fitted nor knows its `classes`. The state is then as it was.
        """
        if not hasattr(self, "class_embeddings_"):
            if self.classes is None:
                raise ValueError(
                    "partial_fit on an unfitted detector needs the class names: give classes=[...] "
                    "in the constructor, or call fit(names) first."
                )
            self.fit(X, y)
        rows, _ = self._batch(X)
        stream = self._loaded_stream()
        self._advance(stream, rows)
        self._keep(stream.state())
        return self

    def score_stream(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score an endless stream, learning as it goes and keeping what was learned after every batch.

        Parameters
        ----------
        batches : iterable of images or of array-likes of shape (b, D)
            Batches of test images or embeddings, none empty; one longer than `batch_size` is split.

        Yields
        ------
        ndarray of shape (b,), float64
            OOD scores of a batch, higher = more OOD, as ``decision_function`` gives them with
            ``adaptation="transductive"``; NaN for unreadable images.

        Raises
        ------
        ValueError
            If a batch is empty, has NaN or zero rows or the wrong width. What was learned before it
            is kept.
        """
        check_is_fitted(self, "class_embeddings_")
        stream, banks = self._open_stream(), self.class_embeddings_
        for batch in batches:
            rows, failed = self._batch(batch)
            if banks is not self.class_embeddings_:
                stream, banks = self._open_stream(), self.class_embeddings_
            stream.load(self._state())
            scores = np.full(len(failed), np.nan)
            scores[~failed] = -self._advance(stream, rows)
            self._keep(stream.state())
            yield scores

    def _batch(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Readable unit rows of a batch that must hold something, and which images could not be read."""
        rows, failed = self._embed(X, reset=False)
        if not len(rows):
            raise ValueError("The batch is empty (0 rows): give at least one image or embedding.")
        return rows[~failed], failed

    def _advance(self, stream: Stream, rows: np.ndarray) -> np.ndarray:
        parts = [
            stream.advance(rows[start : start + self.batch_size])
            for start in range(0, len(rows), self.batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    # -- scores ---------------------------------------------------------------------------------------

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        stream = self._loaded_stream()
        if self.adaptation == "frozen":
            return stream.frozen(embeddings)
        return self._advance(stream, embeddings)

    def _frozen_scores(self, X: Any) -> np.ndarray:
        rows, failed = self._embed(X, reset=False)
        scores = np.full(len(rows), np.nan)
        if not failed.all():
            scores[~failed] = -self._loaded_stream().frozen(rows[~failed])
        return scores

    def _zero_shot_threshold(self) -> float | None:
        return 0.0
