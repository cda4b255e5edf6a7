"""
The spans of one upload, from its record to its outcome: their names, their attributes and how they end.

Names follow OpenTelemetry's conventions for messaging. How spans are kept and exported is not known here.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from worker.domain import RawEvent
from worker.flow.lines import Slot
from worker.outcomes import DeadLettered, Deferred, Message, Outcome
from worker.spans import UNTOLD, UNTRACED, Attribute, Span, TraceHeaders, Tracer
from worker.stages.intake import trace_of_record

EVENT_ID: Final = "cloudevents.event_id"
TRACE_HEADERS: Final = frozenset({"traceparent", "tracestate"})

# As tracers read it, OpenTelemetry among them: version 00 has four parts, later ones may have more, ff is none.
_TRACEPARENT: Final = re.compile(
    rb"[ \t]*(?!ff)(?!00.{53}-)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*|[ \t]*)"
)


def received(tracer: Tracer, event: RawEvent) -> Span:
    """
    The span ``process <topic>`` of a record that was read, below the span of whoever published it.

    Below it, not beside it with a link: each upload is one message with one verdict, and one trace leads from the
    platform's upload to the verdict. Links are for what is done to many at once.
    """
    if tracer is UNTRACED:
        return UNTOLD
    topic = event.partition.topic
    attributes: dict[str, Attribute] = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(event.partition.number),
        "messaging.kafka.offset": event.offset,
    }
    return tracer.start(f"process {topic}", trace_of_record(event), kind="consumer", attributes=attributes)


def released(slot: Slot, outcome: Outcome, messages: Sequence[Message]) -> Sequence[Message]:
    """
    End an upload's span as its outcome says; the messages, carrying that span's context instead of its producer's.

    One that goes to a retry topic keeps its producer's, below which it is tried again.
    """
    span = slot.span
    if span is UNTOLD:
        return messages
    if isinstance(outcome, Deferred):
        span.set("touchstone.status", "deferred")
        span.fail(outcome.code)
        span.finish()
        return messages
    if isinstance(outcome, DeadLettered):
        span.set("touchstone.status", "dead_letter")
        span.fail(outcome.dead_letter.error.code)
    else:
        verdict = outcome.verdict
        span.set("touchstone.status", verdict.outcome.status)
        span.set("touchstone.cache", verdict.cache.status)
        if verdict.error is not None:
            span.fail(verdict.error.code)
    span.finish()
    return [carrying(message, span.headers) for message in messages]


def carrying(message: Message, trace: TraceHeaders) -> Message:
    """
    The message with this trace context and no other; as it was where there is none.
    """
    if not trace:
        return message
    others = tuple(header for header in message.headers if header[0] not in TRACE_HEADERS)
    return replace(message, headers=others + trace)


def carried_by(message: Message) -> TraceHeaders:
    """
    The trace context among a message's headers.
    """
    return tuple((name, value) for name, value in message.headers if name in TRACE_HEADERS and value is not None)


def trace_id_of(message: Message) -> str | None:
    """
    The trace that a message belongs to, 32 hex digits, whether or not this worker traces; None without a valid one.
    """
    found = _TRACEPARENT.fullmatch(dict(message.headers).get("traceparent") or b"")
    return None if found is None else found.group(1).decode()


@contextmanager
def for_each(tracer: Tracer, name: str, slots: Sequence[Slot]) -> Iterator[None]:
    """
    A span below each upload's own, for what is done to all of them in one call.
    """
    if tracer is UNTRACED:
        yield
        return
    with ExitStack() as stack:
        for slot in slots:
            stack.enter_context(tracer.start(name, slot.span))
        yield
