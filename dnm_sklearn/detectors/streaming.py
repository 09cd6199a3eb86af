"""What the test-time methods share: a state that a stream of test images changes."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.fit_context import fit_context
from dnm_sklearn._utils.validation import check_scores
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.detectors.base import BaseOODDetector
from dnm_sklearn.exceptions import SmallBatchWarning
from dnm_sklearn.streams.base import Stream

if TYPE_CHECKING:
    from typing_extensions import Self


# Detectors that have warned of a short stream since their fit. It is no attribute of theirs,
# because to judge images must leave a detector as it was.
_have_warned: WeakSet[Any] = WeakSet()


class StreamingDetector(BaseOODDetector):
    """Base class of the detectors that may learn from the images they score.

    A subclass has a :class:`~dnm_sklearn.streams.base.Stream`, opened on its fitted arrays in
    :meth:`_open_stream`; it names the attributes of the stream's state in ``_state_names`` (numpy
    arrays and numbers, with ``n_seen_`` among them) and gives the state after fit in
    :meth:`_initial_state`. It has the parameters `adaptation` and `batch_size`.

    * ``decision_function`` never changes the estimator. ``adaptation="transductive"`` scores X as a
      stream, batch by batch in the given order, on a scratch copy of the state: repeatable, but the
      score of an image depends on the images before it and in its batch. ``adaptation="frozen"``
      scores with the present state: order and company of the images play no part.
    * :meth:`partial_fit` and :meth:`score_stream` learn and keep; :meth:`reset_adaptation` forgets.

    An error leaves the state as it was: a new one is kept only once it is complete.

    Scores are the stream's, whatever other base class a detector has: this class and the families
    of detectors define different methods.
    """

    _state_names: ClassVar[tuple[str, ...]]

    adaptation: str
    batch_size: int
    n_seen_: int

    @abstractmethod
    def _open_stream(self) -> Stream:
        """Return a stream on the fitted arrays, its state not loaded."""

    @abstractmethod
    def _initial_state(self) -> dict[str, Any]:
        """Return the state after fit, the same at each call."""

    # -- state --------------------------------------------------------------------------------

    def _finish_fit(self, readable: np.ndarray | None) -> None:
        _have_warned.discard(self)
        self.reset_adaptation()

    def _state(self) -> dict[str, Any]:
        """The present state."""
        return {name: getattr(self, name) for name in self._state_names}

    def _keep(self, state: dict[str, Any]) -> None:
        """Make a state the present one."""
        self.__dict__.update({name: state[name] for name in self._state_names})

    def _present_stream(self) -> Any:
        """A stream on the fitted arrays, with a copy of the present state."""
        stream = self._open_stream()
        stream.load(self._state())
        return stream

    def reset_adaptation(self) -> Self:
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

    def merge_adaptation(self, states: Sequence[dict[str, Any]]) -> Self:
        """Put together what copies of this detector have learned side by side.

        The copies started from this detector's present state, and each learned from images of its
        own, on another machine say. What is merged are the images that the copies remember, each
        once; where they are more than the method holds, a choice by their content. The order of
        the states plays no part, but neither does that of the images, on which a single stream
        depends.

        Parameters
        ----------
        states : sequence of dict
            :meth:`adaptation_state` of each copy; at least one.

        Returns
        -------
        self : object
            The detector, whose threshold does not move.

        Raises
        ------
        ValueError
            If there is no state, or one is not of this method and size.

        Examples
        --------
        >>> import copy
        >>> import numpy as np
        >>> from dnm_sklearn import AdaNegDetector, EmbeddingTable
        >>> table = EmbeddingTable(["cat", "dog", "truck"], np.eye(3))
        >>> det = AdaNegDetector(["cat", "dog"], embedder=table, n_groups=1).fit()
        >>> one, other = copy.deepcopy(det), copy.deepcopy(det)
        >>> states = [one.partial_fit(np.eye(3)[:1]).adaptation_state()]
        >>> states += [other.partial_fit(np.eye(3)[1:]).adaptation_state()]
        >>> det.merge_adaptation(states).n_seen_
        3
        """
        check_is_fitted(self, "class_embeddings_")
        if not states:
            raise ValueError("There is no state to merge: give at least one.")
        present = self._state()
        for state in states:
            _check_state(state, present)

        stream = self._open_stream()
        stream.merge(states, present)
        self._keep(stream.state())
        return self

    def adaptation_state(self) -> dict[str, Any]:
        """What was learned from test images, as :meth:`merge_adaptation` takes it.

        Returns
        -------
        dict
            Arrays and numbers, copied.
        """
        check_is_fitted(self, "class_embeddings_")
        return copy.deepcopy(self._state())

    # -- learning -----------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
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
            if self._setting("classes") is None:
                raise ValueError(
                    "partial_fit on an unfitted detector needs the class names: give classes=[...] "
                    "in the constructor, or call fit(names) first."
                )
            self.fit(X, y)

        # All batches go through a copy of the state: an error half-way leaves nothing behind.
        rows, _ = self._embed_batch(X)
        stream = self._present_stream()
        self._advance(stream, rows)
        self._keep(stream.state())
        return self

    def score_stream(self, batches: Iterable[Any]) -> Iterator[np.ndarray]:
        """Score an endless stream, and keep what was learned after every batch.

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
        stream, opened_on = self._open_stream(), self.class_embeddings_
        for batch in batches:
            rows, failed = self._embed_batch(batch)

            # The caller may have fitted the detector anew between two batches.
            if opened_on is not self.class_embeddings_:
                stream, opened_on = self._open_stream(), self.class_embeddings_

            # The state is loaded for every batch, for partial_fit or reset_adaptation may have
            # changed it meanwhile; and kept only once the whole batch has been scored.
            stream.load(self._state())
            scores = np.full(len(failed), np.nan)
            scores[~failed] = -self._advance(stream, rows)
            self._keep(stream.state())
            yield scores

    def _embed_batch(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Readable unit rows of a batch that is not empty, and which images could not be read."""
        rows, failed = self._embed(X, reset=False)

        if not len(rows):
            raise ValueError("The batch is empty (0 rows): give at least one image or embedding.")
        return rows[~failed], failed

    def _advance(self, stream: Stream, rows: np.ndarray) -> np.ndarray:
        """Score unit rows (n, D), higher = more ID, and learn from them, batch by batch."""
        scores = np.empty(len(rows))

        for start in range(0, len(rows), self.batch_size):
            batch = slice(start, start + self.batch_size)
            scores[batch] = stream.advance(rows[batch])
        return check_scores(scores)

    # -- scores -------------------------------------------------------------------------------

    def _score_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        # A scratch copy of the state learns and is thrown away: the same X gives the same scores.
        if self._is_transductive():
            self._warn_of_few(len(embeddings))
            return self._advance(self._present_stream(), embeddings)
        return self._score_frozen(embeddings)

    def _warn_of_few(self, n_images: int) -> None:
        """Warn, once per fit, of a stream that is shorter than one batch."""
        if n_images >= self.batch_size or self in _have_warned:
            return
        _have_warned.add(self)
        warn(
            f"{n_images} images are scored together, fewer than batch_size={self.batch_size}: with "
            "adaptation='transductive' the score of an image depends on the others of X, so that "
            "the same image gets another score, and perhaps another label, in other company "
            "(cross-validation, permutation importance, images one by one). Use "
            "set_params(adaptation='frozen') to score each image on its own, or score_stream for a "
            "stream. This is said once per fit.",
            SmallBatchWarning,
        )

    def _score_frozen(self, embeddings: np.ndarray) -> np.ndarray:
        return self._present_stream().frozen(embeddings)

    def _is_transductive(self) -> bool:
        return self.adaptation == "transductive"

    def _n_learned(self) -> int:
        return self.n_seen_


def _check_state(state: dict[str, Any], present: dict[str, Any]) -> None:
    """Refuse a state of another method or size."""
    if set(state) != set(present):
        raise ValueError(
            f"A state has {', '.join(sorted(state))}, but this method's has "
            f"{', '.join(sorted(present))}: it is of another method."
        )
    for name, value in present.items():
        # A memory grows, but its width does not.
        if np.shape(state[name])[1:] != np.shape(value)[1:]:
            raise ValueError(
                f"{name} has shape {np.shape(state[name])}, here {np.shape(value)}: the state is "
                "of a detector with other labels or another model."
            )
