"""One way to write a file so that readers never see half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnm_sklearn._utils.paths import user_path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a scratch file to write; it takes the name `path` when the block ends without error.

    An error in the block leaves `path` as it was. Close the scratch file before the block ends:
    Windows cannot rename an open one.
    """
    path = user_path(path)

    # In the same folder, because a file can be renamed in one step only within a file system.
    # File systems allow names of 255 bytes; 40 characters leave room for the random middle part.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    os.close(handle)
    scratch = Path(name)

    try:
        yield scratch

        # The content must be on disk before the name is: after a power cut, `path` holds either the
        # old content or the new. Windows flushes only what is open for writing, hence "r+b".
        with open(scratch, "r+b") as written:
            os.fsync(written.fileno())

        # mkstemp makes files that only their owner may read; give the rights of an ordinary file.
        # The mask can only be read by setting it.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(scratch, 0o666 & ~mask)

        # Unlike os.rename, this replaces an existing file on Windows too.
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
