"""
The first stage: a record of the upload topic becomes an upload, or a dead letter that says why it could not.

Pure functions. How an event is got out of its record is in ``enveloped.py``, for events of every kind.
"""

import hashlib
import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Final

from schemas import SCHEMA_VERSION
from schemas.dead_letter import DeadLetterError, ImageDeadLetterV1, Original, OriginalHeader
from schemas.envelope import trace_of
from schemas.errors import ErrorCode, Stage, class_of
from schemas.strict_json import JsonObject
from schemas.uploaded import TYPE, ImageUploadedV1
from worker.domain import EventIdentity, RawEvent, Upload
from worker.errors import EventUnreadable
from worker.outcomes import DeadLettered
from worker.stages.enveloped import unwrapped

MAX_KEY_BYTES: Final = 4096
"""A longer key would make every message about the upload too large to publish."""

KEEP_BYTES: Final = 1_048_576 + 65_536
"""The largest record that a broker accepts by default, with room for what stands around its headers in JSON."""

_HEADER_OVERHEAD_BYTES: Final = 64
_MAX_SALVAGED_CHARS: Final = 256


def read_event(raw: RawEvent, *, max_event_bytes: int) -> Upload:
    """
    The upload event in a record.

    Raises ``EventUnreadable``, and nothing else, whatever the record holds.
    """
    if raw.fault is not None:
        raise EventUnreadable(ErrorCode.EVENT_INVALID, raw.fault)
    event = unwrapped(raw, _value_of(raw, max_event_bytes), TYPE, ImageUploadedV1)
    attributes = event.attributes
    identity = EventIdentity(
        id=attributes.id,
        source=attributes.source,
        time=attributes.time,
        envelope=event.envelope,
        correlation_id=attributes.correlation_id,
        trace=event.trace,
    )
    return Upload(raw, identity, event.data)


def dead_letter_of(
    raw: RawEvent, unreadable: EventUnreadable, *, worker_version: str, now_s: float, keep_bytes: int = KEEP_BYTES
) -> DeadLettered:
    """
    The record as a dead letter: whole when key, headers and value are together within ``keep_bytes``.

    ``now_s`` is in seconds since the epoch. Of a larger record the end is left behind in the upload topic: a dead
    letter that no broker accepts would stop the worker at this record for ever.
    """
    event_id, content_id = _salvaged(raw)
    error = DeadLetterError(
        code=unreadable.code,
        error_class=class_of(unreadable.code),
        # Whatever the code: what is no event was never more than read.
        stage=Stage.PARSE,
        detail=unreadable.detail,
    )
    letter = ImageDeadLetterV1(
        error=error,
        original=original_of(raw, keep_bytes),
        event_id=event_id,
        content_id=content_id,
        failed_at=datetime.fromtimestamp(now_s, UTC),
        schema_version=SCHEMA_VERSION,
        worker=worker_version,
    )
    key = raw.key if raw.key is not None and len(raw.key) <= MAX_KEY_BYTES else None
    return DeadLettered(key, letter, trace_of_record(raw))


def trace_of_record(raw: RawEvent) -> tuple[tuple[str, bytes], ...]:
    """
    The W3C trace headers of a record, also of one that is no upload event.
    """
    return trace_of({name.lower(): value for name, value in raw.headers if value is not None})


def _value_of(raw: RawEvent, max_event_bytes: int) -> bytes:
    if not raw.value:
        raise EventUnreadable(ErrorCode.EVENT_EMPTY, "value: found nothing, expected an upload event as JSON")
    if len(raw.value) > max_event_bytes:
        raise EventUnreadable(
            ErrorCode.EVENT_TOO_LARGE, f"value: found {len(raw.value)} bytes, expected at most {max_event_bytes}"
        )
    if raw.key is not None and len(raw.key) > MAX_KEY_BYTES:
        raise EventUnreadable(
            ErrorCode.EVENT_TOO_LARGE, f"key: found {len(raw.key)} bytes, expected at most {MAX_KEY_BYTES}"
        )
    return raw.value


def original_of(raw: RawEvent, keep_bytes: int) -> Original:
    """
    The record as it first lay in the upload topic, as much of it as goes into ``keep_bytes``.
    """
    room = keep_bytes
    key = raw.key if raw.key is None or len(raw.key) <= room else None
    room -= len(key or b"")
    headers = []
    for name, value in raw.headers:
        room -= len(json.dumps(name)) + len(value or b"") + _HEADER_OVERHEAD_BYTES
        if room < 0:
            break
        headers.append(OriginalHeader(name=name, value_base64=_base64(value)))
    kept = None if raw.value is None else raw.value[: max(room, 0)]
    place, offset = raw.first_place
    return Original(
        topic=place.topic,
        partition=place.number,
        offset=offset,
        timestamp_ms=raw.first_timestamp_ms,
        key_base64=_base64(key),
        value_base64=_base64(kept),
        headers=tuple(headers),
        value_byte_length=None if raw.value is None else len(raw.value),
        value_sha256=None if raw.value is None else hashlib.sha256(raw.value).hexdigest(),
        truncated=not raw.whole or key != raw.key or len(headers) != len(raw.headers) or kept != raw.value,
    )


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")


def _salvaged(raw: RawEvent) -> tuple[str | None, str | None]:
    document = _tolerant_document(raw.value)
    event_id: object = document.get("id") if "specversion" in document else None
    for name, value in raw.headers:
        if name.lower() == "ce_id" and value:
            event_id = value.decode("utf-8", "replace")
    data = document.get("data") if "specversion" in document else document
    content_id = data.get("content_id") if isinstance(data, dict) else None
    return _presentable(event_id), _presentable(content_id)


def _presentable(found: object) -> str | None:
    if not isinstance(found, str) or not 0 < len(found) <= _MAX_SALVAGED_CHARS:
        return None
    return found if found.isprintable() else None


def _tolerant_document(value: bytes | None) -> JsonObject:
    if value is None or len(value) > KEEP_BYTES:
        return {}
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
