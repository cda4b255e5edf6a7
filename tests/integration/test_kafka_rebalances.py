"""
Rebalances that kafka-python 3.0.12 gets wrong by itself, on a real broker.

Each is first brought about, with means that a group has too: members that are slow, expelled, or answered late.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.future import Future
from kafka.structs import MemberState, OffsetAndMetadata

from tests.kafka_reader import DEADLINE_S, Reader
from tests.kafka_worlds import PARTITIONS, RealWorld, poll_until
from tests.servers import eventually
from worker.adapters.kafka_source import KafkaEventSource
from worker.dev.servers import KafkaAt
from worker.domain import Partition
from worker.ports import EventSource

pytestmark = pytest.mark.servers


@pytest.fixture
def world(kafka: KafkaAt, topic_name: str) -> Iterator[RealWorld]:
    """
    Fresh topics and a fresh group on the real broker.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        yield world


def other_member(world: RealWorld) -> Any:  # noqa: ANN401 - kafka-python is untyped
    """
    A member of the group that is polled only when a test polls it.
    """
    consumer = KafkaConsumer(
        **world.client,
        group_id=world.settings.group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        partition_assignment_strategy=[CooperativeStickyAssignor()],
        session_timeout_ms=6_000,
        heartbeat_interval_ms=300,
    )
    consumer.subscribe([world.uploads])
    return consumer


def consumer_of(source: EventSource) -> Any:  # noqa: ANN401 - kafka-python is untyped
    """
    kafka-python's consumer within a source.
    """
    assert isinstance(source, KafkaEventSource)
    return source._consumer


def is_joining(consumer: Any) -> bool:  # noqa: ANN401 - kafka-python is untyped
    """
    Whether its join is under way.
    """
    joining: bool = state_of(consumer) == MemberState.REBALANCING
    return joining


def state_of(consumer: Any) -> str:  # noqa: ANN401 - kafka-python is untyped
    """
    Its state in the group.
    """
    state: str = consumer.group_metadata().state
    return state


def source_partitions(source: EventSource) -> set[int]:
    """
    The numbers of the partitions that a source owns.
    """
    return {partition.partition for partition in consumer_of(source).assignment()}


def test_who_is_expelled_while_rejoining_begins_anew(world: RealWorld) -> None:
    """
    All its partitions are told as lost, and read again from what was committed; kafka-python says nothing of it.
    """
    for number in range(PARTITIONS):
        for at in range(2):
            world.upload(number, b"%d-%d" % (number, at))
    slow, third = other_member(world), other_member(world)
    with Reader(world.source()) as reader:
        assert reader.until(lambda: len(reader.events) == 2 * PARTITIONS)
        assert reader.call(lambda source: source.commit({Partition(world.uploads, 0): 1}))
        assert eventually(lambda: bool(slow.poll(timeout_ms=200)) or len(slow.assignment()) == PARTITIONS // 2)
        kept = reader.call(source_partitions)
        member_id = reader.call(lambda source: consumer_of(source).group_metadata().member_id)
        # A third asks to join, the reader joins again because of it, and both wait for the slow one.
        assert eventually(lambda: bool(third.poll(timeout_ms=50)) or is_joining(third))
        assert eventually(lambda: reader.call(lambda source: is_joining(consumer_of(source))))
        reader.revoked.clear()
        world.admin.remove_group_members(world.settings.group_id, [MemberToRemove(member_id=member_id)])

        assert reader.until(lambda: len(reader.revoked) >= len(kept))
        assert {partition.number for partition in reader.revoked} == kept
        for other in (third, slow):
            other.close(timeout_ms=500)
        assert reader.until(lambda: len(set(reader.values()[2 * PARTITIONS :])) == 2 * PARTITIONS - 1)
        assert b"0-0" not in reader.values()[2 * PARTITIONS :]


def test_a_join_that_was_forgotten_is_finished(world: RealWorld) -> None:
    """
    Partitions are added and the poll ends before the join does: kafka-python would sit there for ever.
    """
    world.upload(0, b"x")
    source = world.source()
    poll_until(source, 1)
    consumer = consumer_of(source)
    # As kafka-python leaves it: the join was answered in the background, and no later poll looks for the answer.
    consumer._coordinator.state = MemberState.REBALANCING
    consumer._coordinator._disable_heartbeat()
    assert not consumer._coordinator.need_rejoin()
    consumer.poll(timeout_ms=200)
    stuck = state_of(consumer)
    world.upload(0, b"y")

    assert stuck == MemberState.REBALANCING
    assert [event.value for event in poll_until(source, 1)] == [b"y"]
    assert state_of(consumer) == MemberState.STABLE


def test_new_partitions_are_taken(world: RealWorld) -> None:
    """
    Partitions that are added to the topic are read, however short the polls.
    """
    world.upload(0, b"x")
    source = world.source()
    poll_until(source, 1)
    world.admin.create_partitions({world.uploads: PARTITIONS + 2})
    world.admin.wait_for_topics([world.uploads])
    consumer_of(source)._cluster.request_update()
    producer_knows = world._producer._metadata.request_update
    assert eventually(lambda: producer_knows() and len(world._producer.partitions_for(world.uploads)) > PARTITIONS)
    world.upload(PARTITIONS + 1, b"in a new one")

    assert eventually(
        lambda: [event.value for event in source.poll(room=9, wait_s=0.001).events] == [b"in a new one"],
        deadline_s=DEADLINE_S,
    )


def test_an_old_answer_is_not_taken_for_the_present_one(world: RealWorld) -> None:
    """
    A partition that went and came back is read from what is committed now, not from what was committed before it went.
    """
    for number in range(PARTITIONS):
        for at in range(3):
            world.upload(number, b"%d-%d" % (number, at))
    with Reader(world.source()) as reader:
        assert reader.until(lambda: len(reader.events) == 3 * PARTITIONS)
        with closing(other_member(world)) as other:
            assert eventually(lambda: bool(other.poll(timeout_ms=100)) and len(other.assignment()) > 0)
            assert reader.until(lambda: len(reader.revoked) == PARTITIONS // 2)
            moved = {TopicPartition(partition.topic, partition.number) for partition in reader.revoked}
            other.commit({partition: OffsetAndMetadata(2, "", -1) for partition in moved})
        assert reader.until(lambda: len(reader.events) == 3 * PARTITIONS + len(moved))

        values = sorted(value or b"" for value in reader.values()[3 * PARTITIONS :])
        assert values == sorted(b"%d-2" % partition.partition for partition in moved)


def test_kafka_python_keeps_old_answers_where_we_drop_them(world: RealWorld) -> None:
    """
    An answer that nobody waits for would be believed whenever the same partitions come back; a revocation drops it.
    """
    world.upload(0, b"x")
    source = world.source()
    poll_until(source, 1)
    answers = consumer_of(source)._coordinator._offset_fetch_futures
    answers[frozenset(consumer_of(source).assignment())] = Future().success({})
    source._watch.on_partitions_revoked(set())

    assert answers == {}


def test_short_polls_settle_too(world: RealWorld) -> None:
    """
    Two members that poll for a millisecond at a time and then do something else come to share the partitions.

    kafka-python by itself throws away the answer to a join that comes between two polls, and joins again, for ever.
    """
    with (
        Reader(world.source(), wait_s=0.001, elsewhere_s=0.1) as one,
        Reader(world.source(), wait_s=0.001, elsewhere_s=0.1) as two,
    ):

        def shared() -> bool:
            owned = [len(reader.call(source_partitions)) for reader in (one, two)]
            return owned == [PARTITIONS // 2] * 2

        assert eventually(shared, deadline_s=DEADLINE_S)
