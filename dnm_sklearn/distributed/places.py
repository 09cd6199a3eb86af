"""Files on any file system that pyarrow knows: local, ``file://``, ``s3://``, ``gs://``, fsspec."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs

from dnm_sklearn._utils.atomic_write import atomic_write

# What starts a pattern in a name.
_WILDCARDS = "*?["


@dataclass(frozen=True)
class Place:
    """A path on a file system; it is pickled to the workers."""

    filesystem: Any
    path: str

    @property
    def is_local(self) -> bool:
        """Whether the path can be opened as an ordinary file."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def is_file(self) -> bool:
        """Whether there is a file."""
        return bool(self.filesystem.get_file_info(self.path).is_file)

    def child(self, path: str) -> Place:
        """Give another path on the same file system."""
        return Place(self.filesystem, path)

    def read(self) -> bytes:
        """Read the whole file."""
        with self.filesystem.open_input_stream(self.path) as file:
            return file.read()

    def write(self, content: bytes) -> None:
        """Write the whole file, so that no reader ever sees half of it."""
        if self.is_local:
            with atomic_write(self.path) as scratch:
                scratch.write_bytes(content)
            return

        # In an object store a file is there once its stream was closed.
        with self.filesystem.open_output_stream(self.path) as file:
            file.write(content)


def find_place(where: Any, filesystem: Any = None) -> Place:
    """Read a path or URL; `filesystem` may be one of pyarrow's or of fsspec's."""
    text = os.fspath(where)
    if filesystem is not None:
        if not isinstance(filesystem, fs.FileSystem):
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
        return Place(filesystem, text.rstrip("/"))

    if "://" in text:
        found, path = _of_url(text)
        return Place(found, path.rstrip("/"))
    return Place(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text)))


def _of_url(url: str) -> tuple[Any, str]:
    """File system and path of a URL: pyarrow's own where it has one, else fsspec's."""
    try:
        return fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        # Which schemes it knows, pyarrow tells by this error alone.
        if "Unrecognized filesystem type" not in str(error):
            raise

    import fsspec

    found, path = fsspec.core.url_to_fs(url)
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def list_files(place: Place) -> list[str]:
    """List the files that a folder, a file or a pattern stands for, sorted, hidden ones not."""
    wildcards = [place.path.find(mark) for mark in _WILDCARDS if mark in place.path]
    folder = place.path[: min(wildcards)].rpartition("/")[0] if wildcards else place.path

    info = place.filesystem.get_file_info(folder or "/")
    if info.type == fs.FileType.File:
        return [folder]
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"There is no such file or folder: {place.path}.")

    selector = fs.FileSelector(folder or "/", recursive=True)
    paths = []
    for entry in place.filesystem.get_file_info(selector):
        below = entry.path[len(folder) :].strip("/")
        is_hidden = any(part.startswith((".", "_")) for part in below.split("/"))
        if entry.type == fs.FileType.File and not is_hidden:
            paths.append(entry.path)

    if wildcards:
        paths = fnmatch.filter(paths, place.path)
    return sorted(paths)
