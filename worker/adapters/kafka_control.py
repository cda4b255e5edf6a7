"""
Which bank release holds, told through a compacted topic: written by an operator's command, followed by workers.

One record per bank, keyed by its id; what is in it is ``schemas.bank_control``.
"""

import contextlib
import time
from typing import Any, Final

import kafka.errors as kafka_errors
import structlog
from kafka import KafkaConsumer, KafkaProducer
from pydantic import ValidationError

from schemas.bank_control import BankControlV1
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
from worker.adapters.kafka_records import fault_of, read_all_records
from worker.errors import CannotStart
from worker.settings.tree import KafkaSettings

log = structlog.get_logger(__name__)

READ_TIMEOUT_S: Final = 10.0
"""How long one look may take to reach the end of a topic that holds a handful of records."""

_POLL_MS: Final = 200


def announce(settings: KafkaSettings, control: BankControlV1) -> None:
    """
    Write a record to ``kafka.topics.bank_control`` and wait until Kafka has it. Raises ``CannotStart``.
    """
    require_crc32c()
    topic = settings.topics.bank_control
    require_topics(settings, [topic])
    with starting(settings, START_TIMEOUT_S):
        producer = KafkaProducer(
            **connection_config(settings),
            client_id="touchstone-bank",
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
            max_block_ms=round(START_TIMEOUT_S * 1000),
        )
        try:
            sent = producer.send(topic, key=control.bank.encode(), value=control.model_dump_json().encode())
            sent.get(settings.publish_timeout_s)
        finally:
            with contextlib.suppress(kafka_errors.KafkaTimeoutError):
                producer.close(timeout=CLOSE_TIMEOUT_S)


class ControlReader:
    """
    Follows the newest record of one bank; called by one thread. Reads from the beginning, and belongs to no group.

    Raises ``CannotStart`` when Kafka or the topic is not there.
    """

    def __init__(self, settings: KafkaSettings, bank: str) -> None:
        require_crc32c()
        self._topic = settings.topics.bank_control
        self._settings = settings
        self._key = bank.encode()
        self._newest: BankControlV1 | None = None
        require_topics(settings, [self._topic])
        with starting(settings, START_TIMEOUT_S):
            self._consumer: Any = KafkaConsumer(
                **reading_config(settings, client_id="touchstone-bank"),
                bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
            )
            try:
                read_all_records(self._consumer)
                self._partitions = partitions_of(self._consumer, self._topic)
                self._consumer.assign(self._partitions)
            except BaseException:
                self._consumer.close()
                raise

    def newest(self) -> BankControlV1 | None:
        """
        The newest record of the bank up to the topic's present end; None where there is none.

        Blocks for at most ``READ_TIMEOUT_S``. Raises ``CannotStart`` where the end is not reached: what holds now is
        not known then. A record that nothing can follow is passed over: what held before goes on holding.
        """
        give_up_s = time.monotonic() + READ_TIMEOUT_S
        try:
            ends = self._consumer.end_offsets(self._partitions)
            while any(self._consumer.position(partition) < ends[partition] for partition in self._partitions):
                for records in self._consumer.poll(timeout_ms=_POLL_MS).values():
                    for record in records:
                        self._take(record)
                if time.monotonic() > give_up_s:
                    raise CannotStart(f"topic {self._topic} could not be read to its end in {READ_TIMEOUT_S:g} s")
        except (kafka_errors.KafkaError, OSError) as error:
            raise CannotStart(f"topic {self._topic} cannot be read: {told(error)}") from error
        return self._newest

    def _take(self, record: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        if (fault := fault_of(record.headers)) is not None:
            # Before its value is looked at: of what cannot be read there is none, and it is no tombstone.
            if record.key in {self._key, None}:
                self._refuse(record, "record", fault)
            return
        if record.key != self._key:
            return
        if record.value is None:
            # A tombstone says that nothing holds; a worker keeps what it has, and a new one does not start.
            self._newest = None
            return
        try:
            found = BankControlV1.model_validate_json(record.value)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False)[0]
            self._refuse(record, ".".join(str(part) for part in first["loc"]), first["msg"])
            return
        self._newest = found

    def _refuse(self, record: Any, field: str, because: str) -> None:  # noqa: ANN401 - kafka-python is untyped
        log.warning(
            "bank.control_unreadable",
            topic=self._topic,
            partition=record.partition,
            offset=record.offset,
            field=field,
            because=because,
            advice="run `touchstone bank activate PLACE RELEASE --topic` to write a record that can be followed",
        )

    def close(self) -> None:
        """
        Release the consumer.
        """
        leave(self._consumer)
