"""
Packed sightings as rows of one SQLite file that several processes may use at once, and forget from for good.

Or of a file without a name, which is gone with its process. What the values mean is known to ``sighting_file.py``, and
not here. Only the standard library is needed.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.domain import ContentHash
from worker.errors import ArchiveUnavailable, CannotStart

APPLICATION_ID: Final = 0x54537331
"""Stands in the file's head, so that no other program's database is written to."""

LAYOUT: Final = 1
BUSY_S: Final = 5.0
"""How long another process may write before ours gives up."""

_TRY_AGAIN_S: Final = 0.01

_CREATING: Final = threading.Lock()
"""Held while a file is made: see ``_create``."""

PURGE_ROWS: Final = 1_000
"""Rows removed in one transaction: others wait for it, and only for it."""

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS sightings (
    hash BLOB NOT NULL,
    scope BLOB NOT NULL,
    shifted INTEGER NOT NULL,
    kept_at REAL NOT NULL,
    measured BLOB NOT NULL,
    facts BLOB NOT NULL,
    PRIMARY KEY (hash, scope)
)
"""
_BY_AGE: Final = "CREATE INDEX IF NOT EXISTS sightings_by_age ON sightings (kept_at)"

# One that has its shift stays, and lives on, where another without comes.
_PUT: Final = """
INSERT INTO sightings (hash, scope, shifted, kept_at, measured, facts) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (hash, scope) DO UPDATE SET
    kept_at = max(kept_at, excluded.kept_at),
    measured = CASE WHEN excluded.shifted >= shifted THEN excluded.measured ELSE measured END,
    facts = CASE WHEN excluded.shifted >= shifted THEN excluded.facts ELSE facts END,
    shifted = max(shifted, excluded.shifted)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One packed sighting; ``kept_at_s`` is in seconds since the epoch.
    """

    content_hash: ContentHash
    scope: bytes
    shifted: bool
    kept_at_s: float
    measured: bytes
    facts: bytes


class SightingRows:
    """
    The table. Any thread may call any method; one waits for the other.

    Without a ``path`` the rows lie where temporary files go, under no name, and are gone with the process however it
    ends. Raises ``CannotStart`` where the file cannot be made or is another program's. Every method raises
    ``ArchiveUnavailable`` when the disk is full, the file is damaged, or another process writes for too long.
    """

    def __init__(self, path: Path | None, *, busy_s: float = BUSY_S) -> None:
        self._path = path
        self._busy_s = busy_s
        self._lock = threading.Lock()
        try:
            self._connection = _unnamed() if path is None else _opened(path, busy_s)
        except (OSError, sqlite3.Error) as error:
            raise CannotStart(
                f"the file of kept embeddings {path} cannot be used ({type(error).__name__}: {error}); name a file "
                "of its own in a folder that exists and may be written to (embeddings.path)"
            ) from error

    def put(self, rows: Iterable[Row]) -> None:
        """
        Write these rows in one transaction, each in the place of the one that was there.
        """
        values = [
            (bytes.fromhex(row.content_hash), row.scope, row.shifted, row.kept_at_s, row.measured, row.facts)
            for row in rows
        ]
        with self._writing() as connection:
            connection.executemany(_PUT, values)

    def get(self, hashes: Sequence[ContentHash], scope: bytes) -> dict[ContentHash, tuple[bytes, bytes]]:
        """
        What was measured and the facts, packed, of those of these bytes that this scope has.
        """
        found = {}
        with self._using() as connection:
            for chunk in _chunks(hashes):
                marks = ",".join("?" * len(chunk))
                query = f"SELECT hash, measured, facts FROM sightings WHERE scope = ? AND hash IN ({marks})"  # noqa: S608 - question marks only
                for name, measured, facts in connection.execute(query, (scope, *map(bytes.fromhex, chunk))):
                    found[ContentHash(name.hex())] = (measured, facts)
        return found

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove these bytes in every scope, and overwrite where they lay; how many rows went.

        Raises ``ArchiveUnavailable`` also when another process reads for so long that they still lie in the log beside
        the file; asked again, it goes on.
        """
        gone = self.remove(hashes)
        self._empty_log()
        return gone

    def remove(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove these bytes in every scope; the log beside the file may still hold them. How many rows went.
        """
        gone = 0
        with self._writing() as connection:
            for chunk in _chunks(sorted(set(hashes))):
                marks = ",".join("?" * len(chunk))
                query = f"DELETE FROM sightings WHERE hash IN ({marks})"  # noqa: S608 - question marks only
                gone += connection.execute(query, [bytes.fromhex(name) for name in chunk]).rowcount
        return gone

    def purge(self, *, before_s: float) -> int:
        """
        Remove all rows that were last kept before this moment (seconds since the epoch); how many.
        """
        gone = 0
        while True:
            with self._writing() as connection:
                oldest = "SELECT rowid FROM sightings WHERE kept_at < ? LIMIT ?"
                query = f"DELETE FROM sightings WHERE rowid IN ({oldest})"  # noqa: S608 - two constants
                removed = connection.execute(query, (before_s, PURGE_ROWS)).rowcount
            gone += removed
            if removed < PURGE_ROWS:
                break
        if gone:
            # At best effort: the log is emptied sooner or later by whoever writes next.
            with contextlib.suppress(ArchiveUnavailable):
                self._empty_log()
        return gone

    def __len__(self) -> int:
        """
        How many rows there are.
        """
        with self._using() as connection:
            return int(connection.execute("SELECT count(*) FROM sightings").fetchone()[0])

    def close(self) -> None:
        """
        Release the file.
        """
        with self._lock:
            self._connection.close()

    def _empty_log(self) -> None:
        """
        Bring the overwritten pages into the file, and cut off the log that still has the old ones.
        """
        if self._path is None:
            return
        with self._using() as connection:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise ArchiveUnavailable(
                f"what was removed from {self._path} still lies in {self._path.name}-wal, because another process has "
                f"been reading the file for {self._busy_s:g} s; try again when it is done"
            )

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise ArchiveUnavailable(self._told(error)) from error

    def _told(self, error: sqlite3.Error) -> str:
        found = f"{type(error).__name__}: {error}"
        if self._path is None:
            return (
                f"embeddings could not be laid down in the folder for temporary files while they are read: {found}; "
                "make room there, or name another folder in the environment (SQLITE_TMPDIR)"
            )
        return (
            f"the file of kept embeddings {self._path} failed: {found}; look at the disk's free space, or move the "
            "file away if it is damaged: a new one is made"
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _opened(path: Path, busy_s: float) -> sqlite3.Connection:
    _create(path)
    connection = sqlite3.connect(
        path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    try:
        _require_ours(connection)
        _write_ahead(connection, busy_s)
        # A crash of the machine may cost what was kept last; the file stays whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        connection.execute(_BY_AGE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {LAYOUT}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """
    Make an empty file where there is none, for its owner only: it is personal data. SQLite gives its logs these rights.

    A file that is there is not even opened. Closing any descriptor of a file drops all locks that the process holds on
    it (https://www.sqlite.org/howtocorrupt.html, 2.2): if a connection of this process had the file open, the next
    other process to close it would take itself for the last, and unlink the log under that connection. For the same
    reason no two threads may be here at once, one opening what the other is about to close.
    """
    with _CREATING, contextlib.suppress(FileExistsError):
        # Where a link leads: an exclusive open would not follow it, and SQLite would, with rights of its own.
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _unnamed() -> sqlite3.Connection:
    # A file without a name: SQLite makes it where temporary files go when the rows outgrow its cache, and unlinks it
    # before the first of them is written. So the disk is given back when the process ends, be it by SIGKILL, which
    # no clearing up afterwards could promise. Only one connection can see it. The journal would be a second such file.
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False, cached_statements=32)
    connection.execute("PRAGMA journal_mode = MEMORY")
    connection.execute(_TABLE)  # no index by age: nothing in it grows old
    return connection


def _require_ours(connection: sqlite3.Connection) -> None:
    # In one transaction: another process may be making the file just now.
    connection.execute("BEGIN")
    application, layout = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.execute("COMMIT")
    if not empty and (application, layout) != (APPLICATION_ID, LAYOUT):
        raise sqlite3.DatabaseError(
            f"it has application_id {application:#x} and user_version {layout}, expected {APPLICATION_ID:#x} and "
            f"{LAYOUT}: it is not one of ours, or of another release"
        )


def _write_ahead(connection: sqlite3.Connection, busy_s: float) -> None:
    """
    Switch to the write-ahead log; SQLite does not wait here for another process that opens the file just now.
    """
    give_up_s = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= give_up_s:
                raise
            time.sleep(_TRY_AGAIN_S)
        else:
            return


def _chunks(hashes: Sequence[ContentHash], size: int = 500) -> Iterator[Sequence[ContentHash]]:
    for start in range(0, len(hashes), size):
        yield hashes[start : start + size]
