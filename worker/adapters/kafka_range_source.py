"""
A stretch of a Kafka topic as an event source: assigned by hand, from fixed starts to fixed ends, in no group's hands.

What a live worker reads through its group is in ``kafka_source.py``. The group here only names where progress is kept.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    connection_config,
    crashed,
    require_crc32c,
    require_topics,
    starting,
)
from worker.adapters.kafka_source import raw_event
from worker.domain import Partition, RawEvent
from worker.errors import CannotStart, WorkerCrashed
from worker.flow.replay_run import Bound, Stretch
from worker.ports import GroupMembership, Polled
from worker.settings.tree import KafkaSettings

COMMIT_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 120.0
"""How long a topic may give nothing while its end is not reached; a broker that is away comes back sooner."""

_EVERYTHING: Final = 2_000


class KafkaRangeSource:
    """
    Implements ``worker.ports.EventSource`` once ``read`` has said what to read; ends where that ends.

    Raises ``CannotStart`` when Kafka or the topic is not there. Records of aborted transactions are not read, and an
    open transaction bounds what ``end`` is.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, group_id: str | None, client_id: str) -> None:
        require_crc32c()
        require_topics(settings, [topic])
        self._topic = topic
        self._ends: dict[TopicPartition, int] = {}
        self._open: set[TopicPartition] = set()
        self._reached: dict[TopicPartition, int] = {}
        self._moved_s = time.monotonic()
        config = connection_config(settings) | {
            "client_id": client_id,
            "group_id": group_id,
            "enable_auto_commit": False,
            # What retention has removed must be told, not passed over.
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": max(1_048_576, settings.max_event_bytes),
            "bootstrap_timeout_ms": round(START_TIMEOUT_S * 1000),
        }
        with starting(settings, START_TIMEOUT_S):
            self._consumer = KafkaConsumer(**config)
        self._settings = settings

    def stretches(self, since: Bound, until: Bound) -> dict[int, Stretch]:
        """
        What lies between two bounds at this moment, in every partition of the topic; some may be empty.
        """
        with starting(self._settings, START_TIMEOUT_S):
            numbers = sorted(self._consumer.partitions_for_topic(self._topic) or ())
            partitions = [TopicPartition(self._topic, number) for number in numbers]
            if not partitions:
                raise CannotStart(f"Kafka knows topic {self._topic} and none of its partitions; look after its leaders")
            firsts = self._consumer.beginning_offsets(partitions)
            ends = self._consumer.end_offsets(partitions)
            starts = self._offsets(since, firsts, ends)
            stops = self._offsets(until, firsts, ends)
        return {at.partition: Stretch(starts[at], max(starts[at], stops[at])) for at in partitions}

    def _offsets(
        self, bound: Bound, firsts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        if bound.kind == "beginning":
            return dict(firsts)
        if bound.kind == "end" or bound.value is None:
            return dict(ends)
        if bound.kind == "offset":
            return {at: min(max(bound.value, firsts[at]), ends[at]) for at in ends}
        found = self._consumer.offsets_for_times(dict.fromkeys(ends, bound.value))
        # None: nothing is as young as that. A record may lie behind the last stable offset, which is the end for us.
        told = {at: ends[at] if found.get(at) is None else found[at].offset for at in ends}
        return {at: min(offset, ends[at]) for at, offset in told.items()}

    def read(self, stretches: Mapping[int, Stretch]) -> None:
        """
        Read these, and nothing else, from now on.
        """
        held = {TopicPartition(self._topic, number): one for number, one in stretches.items() if one.start < one.end}
        self._ends = {at: stretch.end for at, stretch in held.items()}
        self._reached = {at: stretch.start for at, stretch in held.items()}
        self._open = set(held)
        self._moved_s = time.monotonic()
        with starting(self._settings, START_TIMEOUT_S):
            self._consumer.assign(list(held))
            for at, stretch in held.items():
                self._consumer.seek(at, stretch.start)

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        At most ``room`` events below the ends. With ``room`` 0 it only waits: no group asks to be kept alive.
        """
        events: list[RawEvent] = []
        if room > 0 and self._open:
            events = self._events(self._fetch(room, wait_s))
            self._close_finished()
        elif wait_s > 0:
            time.sleep(wait_s)
            self._moved_s = time.monotonic()
        return Polled(frozenset(), events, GroupMembership(None))

    def _fetch(self, limit: int, wait_s: float) -> Mapping[TopicPartition, Sequence[Any]]:
        try:
            records: Mapping[TopicPartition, Sequence[Any]] = self._consumer.poll(
                timeout_ms=wait_s * 1000, max_records=limit
            )
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError) as error:
            raise WorkerCrashed(
                f"Records of {self._topic} were removed before they were read ({error}): the topic's retention was "
                "quicker. Replay a later range, and raise the topic's retention.ms"
            ) from error
        except kafka_errors.KafkaError as error:
            if not error.retriable:
                raise crashed(error, f"to give records of {self._topic}") from error
            time.sleep(wait_s)
            return {}
        return records

    def _events(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> list[RawEvent]:
        now_s = time.time()
        return [
            raw_event(record, now_s)
            for at, records in fetched.items()
            for record in records
            if record.offset < self._ends.get(at, 0)
        ]

    def _close_finished(self) -> None:
        # By position and not by record: the marks of transactions and what compaction removed have offsets too.
        positions = {at: self._consumer.position(at, timeout_ms=CLOSE_TIMEOUT_S * 1000) for at in self._open}
        finished = {at for at, position in positions.items() if position is not None and position >= self._ends[at]}
        if finished:
            self._consumer.pause(*finished)
            self._open -= finished
        if finished or any(position != self._reached[at] for at, position in positions.items()):
            self._moved_s = time.monotonic()
        self._reached |= {at: position for at, position in positions.items() if position is not None}
        if self._open and time.monotonic() - self._moved_s > SILENCE_S:
            stuck = ", ".join(f"{at.partition} at offset {self._reached[at]}" for at in sorted(self._open))
            raise WorkerCrashed(
                f"Kafka gave nothing of {self._topic} for {SILENCE_S:g} s before the end of partition {stuck}; look "
                "after the brokers that lead them, and go on with --run-id"
            )

    def every(self) -> Iterator[RawEvent]:
        """
        All events that are left, one after the other.
        """
        while not self.exhausted:
            yield from self.poll(room=_EVERYTHING, wait_s=0.5).events

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        Store progress under the group's name, for whoever watches lag; False when Kafka did not take it.
        """
        stored = {
            TopicPartition(at.topic, at.number): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()
        }
        try:
            self._consumer.commit(stored, timeout_ms=COMMIT_TIMEOUT_S * 1000)
        except kafka_errors.KafkaError as error:
            if error.retriable:
                return False
            raise crashed(error, f"to commit offsets of {self._topic}") from error
        return True

    @property
    def exhausted(self) -> bool:
        """
        True when every partition was read to its end.
        """
        return not self._open

    def close(self) -> None:
        """
        Release the connections. Commits nothing.
        """
        try:
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_S * 1000)
        except kafka_errors.KafkaError:
            return
