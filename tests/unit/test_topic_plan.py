"""
Which topics are wanted, and what is made of what is found.
"""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.kafka_source import consumer_config
from worker.adapters.topic_plan import (
    Difference,
    FoundTopic,
    Role,
    TopicsFile,
    WantedTopic,
    changes,
    plan_topics,
    read_topics_file,
    roles_of,
    wanted_topics,
)
from worker.errors import EXIT_USAGE, ConfigInvalid
from worker.settings.failing import RetrySettings
from worker.settings.tree import KafkaSettings, Settings, TopicSettings
from worker.stages.serialise import max_dead_letter_bytes

SHIPPED = Path(__file__).parents[2] / "config" / "topics.toml"
SETTINGS = KafkaSettings()
WANTED = WantedTopic("uploads", 12, 3, {"retention.ms": "1000", "min.insync.replicas": "2"})


def found(topic: WantedTopic, **config: str | None) -> FoundTopic:
    """
    A topic that is as wanted but for ``config``, whose dots are written as underscores.
    """
    changed = {key.replace("_", "."): value for key, value in config.items()}
    return FoundTopic(topic.partitions, topic.replication_factor, {"segment.ms": "7"} | dict(topic.config) | changed)


def test_the_shipped_file_says_the_defaults() -> None:
    """
    config/topics.toml and the code agree, to the last value.
    """
    roles = get_args(Role)
    delays_s = RetrySettings().delays_s
    shipped = wanted_topics(SETTINGS, read_topics_file(SHIPPED), brokers=3, roles=roles, retry_delays_s=delays_s)

    # The setting `retry` names as many topics as there are delays.
    assert len(TopicSettings.model_fields) - 1 + len(delays_s) == len(shipped)
    assert wanted_topics(SETTINGS, TopicsFile(), brokers=3, roles=roles, retry_delays_s=delays_s) == shipped


def test_topics_are_wanted_by_those_who_use_them() -> None:
    """
    The three of every worker, the retry topics and the reviewers' one; each other with the setting that uses it.
    """
    everything = {
        "shadow": {"enabled": True, "policy_path": "p.toml"},
        "embeddings": {"keep": "topic"},
        "bank": {"releases": "banks", "activated_by": "topic"},
        "deletions": {"enabled": True},
    }

    assert ("uploads", "verdicts", "dead_letters", "retries", "feedback") == roles_of(Settings())
    assert "retries" not in roles_of(Settings.model_validate({"retry": {"delays_s": []}}))
    assert set(get_args(Role)) == set(roles_of(Settings.model_validate(everything)))
    assert "bank_control" not in roles_of(Settings.model_validate({"bank": {"releases": "banks"}}))


def test_there_is_a_retry_topic_for_each_delay() -> None:
    """
    Numbered; each takes what uploads takes, and our headers, and outlives the longest delay by a week.
    """
    week_ms = 7 * 24 * 3600 * 1000
    uploads, *retries = wanted_topics(
        SETTINGS, TopicsFile(), brokers=1, roles=("uploads", "retries"), partitions=5, retry_delays_s=(30, 864_000)
    )

    assert ["image-uploads-retry-1", "image-uploads-retry-2"] == [topic.name for topic in retries]
    for topic in retries:
        assert topic.partitions == uploads.partitions
        assert int(topic.config["max.message.bytes"]) >= int(uploads.config["max.message.bytes"]) + 600
        assert int(topic.config["retention.ms"]) >= 864_000_000 + week_ms
        assert "retention.bytes" not in topic.config


def test_no_retry_topic_may_be_another_topic() -> None:
    """
    The numbered names are known once the delays are: one that is taken is refused, and named.
    """
    taken = {"kafka": {"topics": {"uploads": "u-2", "retry": "u"}}}

    assert Settings.model_validate(taken | {"retry": {"delays_s": [1]}}).retry_topics == ("u-1",)
    with pytest.raises(ValueError, match="u-2 is taken"):
        Settings.model_validate(taken | {"retry": {"delays_s": [1, 2]}})


@pytest.mark.parametrize(("brokers", "replicas", "in_sync"), [(1, 1, "1"), (2, 2, "1"), (3, 3, "2"), (9, 3, "2")])
def test_replicas_follow_the_number_of_brokers(brokers: int, replicas: int, in_sync: str) -> None:
    """
    Three copies where there are three brokers, and always one that may be away.
    """
    for topic in wanted_topics(SETTINGS, TopicsFile(), brokers=brokers):
        assert (topic.replication_factor, topic.config["min.insync.replicas"]) == (replicas, in_sync)


def test_limits_follow_the_settings() -> None:
    """
    Uploads may be as large as the worker parses, dead letters as large as it publishes, and the consumer takes both.
    """
    settings = KafkaSettings(max_event_bytes=4_000_000)
    uploads, _, dead_letters = wanted_topics(settings, TopicsFile(), brokers=1)

    assert int(uploads.config["max.message.bytes"]) > 4_000_000
    assert int(dead_letters.config["max.message.bytes"]) == max_dead_letter_bytes()
    assert consumer_config(settings, client_id="c", instance_id=None)["max_partition_fetch_bytes"] >= 4_000_000


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    """
    --partitions is of uploads and verdicts; a file changes just what it says, its switches in Kafka's spelling.
    """
    path = tmp_path / "topics.toml"
    path.write_text(
        "[uploads]\npartitions = 5\n[verdicts.config]\n'retention.ms' = -1\n"
        "[dead_letters.config]\n'unclean.leader.election.enable' = true\n"
    )
    file = read_topics_file(path)

    from_file = wanted_topics(SETTINGS, file, brokers=1)
    from_command = wanted_topics(SETTINGS, file, brokers=1, partitions=7, replication_factor=2)

    assert [topic.partitions for topic in from_file] == [5, 12, 1]
    assert from_file[1].config["retention.ms"] == "-1"
    assert from_file[1].config["cleanup.policy"] == "delete"
    assert from_file[2].config["unclean.leader.election.enable"] == "true"
    assert [(topic.partitions, topic.replication_factor) for topic in from_command] == [(7, 2), (7, 2), (1, 2)]


@pytest.mark.parametrize(
    "text", ["[upload]\n", "[uploads]\npartitions = 0\n", "[uploads\n", "[uploads]\nretention = 1\n"]
)
def test_a_file_that_does_not_say_what_it_must_is_refused(tmp_path: Path, text: str) -> None:
    """
    Unknown topics and keys, impossible numbers and broken TOML are named with their file.
    """
    path = tmp_path / "topics.toml"
    path.write_text(text)

    with pytest.raises(ConfigInvalid, match=r"topics\.toml") as refused:
        read_topics_file(path)
    assert refused.value.exit_code == EXIT_USAGE


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """
    Whoever names a file means it.
    """
    with pytest.raises(ConfigInvalid, match="--file"):
        read_topics_file(tmp_path / "gone.toml")


def test_what_is_missing_is_created() -> None:
    """
    A topic that does not exist.
    """
    (topic,) = plan_topics([WANTED], {})

    assert (topic.action, topic.differences, topic.warnings) == ("create", (), ())


def test_what_differs_is_altered_and_nothing_else() -> None:
    """
    Each differing value is named with what was found; values that nobody asked about are left alone.
    """
    (topic,) = plan_topics([WANTED], {"uploads": found(WANTED, retention_ms="5")})

    assert topic.action == "alter"
    assert topic.differences == (Difference("retention.ms", "5", "1000"),)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers().map(str)), st.integers(1, 9), st.integers(1, 5))
def test_a_second_time_there_is_nothing_to_do(config: dict[str, str], partitions: int, replicas: int) -> None:
    """
    Whatever is wanted: once it is so, the plan is empty.
    """
    wanted = WantedTopic("t", partitions, replicas, config)

    planned = plan_topics([wanted], {"t": FoundTopic(partitions, replicas, {"other": "x"} | config)})

    assert (changes(planned), planned[0].action, planned[0].warnings) == (0, "ok", ())


@pytest.mark.parametrize("partitions", [6, 24])
def test_partitions_are_shown_and_never_changed(partitions: int) -> None:
    """
    Fewer or more: a warning, and no change.
    """
    topic = FoundTopic(partitions, 3, dict(WANTED.config))
    planned = plan_topics([WANTED], {"uploads": topic})

    assert changes(planned) == 0
    assert f"has {partitions} partitions, wanted are 12" in planned[0].warnings[0]


def test_replicas_are_shown_and_publishing_is_not_stopped_for_them() -> None:
    """
    With too few replicas min.insync.replicas is not raised: no publish could be acknowledged any more.
    """
    topic = FoundTopic(12, 1, {"retention.ms": "1000", "min.insync.replicas": "1"})
    planned = plan_topics([WANTED], {"uploads": topic})

    assert changes(planned) == 0
    assert "replication factor 1, wanted is 3" in planned[0].warnings[0]
    assert "min.insync.replicas 2 is left for later" in planned[0].warnings[1]
