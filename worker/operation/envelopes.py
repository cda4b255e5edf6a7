"""
Events beside the uploads, read from their records: deletions and feedback, in whichever envelope they came.

Uploads have their own reader in ``worker.stages.intake``, which makes dead letters of what it cannot read.
"""

import json
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pydantic import ValidationError

from schemas.envelope import (
    EnvelopeInvalid,
    EventAttributes,
    envelope_of,
    index_headers,
    read_bare,
    read_binary,
    read_structured,
    require_json,
    structured_data,
)
from schemas.errors import ErrorCode
from schemas.explain import explain
from schemas.strict_json import JsonInvalid, JsonObject, parse_object
from schemas.wire import Incoming
from worker.domain import RawEvent
from worker.errors import EventUnreadable

MAX_BYTES: Final = 65_536
"""The largest event that is parsed; 64 hashes and a long note take a tenth of it."""

M = TypeVar("M", bound=Incoming)


@dataclass(frozen=True, slots=True)
class Enveloped(Generic[M]):
    """
    An event: who it is, and what it says.
    """

    attributes: EventAttributes
    data: M


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
    try:
        attributes, value = _unwrapped(raw, raw.value, event_type)
        return Enveloped(attributes, model.model_validate_json(value))
    except (EnvelopeInvalid, JsonInvalid) as invalid:
        raise EventUnreadable(ErrorCode.EVENT_INVALID, str(invalid)) from None
    except ValidationError as invalid:
        raise EventUnreadable(ErrorCode.EVENT_INVALID, explain(invalid)) from None


def _unwrapped(raw: RawEvent, value: bytes, event_type: str) -> tuple[EventAttributes, bytes]:
    index = index_headers(raw.headers)
    if envelope_of(index) == "binary":
        attributes = read_binary(index)
        _require_type(attributes, event_type)  # before the value is looked at: other types may have other formats
        require_json(index.get("content-type"), where="header content-type")
        parse_object(value)
        return attributes, value
    document = parse_object(value)
    if envelope_of(index) == "bare" and "specversion" not in document:
        partition = raw.partition
        return read_bare(partition.topic, partition.number, raw.offset, event_type=event_type), value
    attributes = read_structured(document)
    _require_type(attributes, event_type)
    require_json(document.get("datacontenttype"), where="datacontenttype")
    return attributes, _data(document)


def _data(document: JsonObject) -> bytes:
    encoded = structured_data(document)
    if encoded is not None:
        parse_object(encoded)
        return encoded
    # Written again, because the document was parsed whole; lone surrogates in it are refused by pydantic as usual.
    return json.dumps(document.get("data")).encode()


def _require_type(attributes: EventAttributes, event_type: str) -> None:
    if attributes.type != event_type:
        raise EventUnreadable(
            ErrorCode.EVENT_TYPE_UNSUPPORTED, f"type: found {attributes.type[:80]!r}, expected {event_type!r}"
        )
