"""
An event out of its record, whichever envelope it came in: binary, structured or bare, see ``schemas.envelope``.

What becomes of one that cannot be read is for the reader of each kind: uploads in ``intake.py``, others in
``worker.operation.envelopes``.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import ValidationError, create_model

from schemas.envelope import (
    EnvelopeInvalid,
    EventAttributes,
    Trace,
    envelope_of,
    index_headers,
    read_bare,
    read_binary,
    read_structured,
    require_json,
    structured_data,
    trace_of,
)
from schemas.errors import ErrorCode
from schemas.explain import explain, found_text
from schemas.strict_json import JsonInvalid, parse_object
from schemas.verdict import Envelope
from schemas.wire import Incoming
from worker.domain import RawEvent
from worker.errors import EventUnreadable

M = TypeVar("M", bound=Incoming)


@dataclass(frozen=True, slots=True)
class Enveloped(Generic[M]):
    """
    An event: how it was wrapped, who it is, what it says, and the trace that it belongs to.
    """

    envelope: Envelope
    attributes: EventAttributes
    data: M
    trace: Trace


def unwrapped(raw: RawEvent, value: bytes, event_type: str, model: type[M]) -> Enveloped[M]:
    """
    The event of this type in a record; ``value`` is the record's, its size already looked at.

    Raises ``EventUnreadable``, and nothing else, whatever the record holds; the message holds none of its values.
    """
    try:
        index = index_headers(raw.headers)
        envelope = envelope_of(index)
        if envelope == "binary":
            attributes = read_binary(index)
            _require_type(attributes, event_type)  # before the value is looked at: other types may have other formats
            require_json(index.get("content-type"), where="header content-type")
            return Enveloped(envelope, attributes, _data(value, model), trace_of(index))
        document = parse_object(value)
        # A structured event whose producer could not set headers says so by its own version.
        if envelope == "bare" and "specversion" not in document:
            place, offset = raw.first_place
            attributes = read_bare(place.topic, place.number, offset, event_type=event_type)
            return Enveloped(envelope, attributes, model.model_validate_json(value), trace_of(index))
        attributes = read_structured(document)
        _require_type(attributes, event_type)
        require_json(document.get("datacontenttype"), where="datacontenttype")
        encoded = structured_data(document)
        data: M = _document_of(model).model_validate_json(value).data if encoded is None else _data(encoded, model)
        return Enveloped("structured", attributes, data, trace_of(index))
    except (EnvelopeInvalid, JsonInvalid) as invalid:
        raise EventUnreadable(ErrorCode.EVENT_INVALID, str(invalid)) from None
    except ValidationError as invalid:
        raise EventUnreadable(ErrorCode.EVENT_INVALID, explain(invalid)) from None


def _data(value: bytes, model: type[M]) -> M:
    parse_object(value)
    return model.model_validate_json(value)


@cache
def _document_of(model: type[Incoming]) -> Any:  # noqa: ANN401 - a model that is made here, with this field
    """
    A structured event as pydantic reads it: its data alone.
    """
    return create_model(f"Structured{model.__name__}", __base__=Incoming, data=(model, ...))


def _require_type(attributes: EventAttributes, event_type: str) -> None:
    if attributes.type != event_type:
        raise EventUnreadable(
            ErrorCode.EVENT_TYPE_UNSUPPORTED, f"type: found {found_text(attributes.type)}, expected {event_type!r}"
        )
