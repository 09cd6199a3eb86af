"""Reading files that may come from anybody: of bounded size, ordinary files only, nothing executed.

Whatever is wrong with a file is told by one class of errors, `FileContentError` or one of its
subclasses, which the caller names.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np

from dnm_sklearn.exceptions import FileContentError

MIB = 2**20

# Ten million lines are 500 MB; nothing that this package writes as text is near it.
_LARGEST_TEXT = 512 * MIB

# A zip may grow by a factor of 1000 when it is read. Ours hold floats, which hardly shrink, and
# padded strings, which shrink to a fiftieth; small ones may shrink as they like.
_LARGEST_RATIO = 200
_SMALL = 64 * MIB

# numpy itself refuses longer headers; its own check comes after reading them, which may be 4 GB.
_LONGEST_HEADER = 10_000
_LONGEST_PATH, _LONGEST_PART = 4000, 255
_PLAIN_KINDS = "biufU"
_LARGEST_CODE_POINT = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def read_bytes(
    path: str | os.PathLike[str],
    *,
    largest: int = _LARGEST_TEXT,
    error: type[FileContentError] = FileContentError,
) -> bytes:
    """Read a whole file of bounded size.

    A missing file stays a ``FileNotFoundError``.
    """
    with _open(path, error) as file:
        # Python takes the memory that it is asked for at once: ask for what the file has, and one
        # byte more, for a file may grow while it is read.
        stated = os.fstat(file.fileno()).st_size
        content = b"" if stated > largest else file.read(stated + 1)
    if max(stated, len(content)) > largest:
        raise error(
            f"{path} is larger than {largest} bytes, more than such a file can need; it is "
            "something else, or damaged."
        )
    return content


def read_text(
    path: str | os.PathLike[str],
    *,
    largest: int = _LARGEST_TEXT,
    error: type[FileContentError] = FileContentError,
) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark, which Windows writes."""
    content = read_bytes(path, largest=largest, error=error)
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise error(
            f"{path}, line {line}: not text in UTF-8 ({problem.reason} at byte {problem.start}); "
            "save the file as UTF-8."
        ) from problem


def split_lines(text: str) -> list[str]:
    r"""Split a text at line ends, as editors and other programs do.

    Not ``str.splitlines``: it also splits at characters that may stand in a name or a path, such as
    U+2028, U+0085 and the form feed.

    Examples
    --------
    >>> from dnm_sklearn._utils.untrusted_files import split_lines
    >>> split_lines("sea\u2028lion\r\ncat\n")
    ['sea\u2028lion', 'cat']
    """
    lines = re.split(r"\r\n|\n|\r", text)
    # A line end at the end of a file begins no further line.
    return lines if lines[-1] else lines[:-1]


def parse_json(
    text: str, place: str | os.PathLike[str], *, error: type[FileContentError] = FileContentError
) -> Any:
    """Parse JSON; `place` names it in errors."""
    try:
        value = json.loads(text)
        # Half of a surrogate pair is no character: no file, terminal or encoder could take it.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as problem:
        raise error(
            f"{place} is not readable JSON ({problem}); restore it or write it again."
        ) from problem
    return value


def stays_below(name: str) -> bool:
    """Whether a path is relative and does not climb, by its text alone.

    Examples
    --------
    >>> from dnm_sklearn._utils.untrusted_files import stays_below
    >>> stays_below("images/1.png"), stays_below("../secret"), stays_below("/etc/passwd")
    (True, False, False)
    """
    # What Windows reads as absolute is refused everywhere: files travel between machines.
    windows = PureWindowsPath(name)
    is_absolute = os.path.isabs(name) or bool(windows.drive or windows.root)
    climbs = ".." in windows.parts or ".." in Path(name).parts
    # File systems refuse longer names with errors of their own.
    is_long = len(name) > _LONGEST_PATH or any(
        len(part.encode("utf-8", "replace")) > _LONGEST_PART for part in Path(name).parts
    )
    return bool(name) and "\0" not in name and not (is_absolute or climbs or is_long)


def lies_inside(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether a relative path stays below a folder, links followed."""
    if not stays_below(name):
        return False
    root = os.path.realpath(folder)
    real = os.path.realpath(os.path.join(root, name))
    return real == root or real.startswith(os.path.join(root, ""))


def check_zip(archive: zipfile.ZipFile, place: object) -> None:
    """Refuse a zip whose entries would be far larger than the file itself."""
    for entry in archive.infolist():
        if _is_bomb(entry.file_size, entry.compress_size):
            raise FileContentError(
                f"{place}: its entry {entry.filename!r} would take {entry.file_size} bytes, "
                f"{entry.file_size // max(1, entry.compress_size)} times what it takes in the "
                "file; this is no file of this package. Nothing of it was read."
            )
    total = sum(entry.file_size for entry in archive.infolist())
    packed = sum(entry.compress_size for entry in archive.infolist())
    if _is_bomb(total, packed):
        raise FileContentError(
            f"{place}: its entries would take {total} bytes together; nothing was read."
        )


def _is_bomb(size: int, packed: int) -> bool:
    return size > _SMALL + _LARGEST_RATIO * packed


class NpyRows:
    """The rows of a 2-D array in an npy file, read as they are asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from dnm_sklearn._utils.untrusted_files import NpyRows
    >>> np.save("rows.npy", np.eye(3))
    >>> rows = NpyRows("rows.npy")
    >>> rows.shape, rows[1:2]
    ((3, 3), array([[0., 1., 0.]]))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        with _open(path, FileContentError) as file:
            try:
                self.shape, self.dtype, fortran, rest = _array_header(file)
            # numpy's parser raises nearly anything for a damaged file.
            except Exception as problem:
                raise FileContentError(
                    f"{path} is not a readable npy file of a plain array ({problem}); it may be "
                    "truncated: copy or write it again."
                ) from problem
            self._start = file.tell() - len(rest)
            stated = self._start + self.dtype.itemsize * math.prod(self.shape)
            if os.fstat(file.fileno()).st_size != stated:
                raise FileContentError(
                    f"{path}: its array of shape {self.shape} does not fill the file; it may be "
                    "truncated: copy or write it again."
                )
        if len(self.shape) != 2 or fortran:
            raise FileContentError(
                f"{path} holds an array of shape {self.shape}, in columns or of another number of "
                "dimensions than 2: save np.ascontiguousarray of one row per item."
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice) -> np.ndarray:
        start, stop, step = which.indices(len(self))
        n = max(0, stop - start)
        width = self.dtype.itemsize * self.shape[1]
        with _open(self._path, FileContentError) as file:
            file.seek(self._start + start * width)
            content = file.read(n * width)
        if len(content) < n * width:
            raise FileContentError(f"{self._path} became shorter while it was read; copy it again.")
        return np.frombuffer(content, dtype=self.dtype).reshape(n, self.shape[1])[::step]


class Npz:
    """The arrays of an npz file: their headers first, their contents when asked for."""

    def __init__(
        self, archive: zipfile.ZipFile, place: object, error: type[FileContentError]
    ) -> None:
        self._archive = archive
        self._place = place
        self._error = error
        self.names = [
            entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy")
        ]

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype that the file states of an array; no more of it is read."""
        with self._member(name) as member:
            shape, dtype, _, _ = _array_header(member)
        return shape, dtype

    def check(self, name: str) -> None:
        """Refuse an array whose header and place in the file disagree on the size."""
        with self._member(name) as member:
            shape, dtype, _, rest = _array_header(member)
            size = dtype.itemsize * math.prod(shape)
            entry = self._archive.getinfo(f"{name}.npy")
            if _is_bomb(entry.file_size, entry.compress_size):
                raise ValueError(
                    f"{name!r} would take {entry.file_size} bytes, far more than its file"
                )
            if not 0 < entry.file_size - size <= _LONGEST_HEADER or len(rest) > size:
                raise ValueError(f"{name!r} of shape {shape} does not fill its place in the file")

    def read(self, name: str) -> np.ndarray:
        """Read an array, whose header the caller has compared with what it expects."""
        # Memory is taken only where the header and the zip agree on it.
        self.check(name)
        with self._member(name) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            # The checksum of the zip is compared at its end.
            if member.read(1):
                raise ValueError(f"{name!r} goes on behind its end")
            if array.dtype.kind == "U":
                _check_code_points(array)
        return array

    @contextmanager
    def _member(self, name: str) -> Iterator[Any]:
        """Open the file of an array; what is wrong with it is told by one class of errors."""
        try:
            with self._archive.open(f"{name}.npy") as member:
                yield member
        # Parsers of foreign formats raise nearly anything for a damaged file.
        except Exception as problem:
            raise _no_npz(self._place, self._error, problem) from problem


@contextmanager
def open_npz(
    path: str | os.PathLike[str] | bytes,
    *,
    place: object = None,
    error: type[FileContentError] = FileContentError,
) -> Iterator[Npz]:
    """Open an npz file, or its content as bytes; `place` names it in errors (default: its path)."""
    if isinstance(path, bytes):
        source: BinaryIO = io.BytesIO(path)
    else:
        source = _open(path, error)
        place = path if place is None else place

    with source:
        try:
            archive = zipfile.ZipFile(source)
        # Also struct's, zlib's and index errors: see `_member`.
        except Exception as problem:
            raise _no_npz(place, error, problem) from problem
        with archive:
            yield Npz(archive, place, error)


def _array_header(member: Any) -> tuple[tuple[int, ...], np.dtype, bool, bytes]:
    """Shape, dtype, order, and what was read behind the header."""
    start = io.BytesIO(member.read(_LONGEST_HEADER))
    version = np.lib.format.read_magic(start)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its array format {version} is not known")
    shape, fortran, dtype = readers[version](start)
    if dtype.kind not in _PLAIN_KINDS or dtype.itemsize == 0:
        raise ValueError(f"it holds {dtype}, no numbers or strings")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, dtype, fortran, start.read()


def _no_npz(place: object, error: type[FileContentError], problem: Exception) -> FileContentError:
    text = str(problem) or type(problem).__name__
    return error(
        f"{place} is not a readable npz file of plain arrays ({text}); it may be truncated: copy "
        "or write it again."
    )


def _check_code_points(strings: np.ndarray) -> None:
    """Refuse strings that Python could not make, or not write again."""
    codes = strings.ravel(order="K").view(np.dtype("u4").newbyteorder(strings.dtype.byteorder))
    if codes.size and codes.max() > _LARGEST_CODE_POINT:
        raise ValueError("it holds a string with a character that does not exist")
    low, high = _SURROGATES
    if ((codes >= low) & (codes <= high)).any():
        raise ValueError("it holds a string with half of a character")


def open_ordinary(path: str | os.PathLike[str]) -> int:
    """Open an ordinary file and return its descriptor; an OSError tells of anything else."""
    # A named pipe would be waited for, and a device gives no end; O_NONBLOCK keeps the opening
    # itself from waiting where the file was exchanged after the first look. (O_BINARY: Windows
    # would translate line ends.)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if stat.S_ISREG(os.stat(path).st_mode):
        handle = os.open(path, flags)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    raise OSError(
        errno.EINVAL, "no ordinary file but a folder, a pipe or a device", os.fspath(path)
    )


def _open(path: str | os.PathLike[str], error: type[FileContentError]) -> BinaryIO:
    """Open an ordinary file; a missing one stays a ``FileNotFoundError``."""
    try:
        return os.fdopen(open_ordinary(os.path.expanduser(path)), "rb")
    except FileNotFoundError:
        raise
    # ValueError: a path with a NUL character.
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(
            f"{path} cannot be read ({reason}): check the path and its rights."
        ) from problem
