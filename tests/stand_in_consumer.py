"""
As much of kafka-python's consumer as the source of events uses, for what a real broker brings about too rarely.
"""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, MemberState

from worker.adapters.kafka_group import GroupWatch
from worker.settings.tree import TopicSettings

UPLOADS = TopicSettings().uploads
ZERO, ONE = TopicPartition(UPLOADS, 0), TopicPartition(UPLOADS, 1)
Record = namedtuple("Record", ["topic", "partition", "offset", "key", "value", "headers", "timestamp"])  # noqa: PYI024 - as kafka-python has it


def record(
    partition: TopicPartition, offset: int, timestamp: int = 5, headers: Sequence[tuple[str, bytes]] = (("h", b"1"),)
) -> Record:
    """
    A record as kafka-python gives it.
    """
    return Record(partition.topic, partition.partition, offset, b"k", b"v", list(headers), timestamp)


class StandIn:
    """
    As much of KafkaConsumer as the source uses. ``on_poll`` is what happens within a poll, one step for each.
    """

    def __init__(self, **config: Any) -> None:  # noqa: ANN401 - kafka-python's arguments
        self.config = config
        self.assigned: set[TopicPartition] = {ZERO, ONE}
        self.halted: set[TopicPartition] = set()
        self.sought: dict[TopicPartition, int] = {}
        self.place = ConsumerGroupMetadata("touchstone", 2, "member-a", None, MemberState.STABLE)
        self.listener: GroupWatch | None = None
        self.waits: list[float] = []
        self.topics: list[str] = []
        self.subscriptions = 0
        self.on_poll: list[Any] = []
        self.commit_error: Exception | None = None
        self.stored: dict[TopicPartition, int] = {}
        # How records are read is tested in tests/unit/test_kafka_records.py.
        self._fetcher = SimpleNamespace(
            PartitionRecords=None,
            _fetch_futures=[],
            _completed_fetches=[],
            _next_partition_records=None,
            _paused_partition_records={},
        )
        self.ends: dict[TopicPartition, int] = {}

    def subscribe(self, topics: Sequence[str], listener: GroupWatch) -> None:
        """
        Remember who listens.
        """
        self.topics = list(topics)
        self.listener = listener
        self.subscriptions += 1

    def unsubscribe(self) -> None:
        """
        Give up everything, telling nobody, as kafka-python does.
        """
        self.assigned = set()
        self.place = ConsumerGroupMetadata("touchstone", -1, "", None, MemberState.UNJOINED)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """
        Two.
        """
        return {0, 1}

    def group_metadata(self) -> ConsumerGroupMetadata:
        """
        The place in the group.
        """
        return self.place

    def assignment(self) -> set[TopicPartition]:
        """
        What it owns.
        """
        return set(self.assigned)

    def highwater(self, partition: TopicPartition) -> int | None:
        """
        The end of a partition, where a test has laid it down.
        """
        return self.ends.get(partition)

    def paused(self) -> set[TopicPartition]:
        """
        What is paused of that.
        """
        return self.halted & self.assigned

    def pause(self, *partitions: TopicPartition) -> None:
        """
        Only what is assigned can be paused.
        """
        assert set(partitions) <= self.assigned
        self.halted |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """
        Likewise.
        """
        assert set(partitions) <= self.assigned
        self.halted -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """
        Read on from there.
        """
        self.sought[partition] = offset

    def poll(self, *, timeout_ms: float, max_records: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """
        The next step of ``on_poll``: what to return, to raise, or to call and then return.
        """
        self.waits.append(timeout_ms)
        step = self.on_poll.pop(0) if self.on_poll else {}
        if isinstance(step, Exception):
            raise step
        found: Mapping[TopicPartition, Sequence[Record]] = step() if callable(step) else step
        assert sum(map(len, found.values())) <= max_records
        return found

    def commit(self, offsets: Mapping[TopicPartition, Any], *, timeout_ms: float) -> None:
        """
        Store, or raise.
        """
        assert timeout_ms > 0
        if self.commit_error is not None:
            raise self.commit_error
        self.stored |= {partition: at.offset for partition, at in offsets.items()}


def place(generation: int, member: str = "member-a", state: str = MemberState.STABLE) -> ConsumerGroupMetadata:
    """
    A place in the group.
    """
    return ConsumerGroupMetadata("touchstone", generation, member, None, state)
