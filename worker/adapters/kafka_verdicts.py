"""
Verdicts read back from a Kafka topic, once, up to end offsets that are fixed at the start.

No group and no commits: what is read here is looked at, not processed. Live reading is in ``kafka_source.py``.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, TopicPartition

from schemas.verdict import ImageVerdictV1
from worker.adapters.kafka_client import (
    START_TIMEOUT_S,
    connection_config,
    crashed,
    require_crc32c,
    require_topics,
    starting,
)
from worker.adapters.verdict_lines import ReadSoFar, verdict_of
from worker.errors import WorkerCrashed
from worker.settings.tree import KafkaSettings

POLL_S: Final = 0.5
SILENCE_S: Final = 60.0
"""How long a topic may give nothing, while its end is not reached, before reading it is given up."""

_RECORDS_PER_POLL: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Range:
    """
    Offsets of one partition: from ``start`` on, below ``end``.
    """

    start: int
    end: int


def read_verdicts(
    settings: KafkaSettings,
    topic: str,
    *,
    since: datetime | None = None,
    progress: ReadSoFar = lambda _done, _of: None,
) -> Iterator[ImageVerdictV1]:
    """
    The committed verdicts of ``topic``, partition by partition in order; ``since`` is of the records' own time.

    What is written after the first of them was asked for is not read. Raises ``CannotStart`` when Kafka or the topic is
    not there, or a record is no verdict (naming partition and offset), and ``WorkerCrashed`` when Kafka fails midway.
    """
    require_crc32c()
    require_topics(settings, [topic])
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **connection_config(settings),
            client_id="touchstone-verdicts",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Verdicts of a transaction that was aborted were never given.
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
    with closing(consumer):
        with starting(settings, START_TIMEOUT_S):
            ranges = _ranges(consumer, topic, since)
            consumer.assign(list(ranges))
            for partition, range_ in ranges.items():
                consumer.seek(partition, range_.start)
        for record in _records(consumer, ranges, progress):
            where = f"topic {topic}, partition {record.partition}, offset {record.offset}"
            yield verdict_of(record.value, where=where)


def _ranges(consumer: Any, topic: str, since: datetime | None) -> dict[TopicPartition, _Range]:  # noqa: ANN401 - kafka-python is untyped
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    # The last stable offset, as isolation is read_committed: an open transaction bounds what can be read.
    ends: Mapping[TopicPartition, int] = consumer.end_offsets(partitions)
    starts: dict[TopicPartition, int] = dict(consumer.beginning_offsets(partitions))
    if since is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, round(since.timestamp() * 1000)))
        starts |= {partition: at.offset if at is not None else ends[partition] for partition, at in found.items()}
    return {
        partition: _Range(starts[partition], ends[partition])
        for partition in partitions
        if starts[partition] < ends[partition]
    }


def _records(consumer: Any, ranges: Mapping[TopicPartition, _Range], progress: ReadSoFar) -> Iterator[Any]:  # noqa: ANN401 - kafka-python is untyped
    open_ranges = dict(ranges)
    total = sum(range_.end - range_.start for range_ in ranges.values())
    reached = {partition: range_.start for partition, range_ in ranges.items()}
    last_news_s = time.monotonic()
    progress(0, total)
    while open_ranges:
        polled = _polled(consumer)
        for partition, records in polled.items():
            end = ranges[partition].end
            yield from (record for record in records if record.offset < end and record.value is not None)
        # The position and not the last record's offset: marks of transactions and compacted records have offsets too.
        now_at = {partition: min(consumer.position(partition), ranges[partition].end) for partition in open_ranges}
        if any(at > reached[partition] for partition, at in now_at.items()):
            last_news_s = time.monotonic()
        elif time.monotonic() - last_news_s > SILENCE_S:
            at = ", ".join(f"{partition.partition} at offset {reached[partition]}" for partition in open_ranges)
            raise WorkerCrashed(
                f"Kafka gave nothing for {SILENCE_S:g} s before the end of partition {at}; look after the brokers that "
                "lead them, and start again"
            )
        reached |= now_at
        done = [partition for partition, at in now_at.items() if at >= ranges[partition].end]
        consumer.pause(*done)
        for partition in done:
            del open_ranges[partition]
        progress(sum(at - ranges[partition].start for partition, at in reached.items()), total)


def _polled(consumer: Any) -> Mapping[TopicPartition, Any]:  # noqa: ANN401 - kafka-python is untyped
    try:
        records: Mapping[TopicPartition, Any] = consumer.poll(timeout_ms=POLL_S * 1000, max_records=_RECORDS_PER_POLL)
    except kafka_errors.KafkaError as error:
        if not error.retriable:
            raise crashed(error, "to give verdicts") from error
        # A broker that is away is waited for, as long as a silence may last.
        return {}
    return records
