"""
How a peer reads our messages: the CloudEvents SDK, and a JSON Schema validator that is not pydantic.

What a test gets back is what the peer saw. The exported files are read from disk, as a peer would.
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.v1 import kafka as first_generation
from jsonschema import Draft202012Validator

from schemas.export import COMMITTED, schema_file

REQUIRED_HEADERS: Final = {
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_dataschema",
    "content-type",
}


def assert_cloudevent(
    headers: Iterable[tuple[str, bytes | None]], value: bytes, key: bytes | None = None
) -> BaseCloudEvent:
    """
    The message as the CloudEvents SDK reads it, in both generations of its API; the data is the message's own JSON.
    """
    pairs = [(name, value) for name, value in headers if value is not None]
    named = dict(pairs)
    event = from_binary_event(KafkaMessage(headers=named, key=key, value=value))
    elder = first_generation.from_binary(first_generation.KafkaMessage(named, key, value))

    assert len(pairs) == len(named), "a header is repeated"
    assert set(named) >= REQUIRED_HEADERS
    assert event.get_specversion() == "1.0"
    assert event.get_data() == json.loads(value)
    assert (event.get_id(), event.get_source(), event.get_type()) == (elder["id"], elder["source"], elder["type"])
    assert event.get_dataschema() == f"urn:touchstone:schema:{event.get_type()}:1.1"
    assert event.get_datacontenttype() == "application/json"
    return event


def assert_valid(event_type: str, value: bytes | dict[str, Any]) -> dict[str, Any]:
    """
    The data, which the exported JSON Schema of this type allows, formats included.
    """
    data: dict[str, Any] = json.loads(value) if isinstance(value, bytes) else value
    problems = [f"{error.json_path}: {error.message}" for error in validator_of(event_type).iter_errors(data)]

    assert not problems
    return data


@cache
def validator_of(event_type: str) -> Draft202012Validator:
    """
    A validator of the exported schema; it checks formats, times and ids among them.
    """
    schema = json.loads((COMMITTED / schema_file(event_type)).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    checker = Draft202012Validator.FORMAT_CHECKER
    missing = {"date-time", "uuid"} - set(checker.checkers)

    assert not missing, f"jsonschema cannot check {missing} here; install jsonschema[format-nongpl]"
    return Draft202012Validator(schema, format_checker=checker)
