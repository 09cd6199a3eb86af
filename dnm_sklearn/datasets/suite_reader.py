"""Embedding suites, read: a benchmark task as a folder of precomputed embeddings.

The format is described in ``docs/embedding_suite.rst``. Everything in a suite is checked when it is
read, for it may come from anybody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.names import first_few
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.untrusted_files import Npz, lies_inside, open_npz, parse_json, read_text
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets.benchmark import OOD_GROUPS, ImageSet, Suite, merge_names
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.exceptions import SuiteError

FORMAT = 1
SUITE_FILE = "suite.json"

_JSON_TYPES = {str: "a non-empty string", dict: "an object", list: "a list", int: "an integer"}

# A million class names are 40 MB; a suite's head holds little else.
_LARGEST_HEAD = 64 * 2**20

# No model's embeddings are wider, no name is longer.
_WIDEST = 2**20
_LONGEST_NAME = 10_000

# Columns beside embeddings: the kinds of their dtypes, and what they hold.
_COLUMNS = {
    "name": ("U", "strings"),
    "norm": ("fiu", "positive finite numbers"),
    "part_of_speech": ("U", "of 'noun' and 'adjective'"),
    "candidate": ("b", "bools"),
    "label": ("iu", "integers"),
}


def load_embedding_suite(path: str | os.PathLike[str]) -> Suite:
    """Read and check a suite of precomputed embeddings.

    Parameters
    ----------
    path : str or path-like
        The suite's folder, or its ``suite.json``.

    Returns
    -------
    Suite
        ``images`` of every set are float32 unit rows of shape (n, d); ``embedder`` is an
        :class:`~dnm_sklearn.EmbeddingTable` of the text file (with raw norms if the file has them);
        ``corpus`` holds all names of the text file that are not ID class names. Class names that
        occur twice are merged into the first, and listed in ``meta["merged_class_names"]``.

    Raises
    ------
    SuiteError
        If a file is missing, damaged, of another size or width than stated, or holds NaN, infinite
        or zero rows; the message names the file and the fix.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from dnm_sklearn.datasets import ImageSet, load_embedding_suite, write_embedding_suite
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_embedding_suite(
    ...         folder + "/tiny", name="tiny", class_names=["cat"],
    ...         id=ImageSet("pets", np.eye(3)[:1], "id", labels=np.array([0])),
    ...         ood=[ImageSet("cars", np.eye(3)[2:], "far")],
    ...         text_names=["cat", "car"], text_embeddings=np.eye(3)[:2])
    ...     suite = load_embedding_suite(path)
    >>> suite.id.images.shape, suite.corpus.names
    ((1, 3), ('car',))
    """
    folder = user_path(path)
    if folder.name == SUITE_FILE and not folder.is_dir():
        folder = folder.parent

    reader = _Reader(folder)
    texts = reader.texts()
    width = texts.embeddings.shape[1]

    # Labels index the class names as stated; `new_index` leads to those that are left of them.
    class_names, new_index, merged = reader.class_names(texts)
    id_entry = reader.get(reader.head, "id", dict)
    id_set = reader.image_set(id_entry, "id", "id", width, new_index, needs_labels=True)
    id_train = None
    if reader.head.get("id_train") is not None:
        train_entry = reader.get(reader.head, "id_train", dict)
        train_entry = {"name": f"{id_set.name}-train", **train_entry}
        id_train = reader.image_set(train_entry, "id_train", "id", width, new_index)

    name = reader.get(reader.head, "name", str)
    model, prompt = reader.optional_string("model"), reader.optional_string("prompt")
    embedder = EmbeddingTable(
        texts.names,
        texts.embeddings,
        norms=texts.norms,
        logit_scale=reader.logit_scale(),
        name=model or name,
        model=model,
        prompt=prompt,
    )
    return Suite(
        name=name,
        class_names=class_names,
        id=id_set,
        ood=reader.ood_sets(width),
        embedder=embedder,
        corpus=texts.corpus_without(class_names, name=f"{name} text"),
        prompt=prompt,
        id_train=id_train,
        note=reader.optional_string("note") or "",
        meta={"model": model, "format": reader.head["format"], "merged_class_names": merged},
    )


@dataclass(frozen=True)
class _Texts:
    """The text file: one row per distinct name."""

    path: Path
    names: list[str]
    embeddings: np.ndarray
    norms: np.ndarray | None
    part_of_speech: np.ndarray | None

    # Whether each name is a candidate negative label, if it is no class; None = all are.
    candidate: np.ndarray | None

    def corpus_without(self, class_names: list[str], name: str) -> Corpus:
        """The names that are no class: the candidate negative labels."""
        classes = set(class_names)
        rest = [i for i, text in enumerate(self.names) if text not in classes]
        if self.candidate is not None:
            rest = [i for i in rest if self.candidate[i]]
        if not rest:
            raise SuiteError(
                f"{self.path}: all {len(self.names)} names are ID class names or marked as no "
                "candidates, which leaves no candidate negative labels; add other words with their "
                "embeddings."
            )

        pos = None if self.part_of_speech is None else self.part_of_speech[rest]
        return Corpus([self.names[i] for i in rest], part_of_speech=pos, name=name)


class _Reader:
    """Reads one suite folder; every error names the file and the key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / SUITE_FILE
        if not folder.is_dir():
            raise SuiteError(f"{folder}: no such folder. Give a folder that holds {SUITE_FILE}.")
        if not self.file.is_file():
            raise SuiteError(
                f"{folder} holds no {SUITE_FILE}, so it is not an embedding suite. For a folder of "
                "images, run 'dnm-bench embed' first."
            )

        text = read_text(self.file, largest=_LARGEST_HEAD, error=SuiteError)
        self.head = parse_json(text, self.file, error=SuiteError)
        if not isinstance(self.head, dict):
            raise SuiteError(
                f"{self.file} must hold a JSON object, got {type(self.head).__name__}."
            )
        version = self.head.get("format")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise self.wrong(f"'format' must be {FORMAT}, got {version!r}")
        if version > FORMAT:
            raise SuiteError(
                f"{self.file} has format {version}, this dnm_sklearn reads up to {FORMAT}; "
                "upgrade it."
            )

    def wrong(self, message: str) -> SuiteError:
        """The error for what stands in ``suite.json``."""
        return SuiteError(f"{self.file}: {message}; correct the file or write the suite again.")

    def get(self, entry: dict, key: str, kind: type, prefix: str = "") -> Any:
        """Value of a key that must be there, of one type and not blank."""
        value = entry.get(key)
        # In Python True is an int too.
        is_kind = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        is_blank = isinstance(value, str) and not value.strip()
        if not is_kind or is_blank:
            got = f"got {value!r}" if key in entry else "it is missing"
            raise self.wrong(f"'{prefix}{key}' must be {_JSON_TYPES[kind]}, {got}")
        return value

    def optional_string(self, key: str) -> str | None:
        value = self.head.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(f"'{key}' must be a string, got {value!r}")
        return value

    def logit_scale(self) -> float:
        scale = self.head.get("logit_scale", 100.0)  # CLIP's
        is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        # A whole number of JSON may be larger than any float.
        if not is_number or not 0 < scale <= sys.float_info.max:
            raise self.wrong(f"'logit_scale' must be a positive number, got {scale!r}")
        return float(scale)

    def texts(self) -> _Texts:
        """The text file; of names that occur twice the first."""
        with self.arrays(self.get(self.head, "text", dict), "text.", "file") as arrays:
            embeddings = arrays.embeddings()
            names = [str(text).strip() for text in arrays.column("name", required=True)]
            norms = arrays.column("norm")
            pos = arrays.column("part_of_speech")
            candidate = arrays.column("candidate")

        if norms is not None:
            # In float32, as they will be used: a number may vanish in it, or become infinite.
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                norms = norms.astype(np.float32)
            if not (np.isfinite(norms) & (norms > 0)).all():
                raise arrays.wrong_column("norm")
        if pos is not None and not np.isin(pos, ("noun", "adjective")).all():
            raise arrays.wrong_column("part_of_speech")

        path = arrays.path
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            if not name:
                raise SuiteError(f"{path}: name {i} is blank; leave it out.")
            j = first.setdefault(name, i)
            # Stored in float16, equal texts agree to about 1e-3.
            if j != i and not np.allclose(embeddings[i], embeddings[j], atol=1e-2):
                raise SuiteError(
                    f"{path}: {name!r} occurs twice (rows {j}, {i}) with different embeddings; "
                    "keep one."
                )

        keep = list(first.values())
        columns = (None if column is None else column[keep] for column in (norms, pos, candidate))
        return _Texts(path, list(first), embeddings[keep], *columns)

    def class_names(self, texts: _Texts) -> tuple[list[str], np.ndarray, list[str]]:
        """Unique class names, the map from stated to unique indices, and the names merged."""
        stated = self.get(self.get(self.head, "id", dict), "class_names", list, "id.")
        if not stated or not _are_names(stated):
            raise self.wrong("'id.class_names' must be a non-empty list of non-blank strings")

        unique, new_index, merged = merge_names(stated)
        with_embedding = set(texts.names)
        missing = [name for name in unique if name not in with_embedding]
        if missing:
            raise SuiteError(
                f"{self.file}: {len(missing)} of the ID class names have no embedding in "
                f"{texts.path.name}: {first_few(missing)}; add them there."
            )
        return unique, new_index, merged

    def image_set(
        self,
        entry: dict,
        key: str,
        group: Any,
        width: int,
        new_index: np.ndarray | None,
        needs_labels: bool = False,
    ) -> ImageSet:
        """One image set; labels are put through `new_index`, and dropped where it is None."""
        prefix = f"{key}."
        name = self.get(entry, "name", str, prefix).strip()
        with self.arrays(entry, prefix, "images") as arrays:
            rows = arrays.embeddings(width)
            if new_index is None:
                return ImageSet(name, rows, group)
            labels = arrays.column("label", required=needs_labels)

        if labels is None:
            return ImageSet(name, rows, group)
        if labels.min() < 0 or labels.max() >= len(new_index):
            raise SuiteError(
                f"{arrays.path}: labels run from {labels.min()} to {labels.max()}, but there are "
                f"{len(new_index)} class names (0 to {len(new_index) - 1}); correct the labels."
            )
        return ImageSet(name, rows, group, labels=new_index[labels])

    def ood_sets(self, width: int) -> list[ImageSet]:
        entries = self.get(self.head, "ood", list)
        if not entries:
            raise self.wrong("'ood' is empty, and a suite needs at least one OOD set")

        sets = []
        for i, entry in enumerate(entries):
            key = f"ood[{i}]"
            if not isinstance(entry, dict):
                raise self.wrong(f"'{key}' must be an object, got {entry!r}")
            group = entry.get("group")
            if group not in OOD_GROUPS:
                raise self.wrong(
                    f"'{key}.group' must be one of {', '.join(OOD_GROUPS)}, got {group!r}"
                )
            # Names of the classes that its images show, which a suite may leave out.
            names = entry.get("class_names", [])
            if not isinstance(names, list) or not _are_names(names):
                raise self.wrong(f"'{key}.class_names' must be a list of names")
            images = self.image_set(entry, key, group, width, None)
            sets.append(replace(images, class_names=tuple(names)))

        names = [images.name for images in sets]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise self.wrong(f"the OOD set name {repeated[0]!r} is used twice")
        return sets

    @contextmanager
    def arrays(self, entry: dict, prefix: str, key: str) -> Iterator[_Arrays]:
        """Open the file that an entry names, which must lie inside the suite's folder."""
        file = self.get(entry, key, str, prefix)
        # It reads its own files only, also behind links.
        if not lies_inside(self.folder, file):
            raise self.wrong(
                f"'{prefix}{key}' must be a file inside the suite's folder, got {file!r}"
            )
        path = self.folder / file
        # A pipe or a device is there, but nothing to read; opening it says so.
        if not path.exists():
            raise SuiteError(
                f"{path} is missing, but {SUITE_FILE} names it; restore the file or write the "
                "suite again."
            )

        n = self.get(entry, "n", int, prefix)
        if n < 1:
            raise self.wrong(f"'{prefix}n' must be at least 1, got {n}: a suite has no empty sets")
        with open_npz(path, error=SuiteError) as opened:
            yield _Arrays(path, opened, n)


class _Arrays:
    """The arrays of a file; what it states of each is compared before that takes memory."""

    def __init__(self, path: Path, arrays: Npz, n: int) -> None:
        self.path = path
        self._arrays = arrays
        self._n = n

    def embeddings(self, width: int | None = None) -> np.ndarray:
        """Unit rows (n, width), float32."""
        self._check_presence("embedding")
        shape, dtype = self._arrays.header("embedding")
        if len(shape) != 2 or dtype.kind not in "fiu":
            raise self._wrong(f"'embedding' must be a 2-D float array, got {len(shape)}-D {dtype}")
        if shape[0] != self._n:
            raise SuiteError(
                f"{self.path} has {shape[0]} rows, {SUITE_FILE} says n = {self._n}; correct 'n' or "
                "the file."
            )
        if width is not None and shape[1] != width:
            raise SuiteError(
                f"{self.path}: embeddings are {shape[1]} wide, the text embeddings {width}; all "
                "must come from one model."
            )
        if not 1 <= shape[1] <= _WIDEST:
            raise self._wrong(f"embeddings have {shape[1]} columns, which no model gives")

        # Numbers that float32 does not have become infinite, and are told below. Norms in float64,
        # where the squares of small numbers do not vanish.
        with np.errstate(over="ignore", invalid="ignore"):
            rows = self._arrays.read("embedding").astype(np.float32)
        norm = np.linalg.norm(rows.astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norm) | (norm == 0))
        if len(bad):
            raise SuiteError(
                f"{self.path}: {len(bad)} embedding rows are NaN, infinite or zero (first: row "
                f"{bad[0]}); leave them out."
            )
        return (rows / norm[:, None]).astype(np.float32)

    def column(self, key: str, required: bool = False) -> Any:
        """An array (n,) beside the embeddings; None if there is none."""
        if required:
            self._check_presence(key)
        elif key not in self._arrays.names:
            return None

        shape, dtype = self._arrays.header(key)
        if shape != (self._n,) or dtype.kind not in _COLUMNS[key][0]:
            raise self.wrong_column(key, f", got {dtype} of shape {shape}")
        # A character takes four bytes.
        if dtype.kind == "U" and dtype.itemsize > 4 * _LONGEST_NAME:
            raise self._wrong(
                f"'{key}' holds strings of {dtype.itemsize // 4} characters, more than the "
                f"{_LONGEST_NAME} of the longest names"
            )
        return self._arrays.read(key)

    def wrong_column(self, key: str, got: str = "") -> SuiteError:
        """The error for a column that holds something else than it should."""
        return self._wrong(f"'{key}' must hold {self._n} {_COLUMNS[key][1]}{got}")

    def _wrong(self, message: str) -> SuiteError:
        return SuiteError(f"{self.path}: {message}; correct it or write the file again.")

    def _check_presence(self, key: str) -> None:
        if key not in self._arrays.names:
            raise SuiteError(
                f"{self.path} has no array {key!r} (it has {sorted(self._arrays.names)}); write "
                "the file again."
            )


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)
