"""
What a record of a retry topic carries beside the original key, value and headers: our headers behind them.

They are believed on retry topics only, which producers of uploads must not be allowed to write to: there they say where
a record without an envelope first lay, and so who it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.explain import found_text

ORIGIN: Final = "touchstone-origin"
"""``PARTITION:OFFSET:TIMESTAMP_MS:TOPIC`` of the first record; no time stamp where it had none."""

ATTEMPTS: Final = "touchstone-attempts"
FIRST_FAILED_AT: Final = "touchstone-first-failed-at-ms"
NOT_BEFORE: Final = "touchstone-not-before-ms"
REDRIVEN: Final = "touchstone-redriven"
"""There, with the value ``1``, on a record that an operator sent again; it stays until the upload ends."""

NULLS: Final = "touchstone-null-headers"
"""
Which of the original headers have no value, counted from 0 and separated by commas; absent where all have one.

In the retry topic their value is empty: Kafka allows null, but not every client library can write it.
"""

HEADERS: Final = frozenset({ORIGIN, ATTEMPTS, FIRST_FAILED_AT, NOT_BEFORE, REDRIVEN, NULLS})

_ORIGIN: Final = re.compile(r"(\d{1,10}):(\d{1,19}):(\d{0,19}):([A-Za-z0-9._-]{1,249})")
_NUMBER: Final = re.compile(r"\d{1,19}")

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class RetryMarks:
    """
    Where the record lay first, how often its upload failed so far, since when, and when it may be tried again.

    Times are milliseconds since the epoch; ``timestamp_ms`` is the first record's own, None where it had none.
    ``redriven``: an operator sent it again.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    attempts: int
    first_failed_at_ms: int
    not_before_ms: int
    redriven: bool = False


class RetryMarksInvalid(ValueError):
    """
    A record of a retry topic does not say what it must; the message says which header, what was found, what expected.
    """


def with_marks(headers: Headers, marks: RetryMarks) -> tuple[tuple[str, bytes], ...]:
    """
    The headers of a record for a retry topic: those that it had first, and ours behind them.
    """
    original = without_marks(headers)
    nulls = ",".join(str(at) for at, (_, value) in enumerate(original) if value is None)
    told = ((NULLS, nulls.encode()),) if nulls else ()
    return (*((name, value or b"") for name, value in original), *write_marks(marks), *told)


def write_marks(marks: RetryMarks) -> tuple[tuple[str, bytes], ...]:
    """
    The four headers that every such record has, and the one of those that were redriven.
    """
    redriven = ((REDRIVEN, b"1"),) if marks.redriven else ()
    timestamp = "" if marks.timestamp_ms is None else str(marks.timestamp_ms)
    return (
        (ORIGIN, f"{marks.partition}:{marks.offset}:{timestamp}:{marks.topic}".encode()),
        (ATTEMPTS, str(marks.attempts).encode()),
        (FIRST_FAILED_AT, str(marks.first_failed_at_ms).encode()),
        (NOT_BEFORE, str(marks.not_before_ms).encode()),
        *redriven,
    )


def read_marks(headers: Headers) -> RetryMarks:
    """
    What the headers of a record of a retry topic say. Raises ``RetryMarksInvalid``.
    """
    found = {name: (value or b"").decode("ascii", "replace") for name, value in headers if name in HEADERS}
    origin = _ORIGIN.fullmatch(found.get(ORIGIN, ""))
    if origin is None:
        raise RetryMarksInvalid(
            f"header {ORIGIN}: found {_found(found, ORIGIN)}, expected PARTITION:OFFSET:TIMESTAMP:TOPIC"
        )
    partition, offset, timestamp, topic = origin.groups()
    return RetryMarks(
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        timestamp_ms=int(timestamp) if timestamp else None,
        attempts=_number(found, ATTEMPTS),
        first_failed_at_ms=_number(found, FIRST_FAILED_AT),
        not_before_ms=_number(found, NOT_BEFORE),
        redriven=found.get(REDRIVEN) == "1",
    )


def without_marks(headers: Headers) -> tuple[tuple[str, bytes | None], ...]:
    """
    The headers that the first record had, in their order.
    """
    told = next((value or b"" for name, value in headers if name == NULLS), b"").decode("ascii", "replace")
    nulls = set(told.split(","))
    original = (header for header in headers if header[0] not in HEADERS)
    return tuple((name, None if str(at) in nulls else value) for at, (name, value) in enumerate(original))


def _number(found: dict[str, str], name: str) -> int:
    text = found.get(name, "")
    if _NUMBER.fullmatch(text) is None:
        raise RetryMarksInvalid(f"header {name}: found {_found(found, name)}, expected a whole number")
    return int(text)


def _found(found: dict[str, str], name: str) -> str:
    return found_text(found[name]) if name in found else "nothing"
