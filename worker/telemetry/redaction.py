"""
What becomes of a value where others read it, as in logs; what may be said of a text, ``worker.redaction`` knows.

A pure function; what is written where, is decided by its callers.
"""

from collections.abc import Mapping
from datetime import date
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from uuid import UUID

from worker.redaction import redact_text


def plain(value: object) -> object:
    """
    The value as None, bool, int, finite float, text, or a list or dict of these; never bytes, never a foreign ``repr``.

    Whatever is none of these (an event, a response, an array of pixels) is named by its type alone: its ``repr`` may
    hold what must not be logged.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if abs(number) < float("inf") else str(number)  # JSON knows neither NaN nor infinity
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{memoryview(value).nbytes} bytes>"
    return _plain_text(value)


def _plain_text(value: object) -> object:
    if isinstance(value, str | UUID | PurePath):
        return redact_text(str(value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    if isinstance(value, Mapping):
        return {redact_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"
