"""
Kafka in memory: partitions, a consumer group, transactions, and faults on demand.

``tests/contract`` runs the same suites over these and over the real adapters on a real Kafka. One lock guards all, so
any thread may use any of it; a poll waits on a condition, never by sleeping.
"""

import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

from schemas.retry import read_marks
from tests.fakes_kafka_group import InMemoryGroup, Membership
from worker.adapters.kafka_waits import RetryWaits
from worker.adapters.system_clock import SystemClock
from worker.domain import Partition, RawEvent
from worker.errors import ProducerFenced, PublishFailed
from worker.outcomes import Release
from worker.ports import GroupMembership, Polled, PositionDone

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """
    One record of a log; an aborted one keeps its offset and is hidden from read_committed readers.
    """

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    aborted: bool = False


@dataclass(slots=True)
class Faults:
    """
    What shall go wrong next. Each counts down as it strikes, but for ``acknowledgements_held``.
    """

    commits_refused: int = 0
    transactions_refused: int = 0
    acknowledgements_failed: int = 0
    acknowledgements_held: bool = False


class InMemoryKafka:
    """
    Topics with their numbers of partitions, and one consumer group over the first of them and over ``retries``.

    ``faults`` may be set at any time; after ``acknowledgements_held`` was reset call ``release_acknowledgements``.
    """

    def __init__(
        self, topics: Mapping[str, int], *, retries: Sequence[str] = (), max_message_bytes: int = 1_500_000
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.topics = dict(topics)
        self.max_message_bytes = max_message_bytes
        self.faults = Faults()
        self.logs: dict[Partition, list[StoredRecord]] = defaultdict(list)
        self.committed: dict[Partition, int] = {}
        self.epochs: Counter[str] = Counter()
        uploads = next(iter(topics))
        read = [uploads, *retries]
        partitions = [Partition(topic, number) for topic in read for number in range(topics[topic])]
        self.waits = RetryWaits(retries, SystemClock())
        self.group = InMemoryGroup(self.changed, self.committed, partitions)
        self.outboxes: list[InMemoryOutbox] = []

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = 0,
        aborted: bool = False,
    ) -> int:
        """
        Store a record and tell its offset.
        """
        with self.changed:
            log = self.logs[partition]
            log.append(StoredRecord(partition, len(log), key, value, headers, timestamp_ms, aborted))
            self.changed.notify_all()
            return len(log) - 1

    def records(self, topic: str) -> list[StoredRecord]:
        """
        What a read_committed reader finds in a topic, partition by partition.
        """
        with self.changed:
            return [
                record
                for number in range(self.topics[topic])
                for record in self.logs[Partition(topic, number)]
                if not record.aborted
            ]

    def due(self, partition: Partition, records: Sequence[StoredRecord]) -> Sequence[StoredRecord]:
        """
        Those of a retry topic that may be tried now, up to the first that may not; of other topics, all.
        """
        if partition.topic not in self.waits.topics:
            return records
        now_ms = SystemClock().wall_s() * 1000
        return list(takewhile(lambda record: read_marks(record.headers).not_before_ms <= now_ms, records))

    def fence(self, transactional_id: str) -> None:
        """
        Give a transactional id to somebody else.
        """
        with self.changed:
            self.epochs[transactional_id] += 1

    def release_acknowledgements(self) -> None:
        """
        Let go what was held.
        """
        with self.changed:
            self.faults.acknowledgements_held = False
            for outbox in self.outboxes:
                outbox.acknowledge_held()
            self.changed.notify_all()

    def strikes(self, fault: str) -> bool:
        """
        Whether a countdown fault strikes now.
        """
        left: int = getattr(self.faults, fault)
        setattr(self.faults, fault, max(0, left - 1))
        return left > 0


class InMemoryEventSource:
    """
    Implements ``worker.ports.EventSource``.
    """

    def __init__(self, kafka: InMemoryKafka) -> None:
        self._kafka = kafka
        self.member = kafka.group.join()

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        What the real one promises.
        """
        kafka = self._kafka
        with kafka.changed:
            revoked = kafka.group.sync(self.member)
            events = self._take(room)
            if not events and not revoked:
                kafka.changed.wait(wait_s)
                revoked = kafka.group.sync(self.member)
                events = self._take(room)
            place = Membership(self.member.id, self.member.generation)
        return Polled(revoked, events, GroupMembership(place))

    def _take(self, room: int) -> list[RawEvent]:
        events: list[RawEvent] = []
        for partition, position in self.member.positions.items():
            log = self._kafka.logs[partition][position:]
            visible = self._kafka.due(partition, [record for record in log if not record.aborted])
            taken = visible[: room - len(events)]
            events += [
                self._kafka.waits.told(
                    RawEvent(partition, at.offset, at.key, at.value, at.headers, at.timestamp_ms, received_at_s=0.0)
                )
                for at in taken
            ]
            if taken:
                self.member.positions[partition] = taken[-1].offset + 1
        return events

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        What the real one promises.
        """
        with self._kafka.changed:
            place = Membership(self.member.id, self.member.generation)
            if not self._kafka.group.knows(place) or self._kafka.strikes("commits_refused"):
                return False
            ours = {partition: offset for partition, offset in offsets.items() if partition in self.member.positions}
            self._kafka.committed.update(ours)
            return len(ours) == len(offsets)

    @property
    def exhausted(self) -> bool:
        """
        Never.
        """
        return False

    def close(self) -> None:
        """
        Leave the group.
        """
        self._kafka.group.leave(self.member)


class InMemoryOutbox:
    """
    Implements ``worker.ports.Outbox``.
    """

    def __init__(self, kafka: InMemoryKafka, *, transactional_id: str | None = None) -> None:
        self._kafka = kafka
        self._id = transactional_id
        self._held: list[PositionDone] = []
        self._acknowledged: list[PositionDone] = []
        self._failure: str | None = None
        with kafka.changed:
            kafka.outboxes.append(self)
            if transactional_id is not None:
                kafka.fence(transactional_id)
                self._epoch = kafka.epochs[transactional_id]

    def publish(self, releases: Sequence[Release]) -> None:
        """
        Store at once; acknowledge unless a fault says otherwise.
        """
        with self._kafka.changed:
            for release in releases:
                self._require_fitting(release)
                if self._kafka.strikes("acknowledgements_failed"):
                    self._failure = self._failure or f"{release.partition} offset {release.offset}: injected fault"
                    continue
                self._append(release, aborted=False)
                held = self._kafka.faults.acknowledgements_held
                (self._held if held else self._acknowledged).append((release.partition, release.offset))

    def take_acknowledged(self) -> Sequence[PositionDone]:
        """
        What the real one promises.
        """
        with self._kafka.changed:
            self._raise_failure()
            taken, self._acknowledged = self._acknowledged, []
            return taken

    def flush(self, timeout_s: float) -> None:
        """
        What the real one promises.
        """
        with self._kafka.changed:
            settled = self._kafka.changed.wait_for(lambda: not self._held, timeout_s)
            self._raise_failure()
            if not settled:
                raise PublishFailed(f"{len(self._held)} outcomes were not acknowledged within {timeout_s:g} s")

    def transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], membership: GroupMembership
    ) -> bool:
        """
        All or nothing, at once.
        """
        kafka = self._kafka
        with kafka.changed:
            if self._id is None or kafka.epochs[self._id] != self._epoch:
                raise ProducerFenced(f"{self._id} was taken over")
            for release in releases:
                self._require_fitting(release)
            place = cast("Membership", membership)
            taken = kafka.group.knows(place) and not kafka.strikes("transactions_refused")
            for release in releases:
                self._append(release, aborted=not taken)
            if taken:
                kafka.committed.update(offsets)
            return taken

    def close(self) -> None:
        """
        Nothing is held.
        """

    def acknowledge_held(self) -> None:
        """
        The broker's answer at last.
        """
        self._acknowledged += self._held
        self._held = []

    def _append(self, release: Release, *, aborted: bool) -> None:
        for message in release.messages:
            number = zlib.crc32(message.key or b"") % self._kafka.topics[message.topic]
            self._kafka.append(
                Partition(message.topic, number),
                message.value,
                key=message.key,
                headers=message.headers,
                timestamp_ms=message.timestamp_ms,
                aborted=aborted,
            )

    def _require_fitting(self, release: Release) -> None:
        if any(len(message.value) > self._kafka.max_message_bytes for message in release.messages):
            partition = release.partition
            raise PublishFailed(
                f"The outcome of {partition.topic}-{partition.number} offset {release.offset} is too large"
            )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise PublishFailed(self._failure)
