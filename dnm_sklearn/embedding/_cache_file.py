"""The SQLite file of a cache folder: opening, locking, recovering and removing it.

Whoever writes holds a lock of the folder for the length of one short transaction; whoever reads
takes none but SQLite's own. Nothing is kept open between two uses, so that a forked process
inherits nothing of SQLite.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from dnm_sklearn.exceptions import CacheFormatError

logger = logging.getLogger("dnm_sklearn")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

FILE_NAME = "embeddings.sqlite"
LOCK_NAME = "embeddings.lock"
_SIDE_FILES = ("-wal", "-shm", "-journal")

# SQLite's header has room for two numbers of its users: the version of their tables (at byte 60),
# and whose file it is (at byte 68).
_MAGIC = b"SQLite format 3\0"
_FORMAT = (1).to_bytes(4, "big")
_OWNER = b"dnms"

# A row of a CLIP model takes 2 to 4 kB; SQLite's usual pages of 4 kB would hold one or two.
_PAGE_BYTES = 16384

# Memory for pages of a connection, in KiB. Whoever writes puts rows anywhere in the index, which
# takes this much for a million rows. Whoever reads sees most pages once: to keep them costs time.
_WRITERS_KIB, _READERS_KIB = 65536, 8192

# How SQLite opens a file: to write, making it where it is missing; or to read. A folder that cannot
# be written to may lack the files that SQLite keeps beside a write-ahead log; "immutable" reads
# without them.
_WRITE = "mode=rwc"
_READ = ("mode=ro", "immutable=1")

# Others hold SQLite's own locks for the length of a commit.
_BUSY_SECONDS = 60
_POLL_SECONDS = 0.01

_SCHEMA = """
CREATE TABLE models (id INTEGER PRIMARY KEY, fingerprint TEXT UNIQUE, width INTEGER);

CREATE TABLE rows (
    id INTEGER PRIMARY KEY, model INTEGER, digest BLOB, checksum INTEGER, embedding BLOB
);
CREATE UNIQUE INDEX row_of_digest ON rows (model, digest);

-- Apart from the rows, so that noting a use does not write the row again.
CREATE TABLE uses (id INTEGER PRIMARY KEY, used INTEGER);

-- A changed file keeps its inode: its record is replaced, and the table does not grow.
CREATE TABLE files (
    inode INTEGER, device INTEGER, identity BLOB, digest BLOB, checksum INTEGER,
    PRIMARY KEY (inode, device)
) WITHOUT ROWID;

CREATE TABLE facts (setting TEXT PRIMARY KEY, content TEXT, checksum INTEGER);
"""

# File systems of this machine's own disks. On any other (network, or unknown) SQLite's write-ahead
# log must not be used: it needs memory that all processes share, and they may be on two machines.
_LOCAL = {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
_WINDOWS_FIXED_DRIVE = 3


# What a damaged file may raise; the latter two where the damage is in a name of the schema, or in
# the number of a row.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError, OverflowError)

# No connection is open while the process forks: SQLite must not be carried over a fork, and
# closing any handle of a file drops the locks that other threads of the process have on it.
_connections = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_connections.acquire,
        after_in_parent=_connections.release,
        after_in_child=_connections.release,
    )


class CacheFile:
    """The SQLite file of one folder; made at the first write, so that a read makes nothing."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME

    def read(self, work: Work[T]) -> T | None:
        """Run `work` on the file as it is; None if there is no file that can be read."""
        for mode in _READ:
            try:
                with _connections:
                    if not self.check():
                        return None
                    with closing(_connect(self.path, mode)) as db:
                        return work(db)
            except (OSError, *_SQLITE_ERRORS) as error:
                logger.info("cache: %s could not be read (%s, %s)", self.path, mode, error)
        return None

    def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction under the folder's lock, on a file that is whole."""
        with self.locked():
            if not self.check():
                self._put_in_place(None)
            try:
                return self._transaction(work)
            except _SQLITE_ERRORS as error:
                if not _is_damage(error):
                    raise
                logger.warning(
                    "cache: %s is damaged (%s); what can be read of it is kept", self.path, error
                )

            self._put_in_place(self.path)
            return self._transaction(work)

    def rebuild(self) -> None:
        """Write the file anew with the rows that can be read."""
        with self.locked():
            if self.check():
                self._put_in_place(self.path)

    def remove(self) -> None:
        """Remove the file, whatever its version; a foreign one is refused. For use in `locked`."""
        self._read_header()
        _remove(self.path)

    def size(self) -> int:
        """Bytes on disk."""
        total = 0
        for suffix in ("", *_SIDE_FILES):
            with contextlib.suppress(FileNotFoundError):
                total += os.path.getsize(f"{self.path}{suffix}")
        return total

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out, threads of this process included."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

        # A new lock object for each use: it must not be shared by threads or carried in a pickle.
        lock = FileLock(self.folder / LOCK_NAME)
        with _connections, lock.acquire(poll_interval=_POLL_SECONDS):
            yield

    def _transaction(self, work: Work[T]) -> T:
        with closing(_connect(self.path, _WRITE)) as db:
            (mode,) = db.execute("PRAGMA journal_mode").fetchone()
            if mode == "wal" and not _is_local(self.folder.absolute()):
                # The folder was copied here, or is looked at from another machine than before.
                (mode,) = db.execute("PRAGMA journal_mode=DELETE").fetchone()
            if mode == "wal":
                # Without waiting for the disk at each commit: a crash of the machine may lose the
                # last ones, but leaves a whole file. A killed process loses nothing.
                db.execute("PRAGMA synchronous=NORMAL")

            # Closing without a commit, after an error, rolls back.
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
            db.execute("COMMIT")
            return result

    def check(self) -> bool:
        """Whether there is a file; one of another program or version is refused."""
        header = self._read_header()
        version = header[60:64]
        if not _FORMAT.startswith(version):
            raise CacheFormatError(
                f"{self.path} has cache format {int.from_bytes(version, 'big')}, and this "
                f"dnm_sklearn reads format {int.from_bytes(_FORMAT, 'big')}: clear the cache "
                "(dnm-bench cache clear) or choose another cache folder."
            )
        return bool(header)

    def _read_header(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                header = file.read(72)
        except FileNotFoundError:
            return b""

        # Of a file that was cut short only what is left can be compared.
        if not _MAGIC.startswith(header[:16]) or not _OWNER.startswith(header[68:72]):
            raise CacheFormatError(
                f"{self.path} is not a cache file of dnm_sklearn; it was left alone. Move it away, "
                "or choose another cache folder."
            )
        return header

    def _put_in_place(self, damaged: Path | None) -> None:
        """Make a new file, with what can be read of a damaged one, and give it its name."""
        new = self.path.with_name(f"{FILE_NAME}.new")
        _remove(new)  # what a killed process left
        try:
            _create(new, self.folder.absolute())
            if damaged is not None:
                _salvage(damaged, new)
            os.replace(new, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(new)
            raise

        # A log of the file that was replaced must not be taken for one of the new file. Nobody
        # else writes now, and readers of the old file keep what they have opened.
        _remove(self.path, _SIDE_FILES)


def _remove(path: Path, suffixes: tuple[str, ...] = ("", *_SIDE_FILES)) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a file; nothing is read yet. Transactions are begun by hand."""
    db = sqlite3.connect(_uri(path, mode), uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    db.execute(f"PRAGMA cache_size=-{_WRITERS_KIB if mode == _WRITE else _READERS_KIB}")
    return db


def _create(path: Path, folder: Path) -> None:
    """Make a file without rows."""
    with closing(_connect(path, _WRITE)) as db:
        db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        # Lets the file shrink when rows are evicted.
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.executescript(
            f"BEGIN; PRAGMA application_id={int.from_bytes(_OWNER, 'big')};"
            f"PRAGMA user_version={int.from_bytes(_FORMAT, 'big')}; {_SCHEMA} COMMIT;"
        )

        # Some file systems have no memory to share between processes: there SQLite refuses, and
        # keeps its rollback journal (journal_mode=DELETE).
        if _is_local(folder):
            with contextlib.suppress(sqlite3.OperationalError):
                db.execute("PRAGMA journal_mode=WAL")


def _salvage(damaged: Path, new: Path) -> None:
    """Copy the rows that can be read; their checksums are looked at when they are used."""
    with closing(_connect(new, _WRITE)) as db:
        db.execute("BEGIN")
        for model in _readable(damaged, "models"):
            db.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", model)
        # With numbers of their own: old ones may be damaged, and as high as they can get.
        insert = "INSERT OR IGNORE INTO rows (model, digest, checksum, embedding) VALUES (?,?,?,?)"
        for row in _readable(damaged, "rows"):
            db.execute(insert, row[1:])
        db.execute("INSERT INTO uses SELECT id, 0 FROM rows")
        db.execute("COMMIT")


def _readable(path: Path, table: str) -> Iterator[tuple[object, ...]]:
    """Records of a table of a damaged file, some of them twice."""
    with closing(sqlite3.connect(_uri(path, "mode=ro"), uri=True)) as db:
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")

        # Reading ends at the first damaged page: from both ends, all but what lies between.
        for order in ("ASC", "DESC"):
            with contextlib.suppress(*_SQLITE_ERRORS):
                # Lets SQLite read a file that was cut short.
                db.execute("PRAGMA writable_schema=ON")
                yield from db.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY id {order}")
                return


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?{mode}"


def _is_damage(error: Exception) -> bool:
    """Whether an error of SQLite says that the file's content is wrong, not its surroundings."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    signs = ("no such table", "no such column", "not decode", "unsupported file format")
    return any(sign in str(error) for sign in signs)


@lru_cache
def _is_local(folder: Path) -> bool:
    """Whether a folder is known to lie on a disk of this machine."""
    if sys.platform == "win32":
        import ctypes

        drive = os.path.splitdrive(os.path.realpath(folder))[0]
        return ctypes.windll.kernel32.GetDriveTypeW(f"{drive}\\") == _WINDOWS_FIXED_DRIVE

    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False  # no such list on this system

    # Of the mount points above the folder the longest counts, and the last that was mounted there.
    kind, longest = "", -1
    where = Path(os.path.realpath(folder))
    for line in mounts.splitlines():
        place, _, device = line.partition(" - ")
        point = Path(place.split()[4].replace("\\040", " "))
        if len(point.parts) >= longest and (point == where or point in where.parents):
            kind, longest = device.split()[0], len(point.parts)
    return kind in _LOCAL
