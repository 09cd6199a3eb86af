"""Rows of the cache's SQLite file: finding, claiming, computing, keeping and evicting them.

Functions that take `db` last run inside of `CacheFile.read` or `CacheFile.write`.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from dnm_sklearn._utils.digest import DIGEST_BYTES
from dnm_sklearn.embedding._cache_claims import Claim, claimed_digests
from dnm_sklearn.exceptions import CacheFormatError

T = TypeVar("T")
Compute = Callable[[np.ndarray], Iterable[np.ndarray]]

# Rows are stored as little-endian float32, whatever machine wrote them.
_DTYPE = np.dtype("<f4")

# Computed rows are committed when this time has passed, as a commit waits for the disk: a killed
# process loses no more work than this (or one batch, where a batch takes longer).
COMMIT_SECONDS = 1.0

# SQLite before 3.32 takes no more than 999 values in a query.
_VALUES_PER_QUERY = 900

# Looking up more digests than this proportion of all rows reads the whole index, which is faster.
_WHOLE_INDEX_FROM = 1 / 8

# Records whose numbers are no further apart are read in one query, with those between them.
_SPAN_GAP = 4

# Bytes that a row takes beside its numbers, with its digest and checksum; and in the index.
_ROW_OVERHEAD_BYTES = 64


class Request:
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
        for position, digest in enumerate(digests):
            if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
                raise ValueError(
                    f"digests[{position}] must be {DIGEST_BYTES} bytes, as digest_file and "
                    f"digest_array make, got {digest!r:.60}"
                )
            self.missing.setdefault(digest, position)
        self.met_damage = False

        self._digests = digests
        self._position = None if len(self.missing) == len(digests) else dict(self.missing)

    def result(self) -> np.ndarray:
        """Give all rows, repeated ones included, in the machine's own byte order."""
        rows = self.rows
        if self._position is not None:
            rows = rows[[self._position[digest] for digest in self._digests]]
        return rows.astype(np.float32, copy=False)

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
        row_bytes = self.row_bytes
        found = []
        for low, high in spans(sorted(digest_of)):
            for number, checksum, row in db.execute(query, (low, high)):
                digest = digest_of.get(number)
                if digest is None or type(row) is not bytes or len(row) != row_bytes:
                    continue
                if _row_checksum(self._seed, digest, row) != checksum:
                    continue

                # A damaged index may name a digest twice.
                position = self.missing.pop(digest, None)
                if position is not None:
                    target[position * row_bytes : (position + 1) * row_bytes] = row
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
        for some in _in_chunks(list(self.missing)):
            yield from db.execute(f"{query} AND digest IN ({_marks(some)})", (model, *some))


def claim_rows(request: Request, claim: Claim, db: sqlite3.Connection) -> list[bytes]:
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


def compute_rows(
    request: Request,
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

            if save is not None and time.monotonic() - last >= COMMIT_SECONDS:
                if not save(digests[saved:done]):
                    save = None
                saved, last = done, time.monotonic()

        if done != len(digests):
            raise ValueError(f"compute() was asked for {len(digests)} rows and gave {done}.")
    finally:
        # Also what was done before an error, or before the user stopped the work.
        if save is not None and saved < done:
            save(digests[saved:done])
        for digest in digests[:done]:
            del request.missing[digest]


def insert_rows(
    request: Request, digests: list[bytes], max_bytes: int | None, db: sqlite3.Connection
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
    for some in _in_chunks(kept if newest else []):
        if db.execute(f"{count} ({_marks(some)})", (model, *some)).fetchone() != (len(some),):
            raise sqlite3.DatabaseError("rows are not found after they were written")
    return n_left_out


def _make_room(db: sqlite3.Connection, n_rows: int, request: Request, max_bytes: int) -> int:
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


def note_use(numbers: list[int], now: int, db: sqlite3.Connection) -> None:
    """Note that rows were used now."""
    records = [(now, number) for number in numbers]
    db.executemany("UPDATE uses SET used = ? WHERE id = ?", records)


def describe_rows(db: sqlite3.Connection) -> tuple[list[dict[str, Any]], int]:
    """Rows of each model, and the number of files whose digest is known."""
    n_rows = "(SELECT count(*) FROM rows WHERE model = models.id)"
    query = f"SELECT fingerprint, width, {n_rows} FROM models ORDER BY fingerprint"
    keys = ("fingerprint", "width", "rows")
    models = [dict(zip(keys, model, strict=True)) for model in db.execute(query)]
    (n_files,) = db.execute("SELECT count(*) FROM files").fetchone()
    return models, n_files


def inspect_rows(db: sqlite3.Connection) -> tuple[bool, list[tuple[int]]]:
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


def spans(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges that cover sorted numbers, so that near ones are read in one query."""
    if numbers:
        gaps = np.flatnonzero(np.diff(numbers) > _SPAN_GAP)
        array = np.array(numbers)
        starts, ends = array[[0, *(gaps + 1)]], array[[*gaps, -1]]
        yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _in_chunks(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), _VALUES_PER_QUERY):
        yield items[start : start + _VALUES_PER_QUERY]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
