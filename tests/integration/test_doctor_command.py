"""
``touchstone doctor`` as an operator runs it: a process, against real servers and with what ships.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, roles_of, wanted_topics
from worker.dev.servers import KafkaAt, RedisAt
from worker.doctor.finding import examine
from worker.doctor.parts import parts_of
from worker.doctor.servers import server_checks
from worker.errors import EXIT_FOUND, EXIT_OK
from worker.settings.load import load_settings

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

TOPICS = ("uploads", "verdicts", "dead_letters", "feedback")
GOOD = {
    "kafka",
    "topics",
    "group",
    "clock",
    "weights",
    "device",
    "policy",
    "bank",
    "calibration",
    "codecs",
    "http",
}


def touchstone(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """
    The exit code, and the one object that was printed.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE__")}
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        environ.pop(name, None)
    command = [sys.executable, "-m", "worker", *arguments]
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def by_check(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    """
    The findings by their check.
    """
    return {one["check"]: one for one in document["checks"]}


def test_a_good_deployment_and_a_spoilt_one(
    kafka: KafkaAt, redis_server: RedisAt, topic_name: str, tmp_path: Path
) -> None:
    """
    With topics as planned all is well; nothing was changed by asking; without a topic the doctor says what creates it.
    """
    sets = [
        f"kafka.bootstrap_servers={json.dumps(kafka.bootstrap_servers)}",
        f"kafka.group_id={topic_name}",
        *(f"kafka.topics.{role}={topic_name}-{role}" for role in (*TOPICS, "retry")),
        f"redis.url={json.dumps(redis_server.url)}",
        # A busy machine is no slow Redis.
        "redis.timeout_s=5",
        "encoder.device=cpu",
        "encoder.threads=1",
        "http.enabled=true",
        "http.port=0",
    ]
    options = [part for one in sets for part in ("--set", one)]
    settings = load_settings(config=None, overlay=None, environ={}, sets=sets).settings
    names = [*(f"{topic_name}-{role}" for role in TOPICS), *settings.retry_topics]
    try:
        with topics_of(settings.kafka) as topics:
            wanted = wanted_topics(
                settings.kafka,
                TopicsFile(),
                brokers=topics.brokers(),
                roles=roles_of(settings),
                retry_delays_s=settings.retry.delays_s,
            )
            topics.apply(plan_topics(wanted, {}))
            before = topics.find(names)
            code, document = touchstone(tmp_path, "doctor", "--json", *options)
            after = topics.find(names)
            topics.delete(names[1:2])
        # Within this process: another would load torch once more.
        later = {one.name: one.finding for one in examine(server_checks(settings, parts_of(settings)))}
    finally:
        with topics_of(settings.kafka) as topics:
            topics.delete(names)
    found = by_check(document)

    assert EXIT_OK == code, document
    assert document["ok"]
    assert before == after
    assert GOOD == {name for name, one in found.items() if one["status"] == "ok"} - {"redis"}
    # A Redis for development has no limit of memory.
    assert found["redis"]["status"] in {"ok", "warning"}
    assert {"s3", "shadow", "disk", "canaries"} == {name for name, one in found.items() if one["status"] == "skipped"}
    assert ["topics"] == [name for name, one in later.items() if one.status == "failed"]
    assert f"no topic {names[1]}" in later["topics"].text
    assert "touchstone topics apply" in later["topics"].advice
    # Nobody has made the group by asking for it.
    assert "0 members, Dead" in later["group"].text


def test_nothing_there_at_all(tmp_path: Path) -> None:
    """
    Without Kafka and Redis these fail, with what to do; what can be looked at without them is looked at.
    """
    options = [
        part
        for one in ("kafka.bootstrap_servers=127.0.0.1:1", "redis.url=redis://127.0.0.1:1/0", "encoder.device=cpu")
        for part in ("--set", one)
    ]
    code, document = touchstone(tmp_path, "doctor", "--json", *options)
    found = by_check(document)

    assert EXIT_FOUND == code
    assert ["kafka", "redis"] == [name for name, one in found.items() if one["status"] == "failed"]
    assert all(found[name]["advice"] for name in ("kafka", "redis"))
    assert ["skipped"] * 3 == [found[name]["status"] for name in ("topics", "group", "clock")]
    assert "ok" == found["bank"]["status"]
