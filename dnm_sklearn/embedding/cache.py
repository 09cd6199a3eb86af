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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.embedding._cache_file import CacheFile
from dnm_sklearn.embedding._claims import Claim, claimed_digests, remove_ended_claims
from dnm_sklearn.embedding.digest import (
    DIGEST_BYTES,
    SETTLED_NS,
    DigestedFile,
    digest_files,
    file_identity,
    last_change_ns,
    times_tell,
)
from dnm_sklearn.exceptions import CacheFormatError, CacheWriteWarning

__all__ = ["EmbeddingCache", "size_in_bytes"]

logger = logging.getLogger("dnm_sklearn")

T = TypeVar("T")
PathLike = str | os.PathLike[str]
Compute = Callable[[np.ndarray], Iterable[np.ndarray]]

# Rows are stored as little-endian float32, whatever machine wrote them.
_DTYPE = np.dtype("<f4")

# Computed rows are committed when this time has passed, as a commit waits for the disk: a killed
# process loses no more work than this (or one batch, where a batch takes longer).
_COMMIT_SECONDS = 1.0

# Whoever waits for rows of others looks again after a time that grows, as looking costs as well:
# at most a tenth of the time.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 1.0
_WAIT_PER_LOOK = 9

# SQLite before 3.32 takes no more than 999 values in a query.
_VALUES_PER_QUERY = 900

# Looking up more digests than this proportion of all rows reads the whole index, which is faster.
_WHOLE_INDEX_FROM = 1 / 8

# Records whose numbers are no further apart are read in one query, with those between them.
_SPAN_GAP = 4

# On another file system than the cache's the clock that stamps files cannot be read. It is taken
# to be wrong by less than a day.
_SETTLED_ELSEWHERE_NS = 24 * 3600 * 10**9

# Bytes that a row takes beside its numbers, with its digest and checksum; and in the index.
_ROW_OVERHEAD_BYTES = 64

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
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._file = CacheFile(folder)

    # ---------------------------------------------------------------- embeddings

    def get_or_compute(
        self, fingerprint: str, width: int, digests: Sequence[bytes], compute: Compute
    ) -> np.ndarray:
        """Give the rows of these digests, shape (n, width); compute and keep those that are missing.

        ``compute(indices)`` gets positions in `digests` and gives their rows in order, in chunks of
        shape (m, width). It may use this cache, but not ask it for the same rows. Rows with a NaN
        or an infinity are returned, not kept.
        """
        request = _Request(fingerprint, width, digests)
        if not digests:
            return request.rows

        found = self._file.read(request.fill)
        if found and self.max_bytes is not None:
            # Only under a cap: a read should not write. Nor should it warn where it cannot.
            with contextlib.suppress(*_UNWRITABLE):
                self._file.write(partial(_note_use, found, request.started))

        self._compute_missing(request, compute)
        return request.result()

    def _compute_missing(self, request: _Request, compute: Compute) -> None:
        """Compute what nobody else computes, wait for the rest, until no row is missing."""
        wait = _FIRST_WAIT_SECONDS
        while request.missing:
            looked = time.monotonic()
            with Claim(self.folder / _CLAIMS_FOLDER) as claim:
                mine = self._write(partial(_claim, request, claim), "Embedded images")
                if mine is None:
                    # Nothing can be kept, so that nobody is asked or kept waiting.
                    _compute_rows(request, list(request.missing), compute, save=None)
                elif mine:
                    _compute_rows(request, mine, compute, partial(self._save, request, claim))
                    wait = _FIRST_WAIT_SECONDS

            # Claims end before the wait: those who wait for each other must hold none.
            if request.missing and not mine:
                logger.info("cache: waiting for %d images of others", len(request.missing))
                time.sleep(max(wait, _WAIT_PER_LOOK * (time.monotonic() - looked)))
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _save(self, request: _Request, claim: Claim, digests: list[bytes]) -> bool:
        """Keep computed rows; False if no more can be kept."""
        insert = partial(_insert_rows, request, digests, self.max_bytes)
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
        read = digest_files([paths[i] for i in unknown], n_threads)
        for i, found in zip(unknown, read, strict=True):
            digests[i] = found.digest

        self._remember_files([paths[i] for i in unknown], read)
        return digests

    def _remember_files(self, paths: Sequence[PathLike], read: list[DigestedFile]) -> None:
        """Keep the digests of files whose next change is sure to show in their times."""
        stable = []
        for path, (digest, status) in zip(paths, read, strict=True):
            if digest is not None and status is not None:
                stable.append((path, digest, status))
        if not stable:
            return

        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The clock that stamps files is the file system's own, maybe a server's. A new file
            # shows what it says now.
            with tempfile.TemporaryFile(dir=self.folder) as file:
                clock = os.fstat(file.fileno())
        except OSError as error:
            _warn_unsaved(self.folder, error, "Digests of image files")
            return

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
        models, n_files = self._file.read(_describe) or ([], 0)
        return {
            "path": str(self._file.path),
            "bytes": self._file.size(),
            "max_bytes": self.max_bytes,
            "models": models,
            "files": n_files,
        }

    def count_rows(self, fingerprint: str | None = None) -> int:
        """Count the rows of one model, or of all."""
        models = self.info()["models"]
        return sum(m["rows"] for m in models if fingerprint in (None, m["fingerprint"]))

    def verify(self) -> dict[str, int]:
        """Check every row against its checksum; drop those that fail, to be computed again."""
        before = self.count_rows()
        is_whole, bad = self._file.read(_inspect) or (not self._file.path.exists(), [])
        if not is_whole:
            self._file.rebuild()
            _, bad = self._file.read(_inspect) or (True, [])

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
            _warn_unsaved(self.folder, error, what)
            return None


class _Request:
    """Rows that one call asks for, and those that are still missing."""

    def __init__(self, fingerprint: str, width: int, digests: Sequence[bytes]) -> None:
        self.fingerprint = fingerprint
        self.width = width
        self.rows = np.empty((len(digests), width), _DTYPE)
        self.is_finite = np.zeros(len(digests), bool)
        self.row_bytes = width * _DTYPE.itemsize
        self.started = time.time_ns()

        # A checksum covers the model as well, so that a row of another model is never taken.
        self._seed = _model_seed(fingerprint)

        # Digest -> position of its row. Of repeated digests the first is computed.
        self.missing: dict[bytes, int] = {}
        self.met_damage = False
        self._copies: list[tuple[int, int]] = []
        for position, digest in enumerate(digests):
            if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
                raise ValueError(
                    f"digests[{position}] must be {DIGEST_BYTES} bytes, as digest_file and "
                    f"digest_array make, got {digest!r:.60}"
                )
            first = self.missing.setdefault(digest, position)
            if first != position:
                self._copies.append((position, first))

    def result(self) -> np.ndarray:
        """Give all rows, repeated ones included, in the machine's own byte order."""
        for position, first in self._copies:
            self.rows[position] = self.rows[first]
        return self.rows.astype(np.float32, copy=False)

    def record(self, number: int, digest: bytes, model: int) -> tuple[Any, ...]:
        """Give a computed row as the table holds it."""
        row = self.rows[self.missing[digest]].data
        return number, model, digest, _row_checksum(self._seed, digest, row), row

    def fill(self, db: sqlite3.Connection) -> list[int]:
        """Copy the missing rows that are there and intact; give their numbers."""
        model = self.find_model(db)
        if model is None:
            return []

        digest_of = dict(self._find(db, model))
        target = memoryview(self.rows).cast("B")  # type: ignore[arg-type]
        query = "SELECT id, checksum, embedding FROM rows WHERE id BETWEEN ? AND ?"
        found = []
        for low, high in _spans(sorted(digest_of)):
            for number, checksum, row in db.execute(query, (low, high)):
                digest = digest_of.get(number)
                if digest is None or type(row) is not bytes or len(row) != self.row_bytes:
                    continue
                if _row_checksum(self._seed, digest, row) == checksum:
                    start = self.missing.pop(digest) * self.row_bytes
                    target[start : start + self.row_bytes] = row
                    found.append(number)

        self.met_damage = len(found) < len(digest_of)
        return found

    def find_model(self, db: sqlite3.Connection) -> int | None:
        """Give the model's number, None if it has none."""
        query = "SELECT id, width FROM models WHERE fingerprint = ?"
        found = db.execute(query, (self.fingerprint,)).fetchone()
        if found is None:
            return None

        if found[1] != self.width:
            raise CacheFormatError(
                f"The cache holds rows of width {found[1]} of the model {self.fingerprint[:16]}, "
                f"and rows of width {self.width} were asked for: the fingerprint of an encoder "
                "must change with its width. Clear the cache (dnm-bench cache clear) or choose "
                "another folder."
            )
        return found[0]

    def enter_model(self, db: sqlite3.Connection) -> int:
        """Give the model's number, a new one if it has none."""
        found = self.find_model(db)
        if found is not None:
            return found
        insert = "INSERT INTO models (fingerprint, width) VALUES (?, ?)"
        return int(db.execute(insert, (self.fingerprint, self.width)).lastrowid or 0)

    def _find(self, db: sqlite3.Connection, model: int) -> Iterator[tuple[int, bytes]]:
        """Numbers and digests of the missing rows that are there."""
        (newest,) = db.execute("SELECT max(id) FROM rows").fetchone()
        if len(self.missing) > (newest or 0) * _WHOLE_INDEX_FROM:
            query = "SELECT id, model, digest FROM rows INDEXED BY row_of_digest"
            for number, owner, digest in db.execute(query):
                if owner == model and digest in self.missing:
                    yield number, digest
            return

        query = "SELECT id, digest FROM rows WHERE model = ?"
        for some in _in_chunks(list(self.missing), _VALUES_PER_QUERY):
            yield from db.execute(f"{query} AND digest IN ({_marks(some)})", (model, *some))


def _claim(request: _Request, claim: Claim, db: sqlite3.Connection) -> list[bytes]:
    """Claim the rows that are missing and nobody else computes."""
    # Others may have kept rows since this call looked; or the file was damaged, and is whole now.
    request.fill(db)
    if request.met_damage and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        # SQLite does not notice each damage by itself, and would write into pages that are not
        # whole. This error lets the file be rebuilt.
        raise sqlite3.DatabaseError("found by a check after a damaged row")

    claimed = claimed_digests(claim.folder, request.fingerprint) if request.missing else set()
    mine = [digest for digest in request.missing if digest not in claimed]
    if mine:
        claim.begin(request.fingerprint, mine)
    return mine


def _compute_rows(
    request: _Request,
    digests: list[bytes],
    compute: Compute,
    save: Callable[[list[bytes]], bool] | None,
) -> None:
    """Compute rows, and save them as they come until `save` says that no more can be saved."""
    positions = np.array([request.missing[digest] for digest in digests])
    done = saved = 0
    last = time.monotonic()

    try:
        for chunk in compute(positions):
            end = done + len(chunk)
            if chunk.shape[1:] != (request.width,) or end > len(digests):
                raise ValueError(
                    f"compute() was asked for {len(digests)} rows of width {request.width} and "
                    f"gave a chunk of shape {chunk.shape} that brings them to {end} rows."
                )
            request.rows[positions[done:end]] = chunk
            request.is_finite[positions[done:end]] = np.isfinite(chunk).all(axis=1)
            done = end

            if save is not None and time.monotonic() - last >= _COMMIT_SECONDS:
                save = save if save(digests[saved:done]) else None
                saved, last = done, time.monotonic()

        if done != len(digests):
            raise ValueError(f"compute() was asked for {len(digests)} rows and gave {done}.")
    finally:
        # Also what was done before an error, or before the user stopped the work.
        if save is not None and saved < done:
            save(digests[saved:done])
        for digest in digests[:done]:
            del request.missing[digest]


def _insert_rows(
    request: _Request, digests: list[bytes], max_bytes: int | None, db: sqlite3.Connection
) -> int:
    """Keep the finite ones of these rows; give how many had no room."""
    kept = [digest for digest in digests if request.is_finite[request.missing[digest]]]
    n_fit = len(kept)
    if max_bytes is not None:
        n_fit = _make_room(db, n_fit, request, max_bytes)
    n_left_out = len(kept) - n_fit
    kept = kept[:n_fit]

    model = request.enter_model(db)
    (newest,) = db.execute("SELECT max(id) FROM rows").fetchone()
    numbers = range((newest or 0) + 1, (newest or 0) + 1 + n_fit)
    records = (request.record(*pair, model) for pair in zip(numbers, kept, strict=True))
    db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)", records)
    uses = [(number, request.started) for number in numbers]
    db.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?)", uses)

    # In an index that is damaged rows may be put where they are not found.
    count = "SELECT count(*) FROM rows WHERE model = ? AND digest IN"
    for some in _in_chunks(kept if newest else [], _VALUES_PER_QUERY):
        if db.execute(f"{count} ({_marks(some)})", (model, *some)).fetchone() != (len(some),):
            raise sqlite3.DatabaseError("rows are not found after they were written")
    return n_left_out


def _make_room(db: sqlite3.Connection, n_rows: int, request: _Request, max_bytes: int) -> int:
    """Evict the rows that were used longest ago; give how many new ones fit under the cap.

    Rows that this call used stay. Where a call needs more than the cap holds, evicting its own rows
    would leave none of them for the next call to find.
    """
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()

    # A row lies in one page if it fits there, and what is left of the page stays empty.
    rows_per_page = page_bytes // (request.row_bytes + _ROW_OVERHEAD_BYTES)
    row_bytes = page_bytes // rows_per_page if rows_per_page else request.row_bytes + page_bytes
    row_bytes += _ROW_OVERHEAD_BYTES

    oldest = "SELECT id FROM uses WHERE used < ? ORDER BY used, id LIMIT ?"
    while True:
        (n_pages,) = db.execute("PRAGMA page_count").fetchone()
        (n_free,) = db.execute("PRAGMA freelist_count").fetchone()
        n_fit = max(0, max_bytes - (n_pages - n_free) * page_bytes) // row_bytes
        if n_fit >= n_rows:
            break

        evicted = db.execute(oldest, (request.started, n_rows - n_fit)).fetchall()
        if not evicted:
            break
        db.executemany("DELETE FROM rows WHERE id = ?", evicted)
        db.executemany("DELETE FROM uses WHERE id = ?", evicted)

    # Pages that the new rows do not need go back to the system, one by one: of a statement that
    # gives no columns Python runs the first step only, which is one page.
    n_fit = min(n_fit, n_rows)
    for _ in range(n_free - n_fit * row_bytes // page_bytes - 1):
        db.execute("PRAGMA incremental_vacuum(1)")
    return n_fit


def _note_use(numbers: list[int], now: int, db: sqlite3.Connection) -> None:
    records = [(now, number) for number in numbers]
    db.executemany("UPDATE uses SET used = ? WHERE id = ?", records)


def _read_files(
    identities: list[tuple[int, bytes] | None], db: sqlite3.Connection
) -> dict[bytes, bytes]:
    """Digests by identity, of the files asked for and some near them."""
    inodes = {found[0] for found in identities if found is not None}
    query = "SELECT identity, digest, checksum FROM files WHERE inode BETWEEN ? AND ?"
    known = {}
    for low, high in _spans(sorted(inodes)):
        for identity, digest, checksum in db.execute(query, (low, high)):
            is_pair = type(identity) is bytes and type(digest) is bytes
            if is_pair and zlib.crc32(digest, zlib.crc32(identity)) == checksum:
                known[identity] = digest
    return known


def _describe(db: sqlite3.Connection) -> tuple[list[dict[str, Any]], int]:
    """Rows of each model, and the number of files whose digest is known."""
    counts = dict(db.execute("SELECT model, count(*) FROM rows GROUP BY model"))
    query = "SELECT id, fingerprint, width FROM models ORDER BY fingerprint"
    models = []
    for number, fingerprint, width in db.execute(query):
        n_rows = counts.get(number, 0)
        models.append({"fingerprint": fingerprint, "width": width, "rows": n_rows})

    (n_files,) = db.execute("SELECT count(*) FROM files").fetchone()
    return models, n_files


def _inspect(db: sqlite3.Connection) -> tuple[bool, list[tuple[int]]]:
    """Whether the file is whole, and the numbers of the rows that are not."""
    (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    models = {}
    for number, fingerprint, width in db.execute("SELECT id, fingerprint, width FROM models"):
        if isinstance(fingerprint, str) and isinstance(width, int):
            models[number] = _model_seed(fingerprint), width * _DTYPE.itemsize

    bad = []
    for number, model, digest, checksum, row in db.execute("SELECT * FROM rows NOT INDEXED"):
        seed, row_bytes = models.get(model, (0, -1))
        is_row = type(digest) is bytes and type(row) is bytes and len(row) == row_bytes
        if not is_row or _row_checksum(seed, digest, row) != checksum:
            bad.append((number,))
    return verdict == "ok", bad


def _model_seed(fingerprint: str) -> int:
    return zlib.crc32(fingerprint.encode())


def _row_checksum(seed: int, digest: bytes, row: bytes | memoryview) -> int:
    """CRC-32 of model, digest and row."""
    return zlib.crc32(row, zlib.crc32(digest, seed))


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


def _spans(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges that cover sorted numbers, so that near ones are read in one query."""
    low = high = None
    for number in numbers:
        if low is None or high is None:
            low = number
        elif number - high > _SPAN_GAP:
            yield low, high
            low = number
        high = number

    if low is not None and high is not None:
        yield low, high


def _in_chunks(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _warn_unsaved(folder: Path, error: Exception, what: str) -> None:
    """Say that results are right but not kept."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    warn(
        f"{what} could not be saved in the cache folder {folder} ({reason}). Results are complete "
        "but will be computed again next time: free some space, make the folder writable, or "
        "point memory= elsewhere.",
        CacheWriteWarning,
    )


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
