"""
Laws of the contract, over everything that a topic may hold.
"""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import MAX_ID_CHARS, MAX_SOURCE_CHARS, index_headers, read_binary, trace_of, write_binary
from schemas.errors import ErrorCode
from schemas.strict_json import JsonInvalid, parse_object
from tests.builders import (
    NOON_S,
    REFS,
    a_failure_ruling,
    a_judgement,
    a_raw_event,
    as_json,
    handled,
    structured,
    upload_attributes,
    upload_data,
    versions,
)
from tests.peers import assert_cloudevent, assert_valid
from worker.domain import RawEvent, Upload
from worker.errors import EventUnreadable, UploadFailed
from worker.stages.intake import dead_letter_of, read_event
from worker.stages.report import verdict_of_failure, verdict_of_judgement
from worker.stages.serialise import MAX_VERDICT_BYTES, Route, max_dead_letter_bytes, source_of, to_message

ROUTE = Route("verdicts", "dead-letters", source_of("touchstone"))
LIMIT = 4096

KNOWN_HEADERS = st.sampled_from([
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "CE_Id", "ce_correlationid", "content-type",
    "Content-Type", "traceparent", "tracestate",
])  # fmt: skip
HEADER_VALUES = st.none() | st.binary(max_size=40) | st.sampled_from([
    b"1.0", b"image.uploaded.v1", b"application/json", b"application/cloudevents+json", b"2026-11-22T12:00:00Z",
    b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59",
])  # fmt: skip
HEADERS = st.lists(st.tuples(KNOWN_HEADERS | st.text(max_size=20), HEADER_VALUES), max_size=12).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
LINE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@st.composite
def mutated_documents(draw: st.DrawFn) -> bytes:
    """
    An upload event, bare or structured, of which one part was replaced by anything or removed.
    """
    document: dict[str, Any] = upload_data(draw(st.sampled_from(sorted(REFS))))
    if draw(st.booleans()):
        document = structured(document)
    node: Any = document
    while True:
        name = draw(st.sampled_from(sorted(node)))
        if isinstance(node[name], dict) and node[name] and draw(st.booleans()):
            node = node[name]
            continue
        if draw(st.booleans()):
            node[name] = draw(JSON)
        else:
            del node[name]
        return json.dumps(document).encode()


RAW_EVENTS = st.builds(
    lambda value, headers, key, timestamp_ms: replace(
        a_raw_event(), value=value, headers=headers, key=key, timestamp_ms=timestamp_ms
    ),
    st.none() | st.binary(max_size=200) | mutated_documents() | JSON.map(lambda value: json.dumps(value).encode()),
    HEADERS | st.just(write_binary(upload_attributes())),
    st.none() | st.binary(max_size=40),
    st.none() | st.integers(-1, 2**53),
)


@given(RAW_EVENTS)
def test_whatever_lies_in_the_topic_ends_as_one_message(raw: RawEvent) -> None:
    """
    Any record is an upload, whose verdict is valid, or unreadable, and its dead letter gives back the same record.
    """
    try:
        upload = read_event(raw, max_event_bytes=LIMIT)
    except EventUnreadable as unreadable:
        _assert_kept(raw, unreadable)
    else:
        _assert_answered(upload)


def _assert_kept(raw: RawEvent, unreadable: EventUnreadable) -> None:
    outcome = dead_letter_of(raw, unreadable, worker_version="0.1.0", now_s=NOON_S)
    message = to_message(outcome, ROUTE)
    data = assert_valid("image.dead_letter.v1", message.value)
    # The SDK takes the key for text; what it says of other keys is not about us.
    event = assert_cloudevent(message.headers, message.value)
    original = type(outcome.dead_letter).model_validate_json(message.value).original

    assert (original.key_bytes(), original.value_bytes(), original.header_items()) == (raw.key, raw.value, raw.headers)
    assert (message.key, original.truncated) == (raw.key, False)
    assert (data["error"]["stage"], event.get_type()) == ("parse", "image.dead_letter.v1")


def _assert_answered(upload: Upload) -> None:
    issued = verdict_of_judgement(upload, a_judgement(), surface="post", handled=handled(), versions=versions())
    message = to_message(issued, ROUTE)
    event = assert_cloudevent(message.headers, message.value)
    data = assert_valid("image.verdict.v1", message.value)

    assert event.get_extension("causationid") == upload.identity.id == data["input"]["event_id"]
    assert message.key == upload.key


@given(mutated_documents())
def test_what_is_read_is_what_the_exported_schema_allows(value: bytes) -> None:
    """
    Nobody's event is read on one day and refused on another because it was never within the contract.
    """
    document = json.loads(value)
    try:
        read_event(a_raw_event(value, envelope="bare"), max_event_bytes=LIMIT)
    except EventUnreadable:
        return

    assert_valid("image.uploaded.v1", document.get("data", document))


@given(
    st.text(max_size=MAX_ID_CHARS), LINE.filter(lambda text: len(text) <= MAX_ID_CHARS), st.integers(0, 2**63 - 1),
    st.dictionaries(st.text(max_size=8), st.text(max_size=600), max_size=6), st.booleans(),
)  # fmt: skip
def test_every_upload_gets_a_valid_verdict_within_the_cap(
    event_id: str, content_id: str, revision: int, attributes: dict[str, str], fails: bool
) -> None:
    """
    Whatever its ids and attributes are, and whether it is judged or fails.
    """
    data = upload_data("https", content_id=content_id, revision=revision, attributes=attributes)
    document = structured(data, id=event_id or "e", source="ä" * MAX_SOURCE_CHARS)
    try:
        upload = read_event(a_raw_event(as_json(document), envelope="bare", key=None), max_event_bytes=100_000)
    except EventUnreadable:
        return
    failure = UploadFailed(ErrorCode.FETCH_DENIED, "ä" * 600)
    if fails:
        issued = verdict_of_failure(
            upload, failure, ruling=a_failure_ruling(), handled=handled(facts=None), versions=versions()
        )
    else:
        issued = verdict_of_judgement(upload, a_judgement(), surface="post", handled=handled(), versions=versions())
    message = to_message(issued, ROUTE)
    assert_cloudevent(message.headers, message.value, message.key)
    verdict = assert_valid("image.verdict.v1", message.value)

    assert len(message.value) <= MAX_VERDICT_BYTES
    assert (verdict["content_id"], verdict["attributes"]) == (content_id, attributes)


@given(
    LINE.filter(lambda text: len(text) <= MAX_ID_CHARS),
    LINE.filter(lambda text: len(text) <= MAX_SOURCE_CHARS),
    st.none() | st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=OFFSETS),  # noqa: DTZ001 - Hypothesis wants bounds without a zone
)
def test_attributes_survive_the_way_through_headers(event_id: str, source: str, time: Any) -> None:  # noqa: ANN401 - what Hypothesis draws
    """
    Any id, source and time that CloudEvents allows.
    """
    attributes = upload_attributes(id=event_id, source=source, time=time, subject=None)
    index = index_headers(write_binary(attributes))

    assert attributes == read_binary(index)
    assert trace_of(index) == ()


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.data())
def test_json_is_read_like_python_reads_it_or_not_at_all(document: dict[str, Any], data: st.DataObject) -> None:
    """
    A document without NaN and infinities is read as it is; the same document with a name repeated is refused.
    """
    text = json.dumps(document)
    try:
        strict = json.loads(json.dumps(document, allow_nan=False))
    except ValueError:
        strict = None
    try:
        read = parse_object(text.encode())
    except JsonInvalid:
        read = None

    assert read == strict
    if document:
        name = json.dumps(data.draw(st.sampled_from(sorted(document))))
        try:
            parse_object(f"{text[:-1]},{name}:0}}".encode())
        except JsonInvalid as refused:
            assert str(refused)  # noqa: PT017 - the refusal is what is expected
        else:
            raise AssertionError(f"{name} stands twice and was read")


@given(st.integers(0, 3000), st.lists(st.tuples(st.text(max_size=40), st.none() | st.binary(max_size=300)), max_size=8))
def test_a_dead_letter_fits_its_topic(size: int, headers: list[tuple[str, bytes | None]]) -> None:
    """
    However a record divides its bytes, what is kept of it stays below what the topic was told to accept.
    """
    raw = replace(a_raw_event(), value=b"\xff" * size, headers=tuple(headers))
    unreadable = EventUnreadable(ErrorCode.EVENT_INVALID, "ä" * 600)
    keep_bytes = 1000
    outcome = dead_letter_of(raw, unreadable, worker_version="0.1.0", now_s=NOON_S, keep_bytes=keep_bytes)
    message = to_message(outcome, ROUTE)
    original = outcome.dead_letter.original

    assert len(message.value) + sum(len(value or b"") for _, value in message.headers) <= max_dead_letter_bytes(
        keep_bytes
    )
    assert original.truncated == (original.value_bytes() != raw.value or original.header_items() != raw.headers)
    assert raw.headers[: len(original.headers)] == original.header_items()
