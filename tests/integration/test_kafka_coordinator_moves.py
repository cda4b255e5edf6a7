"""
Source and outbox while the broker that coordinates group and transactions goes in order, and another takes its place.
"""

import threading
import time
from contextlib import closing
from typing import Any, cast

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from tests.kafka_reader import Reader
from tests.kafka_worlds import RealWorld, release
from tests.servers import eventually
from tests.soak.two_brokers import TwoBrokers
from worker.adapters.kafka_coordinator import is_member
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.dev.servers import KafkaAt
from worker.domain import Partition
from worker.errors import ProducerFenced
from worker.ports import GroupMembership

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(240)]

UPLOADS = 5
PATIENCE_S = 40.0


def test_a_transaction_goes_on_under_another_coordinator(topic_name: str) -> None:
    """
    Each upload is answered and committed once, none before the other; no transaction waits until its time is over.
    """
    with TwoBrokers() as brokers:
        changes: dict[str, Any] = {"group_id": brokers.group(), "publish_timeout_s": PATIENCE_S}
        with RealWorld(brokers.bootstrap_servers, topic_name, replicas=2, **changes) as world:
            for number in range(UPLOADS):
                world.upload(0, b"%d" % number)
            outbox = world.outbox("worker-1")
            with Reader(world.source()) as reader:
                assert reader.until(lambda: len(reader.events) == UPLOADS)
                took_s = []
                for number in range(UPLOADS):
                    began_s = time.monotonic()
                    answer = release(world.verdicts, Partition(world.uploads, 0), number, b"%d" % number)
                    while not outbox.transact([answer], {answer.partition: number + 1}, membership_of(reader)):
                        # Refused while the group settles under its new coordinator.
                        reader.after(1)
                        assert time.monotonic() < began_s + PATIENCE_S
                    took_s.append(time.monotonic() - began_s)
                    if number == 1:
                        brokers.second.stop()
            answers = [record.value for record in world.records(world.verdicts)]
            committed = world.committed(0)

    assert [b"%d" % number for number in range(UPLOADS)] == sorted(value or b"" for value in answers)
    assert UPLOADS == committed
    assert max(took_s) < PATIENCE_S / 2, took_s


def test_a_transaction_that_outlived_its_time_goes_again(kafka: KafkaAt, topic_name: str) -> None:
    """
    The coordinator has aborted it and refuses its epoch, as it would another worker's: the same outbox goes on.
    """
    limits: dict[str, Any] = {"transaction_timeout_s": 1.5, "transaction_interval_s": 0.1}
    with RealWorld(kafka.bootstrap_servers, topic_name, **limits) as world:
        partition = Partition(world.uploads, 0)
        world.upload(0, b"x")
        outbox = world.outbox("worker-1")
        with Reader(world.source()) as reader:
            assert reader.until(lambda: len(reader.events) == 1)
            late = outbox._producer
            commit = late.commit_transaction

            def commit_late() -> None:
                # Brokers look for such transactions every ten seconds.
                assert eventually(lambda: aborted(world), deadline_s=PATIENCE_S)
                commit()

            late.commit_transaction = commit_late
            first, second = (
                outbox.transact([release(world.verdicts, partition, 0, value)], {partition: 1}, membership_of(reader))
                for value in (b"late", b"again")
            )
        committed, seen = world.committed(0), [record.value for record in world.records(world.verdicts)]

    assert (False, True) == (first, second)
    assert (1, [b"again"]) == (committed, seen)


def test_who_left_its_group_does_not_take_its_id_back(kafka: KafkaAt, topic_name: str) -> None:
    """
    Late and fenced as above; but the group has gone on without it, and so may another under its id.
    """
    limits: dict[str, Any] = {"transaction_timeout_s": 0.5, "transaction_interval_s": 0.1}
    with RealWorld(kafka.bootstrap_servers, topic_name, **limits) as world:
        partition = Partition(world.uploads, 0)
        outbox, reader = world.outbox("worker-1"), Reader(world.source())
        commit = outbox._producer.commit_transaction
        others: list[KafkaOutbox] = []

        def commit_late() -> None:
            reader.close()
            others.append(world.outbox("worker-1"))
            threading.Event().wait(limits["transaction_timeout_s"])
            commit()

        outbox._producer.commit_transaction = commit_late
        with reader:
            assert reader.until(lambda: is_in(world, reader))
            place = membership_of(reader)
            with pytest.raises(ProducerFenced):
                outbox.transact([release(world.verdicts, partition, 0)], {partition: 1}, place)
        left = not is_member(world.settings, place)
        with Reader(world.source()) as after:
            world.upload(0, b"x")
            assert after.until(lambda: len(after.events) == 1)
            (other,) = others
            assert other.transact([release(world.verdicts, partition, 0)], {partition: 1}, membership_of(after))

    assert left


def is_in(world: RealWorld, reader: Reader) -> bool:
    """
    Whether the group counts it among its members.
    """
    place = None if reader.membership is None else cast("ConsumerGroupMetadata", reader.membership)
    return place is not None and place.generation_id >= 0 and is_member(world.settings, place)


def aborted(world: RealWorld) -> bool:
    """
    Whether the one transaction so far is over: who reads committed messages only comes past what it wrote.
    """
    ends: list[int] = []
    for isolation in ("read_committed", "read_uncommitted"):
        with closing(KafkaConsumer(**world.client, isolation_level=isolation)) as consumer:
            found = consumer.end_offsets([TopicPartition(world.verdicts, number) for number in range(2)])
            ends.append(sum(found.values()))
    stable, last = ends
    return stable == last > 0


def membership_of(reader: Reader) -> GroupMembership:
    """
    As of the last poll.
    """
    assert reader.membership is not None
    return reader.membership
