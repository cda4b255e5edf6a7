"""
Dead letters as an operator goes through them: which there are, which of them are meant, and what one says in safe text.

Pure values and functions over the records of the dead-letter topic. Sending them again is in ``redriving.py``.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from schemas.dead_letter import ImageDeadLetterV1, Original
from schemas.errors import ErrorClass, ErrorCode, Stage
from schemas.identity import bare_event_id, dead_letter_id
from worker.domain import Partition, RawEvent
from worker.errors import ConfigInvalid
from worker.redaction import one_line, redact_text
from worker.telemetry.redaction import plain

MOST_KEPT: Final = 1_000_000
"""Rows that are kept at most where nobody asks for fewer: about half a gigabyte of them."""

MOST_NAMED: Final = 1_000
"""Records that are no dead letters and are told one by one; the rest are counted."""

LEAST_ID_CHARS: Final = 8
"""So much of an id must be given, and is shown in tables."""


@dataclass(frozen=True, slots=True)
class LetterRow:
    """
    One dead letter without the record in it: where the letter lies, and what it says.

    ``size_bytes`` is that of the original value; None for a null value.
    """

    id: UUID
    partition: int
    offset: int
    failed_at: datetime
    code: ErrorCode
    error_class: ErrorClass
    stage: Stage
    origin: Partition
    origin_offset: int
    event_id: str | None
    content_id: str | None
    size_bytes: int | None
    truncated: bool

    @property
    def bare(self) -> bool:
        """
        Whether the event is known by where it lay alone, so that it would be another one elsewhere.
        """
        where = bare_event_id(self.origin.topic, self.origin.number, self.origin_offset)
        return self.event_id is None or self.event_id == str(where)

    @property
    def place(self) -> str:
        """
        Where the original lay, as ``TOPIC-PARTITION-OFFSET``.
        """
        return f"{self.origin.topic}-{self.origin.number}-{self.origin_offset}"


@dataclass(frozen=True, slots=True)
class Filters:
    """
    Which letters are meant; what is empty or None means all. ``ids`` are ids or beginnings of ids, in small letters.

    Times are milliseconds since the epoch, of when the upload failed; ``until_ms`` itself is left out.
    """

    codes: frozenset[ErrorCode] = frozenset()
    error_class: ErrorClass | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in self.ids:
            if len(text) < LEAST_ID_CHARS or not set(text) <= set("0123456789abcdef-"):
                raise ConfigInvalid(
                    f"{text!r} is no id of a dead letter; give one, or its first {LEAST_ID_CHARS} characters at least, "
                    "as `touchstone dlq list` shows them"
                )

    def take(self, row: LetterRow) -> bool:
        """
        Whether this one is meant.
        """
        failed_ms = row.failed_at.timestamp() * 1000
        return (
            (not self.codes or row.code in self.codes)
            and (self.error_class is None or row.error_class is self.error_class)
            and (self.since_ms is None or failed_ms >= self.since_ms)
            and (self.until_ms is None or failed_ms < self.until_ms)
            and (not self.ids or str(row.id).startswith(self.ids))
        )

    def require_one_each(self, rows: Sequence[LetterRow]) -> None:
        """
        Each id that was given names one upload. Raises ``ConfigInvalid``.
        """
        for text in self.ids:
            named = {row.id for row in rows if str(row.id).startswith(text)}
            if len(named) != 1:
                found = f"{len(named)} letters" if named else "no letter"
                raise ConfigInvalid(
                    f"{found} of these have an id that begins with {text}; `touchstone dlq list` shows all"
                )


@dataclass(slots=True)
class LettersFound:
    """
    How many letters are meant, the newest ``keep`` of them, and what else lies there.

    A topic may hold more letters than there is memory: neither they nor the records that are none are all kept.
    """

    keep: int = MOST_KEPT
    letters: int = 0
    unreadable: int = 0
    unreadable_named: list[str] = field(default_factory=list)
    _newest: list[tuple[datetime, int, LetterRow]] = field(default_factory=list)
    _codes: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> list[LetterRow]:
        """
        Those that are kept, by when they failed; of the same time, in the order of their topic.
        """
        return [row for _, _, row in sorted(self._newest, key=lambda one: one[:2])]

    def read(self, records: Iterable[RawEvent], filters: Filters) -> Iterator[tuple[LetterRow, ImageDeadLetterV1]]:
        """
        Each letter that is meant, whole; the newest are remembered without their records.
        """
        for record in records:
            try:
                letter = ImageDeadLetterV1.model_validate_json(record.value or b"")
            except ValidationError as invalid:
                where = f"{record.partition.topic}-{record.partition.number}-{record.offset}"
                self.unreadable += 1
                if len(self.unreadable_named) < MOST_NAMED:
                    told = f"{where}: {invalid.error_count()} faults, the first at {_first(invalid)}"
                    self.unreadable_named.append(told)
                continue
            row = row_of(record, letter)
            if filters.take(row):
                self._take(row)
                yield row, letter

    def _take(self, row: LetterRow) -> None:
        self.letters += 1
        self._codes[row.code.value] += 1
        heappush(self._newest, (row.failed_at, self.letters, row))
        if len(self._newest) > self.keep:
            heappop(self._newest)

    def gather(self, records: Iterable[RawEvent], filters: Filters) -> None:
        """
        Read all of them, and keep the rows.
        """
        for _ in self.read(records, filters):
            pass

    def by_code(self) -> Mapping[str, int]:
        """
        How many there are of each code, the commonest first.
        """
        return dict(self._codes.most_common())


def row_of(record: RawEvent, letter: ImageDeadLetterV1) -> LetterRow:
    """
    What a letter says without the record in it.
    """
    original = letter.original
    return LetterRow(
        id=dead_letter_id(original.topic, original.partition, original.offset),
        partition=record.partition.number,
        offset=record.offset,
        failed_at=letter.failed_at,
        code=letter.error.code,
        error_class=letter.error.error_class,
        stage=letter.error.stage,
        origin=Partition(original.topic, original.partition),
        origin_offset=original.offset,
        event_id=letter.event_id,
        content_id=letter.content_id,
        size_bytes=original.value_byte_length,
        truncated=original.truncated,
    )


def row_as_json(row: LetterRow) -> dict[str, Any]:
    """
    A row as ``--json`` prints it.
    """
    return {
        "id": str(row.id),
        "failed_at": row.failed_at.isoformat(),
        "code": row.code.value,
        "class": row.error_class.value,
        "stage": row.stage.value,
        "topic": row.origin.topic,
        "partition": row.origin.number,
        "offset": row.origin_offset,
        "event_id": row.event_id,
        "content_id": row.content_id,
        "value_bytes": row.size_bytes,
        "truncated": row.truncated,
        "letter": {"partition": row.partition, "offset": row.offset},
    }


def letter_as_json(row: LetterRow, letter: ImageDeadLetterV1) -> dict[str, Any]:
    """
    All that a letter says, in text that is safe to show: URLs without query and userinfo, long base64 as its length.
    """
    original = letter.original
    return row_as_json(row) | {
        "detail": redact_text(letter.error.detail),
        "worker": letter.worker,
        "schema": letter.schema_version,
        "timestamp_ms": original.timestamp_ms,
        "value_sha256": original.value_sha256,
        "key": _text_of(original.key_bytes()),
        "headers": [[one_line(name), _text_of(value)] for name, value in original.header_items()],
        "value": _value_of(original),
    }


def _value_of(original: Original) -> object:
    """
    The value as JSON where it is, else as text.
    """
    value = original.value_bytes()
    try:
        # Not as text: an address may be written with escapes, behind which its query would not be seen.
        document = json.loads(value or b"")
        return plain(document) if isinstance(document, dict | list) else _text_of(value)
    except (ValueError, RecursionError):
        return _text_of(value)


def _text_of(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return one_line(redact_text(data.decode()))
    except UnicodeDecodeError:
        return f"<{len(data)} bytes, no text>"


def _first(invalid: ValidationError) -> str:
    return ".".join(map(str, invalid.errors()[0]["loc"])) or "its beginning"
