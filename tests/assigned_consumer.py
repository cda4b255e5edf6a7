"""
As much of kafka-python's consumer as the readers of stretches use: assigned by hand, over partitions in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition

TOPIC = "verdicts"


@dataclass(frozen=True)
class Log:
    """
    A partition: the offsets that hold a record, in order, and the end. ``times_ms`` are the records' own.
    """

    offsets: tuple[int, ...]
    end: int
    first: int = 0
    times_ms: tuple[int, ...] = ()


class AssignedConsumer:
    """
    Gives what lies in its logs, one partition per poll in turn; ``errors`` come first, one for each poll.

    It stops giving at the offsets of ``stuck_at``, and knows no positions while ``position_unknown``.
    """

    def __init__(
        self, logs: Mapping[int, Log], *, errors: Sequence[Exception] = (), stuck_at: int | None = None
    ) -> None:
        self.logs = {TopicPartition(TOPIC, number): log for number, log in logs.items()}
        self.errors = list(errors)
        self.stuck_at = stuck_at
        self.position_unknown = False
        self.at: dict[TopicPartition, int] = {}
        self.halted: set[TopicPartition] = set()
        self.asked: list[tuple[float, int]] = []
        self.commits: list[dict[TopicPartition, int]] = []
        # How records are read is tested in tests/unit/test_kafka_records.py.
        self._fetcher = SimpleNamespace(PartitionRecords=None)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """
        All that has a log.
        """
        return {partition.partition for partition in self.logs if partition.topic == topic}

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """
        Where they begin.
        """
        return {partition: self.logs[partition].first for partition in partitions}

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """
        Where they end.
        """
        return {partition: self.logs[partition].end for partition in partitions}

    def offsets_for_times(self, wanted: Mapping[TopicPartition, int]) -> dict[TopicPartition, Any]:
        """
        The first record that is as young, or none.
        """
        found: dict[TopicPartition, Any] = {}
        for partition, at_ms in wanted.items():
            log = self.logs[partition]
            young = [offset for offset, ms in zip(log.offsets, log.times_ms, strict=True) if ms >= at_ms]
            found[partition] = SimpleNamespace(offset=young[0]) if young else None
        return found

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """
        These, and no others.
        """
        self.at = dict.fromkeys(partitions, 0)
        self.halted = set()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """
        Read on from there.
        """
        assert partition in self.at
        self.at[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        """
        What is paused has nothing to give any more.
        """
        assert set(partitions) <= set(self.at)
        self.halted |= set(partitions)

    def position(self, partition: TopicPartition, *, timeout_ms: float) -> int | None:
        """
        What would be given next, whether or not there is a record at that offset.
        """
        assert timeout_ms > 0
        return None if self.position_unknown else self.at[partition]

    def poll(self, *, timeout_ms: float, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """
        Records of the next partition that has some, beyond what was asked for too: nobody told it the end.
        """
        self.asked.append((timeout_ms, max_records))
        if self.errors:
            raise self.errors.pop(0)
        for partition in list(self.at):
            self.at[partition] = self.at.pop(partition)
            if found := self._taken(partition, max_records):
                return {partition: found}
        return {}

    def commit(self, offsets: Mapping[TopicPartition, Any], *, timeout_ms: float) -> None:
        """
        Store, or raise.
        """
        assert timeout_ms > 0
        if self.errors:
            raise self.errors.pop(0)
        self.commits.append({partition: at.offset for partition, at in offsets.items()})

    def _taken(self, partition: TopicPartition, most: int) -> list[Any]:
        log = self.logs[partition]
        stop = log.end if self.stuck_at is None else min(log.end, self.stuck_at)
        if partition in self.halted or self.at[partition] >= stop:
            return []
        taken = [offset for offset in log.offsets if self.at[partition] <= offset < stop][:most]
        reached = taken[-1] + 1 if len(taken) == most else stop
        self.at[partition] = reached
        return [a_record(partition, offset) for offset in taken]


def a_record(partition: TopicPartition, offset: int) -> SimpleNamespace:
    """
    As kafka-python gives it.
    """
    return SimpleNamespace(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        key=None,
        value=b"{}",
        headers=[],
        timestamp=-1,
    )
