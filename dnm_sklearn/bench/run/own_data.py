"""What users bring to `dnm-bench score`: images or embeddings, class names, and saved detectors."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dnm_sklearn._utils.untrusted_files import (
    NpyRows,
    Npz,
    open_npz,
    parse_json,
    read_text,
    split_lines,
)
from dnm_sklearn.bench.run.job_files import check_pyarrow
from dnm_sklearn.bench.run.prepare import show_progress
from dnm_sklearn.exceptions import FileContentError

# Where embeddings and what they are of stand in an npz or Parquet file, unless the user says other.
_EMBEDDING, _PATH = "embedding", "path"
_EMBEDDING_FILES = (".npy", ".npz", ".parquet")

# No model's embeddings are wider; a column of 8 GB is the most that is read at once.
_WIDEST, _LONGEST_PATH = 2**20, 4096
_LARGEST_COLUMN = 2**31


@dataclass(frozen=True)
class Items:
    """What is scored: files of images, or rows of embeddings with a name each."""

    names: list[str]
    rows: np.ndarray | NpyRows | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, start: int, stop: int) -> list[str] | np.ndarray:
        """Give the paths, or the rows, of some items."""
        return self.names[start:stop] if self.rows is None else self.rows[start:stop]

    def all(self) -> list[str] | np.ndarray:
        """Give the paths, or the rows, of all items."""
        return self.take(0, len(self))


def read_items(where: str, column: str | None = None) -> Items:
    """Find images (see `list_paths`), or open embeddings: an npy, npz or Parquet file.

    `column` is the array of an npz file, or the column of a Parquet file, that holds the
    embeddings (default: "embedding"). Strings called "path" beside them name the rows.
    """
    kind = Path(where).suffix.lower()
    if kind not in _EMBEDDING_FILES or Path(where).is_dir():
        if column is not None:
            raise ValueError(f"--column {column}: {where} is no npz or Parquet file.")
        return Items(list_paths(where))
    if not Path(where).is_file():
        raise FileContentError(f"{where}: there is no such file.")

    if kind == ".npy":
        if column is not None:
            raise ValueError(f"--column {column}: an npy file holds one array, without a name.")
        rows: np.ndarray | NpyRows = NpyRows(where)
        names = None
        _check_rows(where, rows.shape, rows.dtype)
    elif kind == ".npz":
        rows, names = _read_npz(where, column or _EMBEDDING)
    else:
        rows, names = _read_parquet(where, column or _EMBEDDING)
    return Items(names or [f"row {i}" for i in range(len(rows))], rows)


def list_paths(images: str) -> list[str]:
    """Find the images of a folder, in depth, or of a text file with one path per line.

    Paths in a text file are relative to that file.
    """
    from dnm_sklearn.datasets.folders import list_images

    where = Path(images)
    if where.is_dir():
        return list_images(where)
    if not where.is_file():
        raise ValueError(
            f"{images}: there is no such folder of images, text file of paths, or file of "
            "embeddings (.npy, .npz, .parquet)."
        )
    paths = [str(where.parent / line) for line in _read_lines(images)]
    if not paths:
        raise ValueError(f"{images} lists no image.")
    return paths


def read_class_names(path: str, column: str | None = None) -> list[str]:
    """Read class names: lines of a text file, a column of a CSV file, or a list in JSON.

    `column` names the column of a CSV file; one of a single column needs none. In JSON also an
    object whose values are names, in its order ("0": "tench"), as index files have it.
    """
    kind = Path(path).suffix.lower()
    if column is not None and kind not in (".csv", ".tsv"):
        raise ValueError(f"--names-column {column}: {path} is no CSV file (.csv, .tsv).")
    if kind in (".csv", ".tsv"):
        names = _read_csv_column(path, column, "\t" if kind == ".tsv" else ",")
    elif kind == ".json":
        names = _read_json_names(path)
    else:
        names = _read_lines(path)
    if not names:
        raise FileContentError(f"{path} holds no class names.")
    return names


def read_texts(path: str) -> Any:
    """Read an `EmbeddingTable` from an npz file with ``name`` (m,) and ``embedding`` (m, d)."""
    from dnm_sklearn.embedding import EmbeddingTable

    with open_npz(path) as arrays:
        embeddings = read_embeddings(arrays, path)
        names = _read_strings(arrays, path, "name", len(embeddings))
    try:
        return EmbeddingTable(names, embeddings)
    except (ValueError, TypeError) as error:
        raise FileContentError(f"{path} cannot be used as text vectors: {error}") from error


def read_embeddings(arrays: Npz, place: str, name: str = _EMBEDDING) -> np.ndarray:
    """Read embeddings (n, d) from an npz file, after a look at what it states of them."""
    _check_name(arrays, place, name)
    _check_rows(place, *arrays.header(name))
    return arrays.read(name)


def _read_strings(arrays: Npz, place: str, name: str, n: int) -> list[str]:
    _check_name(arrays, place, name)
    shape, dtype = arrays.header(name)
    # A character takes four bytes.
    if dtype.kind != "U" or shape != (n,) or dtype.itemsize > 4 * _LONGEST_PATH:
        raise FileContentError(
            f"{place}: {name!r} must hold {n} strings of at most {_LONGEST_PATH} characters, got "
            f"{dtype} of shape {shape}."
        )
    return arrays.read(name).tolist()


def _check_name(arrays: Npz, place: str, name: str) -> None:
    if name not in arrays.names:
        raise FileContentError(
            f"{place} has no array {name!r} (it has {sorted(arrays.names)}); save it under this "
            "name, or give the name that it has where there is an option --column."
        )


def load_detector(
    path: str, model: str | None, texts: Any, cache: str | None, cache_size: int | None
) -> Any:
    """Load a saved detector; a model or table that is named takes the place of the saved one's."""
    from dnm_sklearn.embedding import CLIPEmbedder
    from dnm_sklearn.embedding.base import BaseEmbedder
    from dnm_sklearn.persistence import load
    from dnm_sklearn.pipeline import OODPipeline

    embedder = texts if model is None else CLIPEmbedder(model)
    detector = load(path, embedder)
    if isinstance(detector, OODPipeline):
        # Its first step is the embedder, which the detector has too.
        detector = detector[-1]
    if isinstance(detector.embedder_, BaseEmbedder):
        encoder = show_progress(detector.embedder_)
        encoder.set_params(memory=cache, cache_size=cache_size, on_error="nan")
    return detector


def _read_lines(path: str) -> list[str]:
    """Read a text file of one entry per line; blank lines are left out."""
    return [line.strip() for line in split_lines(_read_whole(path)) if line.strip()]


def _read_csv_column(path: str, column: str | None, delimiter: str) -> list[str]:
    text = _read_whole(path)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise FileContentError(f"{path} is not a readable CSV file ({error}).") from error
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if not lines:
        return []

    head = [cell.strip() for cell in lines[0]]
    if column is None and len(head) > 1:
        raise FileContentError(
            f"{path} has the columns {', '.join(map(repr, head[:20]))}; say with --names-column "
            "which holds the class names."
        )
    if column is not None and column not in head:
        raise FileContentError(
            f"{path} has no column {column!r}; it has {', '.join(map(repr, head[:20]))}."
        )

    place = 0 if column is None else head.index(column)
    names = []
    for i, line in enumerate(lines[1:], start=2):
        if len(line) <= place or not line[place].strip():
            raise FileContentError(f"{path}, row {i} has no class name in column {head[place]!r}.")
        names.append(line[place].strip())
    return names


def _read_json_names(path: str) -> list[str]:
    value = parse_json(_read_whole(path), path)
    entries = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, str) and entry.strip() for entry in entries
    ):
        raise FileContentError(
            f"{path} must hold a list of class names, or an object whose values are class names."
        )
    return [entry.strip() for entry in entries]


def _read_whole(path: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise FileContentError(f"{path}: there is no such file.") from error


def _read_npz(path: str, column: str) -> tuple[np.ndarray, list[str] | None]:
    with open_npz(path) as arrays:
        rows = read_embeddings(arrays, path, column)
        has_names = _PATH in arrays.names
        return rows, _read_strings(arrays, path, _PATH, len(rows)) if has_names else None


def _read_parquet(path: str, column: str) -> tuple[np.ndarray, list[str] | None]:
    """Read a column of lists of one length, and the column "path" if it is there."""
    check_pyarrow(path, "give an .npy")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            _check_parquet(path, file, column)
            known = [name for name in (column, _PATH) if name in file.schema_arrow.names]
            table = file.read(columns=known)
        names = None
        if _PATH in known:
            names = table[_PATH].cast(pa.string()).to_pylist()
        values = table[column].combine_chunks()
        flat = values.flatten().to_numpy(zero_copy_only=False)
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
    except FileContentError:
        raise
    # Also memory that damaged lengths ask for.
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise FileContentError(
            f"{path} is not a readable Parquet file ({error}); copy or write it again."
        ) from error

    if not len(lengths) or not (lengths == lengths[0]).all():
        raise FileContentError(
            f"{path}: the lists of {column!r} are of several lengths, or missing; embeddings of "
            "one model are of one length."
        )
    rows = flat.reshape(len(lengths), -1)
    _check_rows(path, rows.shape, rows.dtype)
    if names is not None and not all(isinstance(name, str) for name in names):
        raise FileContentError(f"{path}: some entries of the column {_PATH!r} are missing.")
    return rows, names


def _check_parquet(path: str, file: Any, column: str) -> None:
    """Look at what a Parquet file states before any of it takes memory."""
    import pyarrow as pa

    schema, facts = file.schema_arrow, file.metadata
    if column not in schema.names:
        raise FileContentError(
            f"{path} has no column {column!r} (it has {schema.names[:20]}); name the embeddings "
            "with --column."
        )
    kind = schema.field(column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    is_list = is_list or pa.types.is_fixed_size_list(kind)
    if not is_list or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise FileContentError(f"{path}: the column {column!r} holds {kind}, no lists of numbers.")

    stated = 0
    for group in range(facts.num_row_groups):
        of_group = facts.row_group(group)
        for i in range(of_group.num_columns):
            if of_group.column(i).path_in_schema.split(".")[0] in (column, _PATH):
                stated += of_group.column(i).num_values
    if stated > _LARGEST_COLUMN or facts.num_rows < 1:
        raise FileContentError(
            f"{path} states {facts.num_rows} rows and {stated} numbers; give at least one row and "
            f"at most {_LARGEST_COLUMN} numbers a file."
        )


def _check_rows(path: str, shape: Sequence[int], dtype: np.dtype) -> None:
    """Check what a file says of its embeddings before they take memory."""
    if len(shape) != 2 or dtype.kind not in "fiu" or dtype == np.uint8:
        raise FileContentError(
            f"{path}: embeddings must be a 2-D array of numbers (not uint8), one row per item; got "
            f"{dtype} of shape {tuple(shape)}."
        )
    if shape[0] < 1 or not 1 <= shape[1] <= _WIDEST:
        raise FileContentError(f"{path}: an array of shape {tuple(shape)} holds no embeddings.")
