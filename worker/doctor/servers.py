"""
The checks of what the worker talks to: Kafka, its topics and its group, Redis, and whether the clocks agree.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from worker.adapters.kafka_survey import GroupFacts, newest_record_s, survey_group
from worker.adapters.kafka_topics import topics_of
from worker.adapters.redis_client import on_this_machine
from worker.adapters.topic_plan import TopicPlan, TopicsFile, plan_topics, read_topics_file, roles_of, wanted_topics
from worker.doctor.finding import Check, Finding, Unanswerable, failed, ok, skipped, warning
from worker.doctor.parts import ASK_TIMEOUT_S, Parts
from worker.settings.tree import Settings

TOPICS_FILE: Final = Path("config/topics.toml")
TRANSACTIONS_BY_GROUP: Final = (2, 5)
"""The first Kafka whose transactions know the members of a group (KIP-447), on which exactly_once relies."""

WORST_SKEW_S: Final = 2.0
WORST_FUTURE_S: Final = 60.0
GIVEN_TIME_S: Final = 40.0

_START_KAFKA: Final = (
    "start Kafka there, or correct kafka.bootstrap_servers, kafka.security_protocol and the kafka.sasl_* settings "
    "(`touchstone config show`); `touchstone dev` brings up a Kafka for development"
)
_START_REDIS: Final = (
    "start Redis there, correct redis.url, or set redis.enabled = false to encode every upload; a worker runs without, "
    "only slower"
)


def server_checks(settings: Settings, parts: Parts) -> list[Check]:
    """
    All of them, in the order in which one needs the other.
    """
    return [
        Check("kafka", lambda: kafka(settings, parts), _START_KAFKA, GIVEN_TIME_S),
        Check("topics", lambda: topics(settings, parts), "run `touchstone topics plan`", GIVEN_TIME_S),
        Check(
            "group",
            lambda: group(settings, parts, partial(survey_group, settings.kafka, timeout_s=ASK_TIMEOUT_S)),
            "grant this user Describe on the group kafka.group_id and on the upload topic",
            GIVEN_TIME_S,
        ),
        Check("redis", lambda: redis(settings, parts), _START_REDIS, GIVEN_TIME_S),
        Check("s3", lambda: s3(settings), "correct the profiles of fetch.s3 (`touchstone config show`)"),
        Check(
            "clock",
            lambda: clock(settings, parts, partial(newest_record_s, settings.kafka, timeout_s=ASK_TIMEOUT_S)),
            "let an NTP service keep this machine's clock",
            GIVEN_TIME_S,
        ),
    ]


def kafka(settings: Settings, parts: Parts) -> Finding:
    """
    It answers under the configured protocol and credentials, has a broker in service, and is new enough.
    """
    wanted = settings.kafka
    found = parts.cluster.own()
    version = ".".join(map(str, found.version))
    who = f" as {wanted.sasl_username} by {wanted.sasl_mechanism}" if wanted.sasl_mechanism else ""
    text = f"{wanted.bootstrap_servers}: version {version}, {found.brokers} brokers, {wanted.security_protocol}{who}"
    if not found.brokers:
        return failed(f"{wanted.bootstrap_servers} answers, but has no broker in service", "look at the brokers' logs")
    if wanted.delivery == "exactly_once" and found.version < TRANSACTIONS_BY_GROUP:
        return failed(f"{text}; exactly_once needs 2.5", "upgrade Kafka, or set kafka.delivery = at_least_once")
    return ok(text)


def topics(settings: Settings, parts: Parts) -> Finding:
    """
    Those that a worker of these settings uses exist, configured as `touchstone topics plan` wants them.
    """
    parts.cluster.borrowed()
    file = read_topics_file(TOPICS_FILE) if TOPICS_FILE.is_file() else TopicsFile()
    with topics_of(settings.kafka) as cluster:
        wanted = wanted_topics(
            settings.kafka,
            file,
            brokers=cluster.brokers(),
            roles=roles_of(settings),
            retry_delays_s=settings.retry.delays_s,
        )
        planned = plan_topics(wanted, cluster.find([topic.name for topic in wanted]))
    return judged_topics(planned)


def judged_topics(planned: tuple[TopicPlan, ...]) -> Finding:
    """
    What a plan says of the topics that are there.
    """
    missing = [topic.wanted.name for topic in planned if topic.action == "create"]
    altered = [
        f"{topic.wanted.name} {entry.key} is {entry.found}, planned {entry.wanted}"
        for topic in planned
        for entry in topic.differences
    ]
    warned = [f"{topic.wanted.name} {text}" for topic in planned for text in topic.warnings]
    if missing:
        return failed(f"no topic {', '.join(missing)}", "run `touchstone topics apply`")
    if altered:
        return warning("; ".join(altered), "run `touchstone topics plan`, then `touchstone topics apply`")
    if warned:
        return warning("; ".join(warned), "write what is there into config/topics.toml, if it is meant so")
    return ok(f"{len(planned)} topics, as planned")


def group(settings: Settings, parts: Parts, survey: Callable[[], GroupFacts]) -> Finding:
    """
    Whether anybody reads the uploads, and how far behind.
    """
    parts.cluster.borrowed()
    name = settings.kafka.group_id
    found = survey()
    text = f"{name}: {found.members} members, {found.state}, {found.lag} uploads not committed"
    if found.members == 0 and found.lag > 0:
        return warning(text, "start a worker: `touchstone run`")
    if found.members > len(found.uncommitted):
        more = found.members - len(found.uncommitted)
        return warning(f"{text}; {more} members have no partition", "stop them, or give the upload topic partitions")
    return ok(text)


def redis(settings: Settings, parts: Parts) -> Finding:
    """
    It answers well within the worker's time-out, and makes room by itself when it is full.
    """
    if not settings.redis.enabled:
        return skipped("redis.enabled is false: every upload is encoded")
    found, most_s = parts.redis.own(), settings.redis.timeout_s
    disk = f"on disk: {' and '.join(found.on_disk)}" if found.on_disk else "not on disk"
    limit = f"{found.maxmemory_bytes // 2**20} MiB at most" if found.maxmemory_bytes else "no memory limit"
    text = f"version {found.version}, ping {found.ping_s * 1000:.1f} ms, {limit}, {found.maxmemory_policy}, {disk}"
    if found.ping_s > most_s / 2:
        return warning(
            f"{text}; the worker waits {most_s * 1000:g} ms at most",
            "move Redis nearer or take load off it; or raise redis.timeout_s, which costs as much for every upload "
            "while Redis is slow",
        )
    if not found.maxmemory_bytes:
        return warning(text, "set maxmemory in redis.conf, and maxmemory-policy volatile-ttl: embeddings are a cache")
    if found.maxmemory_policy == "noeviction":
        return warning(text, "set maxmemory-policy volatile-ttl in redis.conf: a full Redis would refuse every write")
    if not (on_this_machine(settings.redis) or settings.redis.hmac_keys or settings.redis.hmac_keys_file):
        return warning(
            f"{text}; not on this machine, and values are not signed: whoever may write there decides verdicts",
            "set redis.hmac_keys, and redis.namespace with it; and let only workers write there (an ACL)",
        )
    return ok(text)


def s3(settings: Settings) -> Finding:
    """
    Each profile says which buckets it reads; nothing is asked of the store.
    """
    profiles = settings.fetch.s3
    if not profiles:
        return skipped("fetch.s3 has no profile: s3 references are refused")
    if any_bucket := [name for name, profile in profiles.items() if not profile.buckets]:
        return warning(
            f"{', '.join(any_bucket)}: no list of buckets, so whoever writes to the upload topic chooses the bucket",
            f"list what may be read in fetch.s3.{any_bucket[0]}.buckets; else only the rights of its keys limit it",
        )
    return ok("; ".join(f"{name}: {', '.join(profile.buckets)}" for name, profile in profiles.items()))


def clock(settings: Settings, parts: Parts, newest_s: Callable[[], float | None]) -> Finding:
    """
    Whether the clock of this machine agrees with that of Redis and with the latest time stamp of the uploads.

    Kafka tells no time without being written to: of its clock only this is seen, that no record is of the future.
    """
    compared, problems = [], []
    if settings.redis.enabled:
        try:
            skew_s = parts.redis.borrowed().skew_s
        except Unanswerable:
            skew_s = None
        if skew_s is not None:
            compared.append(f"Redis {skew_s * 1000:+.0f} ms")
            problems += [f"Redis' clock is {skew_s:+.1f} s from this one"] if abs(skew_s) > WORST_SKEW_S else []
    try:
        parts.cluster.borrowed()
        newest = newest_s()
    except Unanswerable:
        newest = None
    if newest is not None:
        ahead_s = newest - time.time()
        compared.append("no upload from the future")
        problems += [f"the newest upload is {ahead_s:.0f} s in the future"] if ahead_s > WORST_FUTURE_S else []
    if problems:
        return warning(
            "; ".join(problems),
            "let an NTP service keep the clocks of this machine, of Redis and of the platform: ages and retention "
            "depend on them, ids and decisions do not",
        )
    return ok(", ".join(compared)) if compared else skipped("neither Redis nor an upload to compare with")
