"""
Records published once more, each acknowledged or refused by name, and single records read from where they lie.

Which records, under which headers and why, is decided in ``worker.operation.redriving``.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    leave,
    reading_config,
    require_crc32c,
    require_topics,
    starting,
    told,
)
from worker.adapters.kafka_outbox import producer_config
from worker.adapters.kafka_records import read_all_records
from worker.adapters.kafka_source import raw_event
from worker.adapters.kafka_stretches import StretchReader
from worker.adapters.kafka_topics import topics_of
from worker.domain import Partition, RawEvent
from worker.errors import WorkerCrashed
from worker.flow.replay_run import Stretch
from worker.settings.tree import KafkaSettings

_AROUND_RECORD_BYTES: Final = 128
_AROUND_HEADER_BYTES: Final = 10

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Resent:
    """
    One record, as it is to be published.
    """

    topic: str
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: Headers

    @property
    def byte_length(self) -> int:
        """
        About what it takes of a topic's ``max.message.bytes``; never less.
        """
        headers = sum(len(name.encode()) + len(value or b"") + _AROUND_HEADER_BYTES for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + _AROUND_RECORD_BYTES


class KafkaRedrive:
    """
    Publishes through an idempotent producer, acknowledged by all replicas that are in sync. For one thread.
    """

    def __init__(self, settings: KafkaSettings, producer: Any, limits: Mapping[str, int]) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._settings = settings
        self._producer = producer
        self._limits = limits

    def refusal(self, record: Resent) -> str | None:
        """
        Why the record cannot be published there as it is; None when it can.
        """
        limit = self._limits[record.topic]
        if record.byte_length > limit:
            return f"{record.byte_length} bytes are more than {record.topic} takes (max.message.bytes {limit})"
        # kafka-python 3.0.12 writes neither, though Kafka takes both.
        if record.key is None and record.value is None:
            return "it has neither key nor value, and holds no event that could ever be read"
        if any(value is None for _, value in record.headers):
            return f"it has a header without a value, which cannot be written to {record.topic}; use a retry topic"
        return None

    def publish(self, records: Sequence[Resent]) -> int:
        """
        All of them, in order; how many were acknowledged, which is all: else raises ``WorkerCrashed``, with the number.
        """
        # The present time: under its own of long ago the topic's retention could remove a record before it is read.
        now_ms = round(time.time() * 1000)
        done = 0
        try:
            futures = [
                self._producer.send(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    timestamp_ms=now_ms,
                )
                for record in records
            ]
            for future in futures:
                future.get(self._settings.publish_timeout_s)
                done += 1
        except kafka_errors.KafkaError as error:
            raise WorkerCrashed(
                f"Kafka acknowledged {done} of the last {len(records)} records, and not the next: {told(error)}. Mend "
                "that and start again: what is sent twice has the same event id, and its verdicts the same verdict id."
            ) from error
        return done


@contextmanager
def opened_redrive(settings: KafkaSettings, topics: Sequence[str]) -> Iterator[KafkaRedrive]:
    """
    Ready to publish to these topics, and closed afterwards. Raises ``CannotStart``.
    """
    require_crc32c()
    require_topics(settings, topics)
    with topics_of(settings) as cluster:
        found = cluster.find(topics)
    limits = {name: int(topic.config.get("max.message.bytes") or 0) for name, topic in found.items()}
    config = producer_config(settings, client_id="touchstone-redrive", transactional_id=None) | {
        "bootstrap_timeout_ms": round(START_TIMEOUT_S * 1000),
        "max_block_ms": round(START_TIMEOUT_S * 1000),
        "max_request_size": max(1_048_576, *limits.values()),
    }
    with starting(settings, START_TIMEOUT_S):
        producer = KafkaProducer(**config)
    try:
        yield KafkaRedrive(settings, producer, limits)
    finally:
        # All that was acknowledged has been counted; the rest was told as not acknowledged.
        with suppress(kafka_errors.KafkaTimeoutError):
            producer.close(timeout=CLOSE_TIMEOUT_S)


def read_record(settings: KafkaSettings, place: Partition, offset: int) -> RawEvent | None:
    """
    The record that lies there; None when it, its partition or its topic is gone.

    Raises ``CannotStart`` when Kafka is not there, and ``WorkerCrashed`` when it fails midway.
    """
    with topics_of(settings) as cluster:
        if place.topic not in cluster.find([place.topic]):
            return None
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **reading_config(settings, client_id="touchstone-redrive"),
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
        read_all_records(consumer)
    try:
        return _read(consumer, settings, place, offset)
    finally:
        leave(consumer)


def _read(consumer: Any, settings: KafkaSettings, place: Partition, offset: int) -> RawEvent | None:  # noqa: ANN401 - kafka-python is untyped
    at = TopicPartition(place.topic, place.number)
    with starting(settings, START_TIMEOUT_S):
        if place.number not in (consumer.partitions_for_topic(place.topic) or ()):
            return None
        first, end = consumer.beginning_offsets([at])[at], consumer.end_offsets([at])[at]
        if not first <= offset < end:
            return None
        reader = StretchReader(consumer, place.topic, failure=WorkerCrashed)
        reader.begin({place.number: Stretch(offset, offset + 1)})
    found = [record for batch in reader.batches(lambda _done, _of: None) for record in batch]
    return raw_event(found[0], time.time()) if found else None
