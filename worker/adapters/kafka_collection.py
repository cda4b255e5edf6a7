"""
A Kafka topic read once, from a moment or from its beginning, up to end offsets that are fixed at the start.

No group and no commits: what is read here is collected, not processed. Live reading is in ``kafka_source.py``.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, TopicPartition

from worker.adapters.kafka_client import (
    START_TIMEOUT_S,
    connection_config,
    crashed,
    require_crc32c,
    require_topics,
    starting,
)
from worker.adapters.kafka_source import raw_event
from worker.domain import RawEvent
from worker.errors import WorkerCrashed
from worker.settings.tree import KafkaSettings

POLL_S: Final = 0.5
SILENCE_S: Final = 60.0
"""How long a topic may give nothing, while its end is not reached, before reading it is given up."""

_PER_POLL: Final = 1_000

ReadSoFar = Callable[[int, int], None]
"""Told how many offsets were read, of how many."""


def collect(
    settings: KafkaSettings, topic: str, *, since_ms: int | None = None, progress: ReadSoFar = lambda _done, _of: None
) -> Iterator[RawEvent]:
    """
    The committed records of ``topic``, in order within each partition; ``since_ms`` is of the records' own time.

    Of an aborted transaction nothing is read, and nothing of what is written after the first record was asked for.
    Raises ``CannotStart`` when Kafka or the topic is not there, and ``WorkerCrashed`` when Kafka fails midway.
    """
    require_crc32c()
    require_topics(settings, [topic])
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **connection_config(settings),
            client_id="touchstone-collect",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
    with closing(consumer):
        with starting(settings, START_TIMEOUT_S):
            starts, ends = _bounds(consumer, topic, since_ms)
            consumer.assign(list(ends))
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
        yield from _records(consumer, starts, ends, progress)


_Offsets = Mapping[TopicPartition, int]


def _bounds(consumer: Any, topic: str, since_ms: int | None) -> tuple[_Offsets, _Offsets]:  # noqa: ANN401 - kafka-python is untyped
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    ends: _Offsets = consumer.end_offsets(partitions)
    starts: dict[TopicPartition, int] = dict(consumer.beginning_offsets(partitions))
    if since_ms is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        starts |= {partition: ends[partition] if at is None else at.offset for partition, at in found.items()}
    wanted = [partition for partition in partitions if starts[partition] < ends[partition]]
    return {partition: starts[partition] for partition in wanted}, {partition: ends[partition] for partition in wanted}


def _records(consumer: Any, starts: _Offsets, ends: _Offsets, progress: ReadSoFar) -> Iterator[RawEvent]:  # noqa: ANN401 - kafka-python is untyped
    reached = dict(starts)
    total = sum(ends[partition] - at for partition, at in starts.items())
    last_news_s = time.monotonic()
    progress(0, total)
    while unfinished := [partition for partition, at in reached.items() if at < ends[partition]]:
        for partition, records in _polled(consumer, unfinished[0].topic).items():
            now_s = time.time()
            yield from (raw_event(record, now_s) for record in records if record.offset < ends[partition])
        # The position and not the last record's offset: marks of transactions have offsets too.
        now_at = {partition: min(consumer.position(partition), ends[partition]) for partition in unfinished}
        if any(at > reached[partition] for partition, at in now_at.items()):
            last_news_s = time.monotonic()
        elif time.monotonic() - last_news_s > SILENCE_S:
            at = ", ".join(f"partition {one.partition} at offset {reached[one]}" for one in unfinished)
            raise WorkerCrashed(
                f"Kafka gave nothing of {unfinished[0].topic} for {SILENCE_S:g} s, before the end of {at}; look after "
                "the brokers, and start again"
            )
        reached |= now_at
        consumer.pause(*(partition for partition, at in now_at.items() if at >= ends[partition]))
        progress(sum(at - starts[partition] for partition, at in reached.items()), total)


def _polled(consumer: Any, topic: str) -> Mapping[TopicPartition, Any]:  # noqa: ANN401 - kafka-python is untyped
    try:
        records: Mapping[TopicPartition, Any] = consumer.poll(timeout_ms=POLL_S * 1000, max_records=_PER_POLL)
    except kafka_errors.KafkaError as error:
        if not error.retriable:
            raise crashed(error, f"to give records of {topic}") from error
        # A broker that is away is waited for, as long as a silence may last.
        return {}
    return records
