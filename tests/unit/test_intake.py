"""
Records to uploads, or to dead letters that say why not.
"""

import json
from base64 import b64encode
from dataclasses import replace

import pytest

from schemas.envelope import write_binary
from schemas.errors import ErrorClass, ErrorCode, Stage
from tests.builders import (
    MAX_EVENT_BYTES,
    NOON,
    NOON_S,
    REFS,
    TRACE,
    a_raw_event,
    as_json,
    structured,
    upload_attributes,
    upload_data,
)
from worker.domain import RawEvent
from worker.errors import EventUnreadable
from worker.outcomes import DeadLettered
from worker.stages.intake import MAX_KEY_BYTES, dead_letter_of, read_event
from worker.stages.serialise import Route, max_dead_letter_bytes, to_message


def _refused(raw: RawEvent, *, max_event_bytes: int = MAX_EVENT_BYTES) -> EventUnreadable:
    with pytest.raises(EventUnreadable) as caught:
        read_event(raw, max_event_bytes=max_event_bytes)
    return caught.value


def _dead(raw: RawEvent, *, keep_bytes: int = MAX_EVENT_BYTES) -> DeadLettered:
    unreadable = EventUnreadable(ErrorCode.EVENT_INVALID, "why")
    return dead_letter_of(raw, unreadable, worker_version="0.1.0", now_s=NOON_S, keep_bytes=keep_bytes)


@pytest.mark.parametrize("kind", REFS)
@pytest.mark.parametrize("envelope", ["binary", "structured", "bare"])
def test_each_kind_of_reference_is_read_in_each_envelope(kind: str, envelope: str) -> None:
    """
    What the producer wrote is in the upload, and the envelope is remembered.
    """
    data = upload_data(kind)
    upload = read_event(a_raw_event(data, envelope=envelope), max_event_bytes=MAX_EVENT_BYTES)

    assert upload.identity.envelope == envelope
    assert upload.data.image.ref.model_dump() == data["image"]["ref"]
    assert upload.identity.trace == (TRACE if envelope != "bare" else ())
    assert upload.key == b"acme|post-8843"


def test_an_upload_without_a_key_is_ordered_by_its_content_id() -> None:
    """
    The verdict needs a key, or one content's verdicts would be spread over partitions.
    """
    upload = read_event(a_raw_event(key=None), max_event_bytes=MAX_EVENT_BYTES)

    assert upload.key == b"post-8843"


def test_the_identity_comes_from_the_envelope() -> None:
    """
    Id, source, time and correlation are the producer's own.
    """
    identity = read_event(a_raw_event(), max_event_bytes=MAX_EVENT_BYTES).identity
    sent = upload_attributes()

    assert (sent.id, sent.source, sent.time) == (identity.id, identity.source, identity.time)
    assert sent.correlation_id == identity.correlation_id


def test_a_structured_event_needs_no_header() -> None:
    """
    A producer that cannot set headers sends a structured event all the same, its data as JSON or as base64.
    """
    document = structured(upload_data("s3"))
    encoded = {**document, "data_base64": b64encode(as_json(document["data"])).decode()}
    del encoded["data"]

    for one in (document, encoded):
        upload = read_event(a_raw_event(one, envelope="bare"), max_event_bytes=MAX_EVENT_BYTES)
        assert (upload.identity.envelope, upload.identity.id) == ("structured", "01J9Z5-upload-8843")
        assert upload.data.image.ref.kind == "s3"


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_is_empty(value: bytes | None) -> None:
    """
    A tombstone is no upload, whatever its headers say.
    """
    assert _refused(replace(a_raw_event(), value=value)).code is ErrorCode.EVENT_EMPTY


def test_a_record_that_is_too_large_is_not_looked_into() -> None:
    """
    The limit is on the value; a key that no message could carry is too large as well.
    """
    raw = a_raw_event()
    by_value = _refused(raw, max_event_bytes=100)
    by_key = _refused(replace(raw, key=b"k" * (MAX_KEY_BYTES + 1)))

    assert (by_value.code, by_key.code) == (ErrorCode.EVENT_TOO_LARGE, ErrorCode.EVENT_TOO_LARGE)
    assert by_value.detail == f"value: found {len(raw.value or b'')} bytes, expected at most 100"
    assert by_key.detail == "key: found 4097 bytes, expected at most 4096"


@pytest.mark.parametrize("envelope", ["binary", "structured"])
def test_another_type_is_unsupported_before_its_data_is_looked_at(envelope: str) -> None:
    """
    The type is named; its data may be anything, in any format.
    """
    headers = write_binary(upload_attributes(type="image.deleted.v1"))[:-1]
    raw = a_raw_event(b"\x00avro", headers=(*headers, ("content-type", b"application/avro")))
    if envelope == "structured":
        raw = a_raw_event(structured({}, type="image.deleted.v1"), envelope="bare")
    unreadable = _refused(raw)

    assert unreadable.code is ErrorCode.EVENT_TYPE_UNSUPPORTED
    assert unreadable.detail == "type: found 'image.deleted.v1', expected 'image.uploaded.v1'"


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"nul", "found no JSON (Expecting value: line 1 column 1 (char 0)), expected a JSON object"),
        (b"[]", "found JSON that is a list, expected an object"),
        (b"7", "found JSON that is a number, expected an object"),
        (b"\xff\xfe", "found bytes that are not UTF-8 at position 0, expected JSON"),
        (b"\xef\xbb\xbf{}", "found no JSON"),
        (b"\0\0\0\0\x2a{}", "found no JSON but a schema registry's prefix (schema 42); send plain JSON"),
        (b'{"content_id": "a", "content_id": "b"}', "content_id: found twice in one object, expected each name once"),
        (b'{"\\u0061": 1, "a": 2}', "a: found twice"),
        (b'{"x": {"Jane Doe": 1, "Jane Doe": 2}}', "*: found twice"),
        (b'{"x": NaN}', "found NaN, expected a number that JSON can hold"),
        (b'{"x": -Infinity}', "found -Infinity"),
        (b'{"x": 1' + b"0" * 5000 + b"}", "found an integer of thousands of digits"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}", "recursion limit exceeded"),
        (b'{"content_id": "\\ud800"}', "found no JSON (unexpected end of hex escape"),
    ],
)
def test_what_is_no_json_object_is_refused(value: bytes, detail: str) -> None:
    """
    So is what two parsers would read in two ways.
    """
    unreadable = _refused(a_raw_event(value))

    assert unreadable.code is ErrorCode.EVENT_INVALID
    assert detail in unreadable.detail


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"content_id": None}, "content_id: found null, expected a valid string"),
        ({"content_id": "a\nb"}, "content_id: found text of 3 characters, expected text that matches "),
        (
            {"content_id": "x" * 300},
            "content_id: found text of 300 characters, expected text of at most 256",
        ),
        ({"revision": "3"}, "revision: found '3', expected a valid integer"),
        ({"revision": -1}, "revision: found -1, expected greater than or equal to 0"),
        ({"image": {}}, "image.ref: found nothing, expected a value"),
        ({"image": {"ref": {}}}, "image.ref.kind: found nothing, expected the kind of the reference"),
        ({"image": {"ref": {"kind": "gcs"}}}, "image.ref.kind: found 'gcs', expected one of 'inline', 'https', 's3'"),
        ({"image": {"ref": {"kind": "file"}}}, "image.ref.file.path: found nothing, expected a value"),
        ({"image": [], "content_id": 1}, "content_id: found a number, expected a valid string (and 1 more)"),
        ({"context": {"surface": "a b"}}, "context.surface: found 'a b', expected text that matches "),
        ({"context": {"created_at": "noon"}}, "context.created_at: found 'noon', expected a valid datetime"),
        ({"declared": {"ai_disclosed": "yes"}}, "declared.ai_disclosed: found 'yes', expected a valid boolean"),
        ({"attributes": {"Jane Doe": 1}}, "attributes.*: found a number, expected a valid string"),
        ({"attributes": {"surface": 1}}, "attributes.surface: found a number, expected a valid string"),
        ({"attributes": {"a": "x" * 5000}}, "attributes: found 5008 bytes as JSON, expected at most 4096"),
    ],
)
def test_a_detail_names_field_finding_and_expectation(changed: dict[str, object], detail: str) -> None:
    """
    So that a producer's engineer need not read our source.
    """
    unreadable = _refused(a_raw_event(upload_data("https", **changed)))

    assert unreadable.code is ErrorCode.EVENT_INVALID
    assert unreadable.detail.startswith(detail)


@pytest.mark.parametrize(
    "changed",
    [
        {"image": {"ref": {"kind": "inline", "base64": ["SECRET"]}}},
        {"image": {"ref": {"kind": "inline", "base64": "SECRET" * 60_000}}},
        {"image": {"ref": {"kind": "https", "url": "gopher://SECRET?SECRET"}}},
        {"image": {"ref": {"kind": "https", "url": "https://cdn.example/?sig=SECRET" + "x" * 5000}}},
        {"image": {"ref": {"kind": "s3", "bucket": "SECRET", "key": "SECRET"}}},
        {"attributes": {"a": "SECRET" * 1000}},
        {"attributes": {"kind": ["SECRET"]}},
        {"tenant_id": "SECRET" * 100},
        {"content_id": {"SECRET": "SECRET"}},
    ],
)
def test_a_detail_never_repeats_user_data(changed: dict[str, object]) -> None:
    """
    No base64, no addresses, no keys, no attributes: details go into logs.
    """
    unreadable = _refused(a_raw_event(upload_data("https", **changed)))

    assert "SECRET" not in unreadable.detail
    assert len(unreadable.detail) <= 512


def test_a_dead_letter_says_why_and_keeps_everything() -> None:
    """
    Code, class, stage and detail; the record's bytes, its headers in order with repeats and nulls, its place and time.
    """
    raw = a_raw_event(b"\xff\0", headers=(("a", b"\xfe"), ("a", None), ("ce_id", b"e1"), *TRACE))
    outcome = dead_letter_of(raw, _refused(raw), worker_version="0.1.0", now_s=NOON_S)
    letter = outcome.dead_letter
    original = letter.original

    assert (letter.error.code, letter.error.error_class, letter.error.stage) == (
        ErrorCode.EVENT_INVALID, ErrorClass.PERMANENT, Stage.PARSE,
    )  # fmt: skip
    assert (original.topic, original.partition, original.offset) == ("image-uploads", 3, 991)
    assert (original.key_bytes(), original.value_bytes(), original.header_items()) == (raw.key, raw.value, raw.headers)
    assert (original.timestamp_ms, letter.failed_at, letter.worker) == (raw.timestamp_ms, NOON, "0.1.0")
    assert (original.value_byte_length, original.truncated) == (2, False)
    assert (outcome.key, outcome.trace) == (raw.key, TRACE)


def test_a_record_that_no_client_reads_is_said_not_to_be_whole() -> None:
    """
    Though everything in it is an event: what is wrong with it is the detail, and the letter says where it lies.
    """
    raw = replace(a_raw_event(upload_data()), fault="header name: found b'\\xff', expected text", whole=False)
    letter = dead_letter_of(raw, _refused(raw), worker_version="0.1.0", now_s=NOON_S).dead_letter

    assert (ErrorCode.EVENT_INVALID, raw.fault) == (letter.error.code, letter.error.detail)
    assert letter.original.truncated
    assert letter.original.value_bytes() == raw.value


@pytest.mark.parametrize(
    ("raw", "event_id", "content_id"),
    [
        (a_raw_event(upload_data(revision="3")), "01J9Z5-upload-8843", "post-8843"),
        (a_raw_event(structured(upload_data(image={})), envelope="bare"), "01J9Z5-upload-8843", "post-8843"),
        (a_raw_event(upload_data(image={}), envelope="bare"), None, "post-8843"),
        (a_raw_event(b"\xff"), "01J9Z5-upload-8843", None),
        (a_raw_event(b'{"content_id": "\\ud800"}', envelope="bare"), None, None),
        (a_raw_event({"content_id": "x" * 300}, envelope="bare"), None, None),
        (a_raw_event(b"[" * 100_000, envelope="bare"), None, None),
        (a_raw_event({"specversion": "1.0", "id": 7, "data": []}, envelope="bare"), None, None),
    ],
    ids=range(8),
)
def test_a_dead_letter_names_event_and_content_where_it_can(
    raw: RawEvent, event_id: str | None, content_id: str | None
) -> None:
    """
    An operator finds the upload without decoding base64.
    """
    letter = _dead(raw).dead_letter

    assert (letter.event_id, letter.content_id) == (event_id, content_id)


@pytest.mark.parametrize(
    "raw",
    [
        a_raw_event(b"\xff" * 100_000),
        a_raw_event(b"\xff", headers=tuple(("h\0" * 20, b"\xff" * 500) for _ in range(200))),
        a_raw_event(b"\xff", key=b"\xff" * 100_000),
        a_raw_event(b"\xff" * 100_000, headers=(("\0" * 20_000, None),) * 3),
    ],
    ids=["value", "headers", "key", "names"],
)
def test_a_dead_letter_is_never_too_large_to_publish(raw: RawEvent) -> None:
    """
    What does not fit is left behind and said to be; a dead letter that no broker takes would stop the worker for ever.
    """
    outcome = _dead(raw, keep_bytes=50_000)
    message = to_message(outcome, Route("v", "d", "urn:x"))
    original = json.loads(message.value)["original"]

    assert original["truncated"] is True
    assert original["value_byte_length"] == len(raw.value or b"")
    size = (
        len(message.value)
        + len(message.key or b"")
        + sum(len(name) + len(value or b"") for name, value in message.headers)
    )
    assert size <= max_dead_letter_bytes(50_000)
    assert (raw.value or b"").startswith(outcome.dead_letter.original.value_bytes() or b"")
