"""
The platform's side of a stress run: uploads sent one by one at their time, outcomes read from this moment on.

Only the transport. What is sent when, and what the outcomes amount to, is in ``worker.bench.stress``.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, Self

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, KafkaProducer

from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    connection_config,
    leave,
    partitions_of,
    reading_config,
    require_crc32c,
    require_topics,
    starting,
    told,
)
from worker.adapters.kafka_platform import PublishedEvent
from worker.adapters.kafka_records import fault_of, read_all_records
from worker.adapters.kafka_survey import survey_group
from worker.errors import CannotStart, WorkerCrashed
from worker.flow.inbox import drained
from worker.settings.tree import KafkaSettings

CLIENT_ID: Final = "touchstone-stress"
AROUND_EVENT_BYTES: Final = 32_768
"""Room for the key, the headers and the record's own frame beside the largest event."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """
    A sent upload, by its number: where it lies, or why Kafka did not take it.
    """

    number: int
    place: tuple[int, int] | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """
    One record of the verdict or the dead-letter topic, and when it arrived on the monotonic clock.
    """

    topic: str
    at: tuple[int, int]
    value: bytes = field(repr=False)
    arrived_s: float


class KafkaPlatform:
    """
    A producer and a reader without a group; the reader knows its place in every partition when this is entered.

    ``send`` is for one thread, everything else for another. Raises ``CannotStart`` when Kafka or a topic is not there.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        require_crc32c()
        self._settings = settings
        self._topics = (settings.topics.verdicts, settings.topics.dead_letters)
        self._acknowledged: SimpleQueue[Acknowledged] = SimpleQueue()
        self._closing = ExitStack()
        self._consumer: Any = None
        self._producer: Any = None

    def __enter__(self) -> Self:
        require_topics(self._settings, (self._settings.topics.uploads, *self._topics))
        try:
            with starting(self._settings, START_TIMEOUT_S):
                self._begin()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _begin(self) -> None:
        timeout = {"bootstrap_timeout_ms": round(START_TIMEOUT_S * 1000)}
        self._consumer = KafkaConsumer(**reading_config(self._settings, client_id=CLIENT_ID), **timeout)
        self._closing.callback(leave, self._consumer)
        read_all_records(self._consumer)
        partitions = [at for topic in self._topics for at in partitions_of(self._consumer, topic)]
        self._consumer.assign(partitions)
        # Fixed now: looked up with the first poll, a place could lie behind the first outcome.
        for at, end in self._consumer.end_offsets(partitions).items():
            self._consumer.seek(at, end)
        self._producer = KafkaProducer(
            **connection_config(self._settings),
            **timeout,
            client_id=CLIENT_ID,
            acks="all",
            # What waits for company would be late through us, and every latency with it.
            linger_ms=0,
            max_request_size=self._settings.max_event_bytes + AROUND_EVENT_BYTES,
        )
        self._closing.callback(self._close_producer)
        self._producer.partitions_for(self._settings.topics.uploads)

    def _close_producer(self) -> None:
        with suppress(kafka_errors.KafkaError):
            self._producer.close(timeout=CLOSE_TIMEOUT_S)

    def members(self) -> int | None:
        """
        How many workers are in the configured group; None where that may not be asked.
        """
        try:
            return survey_group(self._settings, timeout_s=START_TIMEOUT_S).members
        except CannotStart:
            return None

    def send(self, number: int, event: PublishedEvent) -> None:
        """
        Hand the event of this number over to be sent; what becomes of it is told by ``take_acknowledged``.
        """
        try:
            future = self._producer.send(
                self._settings.topics.uploads, value=event.value, key=event.key, headers=list(event.headers)
            )
        except kafka_errors.KafkaError as error:
            self._acknowledged.put(Acknowledged(number, None, told(error)))
            return
        future.add_callback(self._took, number)
        future.add_errback(self._refused, number)

    def _took(self, number: int, record: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._acknowledged.put(Acknowledged(number, (record.partition, record.offset)))

    def _refused(self, number: int, error: Exception) -> None:
        self._acknowledged.put(Acknowledged(number, None, told(error)))

    def take_acknowledged(self) -> Sequence[Acknowledged]:
        """
        What Kafka has said of sent events since the last call; never blocks.
        """
        return drained(self._acknowledged)

    def read(self, wait_s: float) -> Sequence[ReadRecord]:
        """
        What has arrived, in order within each partition; waits ``wait_s`` at most. Raises ``WorkerCrashed``.

        Passes over what no worker wrote and nobody can read.
        """
        try:
            polled = self._consumer.poll(timeout_ms=round(wait_s * 1000))
        except kafka_errors.KafkaError as error:
            if error.retriable:
                return ()
            raise WorkerCrashed(f"Kafka refused to be read: {told(error)}") from error
        now_s = time.monotonic()
        return [
            ReadRecord(record.topic, (record.partition, record.offset), record.value, now_s)
            for records in polled.values()
            for record in records
            if record.value is not None and fault_of(record.headers) is None
        ]
