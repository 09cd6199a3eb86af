"""The files of `dnm-bench score`: chunks of lines, and what they are joined to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.safe_text import csv_row, visible
from dnm_sklearn._utils.untrusted_files import read_text
from dnm_sklearn.exceptions import FileContentError

COLUMNS = ("path", "score", "is_ood", "label", "nearest_class", "top_negative_label", "error")
EXPLAINED = ("path", "side", "rank", "label", "part_of_speech", "cosine", "probability", "group")

# What is no text in a column, as Python reads it.
_TYPES: dict[str, Callable[[str], Any]] = {
    "score": float,
    "is_ood": "True".__eq__,
    "rank": int,
    "cosine": float,
    "probability": float,
    "group": int,
}
_SUFFIXES = (".csv", ".parquet")

Line = list[str]


def check_output(option: str, path: str, suffixes: Sequence[str] = _SUFFIXES) -> None:
    """Check before any work that a file can be written."""
    where = Path(path)
    if where.suffix.lower() not in suffixes:
        raise ValueError(f"{option} {path}: the file must end in {' or '.join(suffixes)}.")
    if where.is_dir():
        raise ValueError(f"{option} {path}: this is a folder, and a file is to be written.")
    if not where.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {where.parent}; make it first.")

    if where.suffix.lower() == ".parquet":
        check_pyarrow(f"{option} {path}", "write a .csv")


def check_pyarrow(place: str, other: str) -> None:
    """Say what to install, or what `other` way there is, where Parquet cannot be used."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{place}: Parquet needs pyarrow; install it ('pip install pyarrow') or {other}."
        ) from error


def write_chunk(path: Path, lines: Iterable[Sequence[Any]]) -> None:
    """Write the lines of a chunk, without a head."""
    with (
        atomic_write(path) as scratch,
        open(scratch, "w", encoding="utf-8", newline="") as out,
    ):
        csv.writer(out, lineterminator="\n").writerows(lines)


def read_chunk(path: Path, columns: Sequence[str] = COLUMNS) -> list[Line]:
    """Read a finished chunk; one that is damaged is told, and how to go on."""
    try:
        lines = list(csv.reader(io.StringIO(read_text(path), newline="")))
        for line in lines:
            for name, text in zip(columns, line, strict=True):
                if name == "is_ood" and text not in ("True", "False"):
                    raise ValueError(f"is_ood is {text!r}")
                _typed(name, text)
    except (OSError, ValueError, csv.Error) as error:
        raise FileContentError(
            f"{path} is no finished chunk of this job ({error}); delete it, and the same command "
            "makes it again."
        ) from error
    return lines


def in_order(lines: Iterable[Line], order: str) -> Iterable[Line]:
    """Sort lines by "path" or "score" (the highest first, none last), or leave them as "given"."""
    if order == "path":
        return sorted(lines, key=lambda line: line[0])
    if order == "score":
        return sorted(lines, key=lambda line: -float(line[1]) if line[1] else math.inf)
    return lines


def write_lines(path: str, columns: Sequence[str], lines: Iterable[Line]) -> None:
    """Write lines below a head, as CSV or Parquet by the ending; all or nothing."""
    with atomic_write(path) as scratch:
        if Path(path).suffix.lower() == ".parquet":
            _write_parquet(scratch, columns, lines)
            return
        with open(scratch, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(map(csv_row, lines))


def _write_parquet(target: Path, columns: Sequence[str], lines: Iterable[Line]) -> None:
    """Write lines as Parquet; an empty field is a null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {float: pa.float64(), int: pa.int64(), "True".__eq__: pa.bool_()}
    schema = pa.schema([(name, types.get(_TYPES.get(name), pa.string())) for name in columns])
    with pq.ParquetWriter(target, schema) as writer:
        remaining = iter(lines)
        while some := list(islice(remaining, 10_000)):
            typed = {
                name: [_typed(name, line[i]) for line in some] for i, name in enumerate(columns)
            }
            writer.write_table(pa.table(typed, schema=schema))


def _typed(name: str, text: str) -> Any:
    """Turn a field of a CSV file into what its column holds."""
    if not text:
        return None
    return _TYPES.get(name, visible)(text)
