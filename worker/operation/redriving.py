"""
Sending the records of dead letters again: which of them, to which topic, under which headers, and which are refused.

Key, value and headers are those of the original, byte for byte, so that it is the same event; how a record is
published is in ``worker.adapters.kafka_redrive``.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from schemas.dead_letter import ImageDeadLetterV1
from schemas.errors import ErrorClass
from schemas.retry import RetryMarks, with_marks
from worker.adapters.kafka_collection import collect
from worker.adapters.kafka_redrive import KafkaRedrive, Resent, opened_redrive, read_record
from worker.domain import Partition, RawEvent
from worker.errors import ConfigInvalid, WorkerCrashed
from worker.operation.dead_letters import Filters, LetterRow, LettersFound
from worker.ports import Clock
from worker.replay.pace import Pace
from worker.settings.tree import Settings

AT_ONCE: Final = 200
"""So many records are on their way at most before all of them must be acknowledged."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class RedriveOrder:
    """
    Which letters are sent again, to which topic (None: where the settings say), and at most how many a second.
    """

    filters: Filters
    to: str | None = None
    include_policy: bool = False
    per_s: float | None = None


@dataclass(slots=True)
class Redrive:
    """
    What is to be sent, what is not and why, and what was acknowledged so far. ``targets`` are the topics of ``chosen``.
    """

    chosen: list[LetterRow] = field(default_factory=list)
    refused: list[tuple[LetterRow, str]] = field(default_factory=list)
    targets: tuple[str, ...] = ()
    repeated: int = 0
    policy: int = 0
    unreadable: int = 0
    sent: int = 0


class RedriveBroken(WorkerCrashed):
    """
    Kafka failed while records were sent again; the message says how many were acknowledged before.
    """


def target_of(settings: Settings, order: RedriveOrder, row: LetterRow) -> str:
    """
    The topic that a record is sent to: the named one, else the first retry topic, else where the record lay.
    """
    if order.to is not None:
        return order.to
    return settings.retry_topics[0] if settings.retry_topics else row.origin.topic


def plan_redrive(settings: Settings, order: RedriveOrder, progress: Progress) -> Redrive:
    """
    Read the dead letters, and decide for each that is meant. Nothing is written.

    Raises ``ConfigInvalid`` for a topic that nobody may redrive to, for ids that name none or several, and for more
    letters than are held in memory; and what reading a topic raises.
    """
    _require_target(settings, order)
    found = LettersFound()
    found.gather(letters_of(settings, order.filters, progress), order.filters)
    if found.letters > found.keep:
        raise ConfigInvalid(
            f"{found.letters} letters are meant, at most {found.keep} are redriven at once; narrow them with --code, "
            "--since and --until, and redrive the rest after"
        )
    rows = found.rows
    order.filters.require_one_each(rows)
    # The newest letter of each record: one that was redriven and failed again has several.
    newest = {row.id: row for row in rows}
    plan = Redrive(repeated=len(rows) - len(newest), unreadable=found.unreadable)
    for row in newest.values():
        if row.error_class is ErrorClass.POLICY and not (order.include_policy or row.code in order.filters.codes):
            plan.policy += 1
        elif row.bare and target_of(settings, order, row) not in settings.retry_topics:
            why = "it has no envelope, and would be another event there: where it lies is who it is"
            plan.refused.append((row, f"{why}; redrive it to a retry topic"))
        else:
            plan.chosen.append(row)
    plan.targets = tuple(sorted({target_of(settings, order, row) for row in plan.chosen}))
    return plan


def redrive(settings: Settings, order: RedriveOrder, plan: Redrive, clock: Clock, progress: Progress) -> None:
    """
    Send what is chosen, each acknowledged; ``plan`` counts what was sent and takes up what had to be refused.

    Raises ``CannotStart`` before anything is sent, and ``RedriveBroken`` midway.
    """
    if not plan.chosen:
        return
    left = {(row.partition, row.offset): row for row in plan.chosen}
    letters = LettersFound(keep=0).read(letters_of(settings, order.filters, lambda *_: None), order.filters)
    chosen = ((row, letter) for row, letter in letters if (row.partition, row.offset) in left)
    pace = None if order.per_s is None else Pace(order.per_s, clock)
    with opened_redrive(settings.kafka, plan.targets) as outbox:
        progress("redriven", 0, len(plan.chosen))
        while left and (batch := list(islice(chosen, _room(pace)))):
            try:
                plan.sent += outbox.publish(_records(settings, order, plan, batch, outbox))
            except WorkerCrashed as error:
                raise RedriveBroken(f"{plan.sent} of {len(plan.chosen)} were sent before this. {error}") from error
            for row, _ in batch:
                del left[row.partition, row.offset]
            progress("redriven", len(plan.chosen) - len(left), len(plan.chosen))
    plan.refused += [(row, "the letter is no longer in its topic") for row in left.values()]


def letters_of(settings: Settings, filters: Filters, progress: Progress) -> Iterator[RawEvent]:
    """
    The records of the dead-letter topic from the first that may be meant on.
    """
    topic = settings.kafka.topics.dead_letters
    return collect(
        settings.kafka, topic, since_ms=filters.since_ms, progress=lambda done, of: progress("dead letters", done, of)
    )


def whole_original(settings: Settings, letter: ImageDeadLetterV1) -> tuple[Resent | None, str]:
    """
    The original record, under no topic yet; or None, and why it cannot be had whole.

    Of a letter that was cut short it is read from where the record lies, if it is still there and still the same.
    """
    original = letter.original
    found = Resent("", original.key_bytes(), original.value_bytes(), original.header_items())
    if original.truncated:
        where = f"{original.topic}-{original.partition}-{original.offset}"
        record = read_record(settings.kafka, Partition(original.topic, original.partition), original.offset)
        if record is None:
            return None, f"the letter has only the record's beginning, and the record is no longer at {where}"
        if record.fault is not None:
            return None, f"the record at {where} cannot be written again as it is: {record.fault}"
        if record.timestamp_ms != original.timestamp_ms:
            return None, f"the letter has only the record's beginning, and another record lies at {where} now"
        found = Resent("", record.key, record.value, record.headers)
    hashed = None if found.value is None else hashlib.sha256(found.value).hexdigest()
    if hashed != original.value_sha256:
        return None, f"the value's sha256 is {hashed}, and the letter says {original.value_sha256}"
    return found, ""


def _records(
    settings: Settings,
    order: RedriveOrder,
    plan: Redrive,
    batch: Sequence[tuple[LetterRow, ImageDeadLetterV1]],
    outbox: KafkaRedrive,
) -> list[Resent]:
    records = []
    for row, letter in batch:
        original, why = whole_original(settings, letter)
        if original is not None:
            target = target_of(settings, order, row)
            record = addressed(original, letter, target, marked=target in settings.retry_topics)
            refusal = outbox.refusal(record)
            if refusal is None:
                records.append(record)
                continue
            why = refusal
        plan.refused.append((row, why))
    return records


def addressed(original: Resent, letter: ImageDeadLetterV1, topic: str, *, marked: bool) -> Resent:
    """
    The record for this topic; ``marked`` with where it lay first, to be tried at once and as if for the first time.
    """
    headers = tuple(original.headers)
    if marked:
        lay = letter.original
        marks = RetryMarks(
            topic=lay.topic,
            partition=lay.partition,
            offset=lay.offset,
            timestamp_ms=lay.timestamp_ms,
            attempts=0,
            first_failed_at_ms=round(letter.failed_at.timestamp() * 1000),
            not_before_ms=round(time.time() * 1000),
            redriven=True,
        )
        headers = with_marks(headers, marks)
    return Resent(topic, original.key, original.value, headers)


def _room(pace: Pace | None) -> int:
    """
    How many may be sent now; waits until it is one at least.
    """
    if pace is None:
        return AT_ONCE
    while (room := pace.room()) < 1:
        time.sleep(pace.wait_s())
    taken = min(room, AT_ONCE)
    pace.take(taken)
    return taken


def _require_target(settings: Settings, order: RedriveOrder) -> None:
    topics = settings.kafka.topics
    others = {str(name): role for role, name in dict(topics).items() if role not in {"uploads", "retry"}}
    if order.to in others:
        raise ConfigInvalid(
            f"--to {order.to} is kafka.topics.{others[order.to]}, which holds no uploads; name the topic of uploads "
            f"({topics.uploads}) or a retry topic"
        )
