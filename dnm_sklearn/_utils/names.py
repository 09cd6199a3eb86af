"""Lists of names: one reading of them for class names, corpora and text tables."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dnm_sklearn._utils.image_formats import IMAGE_SUFFIXES
from dnm_sklearn.exceptions import InvalidNamesError

Value = TypeVar("Value", bound=Hashable)

# No tokenizer or file takes one.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def is_string_sequence(values: Any) -> bool:
    """Whether `values` is a sequence of strings, not empty: list, array, column of any library."""
    if values is None or isinstance(values, (str, bytes, Mapping)):
        return False
    # The columns of Hugging Face's datasets are sequences too. The first entry tells nearly always,
    # so that no other image of a column of images is decoded.
    if isinstance(values, Sequence):
        return len(values) > 0 and all(isinstance(value, str) for value in values)
    # An array of Arrow has neither dtype nor shape.
    if hasattr(values, "__array__") and not hasattr(values, "dtype"):
        values = np.asarray(values)

    dtype, shape = getattr(values, "dtype", None), getattr(values, "shape", None)
    if dtype is None or shape is None or len(shape) != 1 or shape[0] == 0:
        return False

    # numpy says by the kind whether all entries are strings: "U", or "T" of numpy 2. Of "O" and of
    # pandas's own types (string, category) only the entries themselves can tell.
    kind = getattr(dtype, "kind", "O")
    if kind == "U":
        return True
    if kind not in "OT" and type(dtype).__module__.startswith("numpy"):
        return False

    return all(isinstance(value, str) for value in np.asarray(values, dtype=object))


def check_names(names: Iterable[str], what: str = "names", hint: str = "") -> list[str]:
    """List the strings of `names` as they are; `what` is its name in errors, `hint` their end."""
    if isinstance(names, (str, bytes, bytearray, os.PathLike)):
        raise InvalidNamesError(
            f"{what} must be a list of strings, got the single {_type(names)} {names!r}: give "
            f"[{names!r}]{hint}."
        )
    if isinstance(names, (set, frozenset)):
        raise InvalidNamesError(
            f"{what} is a set, whose order differs from run to run; give sorted({what})."
        )
    if not isinstance(names, Iterable):
        raise InvalidNamesError(f"{what} must be a list of strings, got {_type(names)}.")

    listed = names.tolist() if isinstance(names, np.ndarray) else list(names)
    for i, name in enumerate(listed):
        if not isinstance(name, str):
            raise InvalidNamesError(
                f"{what}[{i}] is {name!r} of type {_type(name)}; every name must be a string."
            )
        if not name.isascii() and _HALF_CHARACTER.search(name):
            raise InvalidNamesError(
                f"{what}[{i}] is {name!r}, which holds half of a character: it was read as another "
                "encoding than its own, or is the name of a file or folder that is not in UTF-8. "
                "Rename it."
            )

    return [str(name) for name in listed]  # plain str where numpy's str_ was given


def strip_names(names: Iterable[str], what: str = "names", hint: str = "") -> list[str]:
    """As `check_names`, without the white space around each name, and none may be blank."""
    stripped = []
    for i, name in enumerate(check_names(names, what, hint)):
        if not name.strip():
            raise InvalidNamesError(f"{what}[{i}] is blank ({name!r}); remove it.")
        stripped.append(name.strip())
    return stripped


def unique_names(names: Iterable[str], what: str = "names") -> list[str]:
    """As `strip_names`, and of repeated names the first only."""
    return list(dict.fromkeys(strip_names(names, what)))


def distinct(values: Iterable[Value]) -> tuple[list[Value], np.ndarray]:
    """List each value once, at its first place, and say where each of `values` (n,) stands there.

    Examples
    --------
    >>> from dnm_sklearn._utils.names import distinct
    >>> names, index = distinct(["cat", "dog", "cat"])
    >>> names, index.tolist()
    (['cat', 'dog'], [0, 1, 0])
    """
    place: dict[Value, int] = {}
    index = [place.setdefault(value, len(place)) for value in values]
    return list(place), np.array(index, dtype=np.intp)


def first_few(names: Sequence[object]) -> str:
    """List the first few names for a message."""
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")


def check_is_list(what: str, value: Any) -> None:
    """Raise for what holds one string, or has no order, or can be read only once."""
    if isinstance(value, (str, bytes, os.PathLike)):
        _raise_single_string(what, os.fsdecode(value))

    if isinstance(value, (set, frozenset)):
        raise InvalidNamesError(
            f"{what} is a set, whose order differs from run to run: give sorted(...) of it."
        )
    if isinstance(value, Iterator):
        raise InvalidNamesError(
            f"{what} is a {_type(value)}, which can be read only once: give list(...) of it."
        )


def raise_why_no_names(what: str, value: Any) -> None:
    """Raise what can be said of a value that holds no names though it was perhaps meant to."""
    check_is_list(what, value)
    if isinstance(value, Mapping):
        raise InvalidNamesError(
            f"{what} is a dict; give it in the constructor: classes={{name: [synonyms], ...}}."
        )

    is_list = isinstance(value, (list, tuple))
    if is_list and any(isinstance(entry, str) for entry in value):
        check_names(value, what)

    holds_bytes = is_list and len(value) > 0 and type(value[0]) is bytes
    if holds_bytes or getattr(getattr(value, "dtype", None), "kind", "") == "S":
        raise InvalidNamesError(
            f"{what} holds bytes; decode them to strings: [name.decode() for name in names]."
        )

    if len(getattr(value, "shape", ())) == 2:
        # The first entries are enough to tell a table of names from one of numbers.
        entries = np.asarray(value, dtype=object).ravel()[:9]
        if all(isinstance(entry, str) for entry in entries):
            raise InvalidNamesError(
                f"{what} is a table of strings of shape {value.shape}; give the one column that "
                "holds names."
            )


def check_not_image_paths(names: Sequence[str]) -> None:
    """Raise for names that end like the files of images, which are probably meant as images."""
    paths = [name for name in names if name.strip().lower().endswith(IMAGE_SUFFIXES)]
    if paths:
        raise InvalidNamesError(
            f"{paths[0]!r} looks like the path of an image, not a class name ({len(paths)} such of "
            f"{len(names)}). Give the class names as `classes=[...]` in the constructor, or as y: "
            "fit(X=paths, y=names_of_rows)."
        )


def _raise_single_string(what: str, text: str) -> None:
    """Say what to give instead of one string, by what stands on disk under it."""
    if os.path.isdir(text):
        raise InvalidNamesError(
            f"{what} is the folder {text!r}; list its images: sorted(Path({text!r}).glob('*.jpg'))."
        )
    if not os.path.isfile(text):
        raise InvalidNamesError(
            f"{what} is the single string {text!r}; a list of class names is wanted: [{text!r}]."
        )
    if text.lower().endswith(IMAGE_SUFFIXES):
        raise InvalidNamesError(
            f"{what} is the path of one image, {text!r}; give images as a list, [{text!r}], and "
            "the class names as `classes=[...]` in the constructor."
        )

    raise InvalidNamesError(
        f"{what} is the path of a file, {text!r}; a list of class names is wanted. If it has one "
        f"name per line: Path({text!r}).read_text(encoding='utf-8').splitlines()."
    )


def _type(value: Any) -> str:
    return type(value).__name__
