"""
Trace headers of any bytes: they never cost an upload its verdict, and what comes out is always well formed.
"""

import re
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from tests.builders import MAX_EVENT_BYTES, a_raw_event
from tests.loop_rig import Worker
from tests.loop_world import VERDICTS, World
from tests.recorded_spans import SpanBook, a_trace
from worker.errors import EventUnreadable
from worker.flow.lines import Slot
from worker.flow.upload_spans import carried_by, received, released, trace_id_of
from worker.outcomes import Message
from worker.spans import UNTRACED
from worker.stages.intake import dead_letter_of, read_event, trace_of_record
from worker.stages.serialise import Route, to_message

ROUTE = Route("verdicts", "dead-letters", "urn:touchstone:worker:test")
WELL_FORMED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

hexes = st.text("0123456789abcdefABCDEFg", max_size=40)
nearly = st.builds("-".join, st.lists(hexes, min_size=1, max_size=5)).map(str.encode)
close = st.builds(
    lambda version, trace, span, flags, tail: f"{version}-{trace}-{span}-{flags}{tail}".encode(),
    st.sampled_from(["00", "01", "ff", "0g"]),
    st.sampled_from(["0" * 32, "0af7651916cd43dd8448eb211c80319c", "A" * 32, "ab" * 15]),
    st.sampled_from(["0" * 16, "b7ad6b7169203331"]),
    st.sampled_from(["00", "01", "ff", "", "1"]),
    st.sampled_from(["", "-", "-more", " ", "x"]),
)
parents = st.one_of(st.binary(max_size=1200), nearly, close)
states = st.one_of(
    st.binary(max_size=1200), st.lists(st.text(max_size=20), max_size=40).map(lambda m: ",".join(m).encode())
)
names = st.sampled_from(["traceparent", "TraceParent", "tracestate", "baggage", "b3"])
VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
headers = st.lists(st.tuples(names, st.one_of(st.none(), parents, states)), max_size=6).map(tuple)


def named(parent: str) -> tuple[tuple[str, bytes], ...]:
    """
    The headers of a producer that writes its ``traceparent`` so.
    """
    return (("traceparent", parent.encode()),)


@given(headers)
@example(named(VALID + "-01"))
@example(named(VALID + "-01 "))
@example(named(f"\t {VALID}-01\t"))
@example(named(VALID + "-00"))
@example(named(VALID + "-01-more"))
@example(named(f"01{VALID[2:]}-01-more"))
@example(named(f"ff{VALID[2:]}-01"))
def test_what_is_carried_is_well_formed(extra: tuple[tuple[str, bytes | None], ...]) -> None:
    """
    Whatever came: one well-formed traceparent goes out, of the incoming trace where that was valid, and no baggage.

    A span is recorded unless the producer chose that its trace is not.
    """
    book = SpanBook()
    raw = a_raw_event()
    raw = type(raw)(raw.partition, raw.offset, raw.key, raw.value, (*raw.headers, *extra))
    upload = read_event(raw, max_event_bytes=MAX_EVENT_BYTES)
    slot = Slot(raw, received(book.tracer, raw))
    outcome = dead_letter_of(raw, EventUnreadable(ErrorCode.EVENT_INVALID, "any"), worker_version="0", now_s=0.0)
    before = to_message(outcome, ROUTE)
    (after,) = released(slot, outcome, [before])
    carried = dict(carried_by(after))
    sampled = bool(int(carried["traceparent"][-2:], 16) & 1)
    begun_here = [span for span in book.spans if span.parent is None]

    assert upload.identity.trace == trace_of_record(raw) == carried_by(before)
    assert WELL_FORMED.fullmatch(carried["traceparent"].decode())
    assert int(sampled) == len(book.spans)
    assert (None if begun_here else trace_id_of(after)) == trace_id_of(before)
    assert "baggage" not in dict(after.headers)
    assert [] == book.open


@given(headers)
def test_without_tracing_nothing_is_changed(extra: tuple[tuple[str, bytes | None], ...]) -> None:
    """
    The message is the very one that was serialised, and asking for its trace never fails.
    """
    raw = a_raw_event()
    raw = type(raw)(raw.partition, raw.offset, raw.key, raw.value, (*raw.headers, *extra))
    outcome = dead_letter_of(raw, EventUnreadable(ErrorCode.EVENT_INVALID, "any"), worker_version="0", now_s=0.0)
    messages = [to_message(outcome, ROUTE)]
    trace_id = trace_id_of(messages[0])

    assert released(Slot(raw, received(UNTRACED, raw)), outcome, messages) is messages
    assert trace_id is None or re.fullmatch("[0-9a-f]{32}", trace_id)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(parents, states), min_size=1, max_size=8))
def test_malformed_traces_fail_no_upload(traces: list[tuple[bytes, bytes]]) -> None:
    """
    Through a whole traced worker every upload is judged, and no span is left open.
    """
    book = SpanBook()
    with World() as world:
        for number, (parent, state) in enumerate(traces):
            world.publish(
                f"upload-{number}", picture="the-same", trace=(("traceparent", parent), ("tracestate", state))
            )
        Worker(world, tracer=book.tracer).finish()
        carried = [dict(record.headers)["traceparent"] or b"" for record in world.kafka.records(VERDICTS)]

    assert {f"upload-{number}": ["judged"] for number in range(len(traces))} == world.ends()
    assert all(WELL_FORMED.fullmatch(one.decode()) for one in carried)
    assert [] == book.open


@given(st.integers(0, 2**64))
def test_a_valid_trace_is_kept(number: int) -> None:
    """
    The trace id and the vendor's state come out as they went in.
    """
    book = SpanBook()
    with book.tracer.start("process uploads", a_trace(number)) as span:
        pass
    message = Message("verdicts", None, b"", span.headers, int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
    sent, came = dict(span.headers), dict(a_trace(number))

    assert sent["tracestate"] == came["tracestate"]
    assert trace_id_of(message) == came["traceparent"].decode().split("-")[1]
