"""
One Kafka to test against, in memory or real, with the same words for both.

Each world has fresh topics, one group, and closes all that it gave out.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, Protocol, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec

from tests.fakes_kafka import Headers, InMemoryEventSource, InMemoryKafka, InMemoryOutbox, StoredRecord
from tests.kafka_reader import DEADLINE_S, Counts
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.adapters.kafka_source import KafkaEventSource
from worker.domain import Partition, RawEvent
from worker.outcomes import Message, Release
from worker.ports import EventSource, Outbox
from worker.settings.tree import KafkaSettings

PARTITIONS = 4


class World(Protocol):
    """
    What a contract suite may do to the Kafka behind the ports.
    """

    uploads: str
    verdicts: str

    def upload(
        self, number: int, value: bytes | None, *, key: bytes | None = None, headers: Headers = (), at_ms: int = 1
    ) -> int:
        """
        Write to a partition of the uploads topic; tells the offset.
        """

    def source(self) -> EventSource:
        """
        A new member of the group.
        """

    def outbox(self, transactional_id: str | None = None) -> Outbox:
        """
        A new producer.
        """

    def committed(self, number: int) -> int | None:
        """
        What the group has committed for a partition of the uploads topic.
        """

    def records(self, topic: str) -> Sequence[StoredRecord]:
        """
        What a read_committed reader finds in a topic, in order within each partition.
        """


class MemoryWorld:
    """
    A world on ``InMemoryKafka``.
    """

    def __init__(self) -> None:
        self.uploads, self.verdicts = "uploads", "verdicts"
        self.kafka = InMemoryKafka({self.uploads: PARTITIONS, self.verdicts: 2})

    def upload(
        self, number: int, value: bytes | None, *, key: bytes | None = None, headers: Headers = (), at_ms: int = 1
    ) -> int:
        """
        Append.
        """
        return self.kafka.append(Partition(self.uploads, number), value, key=key, headers=headers, timestamp_ms=at_ms)

    def source(self) -> EventSource:
        """
        A member.
        """
        return InMemoryEventSource(self.kafka)

    def outbox(self, transactional_id: str | None = None) -> Outbox:
        """
        A producer.
        """
        return InMemoryOutbox(self.kafka, transactional_id=transactional_id)

    def committed(self, number: int) -> int | None:
        """
        The group's offset.
        """
        return self.kafka.committed.get(Partition(self.uploads, number))

    def records(self, topic: str) -> Sequence[StoredRecord]:
        """
        Committed records.
        """
        return self.kafka.records(topic)


class RealWorld:
    """
    A world on a real broker. ``settings`` are those of its adapters, ``counts`` their recorder.
    """

    def __init__(self, bootstrap_servers: str, name: str, *, replicas: int = 1, **changes: object) -> None:
        self.uploads, self.verdicts, self.dead_letters = f"{name}-uploads", f"{name}-verdicts", f"{name}-letters"
        self.name = name
        self.counts = Counts()
        self.settings = KafkaSettings.model_validate(
            {
                "bootstrap_servers": bootstrap_servers,
                "group_id": name,
                "session_timeout_s": 6.0,
                "topics": {"uploads": self.uploads, "verdicts": self.verdicts, "dead_letters": self.dead_letters},
            }
            | changes
        )
        self.client = {"bootstrap_servers": bootstrap_servers}
        self._stack = ExitStack()
        self.admin: Any = self._stack.enter_context(closing(KafkaAdminClient(**self.client)))
        self.admin.create_topics(
            {
                # Time stamps of tests lie in the past, where the broker's clean-up would find them.
                topic: {"num_partitions": number, "replication_factor": replicas, "configs": {"retention.ms": "-1"}}
                for topic, number in ((self.uploads, PARTITIONS), (self.verdicts, 2), (self.dead_letters, 1))
            },
            wait_for_metadata=True,
        )
        self._producer: Any = self._stack.enter_context(closing(KafkaProducer(**self.client, acks="all")))
        self._clients = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def upload(
        self, number: int, value: bytes | None, *, key: bytes | None = None, headers: Headers = (), at_ms: int = 1
    ) -> int:
        """
        Produce and wait for the broker.
        """
        sent = self._producer.send(
            self.uploads, value=value, key=key, headers=list(headers), partition=number, timestamp_ms=at_ms
        )
        offset: int = sent.get(DEADLINE_S).offset
        return offset

    def upload_soon(self, number: int, value: bytes, *, key: bytes) -> None:
        """
        Produce without waiting.
        """
        self._producer.send(self.uploads, value=value, key=key, partition=number)

    def source(self, settings: KafkaSettings | None = None, instance_id: str | None = None) -> KafkaEventSource:
        """
        The adapter, closed with the world.
        """
        source = KafkaEventSource(
            settings or self.settings, self.counts, client_id=self._client_id("source"), instance_id=instance_id
        )
        return self._stack.enter_context(closing(source))

    def outbox(self, transactional_id: str | None = None, settings: KafkaSettings | None = None) -> KafkaOutbox:
        """
        The adapter, closed with the world. Transactional ids are the world's own.
        """
        outbox = KafkaOutbox(
            settings or self.settings,
            self.counts,
            client_id=self._client_id("outbox"),
            transactional_id=None if transactional_id is None else f"{self.name}-{transactional_id}",
        )
        return self._stack.enter_context(closing(outbox))

    def committed(self, number: int) -> int | None:
        """
        Asked of the broker, which answers when no transaction on it is open.
        """
        with closing(
            KafkaConsumer(**self.client, group_id=self.settings.group_id, isolation_level="read_committed")
        ) as reader:
            found: int | None = reader.committed(TopicPartition(self.uploads, number), timeout_ms=DEADLINE_S * 1000)
        return found

    def records(self, topic: str, *, isolation_level: str = "read_committed") -> Sequence[StoredRecord]:
        """
        Everything up to the present end. A reader of what is committed waits there for transactions that are open.

        A commit is answered before its marks are in the log, and until then its records are not to be seen.
        """
        with closing(
            KafkaConsumer(**self.client, auto_offset_reset="earliest", isolation_level=isolation_level)
        ) as reader:
            partitions = [TopicPartition(topic, number) for number in sorted(reader.partitions_for_topic(topic))]
            reader.assign(partitions)
            # Of the log itself: to a reader of what is committed it ends where an open transaction begins.
            ends = self.admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
            found: list[StoredRecord] = []
            give_up_s = time.monotonic() + DEADLINE_S
            # By position and not by count: the log also holds the marks of transactions.
            while any(reader.position(at) < ends[at].offset for at in partitions) and time.monotonic() < give_up_s:
                for records in reader.poll(timeout_ms=200).values():
                    found += [stored(record) for record in records]
        return sorted(found, key=lambda record: (record.partition, record.offset))

    def _client_id(self, role: str) -> str:
        self._clients += 1
        return f"{self.name}-{role}-{self._clients}"


def stored(record: Any) -> StoredRecord:  # noqa: ANN401 - kafka-python is untyped
    """
    kafka-python's record as ours.
    """
    return StoredRecord(
        Partition(record.topic, record.partition),
        record.offset,
        record.key,
        record.value,
        tuple(record.headers),
        record.timestamp,
    )


def poll_until(source: EventSource, count: int, *, room: int = 100) -> list[RawEvent]:
    """
    The next ``count`` events of the only member of a group, or fewer after the deadline.
    """
    events: list[RawEvent] = []
    give_up_s = time.monotonic() + DEADLINE_S
    while len(events) < count and time.monotonic() < give_up_s:
        events += source.poll(room=room, wait_s=0.05).events
    return events


def release(topic: str, partition: Partition, offset: int, value: bytes = b"{}", **changes: Any) -> Release:  # noqa: ANN401 - fields of Message
    """
    An outcome of the upload at this position.
    """
    fields: Mapping[str, Any] = {"key": b"post-1", "headers": (), "timestamp_ms": 1_000} | changes
    return Release(partition, offset, Message(topic=topic, value=value, **fields))
