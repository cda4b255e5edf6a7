"""
``touchstone forget --search-verdicts`` on real servers: a content whose names Redis has lost is forgotten all the same.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.command_line import Touchstone, command_line
from tests.conftest import ROOT
from tests.platform_side import Event, publish
from tests.sightings import a_hash
from tests.watched_cache import Watched
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.dev.servers import KafkaAt, RedisAt
from worker.domain import ContentHash
from worker.settings.tree import KafkaSettings

pytestmark = pytest.mark.servers

EXAMPLE = json.loads((ROOT / "schemas" / "examples" / "imageVerdict.decided.json").read_text())["payload"]
CAT, DOG, EEL = a_hash("cat"), a_hash("dog"), a_hash("eel")


@pytest.fixture
def settings(kafka: KafkaAt, topic_name: str) -> Iterator[KafkaSettings]:
    """
    Topics of verdicts and deletions that nobody else has.
    """
    names = {role: f"{topic_name}-{role}" for role in ("verdicts", "deletions")}
    settings = KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": names})
    with topics_of(settings) as topics:
        wanted = wanted_topics(settings, TopicsFile(), brokers=topics.brokers(), roles=("verdicts", "deletions"))
        topics.apply(plan_topics(wanted, {}))
    yield settings
    with topics_of(settings) as topics:
        topics.delete(list(names.values()))


@pytest.fixture
def watched(redis_server: RedisAt) -> Iterator[Watched]:
    """
    A worker's cache, in a namespace of its own, that knows a cat, a dog and an eel. Which contents had them is lost.
    """
    with closing(Watched(redis_server.url)) as watched:
        watched.remember(CAT, DOG, EEL)
        yield watched


@pytest.fixture
def arguments(settings: KafkaSettings, watched: Watched) -> tuple[str, ...]:
    """
    The settings of all that.
    """
    sets = [
        f"kafka.bootstrap_servers={json.dumps(settings.bootstrap_servers)}",
        f"kafka.topics.verdicts={settings.topics.verdicts}",
        f"kafka.topics.deletions={settings.topics.deletions}",
        f"redis.url={watched.settings.url.get_secret_value()}",
        f"redis.namespace={watched.settings.namespace}",
    ]
    return tuple(part for one in sets for part in ("--set", one))


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone forget ...`` in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, "forget")


def a_verdict(content_id: str, content_hash: ContentHash, *, tenant_id: str | None) -> Event:
    """
    A verdict on some bytes, under a key that is not the content's, and of a version that says more than we know.
    """
    image = EXAMPLE["image"] | {"sha256": content_hash}
    body = EXAMPLE | {"verdict_id": str(uuid4()), "content_id": content_id, "tenant_id": tenant_id, "image": image}
    return Event(b"a key", json.dumps(body | {"news": {"of": "tomorrow"}}).encode(), ())


def known(watched: Watched) -> list[str]:
    """
    Which of the three are known still.
    """
    found = watched.cache.recall([CAT, DOG, EEL]) or {}
    return [name for name, content_hash in (("cat", CAT), ("dog", DOG), ("eel", EEL)) if content_hash in found]


def published(settings: KafkaSettings) -> list[dict[str, object]]:
    """
    The deletions in their topic.
    """
    topic = settings.topics.deletions
    with closing(KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest")) as reader:
        partitions = [TopicPartition(topic, number) for number in reader.partitions_for_topic(topic)]
        reader.assign(partitions)
        ends = reader.end_offsets(partitions)
        found = []
        while any(reader.position(at) < ends[at] for at in partitions):
            found += [json.loads(one.value) for records in reader.poll(timeout_ms=200).values() for one in records]
    return found


def test_what_verdicts_name_is_forgotten_and_told(
    forget: Touchstone, arguments: tuple[str, ...], settings: KafkaSettings, watched: Watched
) -> None:
    """
    Without the search nothing is known of the content, which is said with what to do; with it both of its revisions go.

    The same name of another tenant is another content. Records that are no verdicts, and verdicts without bytes, are
    passed over. The deletion that is published names the bytes, so that every worker finds them.
    """
    events = [
        a_verdict("post-1", CAT, tenant_id="acme"),
        a_verdict("post-1", EEL, tenant_id="acme"),
        a_verdict("post-1", DOG, tenant_id=None),
        a_verdict("post-2", DOG, tenant_id="acme"),
        Event(None, b"no verdict", ()),
        Event(None, json.dumps(EXAMPLE | {"content_id": "post-1", "tenant_id": "acme", "image": None}).encode(), ()),
    ]
    publish(settings.bootstrap_servers, settings.topics.verdicts, events)
    before = forget("post-1", "--tenant", "acme", *arguments, "--json")
    at_first = known(watched)
    code, out, _ = forget("post-1", "--tenant", "acme", "--search-verdicts", "--publish", *arguments, "--json")
    said = json.loads(out)

    assert 1 == before[0]
    assert "--search-verdicts" in before[2]
    assert ["cat", "dog", "eel"] == at_first
    assert (0, 2, 1, 0) == (code, said["in_verdicts"], said["published"], said["unknown"])
    assert ["dog"] == known(watched)
    assert [("post-1", "acme", sorted([CAT, EEL]))] == [
        (one["content_id"], one["tenant_id"], one["sha256"]) for one in published(settings)
    ]


def test_a_content_without_verdicts_is_not_known(
    forget: Touchstone, arguments: tuple[str, ...], settings: KafkaSettings, watched: Watched
) -> None:
    """
    The search is no promise: a content of which the topic says nothing ends with exit code 1, and nothing is removed.
    """
    publish(settings.bootstrap_servers, settings.topics.verdicts, [a_verdict("post-2", DOG, tenant_id="acme")])
    code, out, err = forget("post-1", "--tenant", "acme", "--search-verdicts", *arguments)

    assert 1 == code
    assert f"0 hashes found in {settings.topics.verdicts}." in out
    assert "Of 1 contents no bytes are known" in err
    assert ["cat", "dog", "eel"] == known(watched)
