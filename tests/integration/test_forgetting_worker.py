"""
A whole worker forgets: from Redis, from its archive and from its memory, by event and by command.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, TopicPartition
from redis import Redis

from schemas.deleted import TYPE
from tests.platform_side import DEADLINE_S, Cluster, Event, inline, publish, small_jpeg, upload_event
from tests.servers import eventually
from tests.worker_rig import WorkerRig
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.cli import touchstone
from worker.settings.tree import KafkaSettings

pytestmark = pytest.mark.servers


@contextmanager
def further_topics(settings: KafkaSettings) -> Iterator[None]:
    """
    The topics of embeddings and deletions exist while inside, as `touchstone topics apply` makes them.
    """
    with topics_of(settings) as topics:
        wanted = wanted_topics(settings, TopicsFile(), brokers=topics.brokers(), roles=("embeddings", "deletions"))
        topics.apply(plan_topics(wanted, {}))
    try:
        yield
    finally:
        with topics_of(settings) as topics:
            topics.delete([topic.name for topic in wanted])


def latest(settings: KafkaSettings) -> dict[bytes, bool]:
    """
    Of every key in the embeddings topic whether its latest record holds a value; a tombstone does not.
    """
    topic = settings.topics.embeddings
    found: dict[bytes, bool] = {}
    with closing(KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest")) as reader:
        partitions = [TopicPartition(topic, number) for number in reader.partitions_for_topic(topic)]
        reader.assign(partitions)
        ends = reader.end_offsets(partitions)
        while any(reader.position(at) < ends[at] for at in partitions):
            for records in reader.poll(timeout_ms=200).values():
                found |= {record.key: record.value is not None for record in records}
    return found


def deletion(content_id: str) -> Event:
    """
    The platform says that a content is gone.
    """
    headers = {"ce_specversion": "1.0", "ce_id": content_id, "ce_source": "urn:platform", "ce_type": TYPE}
    value = json.dumps({"content_id": content_id}).encode()
    return Event(content_id.encode(), value, tuple((name, text.encode()) for name, text in headers.items()))


def forgetful(rig: WorkerRig) -> WorkerRig:
    """
    Its workers keep embeddings in a topic, and hear of deletions; the topics are ``further_topics``.
    """
    return rig.configure(
        "deletions.enabled=true",
        "embeddings.keep=topic",
        f"kafka.topics.deletions={rig.name}-deletions",
        f"kafka.topics.embeddings={rig.name}-embeddings",
    ).create_topics(partitions=2)


class Watched:
    """
    What can be seen of one image from outside: its keys in Redis, its records in the archive, its verdicts.
    """

    def __init__(self, rig: WorkerRig, redis: Redis) -> None:
        self.rig = rig
        self.redis = redis
        self.data = small_jpeg(1)
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.reader = rig.reader()

    def judged(self, content_id: str) -> str:
        """
        Upload the image as this content, wait for its verdict, and tell what it says of the embedding.
        """
        (published,) = self.rig.publish([upload_event(content_id, inline(self.data))])
        assert self.reader.until_answered([published]), self.rig.text()
        cache: dict[str, Any] = self.reader.verdict_of(published)["cache"]
        return f"{cache['status']}/{cache['tier']}"

    def keys(self) -> list[str]:
        """
        The kinds of keys in Redis that hold or name the bytes.
        """
        pattern = f"touchstone:{self.rig.settings.redis.namespace}:*"
        kinds = [key.decode().split(":")[2] for key in self.redis.scan_iter(match=pattern)]
        return sorted(kind for kind in kinds if kind not in {"s1", "g1", "g2"})

    def kept(self) -> bool | None:
        """
        Whether the archive has a value of the bytes; None where it has heard of none.
        """
        found = [
            holds for key, holds in latest(self.rig.settings.kafka).items() if key.startswith(self.sha256.encode())
        ]
        return any(found) if found else None

    def until(self, condition: Callable[[], bool]) -> None:
        """
        It came true.
        """
        assert eventually(condition, deadline_s=DEADLINE_S), f"{self.keys()} {self.kept()}\n{self.rig.text()}"


def test_a_deleted_image_is_forgotten_everywhere(new_rig: Callable[..., WorkerRig]) -> None:
    """
    After the event, and after the command, nothing measured of the bytes is left; they are computed anew when asked.

    The deletion is committed, and no content id stands in the worker's log of it.
    """
    rig = forgetful(new_rig())
    settings = rig.settings
    with (
        further_topics(settings.kafka),
        closing(Redis.from_url(settings.redis.url.get_secret_value())) as redis,
        closing(Cluster(rig.bootstrap_servers, f"{settings.kafka.group_id}.deletions.one")) as deletions,
    ):
        worker = rig.start("one")
        worker.until_started()
        watched = Watched(rig, redis)
        first = [watched.judged("post-1"), watched.judged("post-2")]
        watched.until(lambda: watched.keys() == ["e2", "f1", "u1", "u1"] and watched.kept() is True)

        publish(rig.bootstrap_servers, settings.kafka.topics.deletions, [deletion("post-1")])
        watched.until(lambda: watched.keys() == ["u1", "u1"] and watched.kept() is False)
        watched.until(lambda: deletions.committed() == {0: 1})
        after_event = watched.judged("post-3")
        watched.until(lambda: watched.keys() == ["e2", "f1", "u1", "u1", "u1"] and watched.kept() is True)

        arguments = [part for one in rig.sets for part in ("--set", one)]
        ran = CliRunner().invoke(touchstone, ["forget", "post-3", "--publish", "--json", *arguments])
        watched.until(lambda: deletions.committed() == {0: 2})
        after_command = watched.judged("post-4")
        code = worker.stop()

    said = json.loads(ran.stdout)
    assert ["miss/None", "hit/process"] == first
    assert ["miss/None", "miss/None"] == [after_event, after_command]
    assert (1, 0, {}) == tuple(said[name] for name in ("published", "unknown", "failed"))
    # Of the keys in Redis each is counted by whoever came first, the command or the worker.
    in_redis = said["removed"].pop("redis") + worker.logged("contents.forgotten")[1]["removed_redis"]
    assert ({"archive": 2}, 2) == (said["removed"], in_redis)
    assert 0 == code
    assert 2 == len(worker.logged("contents.forgotten"))
    assert "post-1" not in json.dumps(worker.logged("contents.forgotten"))


def test_a_deletion_that_overtakes_its_upload_is_followed(new_rig: Callable[..., WorkerRig]) -> None:
    """
    It is heard, finds nothing and is committed before the upload comes; once that is judged, nothing of it is left.

    Another content is kept as ever.
    """
    rig = forgetful(new_rig())
    settings = rig.settings
    with (
        further_topics(settings.kafka),
        closing(Redis.from_url(settings.redis.url.get_secret_value())) as redis,
        closing(Cluster(rig.bootstrap_servers, f"{settings.kafka.group_id}.deletions.one")) as deletions,
    ):
        worker = rig.start("one")
        worker.until_started()
        watched = Watched(rig, redis)
        publish(rig.bootstrap_servers, settings.kafka.topics.deletions, [deletion("post-1")])
        watched.until(lambda: deletions.committed() == {0: 1})
        judged = [watched.judged("post-1")]
        watched.until(lambda: watched.keys() == ["u1"] and watched.kept() is False)
        judged.append(watched.judged("post-2"))
        watched.until(lambda: watched.keys() == ["e2", "f1", "u1", "u1"] and watched.kept() is True)
        code = worker.stop()

    first, second = worker.logged("contents.forgotten")
    assert ["miss/None", "miss/None"] == judged
    assert 0 == code
    assert (1, 0) == (first["unknown"], first["hashes"])
    assert (0, 1) == (second["unknown"], second["hashes"])
