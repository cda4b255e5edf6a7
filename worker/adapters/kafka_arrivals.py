"""
What arrives in some topics, for whoever measures: counted without reading while it arrives, and read afterwards.

In no group's hands, and nothing is committed. The worker itself uses none of it; whoever reads outcomes as a platform
does is ``kafka_platform.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from worker.adapters.kafka_client import START_TIMEOUT_S, partitions_of, reading_config, starting
from worker.adapters.kafka_records import fault_of, read_all_records
from worker.errors import WorkerCrashed
from worker.settings.tree import KafkaSettings

_WAIT_S: Final = 0.5
_MOST_WAITS: Final = 60


@dataclass(frozen=True, slots=True)
class Arrived:
    """
    One record: where it lies, and when whoever wrote it says that it was made, in milliseconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None = field(repr=False)


class Arrivals:
    """
    Watches topics from the present end of each of their partitions; for one thread.

    Raises ``CannotStart`` when Kafka or a topic is not there.
    """

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], *, client_id: str) -> None:
        with starting(settings, START_TIMEOUT_S):
            self._consumer: Any = KafkaConsumer(
                # As a platform reads: what a worker took back is no outcome.
                **reading_config(settings, client_id=client_id),
                bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
            )
            read_all_records(self._consumer)
            self._partitions: list[TopicPartition] = [
                at for topic in topics for at in partitions_of(self._consumer, topic)
            ]
            self._consumer.assign(self._partitions)
            self._read: dict[TopicPartition, int] = self._ends()
        for at, offset in self._read.items():
            self._consumer.seek(at, offset)

    def waiting(self) -> int:
        """
        How many offsets lie behind what was read last: one request to each broker, and no record is transferred.

        No fewer than there are records. With transactions there are more: each leaves a marker at an offset of its own,
        and how many records there are only ``take`` can tell.
        """
        return sum(end - self._read[at] for at, end in self._ends().items())

    def take(self) -> list[Arrived]:
        """
        All records that have arrived since the last call, in order within each partition.

        Markers of transactions are passed over. Raises ``WorkerCrashed`` where Kafka does not give what it says it has.
        """
        ends = self._ends()
        found: list[Arrived] = []
        waits = 0
        while any(self._read[at] < end for at, end in ends.items()):
            polled = self._consumer.poll(timeout_ms=_WAIT_S * 1000, max_records=5_000)
            for records in polled.values():
                found += [_arrived(record) for record in records if fault_of(record.headers) is None]
            # Where the consumer stands, not where its last record lay: markers are never given, and it goes past them.
            read = {at: max(offset, self._consumer.position(at) or 0) for at, offset in self._read.items()}
            waits = 0 if polled or read != self._read else waits + 1
            self._read = read
            if waits > _MOST_WAITS:
                raise WorkerCrashed(f"Kafka gave nothing for {_WAIT_S * waits:g} s of what it says it has; look at it")
        return found

    def close(self) -> None:
        """
        Leave the brokers.
        """
        self._consumer.close()

    def _ends(self) -> dict[TopicPartition, int]:
        ends: dict[TopicPartition, int] = self._consumer.end_offsets(self._partitions)
        return ends


def _arrived(record: Any) -> Arrived:  # noqa: ANN401 - kafka-python is untyped
    return Arrived(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value)
