"""
Stretches of a Kafka topic, read by hand from fixed starts to fixed ends, in no group's hands.

Whoever reads a topic up to an end reads it here; what becomes of a record is in ``kafka_collection.py``,
``kafka_range_source.py`` and ``kafka_sightings.py``. Reading without an end is in ``kafka_source.py``.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, TopicPartition

from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    Isolation,
    partitions_of,
    reading_config,
    starting,
    told,
)
from worker.adapters.kafka_records import read_all_records
from worker.errors import TouchstoneError, WorkerCrashed
from worker.flow.replay_run import Bound, Stretch
from worker.settings.tree import KafkaSettings

SILENCE_S: Final = 60.0
"""How long a topic may be asked and give nothing, while its end is not reached, before reading it is given up."""

_WAIT_S: Final = 0.5
_PER_POLL: Final = 1_000

ReadSoFar = Callable[[int, int], None]
"""Told how many offsets were read, of how many."""


BEGINNING: Final = Bound("beginning")


@dataclass(frozen=True, slots=True)
class Reading:
    """
    Who reads a topic from ``since`` to its present end, and which error it is that Kafka fails midway.
    """

    client_id: str
    failure: type[TouchstoneError]
    isolation: Isolation = "read_committed"
    since: Bound = BEGINNING


def whole_topic(
    settings: KafkaSettings, topic: str, reading: Reading, *, progress: ReadSoFar
) -> Iterator[Sequence[Any]]:
    """
    kafka-python's records of ``topic`` in batches, in order within each partition; also those that cannot be read.

    Whoever takes a missing value for a tombstone asks ``kafka_records.fault_of`` before, which says which they are.
    Nothing is read of what is written after the first batch was asked for. Raises ``CannotStart`` when Kafka or the
    topic is not there, and ``reading.failure`` when Kafka fails midway.
    """
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **reading_config(settings, client_id=reading.client_id, isolation=reading.isolation),
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
    with closing(consumer):
        read_all_records(consumer)
        reader = StretchReader(consumer, topic, failure=reading.failure)
        with starting(settings, START_TIMEOUT_S):
            reader.begin(stretches_between(consumer, topic, reading.since, Bound("end")))
        yield from reader.batches(progress)


def stretches_between(consumer: Any, topic: str, since: Bound, until: Bound) -> dict[int, Stretch]:  # noqa: ANN401 - kafka-python is untyped
    """
    What lies between two bounds at this moment, in every partition of the topic; some may be empty.

    Raises ``CannotStart`` where no partition is known, and kafka-python's errors.
    """
    partitions = partitions_of(consumer, topic)
    firsts = consumer.beginning_offsets(partitions)
    ends = consumer.end_offsets(partitions)
    starts, stops = (_offsets(consumer, bound, firsts, ends) for bound in (since, until))
    return {at.partition: Stretch(starts[at], max(starts[at], stops[at])) for at in partitions}


_Offsets = Mapping[TopicPartition, int]


def _offsets(consumer: Any, bound: Bound, firsts: _Offsets, ends: _Offsets) -> _Offsets:  # noqa: ANN401 - kafka-python is untyped
    if bound.kind == "beginning":
        return firsts
    if bound.kind == "end" or bound.value is None:
        return ends
    if bound.kind == "offset":
        return {at: min(max(bound.value, firsts[at]), ends[at]) for at in ends}
    found = consumer.offsets_for_times(dict.fromkeys(ends, bound.value))
    # None: nothing is as young as that. A record may lie behind the last stable offset, which is the end for us.
    told_at = {at: ends[at] if found.get(at) is None else found[at].offset for at in ends}
    return {at: min(offset, ends[at]) for at, offset in told_at.items()}


class StretchReader:
    """
    Gives the records of some stretches, once, in order within each partition; for one thread.

    A broker that is away is waited for. Raises ``failure`` where no waiting helps: Kafka refuses, has removed what was
    to be read, or gave nothing for ``silence_s`` of being asked. ``go_on`` is what an operator does after that.
    """

    def __init__(
        self,
        consumer: Any,  # noqa: ANN401 - kafka-python is untyped
        topic: str,
        *,
        failure: type[TouchstoneError] = WorkerCrashed,
        silence_s: float = SILENCE_S,
        go_on: str = "start again",
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._failure = failure
        self._silence_s = silence_s
        self._go_on = go_on
        self._stretches: dict[TopicPartition, Stretch] = {}
        self._reached: dict[TopicPartition, int] = {}
        self._open: set[TopicPartition] = set()
        self._silent_s = 0.0

    def begin(self, stretches: Mapping[int, Stretch]) -> None:
        """
        Read these, and nothing else, from now on. Raises kafka-python's errors.
        """
        self._stretches = {
            TopicPartition(self._topic, number): one for number, one in stretches.items() if one.start < one.end
        }
        self._reached = {at: one.start for at, one in self._stretches.items()}
        self._open = set(self._stretches)
        self._silent_s = 0.0
        self._consumer.assign(list(self._stretches))
        for at, offset in self._reached.items():
            self._consumer.seek(at, offset)

    @property
    def finished(self) -> bool:
        """
        True when every stretch was read to its end.
        """
        return not self._open

    @property
    def total(self) -> int:
        """
        How many offsets the stretches have.
        """
        return sum(one.end - one.start for one in self._stretches.values())

    @property
    def done(self) -> int:
        """
        How many of these are behind us.
        """
        return sum(min(at, self._stretches[one].end) - self._stretches[one].start for one, at in self._reached.items())

    def batches(self, progress: ReadSoFar) -> Iterator[Sequence[Any]]:
        """
        All that is left, in batches. ``progress`` is told at the beginning, and when each batch was worked off.
        """
        progress(self.done, self.total)
        while not self.finished:
            if records := self.poll(limit=_PER_POLL, wait_s=_WAIT_S):
                yield records
            progress(self.done, self.total)

    def poll(self, *, limit: int, wait_s: float) -> Sequence[Any]:
        """
        At most ``limit`` records that lie in the stretches; none where none came within ``wait_s``.
        """
        asked_s = time.monotonic()
        fetched = self._fetch(limit, wait_s)
        # Only the time of asking counts: whoever works on a batch for long has not been kept waiting.
        self._silent_s = 0.0 if self._move_on() else self._silent_s + time.monotonic() - asked_s
        if self._open and self._silent_s > self._silence_s:
            stuck = ", ".join(f"partition {at.partition} at offset {self._reached[at]}" for at in sorted(self._open))
            raise self._failure(
                f"Kafka gave nothing of {self._topic} for {self._silence_s:g} s, before the end of {stuck}; look after "
                f"the brokers that lead it, and {self._go_on}"
            )
        return [
            record
            for at, records in fetched.items()
            for record in records
            if at in self._stretches and record.offset < self._stretches[at].end
        ]

    def _fetch(self, limit: int, wait_s: float) -> Mapping[TopicPartition, Sequence[Any]]:
        try:
            records: Mapping[TopicPartition, Sequence[Any]] = self._consumer.poll(
                timeout_ms=wait_s * 1000, max_records=limit
            )
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError) as error:
            raise self._failure(
                f"Records of {self._topic} were removed before they were read ({error}): the topic's retention was "
                "quicker. Read a later range, and raise the topic's retention.ms"
            ) from error
        except kafka_errors.KafkaError as error:
            if not error.retriable:
                raise self._failure(f"Kafka refused to give records of {self._topic}: {told(error)}") from error
            time.sleep(wait_s)
            return {}
        return records

    def _move_on(self) -> bool:
        """
        Whether any position has moved; what has reached its end is asked no more.
        """
        # By position and not by record: the marks of transactions and what compaction removed have offsets too.
        positions = {at: self._consumer.position(at, timeout_ms=CLOSE_TIMEOUT_S * 1000) for at in self._open}
        moved = {at: position for at, position in positions.items() if position not in {None, self._reached[at]}}
        self._reached |= moved
        finished = {at for at in moved if self._reached[at] >= self._stretches[at].end}
        if finished:
            self._consumer.pause(*finished)
            self._open -= finished
        return bool(moved)
