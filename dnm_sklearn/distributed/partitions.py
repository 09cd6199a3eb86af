"""A collection of images, cut into numbered partitions that are the same at every run.

A partition is what one worker reads, scores and writes: the unit of resuming, and of a test-time
method's adaptation. The three kinds of partition read themselves in batches of bounded size.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import Dataset

from dnm_sklearn._utils.image_formats import IMAGE_SUFFIXES
from dnm_sklearn._utils.safe_text import file_name_text
from dnm_sklearn.distributed.places import LARGEST_FILE, Place, find_place, list_files
from dnm_sklearn.exceptions import FileContentError, UnreadableImageError

# Names under which people keep images, in the order in which they are looked for.
_IMAGE_COLUMNS = ("image", "bytes", "path", "url", "jpg", "png")

# Rows of a Parquet file that are read at a time at most.
_MOST_ROWS = 256

FORMATS = ("auto", "images", "parquet", "webdataset")

# What is read of each image: its identity, and the images in a form that an embedder takes.
Batch = tuple[list[str], Any]


class EncodedImages(Dataset):  # type: ignore[type-arg]
    """Files of images that are decoded when the embedder wants them, by its threads.

    Each is the bytes of a file, a path or URL, None, or why there is none; with a `place`, a path
    there.
    """

    def __init__(self, contents: Sequence[Any], place: Place | None = None) -> None:
        self.contents = contents
        self.place = place

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, index: int) -> Any:
        content = self.contents[index]
        if isinstance(content, Exception):
            raise content
        if not isinstance(content, str):
            return content
        if self.place is None and "://" not in content:
            return content
        place = find_place(content) if self.place is None else self.place.child(content)
        return place.read()


@dataclass(frozen=True)
class PathPartition:
    """Image files, by their paths on one file system."""

    place: Place
    paths: tuple[str, ...]

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        """Give all at once: the embedder reads files a few at a time."""
        images = list(self.paths) if self.place.is_local else EncodedImages(self.paths, self.place)
        yield [file_name_text(path) for path in self.paths], images


@dataclass(frozen=True)
class ParquetPartition:
    """One row group of a Parquet file, with the bytes or the paths of images in a column."""

    place: Place
    row_group: int
    first_row: int
    id_column: str | None
    image_column: str

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        """Read rows of about `max_bytes` at a time."""
        self.place.check_ordinary()
        try:
            with self.place.filesystem.open_input_file(self.place.path) as source:
                file = pq.ParquetFile(source)
                group = file.metadata.row_group(self.row_group)
                bytes_per_row = group.total_byte_size / max(group.num_rows, 1)
                # A value that repeats stands once in the file, and in each row that is read.
                n_rows = min(_MOST_ROWS, max(1, int(max_bytes / max(bytes_per_row, 1))))
                columns = [self.image_column]
                if self.id_column is not None:
                    columns.append(self.id_column)

                row = self.first_row
                for batch in file.iter_batches(
                    n_rows, row_groups=[self.row_group], columns=columns
                ):
                    yield self._ids(batch, row), EncodedImages(self._images(batch))
                    row += len(batch)
        # What the rows hold may be damaged, too: texts that are no UTF-8, dates out of range.
        except Exception as error:
            raise FileContentError(
                f"{self.place.path}, row group {self.row_group}: it cannot be read ({error})."
            ) from error

    def _ids(self, batch: Any, first_row: int) -> list[str]:
        """Identities of rows: the column's values, or the file and the number of the row."""
        if self.id_column is None:
            return [f"{self.place.path}#{first_row + i}" for i in range(len(batch))]
        return [str(value) for value in batch.column(self.id_column).to_pylist()]

    def _images(self, batch: Any) -> list[Any]:
        """Bytes or paths; the ``{"bytes", "path"}`` of Hugging Face's image columns too."""
        values = batch.column(self.image_column).to_pylist()
        for i, value in enumerate(values):
            if isinstance(value, dict):
                values[i] = value["bytes"] if value.get("bytes") is not None else value.get("path")
        return values


@dataclass(frozen=True)
class TarPartition:
    """One tar file of a WebDataset."""

    place: Place

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        """Read members of about `max_bytes` at a time, in the order of the tar file."""
        names: list[str] = []
        contents: list[Any] = []
        size = 0

        self.place.check_ordinary()
        try:
            with (
                self.place.filesystem.open_input_stream(self.place.path) as source,
                tarfile.open(fileobj=source, mode="r|*") as archive,
            ):
                for member in archive:
                    if not member.isfile() or not member.name.lower().endswith(IMAGE_SUFFIXES):
                        continue
                    names.append(file_name_text(f"{self.place.path}#{member.name}"))
                    contents.append(_read_member(archive, member))
                    size += min(member.size, LARGEST_FILE)
                    if size >= max_bytes:
                        yield names, EncodedImages(contents)
                        names, contents, size = [], [], 0
        # For a damaged file tarfile raises nearly anything.
        except Exception as error:
            raise FileContentError(f"{self.place.path}: it cannot be read ({error}).") from error

        if names:
            yield names, EncodedImages(contents)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    """The bytes of a member, or why they cannot be read: it may state any size, and be sparse."""
    if member.size > LARGEST_FILE:
        return UnreadableImageError(f"it is larger than {LARGEST_FILE} bytes")
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


Partition = PathPartition | ParquetPartition | TarPartition


@dataclass(frozen=True)
class Reading:
    """How a collection is to be read; see `dnm_sklearn.distributed.embed`."""

    kind: str
    id_column: str | None
    image_column: str | None
    filesystem: Any
    rows: int


def find_partitions(source: Any, how: Reading) -> list[Partition]:
    """Cut a collection into partitions: files by `rows` at a time, row groups, or tar files."""
    kind, filesystem, rows = how.kind, how.filesystem, how.rows
    if kind not in FORMATS:
        raise ValueError(f"format={kind!r} must be one of {', '.join(map(repr, FORMATS))}.")
    if isinstance(source, (list, tuple, np.ndarray)):
        paths = [str(path) for path in source]
        if not paths:
            raise ValueError("The list of images is empty.")
        if kind not in ("auto", "images"):
            raise ValueError(f'format="{kind}" needs a folder, file, pattern or URL, not a list.')
        place = find_place(paths[0], filesystem)
        return _of_paths(place, [find_place(path, filesystem).path for path in paths], rows)

    place = find_place(source, filesystem)
    files = list_files(place)
    kind = _kind_of(files, source) if kind == "auto" else kind
    if kind == "images":
        images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
        if not images:
            raise ValueError(f"{source} holds no image ({len(files)} files of other kinds).")
        return _of_paths(place, images, rows)
    if kind == "webdataset":
        return [TarPartition(place.child(path)) for path in files if path.endswith(".tar")]
    return _of_parquet(place, files, how.id_column, how.image_column)


def _kind_of(files: Sequence[str], source: Any) -> str:
    """Tell what a collection is by the endings of its files."""
    kinds = set()
    for path in files:
        if path.endswith(".parquet"):
            kinds.add("parquet")
        elif path.endswith(".tar"):
            kinds.add("webdataset")
        elif path.lower().endswith(IMAGE_SUFFIXES):
            kinds.add("images")
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) or "no image, .parquet or .tar file"
        raise ValueError(
            f"{source} holds {found}: name what to read with format= "
            f"({', '.join(FORMATS[1:])}), or a pattern such as {source}/*.parquet."
        )
    return kinds.pop()


def _of_paths(place: Place, paths: Sequence[str], rows: int) -> list[Partition]:
    starts = range(0, len(paths), rows)
    return [PathPartition(place, tuple(paths[start : start + rows])) for start in starts]


def _of_parquet(
    place: Place, files: Sequence[str], id_column: str | None, image_column: str | None
) -> list[Partition]:
    """One partition per row group; a file that cannot be read is a partition that will say so."""
    partitions: list[Partition] = []
    for path in files:
        if not path.endswith(".parquet"):
            continue
        try:
            place.child(path).check_ordinary()
            with place.filesystem.open_input_file(path) as source:
                metadata = pq.ParquetFile(source).metadata
        except (pa.ArrowException, OSError, FileContentError):
            column = image_column or "image"
            partitions.append(ParquetPartition(place.child(path), 0, 0, id_column, column))
            continue

        names = metadata.schema.to_arrow_schema().names
        column = _image_column(path, names, image_column)
        if id_column is not None and id_column not in names:
            raise ValueError(f"{path} has no column {id_column!r}; it has {', '.join(names)}.")
        first_row = 0
        for group in range(metadata.num_row_groups):
            of_group = ParquetPartition(place.child(path), group, first_row, id_column, column)
            partitions.append(of_group)
            first_row += metadata.row_group(group).num_rows
    return partitions


def _image_column(path: str, names: Sequence[str], wanted: str | None) -> str:
    """Find the column of the images: the one named, or one of the usual names."""
    candidates = _IMAGE_COLUMNS if wanted is None else (wanted,)
    for name in candidates:
        if name in names:
            return str(name)
    raise ValueError(
        f"{path} has no column {' or '.join(candidates)}; name the one that holds the "
        f"images' bytes or paths with image_column=. It has {', '.join(names)}."
    )
