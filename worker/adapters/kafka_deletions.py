"""
Deletions: read from their topic by a live worker, and written to it by ``touchstone forget --publish``.

What is to be forgotten, and from where, is the business of ``worker.operation.forgetting``.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from worker.adapters.kafka_client import (
    START_TIMEOUT_S,
    commit_offsets,
    crashed,
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
from worker.domain import RawEvent
from worker.errors import PublishFailed
from worker.outcomes import Message
from worker.settings.tree import KafkaSettings

LOOK_AGAIN_S: Final = 60.0
"""How often partitions that were added to the topic are looked for."""


class KafkaDeletions:
    """
    Every record of the deletions topic, for this worker alone, from where it had got to.

    No worker shares this work with another, because each has a memory of its own and perhaps an archive on its own
    disk. Offsets are stored under ``<group_id>.deletions.<instance_id>``; a worker without an ``instance_id`` stores
    none and begins at the oldest record each time, which repeats what was forgotten and harms nothing. Raises
    ``CannotStart`` when Kafka or the topic is not there. One thread may use it.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str, instance_id: str | None) -> None:
        require_crc32c()
        self._topic = settings.topics.deletions
        self._stores = instance_id is not None
        require_topics(settings, [self._topic])
        group_id = None if instance_id is None else f"{settings.group_id}.deletions.{instance_id}"
        with starting(settings, START_TIMEOUT_S):
            self._consumer: Any = KafkaConsumer(
                **reading_config(settings, client_id=f"{client_id}-deletions", group_id=group_id),
                bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
            )
            read_all_records(self._consumer)
            self._assigned: frozenset[TopicPartition] = frozenset()
            self._assign()

    def poll(self, *, wait_s: float, limit: int = 500) -> Sequence[RawEvent]:
        """
        The next records, in order within each partition; none while the brokers are away.

        Raises ``WorkerCrashed`` when Kafka will never give them.
        """
        try:
            if time.monotonic() > self._looked_s + LOOK_AGAIN_S:
                self._assign()
            polled = self._consumer.poll(timeout_ms=wait_s * 1000, max_records=limit)
        except kafka_errors.KafkaError as error:
            if not error.retriable:
                raise crashed(error, f"to give deletions of {self._topic}") from error
            return []
        now_s = time.time()
        return [raw_event(record, now_s) for records in polled.values() for record in records]

    def commit(self, done: Sequence[RawEvent]) -> None:
        """
        Store that these were forgotten; where the brokers are away, a later call or the next start does it again.

        Raises ``WorkerCrashed`` when the group will never take it.
        """
        if self._stores and done:
            offsets = {event.partition: event.offset + 1 for event in done}
            commit_offsets(self._consumer, offsets, topic=self._topic)

    def close(self) -> None:
        """
        Release the connection. Commits nothing.
        """
        leave(self._consumer)

    def _assign(self) -> None:
        numbers = self._consumer.partitions_for_topic(self._topic) or ()
        found = frozenset(TopicPartition(self._topic, number) for number in numbers)
        if found - self._assigned:
            self._assigned |= found
            # Keeps the positions of those that were assigned before.
            self._consumer.assign(sorted(self._assigned))
        self._looked_s = time.monotonic()


def publish_deletions(settings: KafkaSettings, messages: Sequence[Message], *, client_id: str) -> None:
    """
    Write these messages, and return when the brokers have acknowledged them.

    Raises ``CannotStart`` when Kafka or the topic is not there, ``PublishFailed`` when one was not taken.
    """
    require_crc32c()
    require_topics(settings, [settings.topics.deletions])
    with starting(settings, START_TIMEOUT_S):
        producer = KafkaProducer(**producer_config(settings, client_id=client_id, transactional_id=None))
    with closing(producer):
        try:
            sent = [
                producer.send(
                    message.topic,
                    value=message.value,
                    key=message.key,
                    headers=list(message.headers),
                    timestamp_ms=message.timestamp_ms,
                )
                for message in messages
            ]
            for future in sent:
                future.get(settings.publish_timeout_s)
        except kafka_errors.KafkaError as error:
            raise PublishFailed(
                f"Kafka did not take every deletion for {settings.topics.deletions}: {told(error)}. Publish again; a "
                "deletion that is told twice does no harm."
            ) from error
