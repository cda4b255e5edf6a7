"""
A trace through a whole worker: from the producer's header over the worker's spans to the verdict's header.
"""

import io
from typing import Literal

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tests.fakes_kafka import StoredRecord
from tests.loop_rig import Tuning, Worker
from tests.loop_world import DEAD_LETTERS, MISSING, VERDICTS, World
from tests.recorded_log import lines_of
from tests.recorded_spans import (
    TRACE_ID,
    UPLOAD_SPAN_ID,
    VENDOR_STATE,
    SpanBook,
    a_trace,
    attribute,
    links_of,
    parent_of,
    span_id_of,
    trace_id_of,
)

Delivery = Literal["at_least_once", "exactly_once"]
DELIVERIES: tuple[Delivery, ...] = ("at_least_once", "exactly_once")


def carried(record: StoredRecord) -> tuple[str, str, bool]:
    """
    Trace id and span id that a message carries, and whether the trace is recorded.
    """
    (header,) = [value for name, value in record.headers if name == "traceparent"]
    assert header is not None
    version, trace_id, span_id, flags = header.decode().split("-")
    assert version == "00"
    return trace_id, span_id, bool(int(flags, 16) & 1)


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_trace_leads_from_the_upload_to_its_verdict(world: World, delivery: Delivery) -> None:
    """
    Below the producer's span lies the processing, below that its steps and the sending, which the verdict names.
    """
    book = SpanBook()
    world.publish("one", partition=1, trace=a_trace())
    Worker(world, Tuning(delivery=delivery), tracer=book.tracer).finish()
    (record,) = world.kafka.records(VERDICTS)
    spans = book.of_trace(TRACE_ID)
    process, send = spans["process uploads"], spans["send verdicts"]
    steps = [spans[name] for name in ("fetch", "recall", "decode")]

    assert {"process uploads", "fetch", "recall", "decode", "send verdicts"} == set(spans)
    assert UPLOAD_SPAN_ID == parent_of(process)
    assert {span_id_of(process)} == {parent_of(span) for span in [*steps, send]}
    assert (TRACE_ID, span_id_of(send), True) == carried(record)
    assert [("tracestate", VENDOR_STATE)] == [header for header in record.headers if header[0] == "tracestate"]
    assert (SpanKind.CONSUMER, SpanKind.PRODUCER) == (process.kind, send.kind)
    assert [] == book.open


def test_what_a_span_says(world: World) -> None:
    """
    Where the upload lay, its event and how it ended; neither its content id nor where its bytes are.
    """
    book = SpanBook()
    world.publish("event-1", picture="holidays/4711.png", partition=2, trace=a_trace())
    world.publish_raw("mine", b'{"content_id": "user-4711"}')
    Worker(world, tracer=book.tracer).finish()
    process = book.of_trace(TRACE_ID)["process uploads"]
    told = "".join(span.to_json() for span in book.spans)

    expected = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "uploads",
        "messaging.destination.partition.id": "2",
        "messaging.kafka.offset": 0,
        "cloudevents.event_id": "event-1",
        "touchstone.status": "decided",
        "touchstone.cache": "miss",
    }
    assert expected == {**(process.attributes or {}), "touchstone.status": "decided"}
    assert attribute(process, "touchstone.status") in {"decided", "abstained"}
    assert "4711" not in told


def test_an_upload_without_a_trace_begins_one(world: World) -> None:
    """
    The processing is the root, and the verdict carries the new trace.
    """
    book = SpanBook()
    world.publish("one")
    Worker(world, tracer=book.tracer).finish()
    (process,) = book.named("process uploads")
    (send,) = book.named("send verdicts")
    (record,) = world.kafka.records(VERDICTS)

    assert process.parent is None
    assert (trace_id_of(process), span_id_of(send), True) == carried(record)


def test_batches_are_linked_to_their_uploads(world: World) -> None:
    """
    Each call of the encoder and each search is a trace of its own, linked to the processing of exactly its uploads.
    """
    book = SpanBook()
    names = [f"upload-{number}" for number in range(6)]
    for number, name in enumerate(names):
        world.publish(name, partition=number % 3, trace=a_trace(number))
    worker = Worker(world, Tuning(batch_size=4, batch_deadline_s=0.05), tracer=book.tracer)
    worker.finish()
    process = {attribute(span, "cloudevents.event_id"): span_id_of(span) for span in book.named("process uploads")}

    for name in ("encode", "judge"):
        calls = worker.seams.calls["encode" if name == "encode" else "judge"]
        expected = [{process[one] for one in call} for call in calls]
        assert expected == [links_of(span) for span in book.named(name)]
        assert [len(call) for call in calls] == [attribute(span, "touchstone.batch_size") for span in book.named(name)]
        assert all(span.parent is None for span in book.named(name))
    assert 6 == len(process)


def test_a_failure_is_told_by_its_code(world: World, log: io.StringIO) -> None:
    """
    The step that failed and the processing have status ERROR with the code; the log's line names the trace.
    """
    book = SpanBook()
    world.publish("gone", picture=MISSING, trace=a_trace())
    world.publish_raw("bad", b"no json", headers=a_trace(1))
    Worker(world, tracer=book.tracer).finish()
    spans = book.of_trace(TRACE_ID)
    (letter,) = world.kafka.records(DEAD_LETTERS)
    bad_trace, _, _ = carried(letter)
    bad = book.of_trace(bad_trace)
    lines = {line["event"]: line.get("trace_id") for line in lines_of(log)}

    for span in (spans["fetch"], spans["process uploads"]):
        assert (StatusCode.ERROR, "FETCH_NOT_FOUND") == (span.status.status_code, span.status.description)
        assert "FETCH_NOT_FOUND" == attribute(span, "error.type")
        assert not span.events, "an exception's text may hold a URL"
    assert StatusCode.UNSET == spans["send verdicts"].status.status_code
    assert "EVENT_INVALID" == bad["process uploads"].status.description
    assert {"process uploads", "send dead-letters"} == set(bad)
    assert (TRACE_ID, bad_trace) == (lines["upload.failed"], lines["event.dead_lettered"])


def test_a_fault_that_nobody_foresaw_is_internal(world: World) -> None:
    """
    The span has the code that the failed verdict has.
    """
    book = SpanBook()
    world.publish("one", trace=a_trace())
    worker = Worker(world, tracer=book.tracer)
    worker.seams.fail("decode", "one", RuntimeError("https://signed.example/?token=1"))
    worker.finish()
    decode = book.of_trace(TRACE_ID)["decode"]

    assert {"one": ["INTERNAL"]} == world.ends()
    assert (StatusCode.ERROR, "INTERNAL") == (decode.status.status_code, decode.status.description)


def test_the_untraced_worker_carries_on_what_came(world: World, log: io.StringIO) -> None:
    """
    Without tracing the verdict has the upload's own headers, and the log names the trace all the same.
    """
    world.publish("gone", picture=MISSING, trace=a_trace())
    Worker(world).finish()
    (record,) = world.kafka.records(VERDICTS)
    (line,) = [line for line in lines_of(log) if line["event"] == "upload.failed"]

    assert a_trace() == tuple(header for header in record.headers if header[0].startswith("trace"))
    assert TRACE_ID == line["trace_id"]


def test_forgotten_uploads_end_their_spans(world: World) -> None:
    """
    What a rebalance takes away ends as forgotten, while its picture is still being encoded; the next owner begins anew.
    """
    book = SpanBook()
    for partition in range(3):
        world.publish(f"in-{partition}", partition=partition, trace=a_trace(partition))
    old = Worker(world, Tuning(batch_size=8), name="old", tracer=book.tracer)
    gate = old.seams.gate("encode")
    old.step_until(lambda: len(old.seams.passed("fetch")) == 3)
    gate.wait_for_arrival()
    new = Worker(world, name="new", tracer=book.tracer)
    old.step_until(lambda: old.counted("uploads_forgotten_total") == 1)
    forgotten = [span for span in book.named("process uploads") if [event.name for event in span.events]]
    new.step_until(lambda: world.committed(1) == 1)
    gate.open()
    old.step_until(world.all_committed)
    for worker in (old, new):
        worker.loop.drain()
        worker.loop.run()

    assert [["forgotten"]] == [[event.name for event in span.events] for span in forgotten]
    assert 4 == len(book.named("process uploads"))
    assert [] == [name for name in book.open if name != "encode"]


def test_a_crash_leaks_no_span(world: World) -> None:
    """
    Whatever was under way when the worker broke has ended: forgotten, or unacknowledged.
    """
    book = SpanBook()
    world.publish("one", "two", trace=a_trace())
    world.kafka.faults.acknowledgements_failed = 1
    worker = Worker(world, Tuning(fetch_threads=1), tracer=book.tracer)
    run = worker.start()
    run.fault()
    worker.tracing.end()
    ends = {event.name for span in book.spans for event in span.events}

    assert {"unacknowledged"} <= ends <= {"unacknowledged", "forgotten"}
    assert [] == [name for name in book.open if name.startswith(("process", "send"))]


def test_a_refused_transaction_is_seen_and_sent_again(world: World) -> None:
    """
    Both attempts have their spans, and the verdict names the one that was taken.
    """
    book = SpanBook()
    world.kafka.faults.transactions_refused = 1
    world.publish("one", trace=a_trace())
    Worker(world, Tuning(delivery="exactly_once"), tracer=book.tracer).finish()
    refused, taken = book.named("send verdicts")
    (record,) = world.kafka.records(VERDICTS)

    assert ("REFUSED", None) == (refused.status.description, taken.status.description)
    assert parent_of(refused) == parent_of(taken) is not None
    assert (TRACE_ID, span_id_of(taken), True) == carried(record)
    assert ["REFUSED", None] == [span.status.description for span in book.named("commit")]


def test_commits_say_how_many_offsets(world: World) -> None:
    """
    One span per commit, with the number of its partitions; one that the group refused is an error.
    """
    book = SpanBook()
    world.kafka.faults.commits_refused = 1
    for partition in range(3):
        world.publish(f"in-{partition}", partition=partition)
    worker = Worker(world, tracer=book.tracer)
    worker.finish()
    commits = book.named("commit")
    stored = [attribute(span, "touchstone.offsets") for span in commits if span.status.is_ok]

    assert "REFUSED" == commits[0].status.description
    assert 3 <= sum(stored) <= 3 * len(stored)
    assert all(span.parent is None for span in commits)


def test_sampling_follows_the_upload(world: World) -> None:
    """
    With a ratio of 0 only what the producer chose is recorded, its batches too; the rest is carried on as not chosen.
    """
    book = SpanBook(sample_ratio=0.0)
    world.publish("chosen", trace=a_trace(0))
    world.publish("not-chosen", trace=a_trace(1, sampled=False))
    world.publish("no-trace")
    Worker(world, Tuning(batch_size=8, batch_deadline_s=0.05), tracer=book.tracer).finish()
    found = {
        verdict.content_id: carried(record)
        for verdict, record in zip(world.verdicts(), world.kafka.records(VERDICTS), strict=True)
    }
    (process,) = book.named("process uploads")
    linked = [links_of(span) for name in ("encode", "judge") for span in book.named(name)]

    assert {"chosen": True, "not-chosen": False, "no-trace": False} == {
        name: recorded for name, (_, _, recorded) in found.items()
    }
    assert f"{int(TRACE_ID, 16) + 1:032x}" == found["not-chosen"][0]
    assert [{span_id_of(process)}] * 2 == linked
    assert [] == book.named("commit")


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_every_upload_has_its_spans_once(world: World, delivery: Delivery) -> None:
    """
    Fifty uploads, twins and failures among them: as many processings and sendings, and none is left open.
    """
    book = SpanBook()
    for number in range(50):
        picture = MISSING if number % 10 == 0 else f"picture-{number % 7}"
        world.publish(f"upload-{number}", partition=number % 3, picture=picture, trace=a_trace(number))
    Worker(world, Tuning(delivery=delivery), tracer=book.tracer).finish()
    traces = [carried(record)[0] for record in world.kafka.records(VERDICTS)]

    assert 50 == len(book.named("process uploads")) == len(book.named("send verdicts")) == len(book.named("fetch"))
    assert sorted(f"{int(TRACE_ID, 16) + number:032x}" for number in range(50)) == sorted(traces)
    assert [] == book.open
