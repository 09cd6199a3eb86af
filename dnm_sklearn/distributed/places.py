"""Files on any file system that pyarrow knows: local, ``file://``, ``s3://``, ``gs://``, fsspec."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from dnm_sklearn._utils.atomic_write import atomic_write
from dnm_sklearn._utils.untrusted_files import read_bytes
from dnm_sklearn.datasets.folders import LeftOut, files_below
from dnm_sklearn.exceptions import FileContentError

# The largest image file that is read, as elsewhere; and how much is read at a time.
LARGEST_FILE = 2**31
_PART = 2**20

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
        """Read the whole file, of bounded size."""
        if self.is_local:
            return read_bytes(self.path, largest=LARGEST_FILE)

        parts, size = [], 0
        with self.filesystem.open_input_stream(self.path) as file:
            # In parts, as pyarrow takes the memory that it is asked for at once.
            while part := file.read(_PART):
                parts.append(part)
                size += len(part)
                if size > LARGEST_FILE:
                    raise FileContentError(f"{self.path} is larger than {LARGEST_FILE} bytes.")
        return b"".join(parts)

    def check_ordinary(self) -> None:
        """Refuse what pyarrow would wait for or never see the end of: a pipe, a device."""
        if self.is_local and os.path.exists(self.path) and not os.path.isfile(self.path):
            raise FileContentError(f"{self.path} is no ordinary file (a pipe or a device).")

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


def _files_below(place: Place, folder: str) -> list[str]:
    """Paths of all files below a folder."""
    if place.is_local:
        # pyarrow ends at a name that is no UTF-8, and runs around in links to a folder above.
        left_out = LeftOut()
        paths = list(files_below(os.path.join(folder, ""), ("",), left_out))
        left_out.warn(Path(folder))
        return paths

    selector = fs.FileSelector(folder or "/", recursive=True)
    found = place.filesystem.get_file_info(selector)
    return [entry.path for entry in found if entry.type == fs.FileType.File]


def list_files(place: Place) -> list[str]:
    """List the files that a folder, a file or a pattern stands for, sorted, hidden ones not."""
    wildcards = [place.path.find(mark) for mark in _WILDCARDS if mark in place.path]
    folder = place.path[: min(wildcards)].rpartition("/")[0] if wildcards else place.path

    info = place.filesystem.get_file_info(folder or "/")
    # A pipe or a device is told where it is opened.
    if info.type != fs.FileType.Directory and info.type != fs.FileType.NotFound:
        return [folder]
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"There is no such file or folder: {place.path}.")

    paths = []
    for path in _files_below(place, folder):
        below = path[len(folder) :].strip("/")
        if not any(part.startswith((".", "_")) for part in below.split("/")):
            paths.append(path)

    if wildcards:
        paths = fnmatch.filter(paths, place.path)
    return sorted(paths)
