"""
CloudEvents 1.0 over Kafka: a record's headers and value to the attributes of an event, and back to headers.

Binary mode (``ce_`` headers, data as the value), structured mode (one JSON object with attributes and data) and,
because not every producer has an envelope, bare JSON. No client library and no knowledge of what the data says.
Source: CloudEvents 1.0.2, kafka-protocol-binding.md and json-format.md.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from schemas import SCHEMA_VERSION
from schemas.explain import found_text
from schemas.identity import bare_event_id
from schemas.verdict import Envelope

SPECVERSION: Final = "1.0"
JSON: Final = "application/json"
STRUCTURED_JSON: Final = "application/cloudevents+json"
MAX_ID_CHARS: Final = 256
MAX_SOURCE_CHARS: Final = 512
MAX_TRACE_BYTES: Final = 1024
"""A longer trace header is not carried on; W3C Trace Context asks for 512 at least."""

Headers = Sequence[tuple[str, bytes | None]]
Trace = tuple[tuple[str, bytes], ...]

_TRACE_NAMES: Final = ("traceparent", "tracestate")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class EnvelopeInvalid(ValueError):
    """
    The record claims to be a CloudEvent and is none; the message names attribute, finding and expectation.
    """


@dataclass(frozen=True, slots=True)
class EventAttributes:
    """
    The attributes of one event, as far as Touchstone reads or writes them, by the names that CloudEvents gives them.
    """

    id: str
    source: str
    type: str
    time: datetime | None = None
    subject: str | None = None
    data_schema: str | None = None
    partition_key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    sampled_rate: int | None = None
    """CloudEvents' extension ``sampledrate``: this event stands for so many; None where all are sent."""


def index_headers(headers: Headers) -> dict[str, bytes]:
    """
    The headers that matter to an envelope or a trace, by lower-case name; null values count as absent.

    Names are matched whatever their case, as the SDKs do. Kafka allows repeats: an attribute that is repeated with
    another value is ambiguous and raises ``EnvelopeInvalid``; of a repeated trace header the last counts, as tracing
    agents append.
    """
    index: dict[str, bytes] = {}
    for spelling, value in headers:
        name = spelling.lower()
        if value is None:
            continue
        if name.startswith("ce_") or name == "content-type":
            if index.setdefault(name, value) != value:
                raise EnvelopeInvalid(f"header {_short(name)}: found twice with different values, expected once")
        elif name in _TRACE_NAMES:
            index[name] = value
    return index


def envelope_of(index: Mapping[str, bytes]) -> Envelope:
    """
    How the event is wrapped: the content type decides, then the presence of any attribute header.

    Raises ``EnvelopeInvalid`` for a CloudEvents format other than JSON.
    """
    content_type = _media_type(index.get("content-type"))
    if content_type.startswith("application/cloudevents"):
        if content_type != STRUCTURED_JSON:
            raise EnvelopeInvalid(f"header content-type: found {_short(content_type)}, expected {STRUCTURED_JSON}")
        return "structured"
    if "ce_specversion" in index or any(name.startswith("ce_") for name in index):
        return "binary"
    return "bare"


def read_binary(index: Mapping[str, bytes]) -> EventAttributes:
    """
    The attributes that the headers carry.
    """
    try:
        found = {name: index[header].decode() for name, header in _READ_HEADERS if header in index}
    except UnicodeDecodeError:
        raise EnvelopeInvalid("headers ce_: found bytes that are not UTF-8, expected text") from None
    return _attributes(found, where="header ce_")


def read_structured(document: Mapping[str, object]) -> EventAttributes:
    """
    The attributes of a JSON object in the CloudEvents JSON format.
    """
    return _attributes(document, where="")


def read_bare(topic: str, partition: int, offset: int, *, event_type: str) -> EventAttributes:
    """
    The attributes of a record that has none: its id and source say where it lay.
    """
    return EventAttributes(id=str(bare_event_id(topic, partition, offset)), source=f"kafka://{topic}", type=event_type)


def require_json(content_type: object, *, where: str) -> None:
    """
    Raise ``EnvelopeInvalid`` unless the data is declared as JSON, or not declared at all, which means the same.
    """
    media_type = _media_type(content_type)
    if media_type and media_type not in (JSON, "text/json") and not media_type.endswith("+json"):
        raise EnvelopeInvalid(f"{where}: found {_short(media_type)}, expected {JSON}")


def structured_data(document: Mapping[str, object]) -> bytes | None:
    """
    The bytes in ``data_base64``, or None where the data stands in ``data`` as JSON.
    """
    encoded = document.get("data_base64")
    if encoded is None:
        return None
    if "data" in document:
        raise EnvelopeInvalid("data_base64: found beside data, expected one of the two")
    try:
        return b64decode(str(encoded), validate=True)
    except (Base64Error, ValueError):
        raise EnvelopeInvalid("data_base64: found text that is not base64, expected base64") from None


def trace_of(index: Mapping[str, bytes]) -> Trace:
    """
    The W3C trace headers of this hop, to be carried on as they are; what is no trace header's text is dropped.
    """
    return tuple((name, index[name]) for name in _TRACE_NAMES if _is_trace(index.get(name, b"")))


def write_binary(attributes: EventAttributes, trace: Trace = ()) -> tuple[tuple[str, bytes], ...]:
    """
    The headers of a message in binary mode with JSON data.
    """
    named = (
        ("ce_specversion", SPECVERSION),
        ("ce_id", attributes.id),
        ("ce_source", attributes.source),
        ("ce_type", attributes.type),
        ("ce_subject", attributes.subject),
        ("ce_time", rfc3339(attributes.time) if attributes.time else None),
        ("ce_dataschema", attributes.data_schema),
        ("ce_partitionkey", attributes.partition_key),
        ("ce_correlationid", attributes.correlation_id),
        ("ce_causationid", attributes.causation_id),
        ("ce_sampledrate", None if attributes.sampled_rate is None else str(attributes.sampled_rate)),
        ("content-type", JSON),
    )
    return tuple((name, text.encode()) for name, text in named if text) + trace


def schema_urn(event_type: str) -> str:
    """
    The ``dataschema`` of our events, which is also the ``$id`` of the exported JSON Schema.
    """
    return f"urn:touchstone:schema:{event_type}:{SCHEMA_VERSION}"


def rfc3339(time: datetime) -> str:
    """
    An aware time in UTC, as RFC 3339 writes it.
    """
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


_READ_HEADERS: Final = tuple(
    (name, f"ce_{name}") for name in ("specversion", "id", "source", "type", "time", "correlationid")
)


def _attributes(found: Mapping[str, object], *, where: str) -> EventAttributes:
    version = found.get("specversion")
    if version != SPECVERSION:
        raise EnvelopeInvalid(f"{where}specversion: found {_short(version)}, expected {SPECVERSION}")
    return EventAttributes(
        id=_required(found.get("id"), f"{where}id", MAX_ID_CHARS),
        source=_required(found.get("source"), f"{where}source", MAX_SOURCE_CHARS),
        type=_required(found.get("type"), f"{where}type", MAX_ID_CHARS),
        time=_time(found.get("time"), f"{where}time"),
        correlation_id=_text(found.get("correlationid"), f"{where}correlationid", MAX_ID_CHARS),
    )


def _required(value: object, name: str, limit: int) -> str:
    text = _text(value, name, limit)
    if text is None:
        raise EnvelopeInvalid(f"{name}: found nothing, expected text")
    return text


def _text(value: object, name: str, limit: int) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise EnvelopeInvalid(f"{name}: found {type(value).__name__}, expected text")
    if len(value) > limit:
        raise EnvelopeInvalid(f"{name}: found {len(value)} characters, expected at most {limit}")
    if _CONTROL.search(value):
        raise EnvelopeInvalid(f"{name}: found a control character, expected none")
    return value


def _time(value: object, name: str) -> datetime | None:
    text = _text(value, name, MAX_ID_CHARS)
    if text is None:
        return None
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass  # well formed, but no such time
    raise EnvelopeInvalid(f"{name}: found {_short(text)}, expected a time as in 2026-11-22T10:00:00Z")


def _media_type(value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text.partition(";")[0].strip().lower() if isinstance(text, str) else ""


def _is_trace(value: bytes) -> bool:
    return 0 < len(value) <= MAX_TRACE_BYTES and value.isascii() and value.decode().isprintable()


def _short(value: object) -> str:
    if value is None:
        return "nothing"
    return found_text(value) if isinstance(value, str) else type(value).__name__
