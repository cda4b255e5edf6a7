"""
The platform's side of the topics: publishes upload events, reads verdicts and dead letters.

For the demo, and for whoever wants to see a worker from outside; the worker itself uses none of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

from worker.adapters.kafka_client import connection_config, require_crc32c, starting
from worker.adapters.kafka_records import fault_of, read_all_records
from worker.settings.tree import KafkaSettings

START_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """
    One upload event as a platform sends it.
    """

    key: bytes
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """
    One message as a platform reads it.
    """

    topic: str
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes], ...]


def publish_uploads(settings: KafkaSettings, events: Sequence[PublishedEvent]) -> None:
    """
    Send the events to the upload topic, and return when all are acknowledged.

    Raises ``CannotStart`` when Kafka is not there; kafka-python's error when an event is not acknowledged.
    """
    require_crc32c()
    with starting(settings, START_TIMEOUT_S):
        producer = KafkaProducer(
            **connection_config(settings), acks="all", bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000)
        )
    try:
        sent = [
            producer.send(settings.topics.uploads, value=event.value, key=event.key, headers=list(event.headers))
            for event in events
        ]
        for future in sent:
            future.get(timeout=START_TIMEOUT_S)
    finally:
        producer.close(timeout=1)


def read_outcomes(settings: KafkaSettings, *, wait_s: float) -> Iterator[Sequence[ReadMessage]]:
    """
    Verdicts and dead letters from their first on, as they arrive; an empty sequence after each ``wait_s`` without any.

    Reads as a read_committed client without a group, and commits nothing; passes over what no worker wrote and nobody
    can read. Ends when the caller stops asking.
    """
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **connection_config(settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
    try:
        read_all_records(consumer)
        topics = (settings.topics.verdicts, settings.topics.dead_letters)
        consumer.assign(
            [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()]
        )
        while True:
            polled = consumer.poll(timeout_ms=round(wait_s * 1000))
            yield [
                ReadMessage(record.topic, record.value, tuple(record.headers))
                for records in polled.values()
                for record in records
                if fault_of(record.headers) is None
            ]
    finally:
        consumer.close()
