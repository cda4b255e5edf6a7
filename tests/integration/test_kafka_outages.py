"""
The Kafka adapters while their broker is away: restarted, and standing still.

A broker of its own, because other tests use the one of the session.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kafka_reader import DEADLINE_S, Reader
from tests.kafka_worlds import RealWorld, poll_until, release
from tests.servers import hold_still
from worker.dev.kafka_server import EmbeddedKafka
from worker.domain import Partition
from worker.errors import PublishFailed

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[EmbeddedKafka]:
    """
    A Kafka that a test may stop.
    """
    with EmbeddedKafka() as server:
        yield server


@contextmanager
def standing_still(server: EmbeddedKafka) -> Iterator[None]:
    """
    The broker takes connections and answers nobody while inside.
    """
    hold_still(server.pid)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_broker_that_comes_back_finds_us_at_work(own_kafka: EmbeddedKafka, topic_name: str) -> None:
    """
    Polls find nothing while it is away and everything afterwards; what was published meanwhile is acknowledged.
    """
    with RealWorld(own_kafka.bootstrap_servers, topic_name) as world:
        outbox = world.outbox()
        partition = Partition(world.uploads, 0)
        world.upload(0, b"before")
        with Reader(world.source()) as reader:
            assert reader.until(lambda: reader.values() == [b"before"])
            own_kafka.stop()
            outbox.publish([release(world.verdicts, partition, 0, b"while away")])
            reader.after(5)
            own_kafka.start()
            world.upload(0, b"after")

            assert reader.until(lambda: b"after" in reader.values())
            outbox.flush(DEADLINE_S)
            assert outbox.take_acknowledged() == [(partition, 0)]
            assert reader.call(lambda source: source.commit({partition: 2}))
        assert [record.value for record in world.records(world.verdicts)] == [b"while away"]


def test_a_commit_to_nobody_is_false(own_kafka: EmbeddedKafka, topic_name: str) -> None:
    """
    It comes back within seconds, and the next commit goes through.
    """
    with RealWorld(own_kafka.bootstrap_servers, topic_name) as world:
        partition = Partition(world.uploads, 0)
        world.upload(0, b"x")
        source = world.source()
        poll_until(source, 1)
        begin_s = time.monotonic()
        with standing_still(own_kafka):
            stored = source.commit({partition: 1})
        took_s = time.monotonic() - begin_s

        assert not stored
        assert took_s < 60
        assert source.commit({partition: 1})


def test_an_outcome_that_nobody_acknowledges_fails_in_time(own_kafka: EmbeddedKafka, topic_name: str) -> None:
    """
    After publish_timeout_s the next look at the acknowledgements says which upload it was.
    """
    with RealWorld(own_kafka.bootstrap_servers, topic_name, publish_timeout_s=2.0) as world:
        outbox = world.outbox()
        with standing_still(own_kafka):
            outbox.publish([release(world.verdicts, Partition(world.uploads, 3), 5)])
            with pytest.raises(PublishFailed, match=rf"{world.uploads}-3 offset 5"):
                outbox.flush(DEADLINE_S)
            with pytest.raises(PublishFailed, match=rf"{world.uploads}-3 offset 5"):
                outbox.take_acknowledged()


def test_a_transaction_that_nobody_finishes_fails_in_time(own_kafka: EmbeddedKafka, topic_name: str) -> None:
    """
    After publish_timeout_s it is given up; its successor answers the same upload, and that is seen once.
    """
    limits: dict[str, Any] = {"publish_timeout_s": 2.0, "transaction_timeout_s": 1.5, "transaction_interval_s": 0.1}
    with RealWorld(own_kafka.bootstrap_servers, topic_name, **limits) as world:
        outbox = world.outbox("worker-1")
        partition = Partition(world.uploads, 0)
        world.upload(0, b"x")
        with Reader(world.source()) as reader:
            assert reader.until(lambda: len(reader.events) == 1)
            membership = reader.membership
            assert membership is not None
            begin_s = time.monotonic()
            with standing_still(own_kafka), pytest.raises(PublishFailed):
                outbox.transact([release(world.verdicts, partition, 0, b"late")], {partition: 1}, membership)
            took_s = time.monotonic() - begin_s
            # The successor takes over the id, which ends what was left open.
            successor = world.outbox("worker-1")
            assert successor.transact([release(world.verdicts, partition, 0, b"again")], {partition: 1}, membership)

        assert took_s < 60
        assert [record.value for record in world.records(world.verdicts)] == [b"again"]
        assert world.committed(0) == 1
