"""
Deletions from a real Kafka: heard by every worker, from where it had got to.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.platform_side import DEADLINE_S, Event, publish
from tests.servers import eventually
from worker.adapters.kafka_collection import collect
from worker.adapters.kafka_deletions import KafkaDeletions, publish_deletions
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.contents import ContentName
from worker.dev.servers import KafkaAt
from worker.domain import ContentHash
from worker.errors import CannotStart
from worker.operation.deletion_events import MOST_HASHES, deletion_messages
from worker.operation.forgetting import Deletion, read_deletion
from worker.settings.tree import KafkaSettings

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(kafka: KafkaAt, topic_name: str) -> Iterator[KafkaSettings]:
    """
    A deletions topic and a group that nobody else has.
    """
    settings = KafkaSettings.model_validate(
        {
            "bootstrap_servers": kafka.bootstrap_servers,
            "group_id": topic_name,
            "topics": {"deletions": f"{topic_name}-deletions"},
        }
    )
    with topics_of(settings) as topics:
        wanted = wanted_topics(settings, TopicsFile(), brokers=topics.brokers(), roles=("deletions",))
        topics.apply(plan_topics(wanted, {}))
    yield settings
    with topics_of(settings) as topics:
        topics.delete([settings.topics.deletions])


def heard(settings: KafkaSettings, instance_id: str | None, *, until: int, commit: int = 0) -> list[int]:
    """
    The offsets that a worker hears, until that of ``until``; of these it commits the first ``commit``.
    """
    found: list[int] = []
    with closing(KafkaDeletions(settings, client_id="test", instance_id=instance_id)) as source:

        def polled() -> bool:
            events = source.poll(wait_s=0.2)
            source.commit(events[:commit])
            found.extend(event.offset for event in events)
            return until in found

        assert eventually(polled, deadline_s=DEADLINE_S)
    return found


def tell(settings: KafkaSettings, *names: str) -> None:
    """
    The platform says that these are gone.
    """
    events = [Event(name.encode(), f'{{"content_id": "{name}"}}'.encode()) for name in names]
    publish(settings.bootstrap_servers, settings.topics.deletions, events)


def test_each_worker_goes_on_where_it_was(settings: KafkaSettings) -> None:
    """
    What one worker has committed it does not hear again; another one hears all, and one without a name always does.
    """
    tell(settings, "a", "b")
    first = heard(settings, "one", until=1, commit=2)
    unstored = heard(settings, "two", until=1)
    nameless = heard(settings, None, until=1, commit=2)
    tell(settings, "c")

    assert [0, 1] == first == unstored == nameless
    assert [2] == heard(settings, "one", until=2)
    assert [0, 1, 2] == heard(settings, "two", until=2) == heard(settings, None, until=2)


def test_what_we_publish_is_what_workers_read(settings: KafkaSettings) -> None:
    """
    A content with more hashes than one event holds is told in several, and each is a deletion of that content.
    """
    hashes = [f"{number:064x}" for number in range(MOST_HASHES + 1)]
    content = ContentName("acme", "post-1")
    messages = deletion_messages(content, hashes, topic=settings.topics.deletions, service="test")
    publish_deletions(settings, messages, client_id="test")
    read = [read_deletion(record) for record in collect(settings, settings.topics.deletions)]

    assert [
        Deletion(content, tuple(map(ContentHash, hashes[:MOST_HASHES]))),
        Deletion(content, (ContentHash(hashes[-1]),)),
    ] == read


def test_a_missing_topic_stops_the_start(settings: KafkaSettings) -> None:
    """
    Where there is no topic of deletions, a worker that should listen says so and what to do.
    """
    topics = settings.topics.model_copy(update={"deletions": f"{settings.topics.deletions}-none"})

    with pytest.raises(CannotStart, match="topics apply"):
        KafkaDeletions(settings.model_copy(update={"topics": topics}), client_id="test", instance_id="one")
