"""
What a cluster is and how one group does, asked through kafka-python's admin client; for ``touchstone doctor``.

Only asks. The topics are described in ``kafka_topics.py``.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import TopicPartition
from kafka.admin import OffsetSpec

from worker.adapters.kafka_client import admin_client, starting
from worker.settings.tree import KafkaSettings

NO_OFFSET: Final = -1
ASK_AGAIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """
    A cluster that answers: ``brokers`` in service, and the ``version`` that a broker's requests betray.
    """

    brokers: int
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """
    A consumer group: its ``state`` in Kafka's words, its members, and per partition what it has not committed yet.

    ``uncommitted`` counts from the beginning of a partition of which the group has committed nothing.
    """

    state: str
    members: int
    uncommitted: Mapping[int, int]
    committed: int

    @property
    def lag(self) -> int:
        """
        All that the group has still to do.
        """
        return sum(self.uncommitted.values())


def survey_cluster(settings: KafkaSettings, *, timeout_s: float) -> ClusterFacts:
    """
    What answers at the configured servers, with the configured protocol and credentials. Raises ``CannotStart``.
    """
    with starting(settings, timeout_s), admin_client(settings, timeout_s=timeout_s) as admin:
        cluster = admin.describe_cluster()
        in_service = [broker["broker_id"] for broker in cluster["brokers"] if not broker.get("is_fenced")]
        version = admin.get_broker_version_data(in_service[0]).broker_version if in_service else ()
    return ClusterFacts(len(in_service), tuple(version))


def survey_group(settings: KafkaSettings, *, timeout_s: float) -> GroupFacts:
    """
    The configured group on the upload topic. Raises ``CannotStart``, also for a topic that is not there.
    """
    topic = settings.topics.uploads
    with starting(settings, timeout_s), admin_client(settings, timeout_s=timeout_s) as admin:
        group = _described(admin, settings.group_id, timeout_s)
        (told,) = admin.describe_topics([topic])
        partitions = [TopicPartition(topic, one["partition_index"]) for one in told["partitions"]]
        first = _offsets(admin, partitions, OffsetSpec.EARLIEST)
        end = _offsets(admin, partitions, OffsetSpec.LATEST)
        stored = admin.list_group_offsets(settings.group_id).get(settings.group_id, {})
    committed = {at.partition: one.offset for at, one in stored.items() if at.topic == topic and one.offset >= 0}
    uncommitted = {number: max(0, end[number] - committed.get(number, first[number])) for number in end}
    return GroupFacts(str(group["group_state"]), len(group["members"]), uncommitted, len(committed))


def newest_record_s(settings: KafkaSettings, *, timeout_s: float) -> float | None:
    """
    The latest time stamp in the upload topic, in seconds since the epoch; None while it is empty.

    Whose clock it is, is the topic's ``message.timestamp.type``: by default the producer's.
    """
    topic = settings.topics.uploads
    with starting(settings, timeout_s), admin_client(settings, timeout_s=timeout_s) as admin:
        (told,) = admin.describe_topics([topic])
        partitions = [TopicPartition(topic, one["partition_index"]) for one in told["partitions"]]
        found = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.MAX_TIMESTAMP))
    newest = max((one.timestamp for one in found.values()), default=NO_OFFSET)
    return None if newest < 0 else newest / 1000


def _described(admin: Any, group_id: str, timeout_s: float) -> Any:  # noqa: ANN401 - kafka-python is untyped
    # A cluster that nobody has asked for a group yet needs a moment to have a coordinator.
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return admin.describe_groups([group_id])[group_id]
        except kafka_errors.GroupIdNotFoundError:
            return {"group_state": "Dead", "members": ()}
        except kafka_errors.KafkaError as error:
            if not error.retriable or time.monotonic() > deadline_s:
                raise
            time.sleep(ASK_AGAIN_S)


def _offsets(admin: Any, partitions: list[TopicPartition], spec: Any) -> dict[int, int]:  # noqa: ANN401 - kafka-python is untyped
    found = admin.list_partition_offsets(dict.fromkeys(partitions, spec))
    return {at.partition: one.offset for at, one in found.items()}
