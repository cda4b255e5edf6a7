"""
The platform's side: the uploads that it publishes, and what its broker says of topics and groups.

Outcomes are read in ``outcome_reader.py``; the workers themselves are in ``worker_rig.py``.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from uuid import uuid4

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # it has no __all__
from kafka import KafkaProducer

from schemas.uploaded import TYPE
from tests.bank_builders import a_picture

DEADLINE_S = 60.0
"""For one thing to happen on a busy machine; nothing waits so long where all is well."""

SILENT = {"log_level": 0}
"""Of librdkafka's clients, which would report each server that a test ends; what matters is in their answers."""

Headers = tuple[tuple[str, bytes], ...]
Position = tuple[int, int]
"""Partition and offset in the upload topic."""


@dataclass(frozen=True, slots=True)
class Event:
    """
    One record for the upload topic.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Published:
    """
    An event, and where in the upload topic it lies.
    """

    event: Event
    position: Position


def inline(data: bytes) -> dict[str, str]:
    """
    A reference that carries the image itself.
    """
    return {"kind": "inline", "base64": base64.b64encode(data).decode()}


def small_jpeg(number: int) -> bytes:
    """
    A small JPEG; another number, another picture.
    """
    return a_picture(10_000 + number, size=(64, 64), name="JPEG")


def upload_event(
    content_id: str, ref: Mapping[str, str], *, key: str | None = None, event_id: str | None = None
) -> Event:
    """
    An upload in binary mode; its key is the content id, its event id a new one, unless said otherwise.
    """
    body = {"content_id": content_id, "image": {"ref": ref}, "context": {"surface": "post"}}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id or str(uuid4()),
        "ce_source": "https://platform.example/uploads",
        "ce_type": TYPE,
        "content-type": "application/json",
    }
    return Event(
        (key or content_id).encode(),
        json.dumps(body).encode(),
        tuple((name, text.encode()) for name, text in headers.items()),
    )


def publish(bootstrap_servers: str, topic: str, events: Iterable[Event]) -> list[Published]:
    """
    Send the events, in this order per key, and return when all are acknowledged.
    """
    with closing(KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=5)) as producer:
        sent = [
            (event, producer.send(topic, value=event.value, key=event.key, headers=list(event.headers)))
            for event in events
        ]
        stored = [(event, future.get(DEADLINE_S)) for event, future in sent]
    return [Published(event, (record.partition, record.offset)) for event, record in stored]


class Cluster:
    """
    What the broker says of topics and of one group, through librdkafka. Any thread may ask.
    """

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._group = group
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, **SILENT})

    def committed(self) -> dict[int, int]:
        """
        What the group has committed, per partition of the one topic that it reads.
        """
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self._group)])
        found = asked[self._group].result(DEADLINE_S).topic_partitions
        return {at.partition: at.offset for at in found if at.offset >= 0}

    def ends(self, topic: str) -> dict[int, int]:
        """
        The offset behind the last record of every partition of a topic.
        """
        partitions = self._admin.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call] # as it is
        asked = self._admin.list_offsets({TopicPartition(topic, number): latest for number in partitions})
        return {at.partition: future.result(DEADLINE_S).offset for at, future in asked.items()}

    def members(self) -> dict[str, set[int]]:
        """
        The group's members by client id, each with its partitions; empty unless the group is stable.
        """
        group = self._admin.describe_consumer_groups([self._group])[self._group].result(DEADLINE_S)
        if group.state != ConsumerGroupState.STABLE:
            return {}
        return {one.client_id: {at.partition for at in one.assignment.topic_partitions} for one in group.members}
