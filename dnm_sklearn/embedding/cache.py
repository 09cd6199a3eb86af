"""The cache of embeddings: each image is embedded once, over folds, processes and runs.

One SQLite file in the folder that ``memory=`` names holds embeddings, by the digest of the image
and the fingerprint of the model, each with a checksum; digests of files that have not changed; what
is known of a model without loading it; and claims. Whoever finds rows missing claims them, embeds
without a lock on the cache, and commits what there is each second. Others wait only for rows that
they need.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from dnm_sklearn._utils.checked_store import warn_unsaved
from dnm_sklearn._utils.digest import (
    SETTLED_NS,
    DigestedFile,
    digest_files,
    file_identity,
    last_change_ns,
    times_tell,
)
from dnm_sklearn._utils.paths import user_path
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding._cache_claims import Claim, remove_ended_claims
from dnm_sklearn.embedding._cache_file import CacheFile
from dnm_sklearn.embedding._cache_rows import (
    Compute,
    Request,
    claim_rows,
    compute_rows,
    describe_rows,
    insert_rows,
    inspect_rows,
    note_use,
    spans,
)
from dnm_sklearn.exceptions import CacheWriteWarning

logger = logging.getLogger("dnm_sklearn")

T = TypeVar("T")
PathLike = str | os.PathLike[str]

# Whoever waits for rows of others looks again after a time that grows, as looking costs as well.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.02, 2.0
_WAIT_PER_LOOK = 9

# On another file system than the cache's the clock that stamps files cannot be read. It is taken
# to be wrong by less than a day.
_SETTLED_ELSEWHERE_NS = 24 * 3600 * 10**9

_CLAIMS_FOLDER = "embeddings.claims"
_INT64 = (1 << 63) - 1

# What goes wrong around a file, not in it: a full disk, a folder that cannot be written to, a file
# system without locks.
_UNWRITABLE = (OSError, sqlite3.Error, NotImplementedError)


class EmbeddingCache:
    """Embeddings of images, digests of files and facts about models, in one folder.

    Processes and threads share a cache by naming the same folder. An object holds nothing open: it
    can be pickled, and carried over a fork.
    """

    def __init__(self, folder: PathLike, max_bytes: int | None = None) -> None:
        self.folder = user_path(folder)
        self.max_bytes = max_bytes
        self._file = CacheFile(self.folder)

    def check(self) -> None:
        """Raise a CacheFormatError if the file is of another program or version."""
        # Where it cannot even be looked at, reading and writing say so.
        with contextlib.suppress(OSError):
            self._file.check()

    # ---------------------------------------------------------------- embeddings

    def get_or_compute(
        self, fingerprint: str, width: int, digests: Sequence[bytes], compute: Compute
    ) -> np.ndarray:
        """Give the rows of these digests, shape (n, width); compute and keep what is missing.

        ``compute(indices)`` gets positions in `digests` and gives their rows in order, in chunks of
        shape (m, width). It may use this cache, but not ask it for the same rows. Rows with a NaN
        or an infinity are returned, not kept.
        """
        request = Request(fingerprint, width, digests)
        if not digests:
            return request.rows

        found = self._file.read(request.fill)
        if found and self.max_bytes is not None:
            # Only under a cap: a read should not write. Nor should it warn where it cannot.
            with contextlib.suppress(*_UNWRITABLE):
                self._file.write(partial(note_use, found, request.started))

        self._compute_missing(request, compute)
        return request.result()

    def _compute_missing(self, request: Request, compute: Compute) -> None:
        """Compute what nobody else computes, wait for the rest, until no row is missing."""
        wait = _FIRST_WAIT_SECONDS
        while request.missing:
            looked = time.monotonic()
            with Claim(self.folder / _CLAIMS_FOLDER) as claim:
                mine = self._write(partial(claim_rows, request, claim), "Embedded images")
                if mine is None:
                    # Nothing can be kept, so that nobody is asked or kept waiting.
                    claim.end()
                    compute_rows(request, list(request.missing), compute, save=None)
                elif mine:
                    compute_rows(request, mine, compute, partial(self._save, request, claim))
                    wait = _FIRST_WAIT_SECONDS

            # Claims end before the wait: those who wait for each other must hold none.
            if request.missing and not mine:
                logger.info("cache: waiting for %d images of others", len(request.missing))
                wait = max(2 * wait, _WAIT_PER_LOOK * (time.monotonic() - looked))
                wait = min(wait, _LONGEST_WAIT_SECONDS)
                time.sleep(wait)

    def _save(self, request: Request, claim: Claim, digests: list[bytes]) -> bool:
        """Keep computed rows; False if no more can be kept."""
        insert = partial(insert_rows, request, digests, self.max_bytes)
        n_left_out = self._write(insert, "Embedded images")
        if n_left_out == 0:
            return True

        # Nobody should wait for rows that will not be kept.
        claim.end()
        if n_left_out is not None:
            warn(
                f"The image cache in {self.folder} has reached its cap of {self.max_bytes} bytes "
                "with the images of this call alone; further ones are embedded but not kept. "
                "Raise the cap (cache_size=, --cache-size).",
                CacheWriteWarning,
            )
        return False

    # ---------------------------------------------------------------- digests of files

    def digest_files(
        self, paths: Sequence[PathLike], n_threads: int | None = None
    ) -> list[bytes | None]:
        """Digest files, reading only those not known to be unchanged; None for unreadable ones."""
        identities = [_identity_of(path) for path in paths]
        known = self._file.read(partial(_read_files, identities)) or {}
        digests = [None if found is None else known.get(found[1]) for found in identities]

        unknown = [i for i, digest in enumerate(digests) if digest is None]
        if unknown:
            clock = self._look_at_clock()
            unknown_paths = [paths[i] for i in unknown]
            read = digest_files(unknown_paths, n_threads)
            for i, file in zip(unknown, read, strict=True):
                digests[i] = file.digest
            if clock is not None:
                self._remember_files(unknown_paths, read, clock)
        return digests

    def _look_at_clock(self) -> os.stat_result | None:
        """Give the status of a file made now; None, after a warning, if none can be made."""
        # The clock that stamps files is the file system's own, maybe a server's.
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                return os.fstat(file.fileno())
        except OSError as error:
            warn_unsaved(self.folder, error, "Digests of image files")
            return None

    def _remember_files(
        self, paths: Sequence[PathLike], read: list[DigestedFile], clock: os.stat_result
    ) -> None:
        """Keep the digests of files whose next change is sure to show in their times.

        `clock` is of before they were read: a change during the reading must not look old.
        """
        stable = []
        for path, (digest, status) in zip(paths, read, strict=True):
            if digest is not None and status is not None:
                stable.append((path, digest, status))

        told = times_tell([path for path, _, _ in stable], [status for _, _, status in stable])
        records = []
        for (_, digest, status), is_told in zip(stable, told, strict=True):
            is_near = status.st_dev == clock.st_dev
            age = clock.st_mtime_ns - last_change_ns(status)
            if is_told and age >= (SETTLED_NS if is_near else _SETTLED_ELSEWHERE_NS):
                records.append(_file_record(status, digest))

        if records:
            insert = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)"
            self._write(lambda db: db.executemany(insert, records), "Digests of image files")

    # ---------------------------------------------------------------- facts about models

    def load_facts(self, setting: str) -> dict[str, Any] | None:
        """Give what was saved under this setting; None if there is nothing, or it is damaged."""
        query = "SELECT content, checksum FROM facts WHERE setting = ?"
        found = self._file.read(lambda db: db.execute(query, (setting,)).fetchone())
        if found is None or found[1] != _text_checksum(setting, found[0]):
            return None
        facts: dict[str, Any] | None = json.loads(found[0])
        return facts

    def save_facts(self, setting: str, facts: dict[str, Any] | None) -> None:
        """Keep facts, None to forget those of before, where the cache can be written to."""
        content = json.dumps(facts)
        record = setting, content, _text_checksum(setting, content)
        with contextlib.suppress(*_UNWRITABLE):
            insert = "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)"
            self._file.write(lambda db: db.execute(insert, record))

    # ---------------------------------------------------------------- the whole cache

    def info(self) -> dict[str, Any]:
        """Describe the cache: path, bytes on disk, cap, rows of each model, files."""
        models, n_files = self._file.read(describe_rows) or ([], 0)
        return {
            "path": str(self._file.path),
            "bytes": self._file.size(),
            "max_bytes": self.max_bytes,
            "models": models,
            "files": n_files,
        }

    def count_rows(self) -> int:
        """Count the rows of all models."""
        return sum(model["rows"] for model in self.info()["models"])

    def verify(self) -> dict[str, int]:
        """Check every row against its checksum; drop those that fail, to be computed again."""
        before = self.count_rows()
        is_whole, bad = self._file.read(inspect_rows) or (not self._file.path.exists(), [])
        if not is_whole:
            self._file.rebuild()
            _, bad = self._file.read(inspect_rows) or (True, [])

        if bad:
            delete = "DELETE FROM rows WHERE id = ?"
            self._file.write(lambda db: db.executemany(delete, bad))
        after = self.count_rows()
        return {"rows": after, "dropped": max(before - after, len(bad), int(not is_whole))}

    def clear(self) -> None:
        """Remove all that the cache holds, of whatever version; other files stay."""
        if self.folder.is_dir():
            with self._file.locked():
                self._file.remove()
                remove_ended_claims(self.folder / _CLAIMS_FOLDER)

    def _write(self, work: Callable[[sqlite3.Connection], T], what: str) -> T | None:
        """Run `work` in a transaction; None, after a warning, if nothing can be written."""
        try:
            return self._file.write(work)
        except _UNWRITABLE as error:
            warn_unsaved(self.folder, error, what)
            return None


def _read_files(
    identities: list[tuple[int, bytes] | None], db: sqlite3.Connection
) -> dict[bytes, bytes]:
    """Digests by identity, of the files asked for and some near them."""
    inodes = {found[0] for found in identities if found is not None}
    query = "SELECT identity, digest, checksum FROM files WHERE inode BETWEEN ? AND ?"
    known = {}
    for low, high in spans(sorted(inodes)):
        for identity, digest, checksum in db.execute(query, (low, high)):
            is_pair = type(identity) is bytes and type(digest) is bytes
            if is_pair and zlib.crc32(digest, zlib.crc32(identity)) == checksum:
                known[identity] = digest
    return known


def _identity_of(path: PathLike) -> tuple[int, bytes] | None:
    """Inode and identity of a file, None if it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino & _INT64, file_identity(status)


def _file_record(status: os.stat_result, digest: bytes) -> tuple[int, int, bytes, bytes, int]:
    identity = file_identity(status)
    checksum = zlib.crc32(digest, zlib.crc32(identity))
    return status.st_ino & _INT64, status.st_dev & _INT64, identity, digest, checksum


def _text_checksum(setting: str, content: Any) -> int:
    return zlib.crc32(f"{setting}\0{content}".encode())


def size_in_bytes(size: int | str) -> int:
    """Read a size: a number of bytes, or a string such as "500 MB" or "20GB"."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kMGT]?)B?\s*", str(size), re.IGNORECASE)
    try:
        number = float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ") if found else 0
    except ValueError:
        number = 0

    if number < 1:
        raise ValueError(
            "cache_size must be a number of bytes or a string such as '500MB' or '20GB', got "
            f"{size!r}."
        )
    return int(number)
