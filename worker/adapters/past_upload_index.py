"""
What earlier verdicts said of uploads: an index in a temporary database that nobody else sees and nothing leaves behind.

How the verdicts are read is the caller's; what is looked for is in ``worker.ports.PastUploads``.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable
from typing import Final, Self
from uuid import UUID

from worker.domain import ContentHash, Upload
from worker.ports import PastUpload

_SCHEMA: Final = (
    "CREATE TABLE past (number INTEGER, at INTEGER, sha256 BLOB, byte_length INTEGER, verdict_id BLOB NOT NULL, "
    "PRIMARY KEY (number, at)) WITHOUT ROWID"
)
# A later verdict that failed knows nothing of the bytes: what an earlier one knew of them stays.
_PUT: Final = (
    "INSERT INTO past VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET verdict_id = excluded.verdict_id, "
    "byte_length = CASE WHEN excluded.sha256 IS NULL THEN byte_length ELSE excluded.byte_length END, "
    "sha256 = coalesce(excluded.sha256, sha256)"
)
_AT_ONCE: Final = 1_000

Row = tuple[int, int, bytes | None, int, bytes]


class PastUploadIndex:
    """
    Implements ``worker.ports.PastUploads`` for one topic; of two verdicts on one upload the later counts.

    But for the bytes, which one that failed may not have seen.

    Any thread may ask. 140 bytes on disk for each upload.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        # The empty name: a database of this connection alone, on disk where it grows, gone with the process.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(_SCHEMA)
        self.unreadable = 0

    def add(self, verdicts: Iterable[bytes | None]) -> Self:
        """
        Take over verdicts as they lie in their topic, oldest first; what is no verdict is counted as ``unreadable``.
        """
        rows: list[Row] = []
        for value in verdicts:
            row = self._row(value)
            if row is not None:
                rows.append(row)
            if len(rows) >= _AT_ONCE:
                self._put(rows)
                rows = []
        self._put(rows)
        return self

    def _row(self, value: bytes | None) -> Row | None:
        if value is None:
            return None
        try:
            verdict = json.loads(value)
            place, image = verdict["input"], verdict["image"]
            if place["topic"] != self._topic:
                return None
            sha256 = None if image is None else bytes.fromhex(image["sha256"])
            length = 0 if image is None else int(image["byte_length"])
            return int(place["partition"]), int(place["offset"]), sha256, length, UUID(verdict["verdict_id"]).bytes
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return None

    def _put(self, rows: list[Row]) -> None:
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany(_PUT, rows)
            self._database.execute("COMMIT")

    def of(self, upload: Upload) -> PastUpload | None:
        """
        What the latest verdict on this upload said.
        """
        raw = upload.raw
        if raw.partition.topic != self._topic:
            return None
        with self._lock:
            found = self._database.execute(
                "SELECT sha256, byte_length, verdict_id FROM past WHERE number = ? AND at = ?",
                (raw.partition.number, raw.offset),
            ).fetchone()
        if found is None:
            return None
        sha256, byte_length, verdict_id = found
        content_hash = None if sha256 is None else ContentHash(sha256.hex())
        return PastUpload(content_hash, byte_length, UUID(bytes=verdict_id))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._database.execute("SELECT count(*) FROM past").fetchone()
        return int(count)

    def close(self) -> None:
        """
        Drop it.
        """
        with self._lock:
            self._database.close()
