"""
The last stage: an outcome becomes the message that is published, a CloudEvent in binary mode with JSON as its data.

Pure functions of the outcome: the same outcome gives the same bytes. Nothing is sent here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic_core import to_json

from schemas import dead_letter, verdict
from schemas.envelope import EventAttributes, schema_urn, write_binary
from schemas.identity import dead_letter_id
from schemas.retry import RetryMarks, with_marks
from schemas.verdict import Evidence, ImageVerdictV1
from worker.outcomes import DeadLettered, Deferred, Message, Outcome, VerdictIssued
from worker.stages.intake import KEEP_BYTES

MAX_VERDICT_BYTES: Final = 16_384
"""
A verdict is made to fit by leaving out neighbours, then labels that nobody voted for, then the attribution's posterior;
nothing else is left out.
"""

_AROUND_ORIGINAL_BYTES: Final = 32_768


@dataclass(frozen=True, slots=True)
class Route:
    """
    Where outcomes go, and whose word they are: ``source`` is the CloudEvents source of every message.

    ``sampled_rate``: of how many uploads each verdict is the one that was chosen; None where all are judged.
    ``retries`` are the retry topics, the one with the shortest wait first.
    """

    verdicts: str
    dead_letters: str
    source: str
    sampled_rate: int | None = None
    retries: tuple[str, ...] = ()


def source_of(service_name: str) -> str:
    """
    The CloudEvents source of a worker: the service, not the instance, so that a verdict does not depend on who judged.
    """
    return f"urn:touchstone:worker:{service_name}"


def max_dead_letter_bytes(keep_bytes: int = KEEP_BYTES) -> int:
    """
    What the broker must accept in one message of the dead-letter topic, and the producer must be allowed to send.
    """
    return keep_bytes * 4 // 3 + _AROUND_ORIGINAL_BYTES


def dead_letter_room(max_message_bytes: int) -> int:
    """
    How much of a record a dead letter may keep, so that a topic with this limit takes it; the inverse of the above.
    """
    return max(0, (max_message_bytes - _AROUND_ORIGINAL_BYTES) * 3 // 4)


def to_message(outcome: Outcome, route: Route) -> Message:
    """
    The message of an outcome, for the topic it belongs to.
    """
    match outcome:
        case VerdictIssued():
            return _verdict_message(outcome, route)
        case DeadLettered():
            return _dead_letter_message(outcome, route)
        case Deferred():
            return _deferred_message(outcome, route)


def to_messages(outcome: Outcome, route: Route) -> tuple[Message, ...]:
    """
    All that is published of an outcome, its own message first; behind a failed verdict its dead letter, if it has one.
    """
    message = to_message(outcome, route)
    if not isinstance(outcome, VerdictIssued) or outcome.letter is None:
        return (message,)
    letter = DeadLettered(outcome.key, outcome.letter, outcome.identity.trace)
    return message, _dead_letter_message(letter, route)


def verdict_json(issued: ImageVerdictV1) -> bytes:
    """
    A verdict as compact JSON of at most ``MAX_VERDICT_BYTES``.
    """
    value = _json(issued)
    if len(value) > MAX_VERDICT_BYTES and issued.evidence is not None:
        shortened = _shortened(issued.evidence, len(value) - MAX_VERDICT_BYTES)
        issued = issued.model_copy(update={"evidence": shortened})
        value = _json(issued)
    if len(value) > MAX_VERDICT_BYTES and issued.attribution is not None:
        named = issued.attribution.model_copy(update={"posterior": {}})
        value = _json(issued.model_copy(update={"attribution": named}))
    return value


def _verdict_message(outcome: VerdictIssued, route: Route) -> Message:
    issued = outcome.verdict
    attributes = EventAttributes(
        id=str(issued.verdict_id),
        source=route.source,
        type=verdict.TYPE,
        time=issued.timing.produced_at,
        subject=issued.content_id,
        data_schema=schema_urn(verdict.TYPE),
        partition_key=_as_text(outcome.key),
        correlation_id=outcome.identity.correlation_id or outcome.identity.id,
        causation_id=outcome.identity.id,
        sampled_rate=route.sampled_rate,
    )
    return Message(
        topic=route.verdicts,
        key=outcome.key,
        value=verdict_json(issued),
        headers=write_binary(attributes, outcome.identity.trace),
        timestamp_ms=_milliseconds(issued.timing.produced_at),
    )


def _dead_letter_message(outcome: DeadLettered, route: Route) -> Message:
    letter = outcome.dead_letter
    original = letter.original
    letter_id: UUID = dead_letter_id(original.topic, original.partition, original.offset)
    attributes = EventAttributes(
        id=str(letter_id),
        source=route.source,
        type=dead_letter.TYPE,
        time=letter.failed_at,
        subject=letter.content_id,
        data_schema=schema_urn(dead_letter.TYPE),
        partition_key=_as_text(outcome.key),
        correlation_id=letter.event_id,
        causation_id=letter.event_id,
    )
    return Message(
        topic=route.dead_letters,
        key=outcome.key,
        value=letter.model_dump_json(by_alias=True).encode(),
        headers=write_binary(attributes, outcome.trace),
        timestamp_ms=_milliseconds(letter.failed_at),
    )


def _deferred_message(outcome: Deferred, route: Route) -> Message:
    """
    The record as it first was, with our headers behind its own.
    """
    raw, origin = outcome.raw, outcome.origin
    if raw.value is None:
        raise ValueError("a record without a value is no upload, and is never tried again")
    marks = RetryMarks(
        topic=origin.partition.topic,
        partition=origin.partition.number,
        offset=origin.offset,
        timestamp_ms=origin.timestamp_ms,
        attempts=origin.attempts,
        first_failed_at_ms=round(origin.first_failed_at_s * 1000),
        not_before_ms=round(outcome.not_before_s * 1000),
        redriven=origin.redriven,
    )
    return Message(
        topic=route.retries[outcome.step],
        key=raw.key,
        value=raw.value,
        headers=with_marks(raw.headers, marks),
        timestamp_ms=round(raw.received_at_s * 1000),
    )


def _json(issued: ImageVerdictV1) -> bytes:
    return issued.model_dump_json(by_alias=True).encode()


def _shortened(evidence: Evidence, excess_bytes: int) -> Evidence:
    kept = list(evidence.neighbours)
    while kept and excess_bytes > 0:
        excess_bytes -= len(to_json(kept.pop())) + 1
    per_label = dict(evidence.per_label)
    if excess_bytes > 0:
        per_label = {label: stands for label, stands in per_label.items() if stands.votes > 0}
    return evidence.model_copy(update={"neighbours": tuple(kept), "per_label": per_label, "truncated": True})


def _as_text(key: bytes | None) -> str | None:
    # An attribute is text; a key that is not stays the record's key and is no attribute.
    try:
        text = None if key is None else key.decode()
    except UnicodeDecodeError:
        return None
    return text if text and text.isprintable() else None


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
