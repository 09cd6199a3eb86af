"""Splitters for model selection with several OOD sets, named by ``groups=``.

An unshuffled ``KFold`` on rows sorted ID-then-OOD makes folds of one kind, of which no metric is
defined (our scorers refuse them). ``StratifiedKFold(shuffle=True)`` suffices for one OOD set; the
splitters here know where rows come from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, KFold, StratifiedKFold

from dnm_sklearn._utils.labels import row_is_ood
from dnm_sklearn._utils.y_column import read_y

__all__ = ["LeaveOneOODSetOut", "StratifiedBySourceKFold", "held_out_classes"]


class _SourceSplitter(BaseCrossValidator):
    """Checks of y and groups that both splitters need."""

    __metadata_request__split = {"groups": True}

    @abstractmethod
    def _folds(
        self, is_ood: np.ndarray, sources: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield row numbers of training and test rows."""

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield row numbers of training and test rows.

        Parameters
        ----------
        X : sequence of length n
            Rows (only their number counts).
        y : array-like of shape (n,)
            0/1 or bool (1 = OOD), strings with `ood_label`, or class indices with -1 = OOD.
        groups : array-like of shape (n,)
            Source of each row.

        Yields
        ------
        train, test : ndarray of int

        Raises
        ------
        ValueError
            If y or groups is missing or of one kind, or there are fewer rows or sources than the
            folds need.
        """
        yield from self._folds(*self._rows(y, groups))

    def _rows(self, y: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return is_ood and the source of every row."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} needs y: 0/1 or bool (1 = OOD), strings with the "
                "ood_label, or class indices with -1 = OOD."
            )
        if groups is None:
            raise ValueError(
                f"{type(self).__name__} needs groups= with the name of the data set that each row "
                "comes from, e.g. "
                'search.fit(X, y, groups=sources) with sources = ["imagenet", ..., "places", ...].'
            )

        is_ood = row_is_ood(y, self.ood_label)
        sources = np.asarray(groups).astype(str)
        if is_ood is None:
            raise ValueError(
                "y must be 0/1 or bool (1 = OOD), strings with the ood_label, or class indices "
                "with -1 = OOD."
            )
        if sources.shape != is_ood.shape:
            raise ValueError(
                f"groups has shape {sources.shape} and y {is_ood.shape}; give one source per row."
            )
        if is_ood.all() or not is_ood.any():
            kind = "OOD" if is_ood.all() else "ID"
            raise ValueError(
                f"All {len(is_ood)} rows are {kind}: no metric of OOD detection is defined on such "
                "folds."
            )

        return is_ood, sources


class StratifiedBySourceKFold(_SourceSplitter):
    """K folds, each with the same proportion of the ID and OOD rows of every source.

    Parameters
    ----------
    n_splits : int, default=5
        Folds; every source needs as many rows.
    shuffle : bool, default=True
        Shuffle each source's rows first.
    random_state : int, RandomState instance or None, default=0
        Seed of the shuffle.
    ood_label : str, default="ood"
        The string that marks OOD rows in y.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.model_selection import StratifiedBySourceKFold
    >>> y = np.array([0] * 4 + [1] * 4)
    >>> sources = ["imagenet"] * 4 + ["sun"] * 2 + ["places"] * 2
    >>> for _, test in StratifiedBySourceKFold(n_splits=2).split(y, y, groups=sources):
    ...     print(sorted(np.array(sources)[test].tolist()))
    ['imagenet', 'imagenet', 'places', 'sun']
    ['imagenet', 'imagenet', 'places', 'sun']
    """

    def __init__(self, n_splits=5, *, shuffle=True, random_state=0, ood_label="ood"):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state
        self.ood_label = ood_label

    def _folds(
        self, is_ood: np.ndarray, sources: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # A stratum is a source and a kind: a source may hold ID and OOD rows.
        kinds = np.char.add(np.where(is_ood, "1", "0"), sources)
        names, strata, counts = np.unique(kinds, return_inverse=True, return_counts=True)
        if counts.min() < self.n_splits:
            raise ValueError(
                f"The source {names[counts.argmin()][1:]!r} has {counts.min()} rows of one kind, "
                f"fewer than n_splits={self.n_splits}; lower n_splits or add rows."
            )

        folds = StratifiedKFold(self.n_splits, shuffle=self.shuffle, random_state=_seed(self))
        yield from folds.split(np.empty(len(strata)), strata)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : ignored
            Present for scikit-learn's API.

        Returns
        -------
        int
        """
        return self.n_splits


class LeaveOneOODSetOut(_SourceSplitter):
    """One fold per OOD source: it and a part of the ID rows are the test rows, the rest trains.

    OOD sources come in alphabetical order. Nobody tunes on the OOD set that is reported when
    this is the outer split of a nested search: in each fold a ``GridSearchCV`` sees the other
    OOD sets only. Every ID row is a test row in exactly one fold.

    Parameters
    ----------
    shuffle : bool, default=True
        Shuffle the ID rows before they are dealt to the folds.
    random_state : int, RandomState instance or None, default=0
        Seed of the shuffle.
    ood_label : str, default="ood"
        The string that marks OOD rows in y.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn.model_selection import LeaveOneOODSetOut
    >>> y = np.array([0] * 4 + [1] * 4)
    >>> sources = ["imagenet"] * 4 + ["sun"] * 2 + ["places"] * 2
    >>> for train, test in LeaveOneOODSetOut().split(y, y, groups=sources):
    ...     print(*(np.unique(np.array(sources)[rows]).tolist() for rows in (train, test)))
    ['imagenet', 'sun'] ['imagenet', 'places']
    ['imagenet', 'places'] ['imagenet', 'sun']
    """

    def __init__(self, *, shuffle=True, random_state=0, ood_label="ood"):
        self.shuffle = shuffle
        self.random_state = random_state
        self.ood_label = ood_label

    def _folds(
        self, is_ood: np.ndarray, sources: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ood_sources = np.unique(sources[is_ood])
        id_rows = np.flatnonzero(~is_ood)
        if len(ood_sources) < 2:
            raise ValueError(
                f"All OOD rows come from {str(ood_sources[0])!r}; leaving it out leaves none to "
                "tune on. Use StratifiedBySourceKFold, or add another OOD set."
            )
        if len(id_rows) < len(ood_sources):
            raise ValueError(
                f"{len(id_rows)} ID rows are fewer than the {len(ood_sources)} OOD sources; add ID "
                "rows."
            )

        # Each ID row is tested in exactly one fold.
        folds = KFold(len(ood_sources), shuffle=self.shuffle, random_state=_seed(self))
        for source, (_, id_test) in zip(ood_sources, folds.split(id_rows), strict=True):
            is_test = is_ood & (sources == source)
            is_test[id_rows[id_test]] = True
            yield np.flatnonzero(~is_test), np.flatnonzero(is_test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of OOD sources.

        Parameters
        ----------
        X : ignored
            Present for scikit-learn's API.
        y, groups : array-like of shape (n,)
            As in `split`.

        Returns
        -------
        int
        """
        is_ood, sources = self._rows(y, groups)
        return len(np.unique(sources[is_ood]))


def held_out_classes(
    y: Any, *, n_splits: int = 5, random_state: Any = 0, ood_label: str = "ood"
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Near-OOD sets out of ID images: some classes are held out and count as unknown.

    Each split holds out another part of the classes; over all splits each class is held out once. A
    detector is fitted on the names that are left, with the held-out names in its corpus or not as
    they will be in use.

    It stands for near OOD *of the kind that the classes are*, and for nothing else: what is best
    for it need not be best for far OOD. It also makes the task easier, for fewer classes are known.
    To choose between settings for far OOD, give real OOD sets and `LeaveOneOODSetOut`.

    Parameters
    ----------
    y : array-like of str of shape (n,)
        Class names of ID images.
    n_splits : int, default=5
        Parts of the classes, 2 at least and at most their number.
    random_state : int, RandomState instance or None, default=0
        Seed of the parts.
    ood_label : str, default="ood"
        What takes the place of a held-out class in the y that is given back.

    Yields
    ------
    class_names : list of str
        Classes that are left, in the order of their first place in y.
    y_marked : ndarray of str of shape (n,)
        y with `ood_label` in place of the held-out classes.

    Raises
    ------
    ValueError
        If y holds `ood_label`, anything but strings, or fewer classes than `n_splits`.

    Examples
    --------
    >>> from dnm_sklearn.model_selection import held_out_classes
    >>> for names, y_marked in held_out_classes(["cat", "dog", "cat", "owl"], n_splits=3):
    ...     print(names, y_marked.tolist())
    ['cat', 'dog'] ['cat', 'dog', 'cat', 'ood']
    ['cat', 'owl'] ['cat', 'ood', 'cat', 'owl']
    ['dog', 'owl'] ['ood', 'dog', 'ood', 'owl']
    """
    given = read_y(y)
    if not isinstance(given, list):
        raise ValueError("y must hold the class name of every row, as strings.")
    labels = np.array([name.strip() for name in given])
    names = list(dict.fromkeys(labels.tolist()))
    if ood_label in names:
        raise ValueError(
            f"y holds {ood_label!r}: give ID images only, for the held-out classes take that label."
        )
    if not 2 <= n_splits <= len(names):
        raise ValueError(
            f"n_splits={n_splits} must be 2 at least and at most the number of classes in y, "
            f"{len(names)}."
        )

    folds = KFold(n_splits, shuffle=True, random_state=random_state)
    for kept, held_out in folds.split(names):
        unknown = np.isin(labels, [names[i] for i in held_out])
        yield [names[i] for i in kept], np.where(unknown, ood_label, labels)


def _seed(splitter: Any) -> Any:
    """The seed, or None where nothing is shuffled: scikit-learn refuses a seed without use."""
    return splitter.random_state if splitter.shuffle else None
