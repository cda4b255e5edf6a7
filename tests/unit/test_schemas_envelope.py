"""
Records as CloudEvents: what is recognised, what is refused, and what is written.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from schemas.envelope import (
    MAX_ID_CHARS,
    MAX_TRACE_BYTES,
    EnvelopeInvalid,
    EventAttributes,
    envelope_of,
    index_headers,
    read_bare,
    read_binary,
    read_structured,
    require_json,
    rfc3339,
    structured_data,
    trace_of,
    write_binary,
)
from tests.builders import TRACE, structured, upload_attributes, upload_data


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), "bare"),
        ((("content-type", b"application/json"), ("x-tenant", b"acme")), "bare"),
        ((("ce_id", b"1"),), "binary"),
        ((("ce_specversion", b"1.0"), ("content-type", b"application/json")), "binary"),
        ((("Content-Type", b"Application/CloudEvents+JSON; charset=utf-8"),), "structured"),
        ((("ce_id", b"1"), ("content-type", b"application/cloudevents+json")), "structured"),
        ((("ce_id", None),), "bare"),
    ],
)
def test_the_content_type_decides_and_then_the_headers(
    headers: tuple[tuple[str, bytes | None], ...], expected: str
) -> None:
    """
    As the Kafka binding says: a CloudEvents content type is structured mode, any other with attributes is binary.
    """
    assert envelope_of(index_headers(headers)) == expected


@pytest.mark.parametrize("format_of", [b"application/cloudevents+avro", b"application/cloudevents-batch+json"])
def test_another_event_format_is_refused_by_name(format_of: bytes) -> None:
    """
    A format that we do not read is no binary event either.
    """
    with pytest.raises(EnvelopeInvalid, match=r"content-type: found 'application/cloudevents.*expected"):
        envelope_of(index_headers([("content-type", format_of)]))


def test_what_is_written_is_read() -> None:
    """
    Attributes survive the way through headers, whatever the case of the names that a proxy made of them.
    """
    attributes = upload_attributes(subject=None)
    headers = [(name.upper(), value) for name, value in write_binary(attributes, TRACE)]
    index = index_headers(headers)

    assert attributes == read_binary(index)
    assert trace_of(index) == TRACE


def test_structured_attributes_are_read_like_binary_ones() -> None:
    """
    The same event in another mode has the same attributes.
    """
    expected = upload_attributes(subject=None, correlation_id=None)

    assert expected == read_structured(structured(upload_data()))


def test_a_bare_record_is_named_by_its_place() -> None:
    """
    The id comes from topic, partition and offset, the source from the topic.
    """
    attributes = read_bare("image-uploads", 3, 991, event_type="t")

    assert attributes == EventAttributes("36305161-add6-5730-9809-6511efb186fd", "kafka://image-uploads", "t")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"specversion": "0.3"}, "specversion: found '0.3', expected 1.0"),
        ({"specversion": None}, "specversion: found nothing, expected 1.0"),
        ({"id": None}, "id: found nothing, expected text"),
        ({"id": ""}, "id: found nothing"),
        ({"id": 7}, "id: found int, expected text"),
        ({"id": "x" * (MAX_ID_CHARS + 1)}, "id: found 257 characters, expected at most 256"),
        ({"source": "a\nb"}, "source: found a control character"),
        ({"source": "\ud800"}, "source: found a control character"),
        ({"type": None}, "type: found nothing"),
        ({"time": "yesterday"}, "time: found 'yesterday', expected a time as in"),
        ({"time": "2026-02-30T00:00:00Z"}, "time: found '2026-02-30"),
        ({"time": "2026-11-22T11:59:59"}, "time: found '2026-11-22T11:59:59'"),
        ({"time": "20261122T115959Z"}, "time: found"),
        ({"correlationid": "x" * 300}, "correlationid: found 300 characters"),
    ],
)
def test_attributes_that_are_none_are_refused(changed: dict[str, object], message: str) -> None:
    """
    The message names the attribute, what was found and what was expected.
    """
    with pytest.raises(EnvelopeInvalid) as caught:
        read_structured(structured({}, **changed))

    assert message in str(caught.value)


@pytest.mark.parametrize("missing", ["ce_specversion", "ce_id", "ce_source", "ce_type"])
def test_a_required_header_that_is_missing_is_named(missing: str) -> None:
    """
    Binary mode without id, source, type or version is no CloudEvent.
    """
    headers = [pair for pair in write_binary(upload_attributes()) if pair[0] != missing]

    with pytest.raises(EnvelopeInvalid, match=f"header {missing}: found nothing"):
        read_binary(index_headers(headers))


def test_a_repeated_attribute_is_refused_only_if_it_says_another_thing() -> None:
    """
    A mirror may repeat a header; two different ids are two different events.
    """
    index = index_headers([("ce_id", b"1"), ("ce_id", b"1"), ("ce_ID", b"1")])

    assert index == {"ce_id": b"1"}
    with pytest.raises(EnvelopeInvalid, match="header 'ce_id': found twice with different values"):
        index_headers([("ce_id", b"1"), ("CE_ID", b"2")])


def test_headers_that_are_no_text_are_refused() -> None:
    """
    Attributes are UTF-8; headers that are none of ours may be anything.
    """
    headers = [*write_binary(upload_attributes()), ("x-binary", b"\xff")]

    assert read_binary(index_headers(headers)).id == "01J9Z5-upload-8843"
    with pytest.raises(EnvelopeInvalid, match="not UTF-8"):
        read_binary(index_headers([("ce_id", b"\xff"), *headers[2:]]))


@pytest.mark.parametrize("content_type", [None, b"application/json; charset=utf-8", b"TEXT/JSON", "application/x+json"])
def test_data_is_json_unless_it_says_otherwise(content_type: object) -> None:
    """
    No content type means JSON.
    """
    require_json(content_type, where="content-type")

    with pytest.raises(EnvelopeInvalid, match="content-type: found 'application/avro', expected application/json"):
        require_json(b"application/avro", where="content-type")


def test_structured_data_may_be_base64() -> None:
    """
    ``data_base64`` holds the bytes; beside ``data`` or damaged it is refused.
    """
    assert structured_data({"data": {}}) is None
    assert structured_data({"data_base64": "e30="}) == b"{}"
    for document in ({"data_base64": "e30=", "data": {}}, {"data_base64": "e3="}, {"data_base64": "ä"}):
        with pytest.raises(EnvelopeInvalid, match="data_base64"):
            structured_data(document)


def test_of_a_repeated_trace_header_the_last_counts_and_a_huge_one_is_dropped() -> None:
    """
    Tracing agents append; a producer cannot make our messages large with a trace.
    """
    index = index_headers([("traceparent", b"a"), ("TraceParent", b"b"), ("tracestate", b"x" * (MAX_TRACE_BYTES + 1))])

    assert trace_of(index) == (("traceparent", b"b"),)


def test_our_times_are_in_utc() -> None:
    """
    RFC 3339 with a Z, with microseconds where there are any.
    """
    cet = timezone(timedelta(hours=1))

    assert rfc3339(datetime(2026, 11, 22, 13, tzinfo=cet)) == "2026-11-22T12:00:00Z"
    assert rfc3339(datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)) == "2026-11-22T12:00:00.250000Z"
