"""
Transactions whose coordinator goes: one thing of kafka-python 3.0.12 is mended here, and asked what became of one.

Transactions themselves are in ``kafka_outbox.py``.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from worker.adapters.kafka_client import START_TIMEOUT_S, admin_client, leave, reading_config, starting
from worker.domain import Partition
from worker.errors import CannotStart
from worker.settings.tree import KafkaSettings

LOOK_AGAIN_S: Final = 0.05
"""How long to wait before the brokers are asked again which of them coordinates."""


def ask_on(producer: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
    """
    Make the producer go on with the request of a transaction whose coordinator is not there any more.

    Its sender takes the request from the queue and connects. Where the connection is refused, it looks for the
    coordinator anew and drops the request: the transaction waits for an answer to what nobody sent, and the worker ends
    with ``PublishFailed`` though another broker has long taken over. Only where the client says "not ready" instead
    of raising, the sender puts the request back. There is no public way to do this; a version without these attributes
    does it another way.
    """
    client = getattr(getattr(producer, "_sender", None), "_client", None)
    connect = getattr(client, "await_ready", None)
    if client is None or connect is None:
        return

    def await_ready(node_id: Any, timeout_ms: float = 30_000) -> bool:  # noqa: ANN401 - as above
        try:
            return bool(connect(node_id, timeout_ms=timeout_ms))
        except kafka_errors.KafkaConnectionError:
            # On the sender's thread, which has nothing else to do until there is a coordinator.
            threading.Event().wait(LOOK_AGAIN_S)
            return False

    client.await_ready = await_ready


def is_member(settings: KafkaSettings, place: ConsumerGroupMetadata) -> bool:
    """
    Whether the group of this place has its member still, in whichever generation. Raises ``CannotStart``.

    A coordinator that has just taken the group over does not know yet, and is asked on.
    """
    give_up_s = time.monotonic() + START_TIMEOUT_S
    with starting(settings, START_TIMEOUT_S), admin_client(settings) as admin:
        while True:
            found = admin.describe_groups([place.group_id])[place.group_id]
            if found["error"] is None or kafka_errors.GroupIdNotFoundError.__name__ in found["error"]:
                return any(member["member_id"] == place.member_id for member in found["members"])
            if time.monotonic() > give_up_s:
                raise CannotStart(f"Kafka does not say who is in group {place.group_id}: {found['error']}")
            threading.Event().wait(LOOK_AGAIN_S)


def stored_offsets(
    settings: KafkaSettings, partitions: Sequence[Partition], *, group_id: str, client_id: str
) -> Mapping[Partition, int]:
    """
    What the group has committed of these partitions, those left out of which it has committed nothing.

    Asked so that the brokers answer when no transaction on them is open any more. Raises ``CannotStart``.
    """
    with starting(settings, START_TIMEOUT_S):
        consumer = KafkaConsumer(
            **reading_config(settings, client_id=client_id, group_id=group_id),
            bootstrap_timeout_ms=round(START_TIMEOUT_S * 1000),
        )
        try:
            stored = {
                at: consumer.committed(TopicPartition(at.topic, at.number), timeout_ms=START_TIMEOUT_S * 1000)
                for at in partitions
            }
        finally:
            leave(consumer)
    return {at: offset for at, offset in stored.items() if offset is not None}
