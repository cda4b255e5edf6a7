"""
The platform's side: the uploads that it publishes, and what its broker says of topics and groups.

Outcomes are read in ``outcome_reader.py``; the workers themselves are in ``worker_rig.py``.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from schemas.uploaded import TYPE
from tests.bank_builders import a_picture

DEADLINE_S = 60.0
"""For one thing to happen on a busy machine; nothing waits so long where all is well."""

SILENT = {"log_level": 0}
"""Of librdkafka's clients, which would report each server that a test ends; what matters is in their answers."""

LATEST = -1

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
    What the broker says of topics and of one group; while it is not ready it is asked again. Any thread may ask.
    """

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._group = group
        self._asking = threading.Lock()
        # Not librdkafka's: its Python binding 2.16.1 crashes the process when a group's coordinator is still loading.
        self._admin: Any = KafkaAdminClient(bootstrap_servers=bootstrap_servers)

    def committed(self) -> dict[int, int]:
        """
        What the group has committed, per partition of the one topic that it reads.
        """
        found = self._ask(lambda admin: admin.list_group_offsets(self._group)).get(self._group, {})
        return {at.partition: stored.offset for at, stored in found.items() if stored.offset >= 0}

    def ends(self, topic: str) -> dict[int, int]:
        """
        The offset behind the last record of every partition of a topic.
        """
        (told,) = self._ask(lambda admin: admin.describe_topics([topic]))
        latest = {TopicPartition(topic, one["partition_index"]): LATEST for one in told["partitions"]}
        found = self._ask(lambda admin: admin.list_partition_offsets(latest))
        return {at.partition: end.offset for at, end in found.items()}

    def members(self) -> dict[str, set[int]]:
        """
        The group's members by member id, which begins with the worker's instance, each with its partitions.

        Empty unless the group is stable.
        """
        group = self._ask(lambda admin: admin.describe_groups([self._group]))[self._group]
        if group["group_state"] != "Stable":
            return {}
        return {one["member_id"]: _partitions(one["member_assignment"]) for one in group["members"]}

    def shares(self) -> list[int]:
        """
        How many partitions each member of the stable group has, the fewest first.
        """
        return sorted(map(len, self.members().values()))

    def _ask(self, question: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - kafka-python is untyped
        give_up_s = time.monotonic() + DEADLINE_S
        with self._asking:
            while True:
                try:
                    return question(self._admin)
                except KafkaError as error:
                    if not error.retriable or time.monotonic() > give_up_s:
                        raise
                    threading.Event().wait(0.05)

    def close(self) -> None:
        """
        Release the connection.
        """
        self._admin.close()


def _partitions(assignment: Any) -> set[int]:  # noqa: ANN401 - kafka-python is untyped
    topics = assignment["assigned_partitions"] if assignment else ()
    return {number for topic in topics for number in topic["partitions"]}
