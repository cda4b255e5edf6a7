"""
``touchstone topics`` and the topics of a real broker.
"""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from worker.adapters.kafka_topics import create_for_a_while, topics_of
from worker.adapters.topic_plan import TopicsFile, WantedTopic, changes, plan_topics, wanted_topics
from worker.cli import touchstone
from worker.dev.servers import KafkaAt
from worker.errors import EXIT_CANNOT_START, CannotStart
from worker.settings.tree import KafkaSettings

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(kafka: KafkaAt, topic_name: str) -> Iterator[KafkaSettings]:
    """
    Settings whose topics nobody has; they are deleted afterwards.
    """
    names = {role: f"{topic_name}-{role}" for role in ("uploads", "verdicts", "dead_letters", "retry", "feedback")}
    settings = KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": names})
    yield settings
    with topics_of(settings) as topics:
        topics.delete([*names.values(), *settings.topics.retries(2)])


def touchstone_topics(settings: KafkaSettings, *arguments: str) -> tuple[int, str]:
    """
    Exit code and output of ``touchstone topics``.
    """
    topics = settings.topics
    sets = [
        f"kafka.bootstrap_servers={json.dumps(settings.bootstrap_servers)}",
        f"kafka.topics.uploads={topics.uploads}",
        f"kafka.topics.verdicts={topics.verdicts}",
        f"kafka.topics.dead_letters={topics.dead_letters}",
        f"kafka.topics.retry={topics.retry}",
        f"kafka.topics.feedback={topics.feedback}",
        "retry.delays_s=[30, 300]",
    ]
    options = [part for one in sets for part in ("--set", one)]
    result = CliRunner().invoke(touchstone, ["topics", *arguments, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stdout


def test_apply_makes_what_plan_showed_and_then_there_is_nothing_to_do(settings: KafkaSettings) -> None:
    """
    Plan exits 1 and changes nothing; apply creates; from then on both find everything as wanted.
    """
    first_code, first = touchstone_topics(settings, "plan", "--json", "--partitions", "3")
    second_code, _ = touchstone_topics(settings, "plan", "--json", "--partitions", "3")
    apply_code, applied = touchstone_topics(settings, "apply", "--json", "--partitions", "3")
    third_code, third = touchstone_topics(settings, "plan", "--json", "--partitions", "3")
    again_code, again = touchstone_topics(settings, "apply", "--json", "--partitions", "3")

    assert (first_code, second_code, apply_code, third_code, again_code) == (1, 1, 0, 0, 0)
    assert [topic["action"] for topic in json.loads(first)["topics"]] == ["create"] * 6
    assert (json.loads(applied)["applied"], json.loads(applied)["changes"]) == (True, 6)
    assert [json.loads(text)["changes"] for text in (third, again)] == [0, 0]
    with topics_of(settings) as topics:
        found = topics.find([settings.topics.uploads, settings.topics.dead_letters])
    assert [found[name].partitions for name in (settings.topics.uploads, settings.topics.dead_letters)] == [3, 1]
    assert found[settings.topics.uploads].config["retention.ms"] == "604800000"


def test_the_tables_say_the_same(settings: KafkaSettings) -> None:
    """
    For people: what would be made, that it was made, that nothing is left to do.
    """
    _, planned = touchstone_topics(settings, "plan")
    _, applied = touchstone_topics(settings, "apply")
    _, nothing = touchstone_topics(settings, "plan", "--partitions", "30")

    assert "retention.bytes" in planned
    assert "touchstone topics apply" in planned
    assert "Done at" in applied
    assert "Nothing to do" in nothing
    assert f"warning: {settings.topics.uploads} has 12 partitions, wanted are 30" in nothing


def test_what_differs_is_altered_and_the_rest_left_alone(settings: KafkaSettings) -> None:
    """
    One value is wanted differently: it changes, and a value that somebody else set stays.
    """
    name = settings.topics.verdicts
    before = WantedTopic(name, 2, 1, {"retention.ms": "1000000", "segment.ms": "777000"})
    after = WantedTopic(name, 2, 1, {"retention.ms": "2000000"})
    with topics_of(settings) as topics:
        topics.apply(plan_topics([before], {}))
        plan = plan_topics([after], topics.find([name]))
        topics.apply(plan)
        found = topics.find([name])

    assert [(entry.key, entry.found, entry.wanted) for entry in plan[0].differences] == [
        ("retention.ms", "1000000", "2000000")
    ]
    assert (found[name].config["retention.ms"], found[name].config["segment.ms"]) == ("2000000", "777000")
    assert changes(plan_topics([after], found)) == 0


def test_two_who_apply_at_once_do_not_disturb_each_other(settings: KafkaSettings) -> None:
    """
    A topic that appears between plan and apply is no error.
    """
    with topics_of(settings) as topics:
        plan = plan_topics(wanted_topics(settings, TopicsFile(), brokers=1, partitions=1), {})
        topics.apply(plan)
        topics.apply(plan)

        assert len(topics.find([topic.wanted.name for topic in plan])) == 3


def test_what_the_cluster_cannot_do_is_told(settings: KafkaSettings) -> None:
    """
    More copies than brokers: refused, naming the topic, and nothing else happened.
    """
    wanted = wanted_topics(settings, TopicsFile(), brokers=1, replication_factor=50)
    with topics_of(settings) as topics, pytest.raises(CannotStart, match=settings.topics.uploads) as refused:
        topics.apply(plan_topics(wanted, {}))

    assert refused.value.exit_code == EXIT_CANNOT_START
    assert "InvalidReplicationFactor" in str(refused.value)


def test_topics_for_a_while_are_gone_afterwards(settings: KafkaSettings) -> None:
    """
    They exist inside; names that exist already are refused, because they would be deleted.
    """
    names = list(settings.topics.model_dump().values())
    with create_for_a_while(settings, partitions=2):
        with topics_of(settings) as topics:
            inside = topics.find(names)
        with pytest.raises(CannotStart, match="exist already"), create_for_a_while(settings, partitions=2):
            pytest.fail("these names are taken")
    with topics_of(settings) as topics:
        outside = topics.find(names)

    assert len(inside) == 3
    assert outside == {}
