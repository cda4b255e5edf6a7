"""
Events beside the uploads, read from their records: deletions and feedback, in whichever envelope they came.

Uploads have their own reader in ``worker.stages.intake``, which makes dead letters of what it cannot read.
"""

from typing import Final, TypeVar

from schemas.errors import ErrorCode
from schemas.wire import Incoming
from worker.domain import RawEvent
from worker.errors import EventUnreadable
from worker.stages.enveloped import Enveloped, unwrapped

MAX_BYTES: Final = 65_536
"""The largest event that is parsed; 64 hashes and a long note take a tenth of it."""

M = TypeVar("M", bound=Incoming)


def read_enveloped(raw: RawEvent, event_type: str, model: type[M]) -> Enveloped[M]:
    """
    The event of this type in a record.

    Raises ``EventUnreadable``, and nothing else, whatever the record holds; the message holds none of its values.
    """
    if not raw.value:
        raise EventUnreadable(ErrorCode.EVENT_EMPTY, f"value: found nothing, expected {event_type} as JSON")
    if len(raw.value) > MAX_BYTES:
        raise EventUnreadable(
            ErrorCode.EVENT_TOO_LARGE, f"value: found {len(raw.value)} bytes, expected at most {MAX_BYTES}"
        )
    return unwrapped(raw, raw.value, event_type, model)
