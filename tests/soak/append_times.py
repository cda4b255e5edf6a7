"""
Early commits by the clock of the brokers: when each outcome was appended, against when each offset was committed.

``CommitWatch`` asks now and then, and an outcome that arrives between its two questions hides a commit that was early.
Here nothing is missed: the topic of the groups keeps every commit, and the brokers of a campaign share one clock, to
the millisecond. It holds where outcomes are acknowledged before they are committed; in a transaction the offsets may
be appended before the outcomes, and only its end makes either count.
"""

import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from tests.platform_side import DEADLINE_S, SILENT, Position

GROUPS = "__consumer_offsets"
COMMIT_KEYS = (0, 1)
"""Versions of a key of that topic; others are of members and generations."""


@dataclass(frozen=True, slots=True)
class Commit:
    """
    An offset that a group committed for a partition, and the broker's clock then.
    """

    partition: int
    offset: int
    at_ms: int


def stamp_by_the_broker(bootstrap_servers: str, topics: Iterable[str]) -> None:
    """
    Messages of these topics carry from now on when they were appended, not when they were made.
    """
    wanted = {"message.timestamp.type": "LogAppendTime"}
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap_servers)) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=wanted) for name in topics])


def committed_early(appended: Mapping[Position, int], commits: Iterable[Commit]) -> Sequence[str]:
    """
    In words, every commit behind which an upload had no outcome yet; ``appended`` says when each had its first.
    """
    done_ms: dict[int, list[int]] = defaultdict(list)
    for (partition, offset), at_ms in sorted(appended.items()):
        known = done_ms[partition]
        # What lies behind a gap never counts as done.
        if offset == len(known):
            known.append(max(at_ms, known[-1] if known else 0))
    return [
        f"partition {one.partition}: {one.offset} was committed at {one.at_ms} ms, before all below it was appended"
        for one in commits
        if one.offset > len(done_ms[one.partition])
        or (one.offset > 0 and done_ms[one.partition][one.offset - 1] > one.at_ms)
    ]


def appended_at(bootstrap_servers: str, topics: Sequence[str]) -> Mapping[Position, int]:
    """
    When the first end of each upload was appended to one of these topics.
    """
    first: dict[Position, int] = {}
    for message in _all_of(bootstrap_servers, topics):
        data = json.loads(message.value())
        if "verdict_id" not in data and data["error"]["stage"] != "parse":
            continue
        asked = data.get("input") or data["original"]
        position = (asked["partition"], asked["offset"])
        first[position] = min(first.get(position, message.timestamp()[1]), message.timestamp()[1])
    return first


def commits_of(bootstrap_servers: str, group: str, topic: str) -> Sequence[Commit]:
    """
    Every commit of a group for a topic, as its coordinator wrote it down.
    """
    return [
        Commit(partition, offset, message.timestamp()[1])
        for message in _all_of(bootstrap_servers, [GROUPS])
        if message.value() is not None
        for partition, offset in commit_in(message.key(), message.value(), group=group, topic=topic)
    ]


def commit_in(key: bytes, value: bytes, *, group: str, topic: str) -> Iterator[tuple[int, int]]:
    """
    Partition and offset, if the record is a commit of this group for this topic (Kafka's OffsetCommitKey and -Value).
    """
    if struct.unpack_from(">h", key)[0] not in COMMIT_KEYS:
        return
    told_group, at = _text(key, 2)
    told_topic, at = _text(key, at)
    if (told_group, told_topic) == (group, topic):
        (partition,) = struct.unpack_from(">i", key, at)
        (offset,) = struct.unpack_from(">q", value, 2)
        yield partition, offset


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def _all_of(bootstrap_servers: str, topics: Sequence[str]) -> Iterator[Any]:
    """
    Every message that is there now, partition by partition in order.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reader-{uuid4()}",
            **SILENT,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    with closing(consumer):
        left = {
            (topic, number)
            for topic in topics
            for number in consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
        }
        consumer.assign([TopicPartition(topic, number, 0) for topic, number in left])
        while left:
            # One by one: librdkafka's consume waits out its time where there are fewer than it was asked for.
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"nothing more came of {sorted(left)} within {DEADLINE_S:g} s"
            if (error := message.error()) is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard((message.topic(), message.partition()))
            else:
                assert not error.fatal(), error
