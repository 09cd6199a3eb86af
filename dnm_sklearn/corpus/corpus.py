"""An immutable list of names with their part of speech and lexicographer file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.digest import digest_names
from dnm_sklearn._utils.html_table import html_table
from dnm_sklearn._utils.names import distinct, first_few, strip_names
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.corpus.columns import (
    LEXICOGRAPHER_FILES,
    PARTS_OF_SPEECH,
    checked_column,
    folded,
)
from dnm_sklearn.corpus.neighbours import NEAR, leaked, neighbours
from dnm_sklearn.corpus.text_file import format_rows, read_rows

_OTHER_SOURCES = ", load_corpus(name) for a shipped selection, or Corpus.from_file(path) for a file"


class Corpus:
    """Names to mine negative labels from; immutable.

    Repeated names are removed, the first occurrence (with its part of speech and lexicographer
    file) stays. Names are stripped of white space at both ends and otherwise kept as given.

    Parameters
    ----------
    names : iterable of str
        The names, in the order in which they are kept. At least one; none may be blank.
    part_of_speech : {"noun", "adjective"} or sequence of these of shape (n_given,), default=None
        One value for all names, or one per name. None means that all are nouns.
    lexname : str or sequence of str of shape (n_given,), default=None
        WordNet lexicographer file (``"noun.artifact"``) of each name; ``""`` or None where it is
        not known.
    name : str, default="custom"
        Label shown to people. It is not part of the content, nor of the fingerprint.

    Attributes
    ----------
    names : tuple of str of length n
        The names.
    part_of_speech : ndarray of str of shape (n,)
        ``"noun"`` or ``"adjective"``; read-only.
    lexname : ndarray of str of shape (n,)
        Lexicographer file, ``""`` where not known; read-only.
    name : str
        The label.

    Raises
    ------
    TypeError
        If `names` is one string, a set (it has no order), or holds anything but strings.
    ValueError
        If there is no name, a blank name, an unknown part of speech, or a column of another length.

    Notes
    -----
    A corpus is a value: ``copy``, ``deepcopy`` and ``sklearn.base.clone`` return the object itself,
    and two corpora are equal when their :attr:`fingerprint` is.

    Examples
    --------
    >>> from dnm_sklearn.corpus import Corpus
    >>> corpus = Corpus(["oak", "teapot", "rusty", "oak"], ["noun", "noun", "adjective", "noun"])
    >>> corpus.names
    ('oak', 'teapot', 'rusty')
    >>> corpus.without(["Teapot"]).names
    ('oak', 'rusty')
    >>> corpus[corpus.is_adjective]
    Corpus('custom (part)', 1 name: 0 nouns, 1 adjective)
    """

    __slots__ = ("__weakref__", "_fingerprint", "lexname", "name", "names", "part_of_speech")

    names: tuple[str, ...]
    part_of_speech: np.ndarray
    lexname: np.ndarray
    name: str
    _fingerprint: str | None

    def __init__(
        self,
        names: Iterable[str],
        part_of_speech: str | Sequence[str] | np.ndarray | None = None,
        lexname: str | Sequence[str] | np.ndarray | None = None,
        *,
        name: str = "custom",
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"name is the label of the corpus and must be a str, got {type(name).__name__}."
            )

        given = strip_names(names, hint=_OTHER_SOURCES)
        if not given:
            raise ValueError("names is empty; a corpus needs at least one name.")

        pos = checked_column("part_of_speech", part_of_speech, len(given), default="noun")
        lex = checked_column("lexname", lexname, len(given), default="")
        unknown = np.flatnonzero(~np.isin(pos, PARTS_OF_SPEECH))
        if unknown.size:
            raise ValueError(
                f"part_of_speech[{unknown[0]}] is {str(pos[unknown[0]])!r} (name "
                f"{given[unknown[0]]!r}); it must be one of {PARTS_OF_SPEECH}."
            )

        # Of repeated names the first stays.
        unique, index = distinct(given)
        _, first = np.unique(index, return_index=True)
        self._set(tuple(unique), pos[first], lex[first], name)

    def _set(self, names: tuple[str, ...], pos: np.ndarray, lex: np.ndarray, name: str) -> None:
        """Set the columns, once; `__setattr__` refuses everybody else."""
        pos, lex = pos.astype(np.str_), lex.astype(np.str_)
        pos.setflags(write=False)
        lex.setflags(write=False)

        for key, value in (
            ("names", names),
            ("part_of_speech", pos),
            ("lexname", lex),
            ("name", name),
        ):
            object.__setattr__(self, key, value)

        object.__setattr__(self, "_fingerprint", None)

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(
            f"A Corpus is immutable: {key!r} cannot be set; make a new one with Corpus(...) or "
            "filter."
        )

    def __delattr__(self, key: str) -> None:
        raise AttributeError(f"A Corpus is immutable: {key!r} cannot be deleted.")

    @property
    def fingerprint(self) -> str:
        """Hex digest of the content, the same in every process.

        Names, parts of speech and lexicographer files count; the label does not.
        """
        if self._fingerprint is None:
            columns = chain(self.names, self.part_of_speech.tolist(), self.lexname.tolist())
            object.__setattr__(self, "_fingerprint", digest_names(columns, n_bytes=16))

        assert self._fingerprint is not None
        return self._fingerprint

    @property
    def is_adjective(self) -> np.ndarray:
        """Mask of the adjectives, bool of shape (n,)."""
        return self.part_of_speech == "adjective"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    @overload
    def __getitem__(self, index: int | np.integer) -> str: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int] | Sequence[bool]) -> Corpus: ...

    def __getitem__(self, index: Any) -> str | Corpus:
        """Give the name at an integer, or the part at a slice, a mask or an array of positions."""
        places = np.arange(len(self))
        if isinstance(index, slice):
            return self._take(places[index], "this slice")
        if isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_)):
            return self.names[index]

        given = np.asarray(index)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "biu"):
            raise TypeError(
                "A Corpus is indexed by an integer, a slice, a bool mask or a 1-D array of "
                f"positions, got {type(index).__name__}; to select by name use filter(where=...) "
                "or without(names)."
            )

        # numpy refuses a mask of another length, and positions out of range.
        where = places[given if given.dtype.kind == "b" else given.astype(np.intp)]

        # A corpus has no repeated names: of repeated positions the first counts.
        _, first = np.unique(where, return_index=True)
        return self._take(where[np.sort(first)], "this index")

    def _take(self, where: np.ndarray, how: str) -> Corpus:
        if not len(where):
            raise ValueError(
                f"Corpus {self.name!r}: {how} keeps none of its {len(self)} names; a corpus cannot "
                "be empty."
            )
        if len(where) == len(self) and np.array_equal(where, np.arange(len(self))):
            return self

        part = object.__new__(type(self))
        name = self.name if self.name.endswith(" (part)") else f"{self.name} (part)"
        names = tuple(self.names[i] for i in where.tolist())
        part._set(names, self.part_of_speech[where], self.lexname[where], name)

        return part

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Corpus):
            return NotImplemented
        return self is other or (len(self) == len(other) and self.fingerprint == other.fingerprint)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        n_adjectives = int(self.is_adjective.sum())
        n_nouns = len(self) - n_adjectives
        return (
            f"Corpus({self.name!r}, {_count(len(self), 'name')}: {_count(n_nouns, 'noun')}, "
            f"{_count(n_adjectives, 'adjective')})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the kinds of names, and some of each."""
        rows = []
        for kind, chosen in (("noun", ~self.is_adjective), ("adjective", self.is_adjective)):
            places = np.flatnonzero(chosen)
            # Evenly taken: neighbours in a corpus mean similar things.
            some = places[np.unique(np.linspace(0, len(places) - 1, 8).astype(int))]
            names = ", ".join(self.names[place] for place in some)
            if len(places):
                rows.append((kind, len(places), names))
        title = f"Corpus {self.name!r}, {_count(len(self), 'name')}"
        return html_table(title, ("part of speech", "names", "for example"), rows)

    def __copy__(self) -> Corpus:
        return self

    def __deepcopy__(self, memo: dict) -> Corpus:
        return self

    def __sklearn_clone__(self) -> Corpus:
        return self

    def __reduce__(self) -> tuple:
        # One byte per name instead of a string of up to 18 characters: WordNet's pickle has 1.2 MB
        # instead of 9.7.
        files, code = np.unique(self.lexname, return_inverse=True)
        code = code.astype(np.min_scalar_type(len(files)))
        return _restore, (self.names, self.is_adjective, tuple(files.tolist()), code, self.name)

    # For skops, which calls neither `__reduce__` nor the constructor.
    def __getstate__(self) -> dict[str, Any]:
        """Columns as arrays, and the label."""
        columns = {"part_of_speech": self.part_of_speech, "lexname": self.lexname}
        return {"names": np.asarray(self.names), **columns, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the columns of a corpus that has none yet."""
        if hasattr(self, "names"):
            raise AttributeError("A Corpus is immutable: make a new one with Corpus(...).")
        columns = (state["names"].tolist(), state["part_of_speech"], state["lexname"])
        checked = Corpus(*columns, name=state["name"])
        self._set(checked.names, checked.part_of_speech, checked.lexname, checked.name)

    def filter(
        self,
        *,
        part_of_speech: str | None = None,
        lexname: str | Sequence[str] | None = None,
        exclude_lexname: str | Sequence[str] | None = None,
        where: Callable[[str], bool] | np.ndarray | Sequence[bool] | None = None,
    ) -> Corpus:
        """Keep the names that meet all conditions given, in the same order.

        Parameters
        ----------
        part_of_speech : {"noun", "adjective"}, default=None
            Keep only these.
        lexname : str or sequence of str, default=None
            Keep only names of these lexicographer files.
        exclude_lexname : str or sequence of str, default=None
            Drop names of these lexicographer files.
        where : callable or mask of shape (n,), default=None
            Keep the names for which ``where(name)`` is true, or where the mask is.

        Returns
        -------
        Corpus
            The part that is left; the corpus itself when nothing was dropped.

        Raises
        ------
        ValueError
            If no name is left, or a part of speech or lexicographer file does not exist.

        Examples
        --------
        >>> from dnm_sklearn.corpus import load_corpus
        >>> motives = load_corpus("wordnet").filter(lexname="noun.motive")
        >>> motives.filter(where=lambda word: " " in word).names[:2]
        ('rational motive', 'moral force')
        """
        # Each condition narrows the mask.
        keep = np.ones(len(self), dtype=bool)
        if part_of_speech is not None:
            if part_of_speech not in PARTS_OF_SPEECH:
                raise ValueError(
                    f"part_of_speech must be one of {PARTS_OF_SPEECH}, got {part_of_speech!r}."
                )
            keep &= self.part_of_speech == part_of_speech

        if lexname is not None:
            keep &= np.isin(self.lexname, self._files("lexname", lexname))

        if exclude_lexname is not None:
            keep &= ~np.isin(self.lexname, self._files("exclude_lexname", exclude_lexname))

        if callable(where):
            keep &= np.fromiter(
                (bool(where(word)) for word in self.names), dtype=bool, count=len(self)
            )
        elif where is not None:
            mask = np.asarray(where)
            if mask.dtype != bool or mask.shape != (len(self),):
                raise ValueError(
                    f"where must be a function of one name or a bool mask of shape ({len(self)},), "
                    f"got {mask.dtype} of shape {mask.shape}."
                )
            keep &= mask

        return self._take(np.flatnonzero(keep), "this filter")

    def _files(self, parameter: str, files: str | Sequence[str]) -> list[str]:
        wanted = [files] if isinstance(files, str) else list(files)
        # A corpus of the user's may have files of its own, and a part of WordNet none of some.
        known = set(LEXICOGRAPHER_FILES) | set(np.unique(self.lexname).tolist())
        unknown = [file for file in wanted if file not in known]
        if unknown:
            raise ValueError(
                f"{parameter} holds {unknown[0]!r}, which is no lexicographer file of this corpus; "
                f"there are {sorted(known)}."
            )

        return wanted

    def without(self, names: Iterable[str], *, ignore_case: bool = True) -> Corpus:
        """Drop names, for instance those of the ID classes.

        Parameters
        ----------
        names : iterable of str, or str
            What to drop; names that the corpus does not hold are ignored.
        ignore_case : bool, default=True
            Compare without regard to upper and lower case (and Unicode composition).

        Returns
        -------
        Corpus
            The part that is left; the corpus itself when nothing was dropped.

        Raises
        ------
        ValueError
            If no name is left.

        Examples
        --------
        >>> from dnm_sklearn.corpus import Corpus
        >>> Corpus(["fig", "Plum"]).without(["FIG"]).names
        ('Plum',)
        """
        key = folded if ignore_case else str.strip
        drop = {key(word) for word in ([names] if isinstance(names, str) else names)}
        keep = [i for i, word in enumerate(self.names) if key(word) not in drop]
        return self._take(np.asarray(keep, dtype=np.intp), "without(names)")

    def leaked(
        self, names: Iterable[str], *, synsets: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Find names of the corpus that name one of the classes of an OOD set.

        A corpus that holds them knows what the OOD images show. ``corpus.without(corpus.leaked(
        names))`` is "blind" to it.

        Parameters
        ----------
        names : iterable of str
            Names of classes that a detector should know nothing of.
        synsets : mapping of str to str, default=None
            As in :meth:`related`.

        Returns
        -------
        tuple of str
            The names equal to one of them (ignoring case and plurals), or another word for the
            sense given in `synsets`, else the most frequent one of WordNet; in the order of the
            corpus.

        Examples
        --------
        >>> from dnm_sklearn.corpus import Corpus
        >>> corpus = Corpus(["automobile", "teapot"])
        >>> corpus.without(corpus.leaked(["Car"])).names
        ('teapot',)
        """
        return leaked(self.names, strip_names(names), synsets)

    @classmethod
    def related(cls, names: Iterable[str], *, synsets: Mapping[str, str] | None = None) -> Corpus:
        """Words for what is near the classes and none of them: neighbours in WordNet's noun tree.

        This is the selection ``corpus="wordnet-near"`` of the detectors. Of each class: what has a
        hypernym in common with it, what is directly below that, the siblings of its hypernyms, and
        two steps below these. Without the classes themselves, all above and below them, other words
        for them, and proper nouns. (14,536 names for ImageNet's 1,000 classes.)

        Parameters
        ----------
        names : iterable of str
            Class names. One that is no noun of WordNet (nor its plural) has no neighbours here, and
            a warning names it; a detector takes the words nearest to it in the embedding instead.
        synsets : mapping of str to str, default=None
            Class name -> WordNet 3.0 id such as ``"n01440764"``, where another sense is meant than
            the most frequent one. (The ids of ImageNet's classes are WordNet 3.0 ids.)

        Returns
        -------
        Corpus
            Lower-cased names in the order of WordNet's database.

        Raises
        ------
        ValueError
            If no class name has a neighbour, or `synsets` is wrong.

        References
        ----------
        The pool of ReNeg, https://github.com/NabilRafi/ReNeg.

        Examples
        --------
        >>> from dnm_sklearn.corpus import Corpus
        >>> Corpus.related(["crane"], synsets={"crane": "n02012849"}).names[:3]
        ('waterfowl', 'anseriform bird', 'duck')
        """
        found = neighbours(strip_names(names), synsets)
        if not found.names:
            raise ValueError(
                f"None of the {len(found.unmatched)} class names that WordNet lacks has neighbours "
                f"there (e.g. {found.unmatched[0]!r}): say which noun is meant, synsets={{name: "
                "'n01440764'}, or give a corpus of your own."
                if found.unmatched
                else "These class names have no neighbours in WordNet: give a corpus of your own."
            )
        if found.unmatched:
            warn(
                f"{len(found.unmatched)} class names are no nouns of WordNet and have no "
                f"neighbours in this corpus: {first_few(found.unmatched)}. Say what is meant with "
                "synsets={name: 'n01440764'}."
            )
        return cls(found.names, "noun", found.lexname, name=NEAR)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, name: str | None = None) -> Corpus:
        r"""Read a text file with one name per line.

        Blank lines and lines that start with ``#`` are skipped (a name that starts with ``#`` is
        written ``\#``). After the name, two more columns may follow, separated by tabs: the part of
        speech and the lexicographer file. UTF-8, with or without a byte order mark, or UTF-16 with
        one.

        Parameters
        ----------
        path : path-like
            The file.
        name : str, default=None
            Label of the corpus; None takes the file's name.

        Returns
        -------
        Corpus
            The names in the order of the file, repeated ones removed.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not text in UTF-8, holds no name, or a line has a wrong column.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from dnm_sklearn.corpus import Corpus
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "words.txt")
        ...     _ = path.write_text("# my words\nteapot\nrusty\tadjective\n", encoding="utf-8")
        ...     Corpus.from_file(path)
        Corpus('words.txt', 2 names: 1 noun, 1 adjective)
        """
        path = Path(path)
        words, parts, files = zip(*read_rows(path), strict=True)
        return cls(words, parts, files, name=path.name if name is None else name)

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the text file that :meth:`from_file` reads (UTF-8, one name per line).

        The columns for part of speech and lexicographer file are written only where they say
        something.

        Parameters
        ----------
        path : path-like
            The file; an existing one is replaced.

        Raises
        ------
        ValueError
            If a name holds a tab or a line break, which the format cannot express.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from dnm_sklearn.corpus import Corpus
        >>> corpus = Corpus(["oak", "rusty"], ["noun", "adjective"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "words.txt")
        ...     corpus.to_file(path)
        ...     Corpus.from_file(path) == corpus
        True
        """
        rows = zip(self.names, self.part_of_speech.tolist(), self.lexname.tolist(), strict=True)
        with atomic_write(path) as scratch:
            scratch.write_text(format_rows(rows), encoding="utf-8", newline="\n")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _restore(
    names: tuple[str, ...],
    adjective: np.ndarray,
    files: tuple[str, ...],
    code: np.ndarray,
    name: str,
) -> Corpus:
    """Rebuild an unpickled corpus, whose names were checked when it was made."""
    # Past the constructor, whose checks of WordNet's 79,403 names take 0.4 s, for every worker.
    corpus = object.__new__(Corpus)
    corpus._set(
        names, np.where(adjective, "adjective", "noun"), np.array(files, dtype=np.str_)[code], name
    )
    return corpus
