"""Embedding suites: a benchmark task as a folder of precomputed image and text embeddings.

The format is described in ``docs/embedding_suite.rst``. A suite is written whole or not at all, and
everything in it is checked when it is read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.untrusted_files import (
    Npz,
    lies_inside,
    open_npz,
    parse_json,
    read_text,
)
from dnm_sklearn.corpus import Corpus
from dnm_sklearn.datasets.benchmark import OOD_GROUPS, ImageSet, Suite
from dnm_sklearn.embedding import EmbeddingTable
from dnm_sklearn.exceptions import SuiteError

__all__ = ["check_target", "load_embedding_suite", "write_embedding_suite"]

FORMAT = 1
SUITE_FILE = "suite.json"

_JSON_TYPES = {str: "a non-empty string", dict: "an object", list: "a list", int: "an integer"}

# A million class names are 40 MB; a suite's head holds little else.
_LARGEST_HEAD = 64 * 2**20

# No model's embeddings are wider, no name is longer.
_WIDEST = 2**20
_LONGEST_NAME = 10_000


# Reading


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
    model = reader.optional_string("model")
    return Suite(
        name=name,
        class_names=class_names,
        id=id_set,
        ood=reader.ood_sets(width),
        embedder=texts.as_table(
            logit_scale=reader.logit_scale(),
            name=model or name,
            model=model,
            prompt=reader.optional_string("prompt"),
        ),
        corpus=texts.corpus_without(class_names, name=f"{name} text"),
        prompt=reader.optional_string("prompt"),
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

    def as_table(self, **what: Any) -> EmbeddingTable:
        """All names as an encoder; `what` says which one (see `EmbeddingTable`)."""
        return EmbeddingTable(self.names, self.embeddings, norms=self.norms, **what)

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
        self.head = self._read_head()

    def _read_head(self) -> dict[str, Any]:
        """Read ``suite.json`` and check its format."""
        if not self.folder.is_dir():
            raise SuiteError(
                f"{self.folder}: no such folder. Give a folder that holds {SUITE_FILE}."
            )
        if not self.file.is_file():
            raise SuiteError(
                f"{self.folder} holds no {SUITE_FILE}, so it is not an embedding suite. For a "
                "folder of images, run 'dnm-bench embed' first."
            )

        text = read_text(self.file, largest=_LARGEST_HEAD, error=SuiteError)
        head = parse_json(text, self.file, error=SuiteError)
        if not isinstance(head, dict):
            raise SuiteError(f"{self.file} must hold a JSON object, got {type(head).__name__}.")

        version = head.get("format")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise SuiteError(
                f"{self.file}: 'format' must be {FORMAT}, got {version!r}; add it or write the "
                "suite again."
            )
        if version > FORMAT:
            raise SuiteError(
                f"{self.file} has format {version}, this dnm_sklearn reads up to {FORMAT}; "
                "upgrade it."
            )

        return head

    def get(self, entry: dict, key: str, kind: type, prefix: str = "") -> Any:
        """Value of a key that must be there, of one type and not blank."""
        value = entry.get(key)
        # In Python True is an int too.
        is_kind = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        is_blank = isinstance(value, str) and not value.strip()
        if not is_kind or is_blank:
            got = f"got {value!r}" if key in entry else "it is missing"
            raise SuiteError(
                f"{self.file}: '{prefix}{key}' must be {_JSON_TYPES[kind]}, {got}; correct the "
                "file."
            )

        return value

    def optional_string(self, key: str) -> str | None:
        value = self.head.get(key)
        if value is not None and not isinstance(value, str):
            raise SuiteError(
                f"{self.file}: '{key}' must be a string, got {value!r}; correct the file."
            )
        return value

    def logit_scale(self) -> float:
        scale = self.head.get("logit_scale", 100.0)  # CLIP's
        is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        # A whole number of JSON may be larger than any float.
        if not is_number or not 0 < scale <= sys.float_info.max:
            raise SuiteError(
                f"{self.file}: 'logit_scale' must be a positive number, got {scale!r}."
            )

        return float(scale)

    def texts(self) -> _Texts:
        """The text file; of names that occur twice the first."""
        entry = self.get(self.head, "text", dict)
        path = self._member("text.file", self.get(entry, "file", str, "text."))
        n = self._count(entry, "text.")
        with open_npz(path, error=SuiteError) as arrays:
            _check_names_of_arrays(path, arrays, ("name", "embedding"))
            _check_header(path, arrays, n, None)
            _check_column_headers(path, arrays, n)
            names, rows = arrays.read("name"), arrays.read("embedding")
            norms = arrays.read("norm") if "norm" in arrays.names else None
            pos = arrays.read("part_of_speech") if "part_of_speech" in arrays.names else None
            candidate = arrays.read("candidate") if "candidate" in arrays.names else None
        embeddings = _checked_rows(path, rows)
        _check_columns(path, n, norms, pos)

        first: dict[str, int] = {}

        for i, name in enumerate(str(text).strip() for text in names):
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
        return _Texts(
            path,
            list(first),
            embeddings[keep],
            None if norms is None else norms[keep].astype(np.float32),
            None if pos is None else pos[keep],
            None if candidate is None else candidate[keep],
        )

    def class_names(self, texts: _Texts) -> tuple[list[str], np.ndarray, list[str]]:
        """Unique class names, the map from stated to unique indices, and the names merged."""
        entry = self.get(self.head, "id", dict)
        stated = self.get(entry, "class_names", list, "id.")
        if not stated or not all(isinstance(name, str) and name.strip() for name in stated):
            raise SuiteError(
                f"{self.file}: 'id.class_names' must be a non-empty list of non-blank strings; "
                "correct it."
            )

        names = [name.strip() for name in stated]
        unique = list(dict.fromkeys(names))
        with_embedding = set(texts.names)
        missing = [name for name in unique if name not in with_embedding]
        if missing:
            shown = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise SuiteError(
                f"{self.file}: {len(missing)} of the ID class names have no embedding in "
                f"{texts.path.name}: {shown}; add them there."
            )

        # Two classes of one name have one embedding, and so are one class.
        position = {name: i for i, name in enumerate(unique)}
        merged = [name for name in unique if names.count(name) > 1]
        return unique, np.array([position[name] for name in names]), merged

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
        path = self._member(f"{prefix}images", self.get(entry, "images", str, prefix))
        n = self._count(entry, prefix)
        with open_npz(path, error=SuiteError) as arrays:
            _check_names_of_arrays(
                path, arrays, ("embedding", "label") if needs_labels else ("embedding",)
            )
            _check_header(path, arrays, n, width)
            rows = _checked_rows(path, arrays.read("embedding"))
            if "label" not in arrays.names or new_index is None:
                return ImageSet(name, rows, group)

            shape, dtype = arrays.header("label")
            if shape != (n,) or dtype.kind not in "iu":
                raise SuiteError(
                    f"{path}: 'label' must hold {n} integers, got {dtype} of shape {shape}."
                )
            labels = arrays.read("label")

        if labels.min() < 0 or labels.max() >= len(new_index):
            raise SuiteError(
                f"{path}: labels run from {labels.min()} to {labels.max()}, but there are "
                f"{len(new_index)} class names (0 to {len(new_index) - 1}); correct the labels."
            )

        return ImageSet(name, rows, group, labels=new_index[labels])

    def _class_names_of(self, entry: dict, key: str) -> tuple[str, ...]:
        """Names of the classes that an OOD set shows, which a suite may leave out."""
        names = entry.get("class_names", [])
        if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
            raise SuiteError(
                f"{self.file}: '{key}.class_names' must be a list of names; correct the file."
            )
        return tuple(names)

    def ood_sets(self, width: int) -> list[ImageSet]:
        entries = self.get(self.head, "ood", list)
        if not entries:
            raise SuiteError(f"{self.file}: 'ood' is empty; a suite needs at least one OOD set.")

        sets = []
        for i, entry in enumerate(entries):
            key = f"ood[{i}]"
            if not isinstance(entry, dict):
                raise SuiteError(
                    f"{self.file}: '{key}' must be an object, got {entry!r}; correct the file."
                )
            group = entry.get("group")
            if group not in OOD_GROUPS:
                raise SuiteError(
                    f"{self.file}: '{key}.group' must be one of {', '.join(OOD_GROUPS)}, got "
                    f"{group!r}."
                )
            images = self.image_set(entry, key, group, width, None)
            sets.append(replace(images, class_names=self._class_names_of(entry, key)))

        names = [images.name for images in sets]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SuiteError(
                f"{self.file}: the OOD set name {repeated[0]!r} is used twice; give each set its "
                "own name."
            )

        return sets

    def _count(self, entry: dict, prefix: str) -> int:
        n = self.get(entry, "n", int, prefix)
        if n < 1:
            raise SuiteError(
                f"{self.file}: '{prefix}n' must be at least 1, got {n}; a suite has no empty sets."
            )
        return n

    def _member(self, key: str, file: str) -> Path:
        """Path of a suite's file, which must lie inside the suite's folder."""
        # A suite may come from anybody; it reads its own files only, also behind links.
        if not lies_inside(self.folder, file):
            raise SuiteError(
                f"{self.file}: '{key}' must be a file inside the suite's folder, got {file!r}; "
                "move it there."
            )

        path = self.folder / file
        # A pipe or a device is there, but nothing to read; opening it says so.
        if not path.exists():
            raise SuiteError(
                f"{path} is missing, but {SUITE_FILE} names it; restore the file or write the "
                "suite again."
            )
        return path


def _check_names_of_arrays(path: Path, arrays: Npz, required: Sequence[str]) -> None:
    for key in required:
        if key not in arrays.names:
            raise SuiteError(
                f"{path} has no array {key!r} (it has {sorted(arrays.names)}); write the file "
                "again."
            )


def _check_header(path: Path, arrays: Npz, n: int, width: int | None) -> None:
    """Compare what a file states of its embeddings with the suite, before they take memory."""
    shape, dtype = arrays.header("embedding")
    if len(shape) != 2 or dtype.kind not in "fiu":
        raise SuiteError(
            f"{path}: 'embedding' must be a 2-D float array, got {len(shape)}-D {dtype}."
        )
    if shape[0] != n:
        raise SuiteError(
            f"{path} has {shape[0]} rows, {SUITE_FILE} says n = {n}; correct 'n' or the file."
        )
    if width is not None and shape[1] != width:
        raise SuiteError(
            f"{path}: embeddings are {shape[1]} wide, the text embeddings {width}; all must "
            "come from one model."
        )
    if not 1 <= shape[1] <= _WIDEST:
        raise SuiteError(
            f"{path}: embeddings have {shape[1]} columns, which no model gives; write the file "
            "again."
        )


def _checked_rows(path: Path, rows: np.ndarray) -> np.ndarray:
    """Check an array of embeddings and return float32 unit rows (n, d)."""
    # Numbers that float32 does not have become infinite, and are told below. Norms in float64,
    # where the squares of small numbers do not vanish.
    with np.errstate(over="ignore", invalid="ignore"):
        rows = rows.astype(np.float32)
    norm = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(norm) | (norm == 0))
    if len(bad):
        raise SuiteError(
            f"{path}: {len(bad)} embedding rows are NaN, infinite or zero (first: row {bad[0]}); "
            "leave them out."
        )

    return (rows / norm[:, None]).astype(np.float32)


def _check_column_headers(path: Path, arrays: Npz, n: int) -> None:
    """Compare what a file states of the columns beside the text embeddings with the suite."""
    shape, dtype = arrays.header("name")
    if dtype.kind != "U" or shape != (n,):
        raise SuiteError(f"{path}: 'name' must hold {n} strings, got {dtype} of shape {shape}.")
    # A character takes four bytes.
    if dtype.itemsize > 4 * _LONGEST_NAME:
        raise SuiteError(
            f"{path}: 'name' holds strings of {dtype.itemsize // 4} characters; names have at most "
            f"{_LONGEST_NAME}."
        )

    if "norm" in arrays.names:
        shape, dtype = arrays.header("norm")
        if shape != (n,) or dtype.kind not in "fiu":
            raise SuiteError(_norm_message(path, n))
    if "part_of_speech" in arrays.names:
        shape, dtype = arrays.header("part_of_speech")
        if shape != (n,) or dtype.kind != "U" or dtype.itemsize > 4 * _LONGEST_NAME:
            raise SuiteError(_part_of_speech_message(path, n))
    if "candidate" in arrays.names:
        shape, dtype = arrays.header("candidate")
        if shape != (n,) or dtype.kind != "b":
            raise SuiteError(
                f"{path}: 'candidate' must hold {n} bools, got {dtype} of shape {shape}; correct "
                "or drop it."
            )


def _check_columns(path: Path, n: int, norms: np.ndarray | None, pos: np.ndarray | None) -> None:
    """Check the values of what stands beside the text embeddings."""
    if norms is not None:
        # In float32, as they will be used: a number may vanish in it, or become infinite.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            used = norms.astype(np.float32)
        if not (np.isfinite(used) & (used > 0)).all():
            raise SuiteError(_norm_message(path, n))
    if pos is not None and not np.isin(pos, ("noun", "adjective")).all():
        raise SuiteError(_part_of_speech_message(path, n))


def _norm_message(path: Path, n: int) -> str:
    return f"{path}: 'norm' must hold {n} positive finite numbers; correct it or leave it out."


def _part_of_speech_message(path: Path, n: int) -> str:
    return f"{path}: 'part_of_speech' must hold {n} of 'noun' and 'adjective'; correct or drop it."


# Writing


def write_embedding_suite(
    folder: str | os.PathLike[str],
    *,
    name: str,
    class_names: Sequence[str],
    id: ImageSet,
    ood: Sequence[ImageSet],
    text_names: Sequence[str],
    text_embeddings: np.ndarray,
    text_norms: np.ndarray | None = None,
    part_of_speech: Sequence[str] | None = None,
    candidate: Sequence[bool] | None = None,
    id_train: ImageSet | None = None,
    model: str | None = None,
    prompt: str | None = None,
    logit_scale: float | None = None,
    note: str = "",
    dtype: str = "float16",
    overwrite: bool = False,
) -> Path:
    """Write a suite folder that :func:`load_embedding_suite` reads.

    The suite is written into a temporary folder beside the target, checked by reading it back, and
    renamed: an interrupted or refused call leaves nothing behind.

    Parameters
    ----------
    folder : str or path-like
        Where the suite goes.
    name : str
        Name of the suite.
    class_names : sequence of str
        The K ID class names; each must be among `text_names`.
    id : ImageSet
        ID test images: `images` of shape (n, d), `labels` of shape (n,) with indices into
        `class_names`.
    ood : sequence of ImageSet
        OOD sets: `images` of shape (n, d), group "near", "far", "shifted" or "sanity".
    text_names : sequence of str
        ID class names and candidate negative labels.
    text_embeddings : ndarray of shape (m, d)
        Their embeddings.
    text_norms : ndarray of shape (m,), optional
        Norms of the raw text embeddings, for ``mining="norm"``.
    part_of_speech : sequence of {"noun", "adjective"} of length m, optional
        Of every text name.
    candidate : sequence of bool of length m, optional
        Whether a text name that is no class is a candidate negative label; False for what only has
        an embedding here, as the joined adjectives of CSP. By default all are.
    id_train : ImageSet, optional
        ID images for baselines that learn from images.
    model : str, optional
        The model that made the embeddings, for the reader.
    prompt : str, optional
        The template that the text went through, for the reader.
    logit_scale : float, optional
        The model's logit scale; left out means CLIP's 100.
    note : str, default=""
        What a reader of the table must know.
    dtype : {"float16", "float32"}, default="float16"
        Precision of the stored rows, which are normalised first.
    overwrite : bool, default=False
        Replace an existing suite.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    SuiteError
        If the data do not make a valid suite.
    FileExistsError
        If `folder` exists and `overwrite` is False, or holds something that is not a suite.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from dnm_sklearn.datasets import ImageSet, load_embedding_suite, write_embedding_suite
    >>> target = tempfile.mkdtemp() + "/tiny"
    >>> path = write_embedding_suite(
    ...     target, name="tiny", class_names=["cat", "dog"],
    ...     id=ImageSet("pets", np.eye(2, 3), "id", labels=np.array([0, 1])),
    ...     ood=[ImageSet("cars", np.eye(3)[2:], "far")],
    ...     text_names=["cat", "dog", "car"], text_embeddings=np.eye(3))
    >>> load_embedding_suite(path).corpus.names
    ('car',)
    """
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be 'float16' or 'float32', got {dtype!r}.")

    target = Path(os.path.abspath(user_path(folder)))
    check_target(target, overwrite)

    # What stands beside the text embeddings, and what the reader of the suite is told.
    columns = {
        "name": np.asarray(text_names, dtype=str),
        "embedding": _unit_rows(text_embeddings, dtype),
    }
    if text_norms is not None:
        columns["norm"] = np.asarray(text_norms, dtype=np.float32)

    if part_of_speech is not None:
        columns["part_of_speech"] = np.asarray(part_of_speech, dtype=str)

    if candidate is not None:
        columns["candidate"] = np.asarray(candidate, dtype=bool)

    described = {
        "model": model,
        "prompt": prompt,
        "logit_scale": None if logit_scale is None else float(logit_scale),
    }

    # Beside the target, because a folder can be renamed in one step only within a file system.
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.tmp-"))

    try:
        head: dict[str, Any] = {"format": FORMAT, "name": name}
        head |= {key: value for key, value in described.items() if value is not None}
        head["id"] = _write_images(scratch, "id.npz", id, dtype)
        head["id"]["class_names"] = [str(class_name) for class_name in class_names]
        if id_train is not None:
            head["id_train"] = _write_images(scratch, "id_train.npz", id_train, dtype)
        _save_npz(scratch / "text.npz", columns)
        head["text"] = {"file": "text.npz", "n": len(columns["name"])}

        # The number keeps the files in order and apart where two names read alike.
        head["ood"] = []
        for i, images in enumerate(ood):
            file = f"ood_{i:02d}_{_file_name(images.name)}.npz"
            entry = _write_images(scratch, file, images, dtype)
            entry |= {"group": images.group}
            if images.class_names:
                entry["class_names"] = [str(class_name) for class_name in images.class_names]
            head["ood"].append(entry)
        head["note"] = note

        _write_json(scratch / SUITE_FILE, head)
        _check_readable(scratch, target)
        _publish(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    return target


def check_target(target: Path, overwrite: bool) -> None:
    """Raise for a target that must not be replaced."""
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"{target} exists; choose another folder, or replace it (overwrite=True, --overwrite)."
        )
    if not (target / SUITE_FILE).is_file():
        raise FileExistsError(
            f"{target} exists and is not an embedding suite, so it is not replaced; choose another."
        )


def _write_images(folder: Path, file: str, images: ImageSet, dtype: str) -> dict[str, Any]:
    """Write a set's file and return its entry in ``suite.json``."""
    arrays = {"embedding": _unit_rows(images.images, dtype)}
    if images.labels is not None:
        arrays["label"] = np.asarray(images.labels)
    _save_npz(folder / file, arrays)
    return {"name": images.name, "images": file, "n": len(arrays["embedding"])}


def _unit_rows(rows: Any, dtype: str) -> np.ndarray:
    """Unit rows in `dtype`; what cannot be normalised is left for the check to name."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        return rows
    rows = rows.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=rows, where=norm > 0).astype(dtype)


def _file_name(name: str) -> str:
    """A set's name with only characters that every file system takes, at most 60 of them."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)[:60]


def _save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False))
        file.flush()
        os.fsync(file.fileno())


def _check_readable(scratch: Path, target: Path) -> None:
    """Read the suite back; errors name the place where it would have been."""
    try:
        load_embedding_suite(scratch)
    except ValueError as error:
        raise SuiteError(str(error).replace(str(scratch), str(target))) from None


def _publish(scratch: Path, target: Path) -> None:
    """Move the finished folder to its place; an old suite goes only when the new one is there."""
    # mkdtemp makes folders that only their owner may enter; give the rights of an ordinary one.
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    scratch.chmod(0o777 & ~mask)
    if not target.exists():
        scratch.rename(target)
        return

    # A folder that is not empty cannot be replaced in one step: move it aside, and back if the new
    # one cannot take its place.
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old-"))
    old = aside / "suite"
    try:
        target.rename(old)
        scratch.rename(target)
    except BaseException:
        # Ctrl-C as well, at any of these lines.
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
