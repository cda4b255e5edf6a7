"""
What ``touchstone doctor`` says of Kafka, its topics, the group, Redis and the clocks, failing on purpose and well.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.doctor_parts import some_parts, there
from worker.adapters.kafka_survey import ClusterFacts, GroupFacts
from worker.adapters.redis_survey import RedisFacts, survey_redis
from worker.adapters.topic_plan import Difference, TopicPlan, WantedTopic
from worker.doctor import servers
from worker.doctor.finding import examine
from worker.errors import CannotStart
from worker.settings.tree import KafkaSettings, RedisSettings, Settings

CLUSTER = ClusterFacts(3, (4, 1))
GROUP = GroupFacts("Stable", 2, {0: 0, 1: 0}, committed=2)
REDIS = RedisFacts("7.4", 0.0005, 1 << 30, "allkeys-lru", (), 0.001)


def planned(action: Any, **changes: Any) -> tuple[TopicPlan, ...]:  # noqa: ANN401 - literals and any field
    """
    The plan of one topic.
    """
    return (TopicPlan(WantedTopic("uploads", 12, 3, {}), action, **changes),)


@pytest.mark.parametrize(
    ("facts", "delivery", "status"),
    [
        (CLUSTER, "exactly_once", "ok"),
        (ClusterFacts(0, ()), "at_least_once", "failed"),
        (ClusterFacts(1, (2, 4)), "exactly_once", "failed"),
        (ClusterFacts(1, (2, 4)), "at_least_once", "ok"),
    ],
)
def test_kafka(facts: ClusterFacts, delivery: Any, status: str) -> None:  # noqa: ANN401 - the delivery's literal
    """
    A cluster without brokers fails, and so does one too old for exactly_once where that is asked for.
    """
    settings = Settings(kafka=KafkaSettings(delivery=delivery))
    found = servers.kafka(settings, some_parts(cluster=there(facts)))

    assert status == found.status
    assert bool(found.advice) == (status == "failed")


@pytest.mark.parametrize(
    ("profiles", "status", "text"),
    [
        ({}, "skipped", "no profile"),
        ({"media": {"buckets": ["uploads", "more"]}}, "ok", "media: uploads, more"),
        ({"media": {"buckets": ["uploads"]}, "any": {"prefixes": ["public/"]}}, "warning", "any: no list of buckets"),
    ],
)
def test_s3(profiles: dict[str, object], status: str, text: str) -> None:
    """
    A profile that leaves the choice of the bucket to the event is warned of, and the advice names its setting.
    """
    found = servers.s3(Settings.model_validate({"fetch": {"s3": profiles}}))

    assert status == found.status
    assert text in found.text
    assert ("fetch.s3.any.buckets" in found.advice) == (status == "warning")


def test_kafka_says_who_we_are_and_no_password() -> None:
    """
    User and mechanism are in the line, the password is not.
    """
    kafka = KafkaSettings.model_validate(
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "touchstone",
            "sasl_password": "s3cret",
        }
    )
    found = servers.kafka(Settings(kafka=kafka), some_parts(cluster=there(CLUSTER)))

    assert "as touchstone by SCRAM-SHA-512" in found.text
    assert "s3cret" not in found.text


@pytest.mark.parametrize(
    ("plan", "status", "said"),
    [
        (planned("ok"), "ok", "1 topics, as planned"),
        (planned("create"), "failed", "no topic uploads"),
        (planned("alter", differences=(Difference("retention.ms", "1", "2"),)), "warning", "retention.ms is 1"),
        (planned("ok", warnings=("has 3 partitions, wanted are 12",)), "warning", "has 3 partitions"),
    ],
)
def test_topics(plan: tuple[TopicPlan, ...], status: str, said: str) -> None:
    """
    A missing topic fails; other configuration or another number of partitions is a warning.
    """
    found = servers.judged_topics(plan)

    assert status == found.status
    assert said in found.text
    assert bool(found.advice) == (status != "ok")


@pytest.mark.parametrize(
    ("facts", "status", "said"),
    [
        (GROUP, "ok", "2 members, Stable, 0 uploads"),
        (replace(GROUP, members=0, state="Empty", uncommitted={0: 7, 1: 5}), "warning", "12 uploads not committed"),
        (replace(GROUP, members=0, state="Dead"), "ok", "0 members, Dead"),
        (replace(GROUP, members=5), "warning", "3 members have no partition"),
    ],
)
def test_group(facts: GroupFacts, status: str, said: str) -> None:
    """
    Uploads that nobody reads are a warning, and so are members without a partition.
    """
    found = servers.group(Settings(), some_parts(cluster=there(CLUSTER)), lambda: facts)

    assert status == found.status
    assert said in found.text


@pytest.mark.parametrize(
    ("facts", "status", "said"),
    [
        (REDIS, "ok", "not on disk"),
        (replace(REDIS, on_disk=("append-only file", "snapshots")), "ok", "on disk: append-only file and snapshots"),
        (replace(REDIS, ping_s=0.04), "warning", "the worker waits 50 ms at most"),
        (replace(REDIS, maxmemory_bytes=0), "warning", "no memory limit"),
        (replace(REDIS, maxmemory_policy="noeviction"), "warning", "noeviction"),
    ],
)
def test_redis(facts: RedisFacts, status: str, said: str) -> None:
    """
    A slow Redis, one without a limit and one that refuses writes when full are warnings.
    """
    found = servers.redis(Settings(), some_parts(redis=there(facts)))

    assert status == found.status
    assert said in found.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"url": "redis://cache.example:6379/0"}, "warning"),
        ({"url": "rediss://10.0.0.7/0"}, "warning"),
        ({"url": "redis://cache.example:6379/0", "hmac_keys": "k" * 32}, "ok"),
        ({"url": "redis://cache.example:6379/0", "hmac_keys_file": "keys"}, "ok"),
        ({"url": "redis://localhost:6379/0"}, "ok"),
        ({"url": "redis://127.0.0.2:6379/0"}, "ok"),
        ({"url": "redis://[::1]:6379/0"}, "ok"),
        ({"url": "unix:///run/redis.sock"}, "ok"),
    ],
)
def test_values_that_anybody_could_forge_are_warned_of(fields: dict[str, object], status: str) -> None:
    """
    A Redis that others reach, without keys that sign, is a warning: whoever writes there decides verdicts.
    """
    settings = Settings(redis=RedisSettings.model_validate(fields))
    found = servers.redis(settings, some_parts(redis=there(REDIS)))

    assert status == found.status
    assert ("redis.hmac_keys" in found.advice) == (status == "warning")


def test_redis_that_is_not_there_keeps_the_password() -> None:
    """
    The failure names the address without its password.
    """
    settings = RedisSettings.model_validate({"url": "redis://user:s3cret@127.0.0.1:1/0"})
    with pytest.raises(CannotStart, match=r"No Redis answers at redis://\*\*\*@127\.0\.0\.1:1/0") as caught:
        survey_redis(settings, timeout_s=0.5)

    assert "s3cret" not in str(caught.value)


def test_disabled_redis_is_skipped() -> None:
    """
    Nobody is asked where redis.enabled is false.
    """
    assert "skipped" == servers.redis(Settings(redis=RedisSettings(enabled=False)), some_parts()).status


@pytest.mark.parametrize(
    ("skew_s", "newest_in_s", "status"), [(0.0, -5.0, "ok"), (30.0, -5.0, "warning"), (0.0, 600.0, "warning")]
)
def test_clock(skew_s: float, newest_in_s: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Redis with another time and an upload from the future are warnings.
    """
    monkeypatch.setattr(servers, "time", SimpleNamespace(time=lambda: 1000.0))
    parts = some_parts(cluster=there(CLUSTER), redis=there(replace(REDIS, skew_s=skew_s)))
    found = servers.clock(Settings(), parts, lambda: 1000.0 + newest_in_s)

    assert status == found.status
    assert bool(found.advice) == (status == "warning")


def test_clock_without_anybody_to_ask_is_skipped() -> None:
    """
    Without Kafka and Redis there is nothing to compare with.
    """
    assert "skipped" == servers.clock(Settings(), some_parts(), lambda: 0.0).status


def test_what_needs_kafka_is_skipped_without_it() -> None:
    """
    Topics and group point at the finding that tells why.
    """
    checks = [check for check in servers.server_checks(Settings(), some_parts()) if check.name in {"topics", "group"}]
    found = [checked.finding for checked in examine(checks)]

    assert [("skipped", "needs kafka, which failed")] * 2 == [(one.status, one.text) for one in found]
