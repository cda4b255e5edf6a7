"""
What every outbox promises, in memory and on a real Kafka.
"""

from collections.abc import Iterator

import pytest

from tests.kafka_reader import DEADLINE_S, Reader
from tests.kafka_worlds import PARTITIONS, World, poll_until, release
from tests.servers import eventually
from worker.domain import Partition
from worker.errors import ProducerFenced, PublishFailed
from worker.ports import GroupMembership, PositionDone

TOO_LARGE = b"x" * 3_000_000


@pytest.fixture
def reader(world: World) -> Iterator[Reader]:
    """
    The only member of the group, with one event of each partition read and nothing committed.
    """
    for number in range(PARTITIONS):
        world.upload(number, b"upload-%d" % number)
    with Reader(world.source()) as reader:
        assert reader.until(lambda: len(reader.events) == PARTITIONS)
        yield reader


def membership_of(reader: Reader) -> GroupMembership:
    """
    The membership that came with the reader's last poll.
    """
    assert reader.membership is not None
    return reader.membership


def stale_membership_of(world: World, reader: Reader) -> GroupMembership:
    """
    A membership from before another member joined and took half of the partitions.
    """
    stale = membership_of(reader)
    two = Reader(world.source())
    try:
        assert reader.until(lambda: len(reader.revoked) == PARTITIONS // 2)
        assert two.until(lambda: len(two.events) == PARTITIONS // 2)
    finally:
        two.close()
    assert reader.until(lambda: len(reader.events) == PARTITIONS + PARTITIONS // 2)
    return stale


def test_what_is_published_is_there_and_acknowledged_once(world: World) -> None:
    """
    Key, value, headers and time stamp arrive as they were given; each position is acknowledged exactly once.
    """
    outbox = world.outbox()
    uploads = Partition(world.uploads, 0)
    headers = (("ce_id", b"1"), ("ce_id", b"2"))
    outbox.publish([release(world.verdicts, uploads, 7, b"first", headers=headers, timestamp_ms=1_700_000_000_000)])
    outbox.publish([release(world.verdicts, Partition(world.uploads, 1), 3, b"second", key=None)])
    outbox.flush(DEADLINE_S)

    acknowledged = outbox.take_acknowledged()
    by_value = {record.value: record for record in world.records(world.verdicts)}

    assert {(uploads, 7), (Partition(world.uploads, 1), 3)} == set(acknowledged)
    assert len(acknowledged) == 2
    assert outbox.take_acknowledged() == []
    assert {b"first", b"second"} == set(by_value)
    first = by_value[b"first"]
    assert (first.key, first.headers, first.timestamp_ms) == (b"post-1", headers, 1_700_000_000_000)
    assert by_value[b"second"].key is None


def test_order_holds_for_each_key(world: World) -> None:
    """
    What has the same key arrives in the order in which it was published, however many batches it takes.
    """
    outbox = world.outbox()
    partition = Partition(world.uploads, 0)
    releases = [
        release(world.verdicts, partition, at, b"%d" % at + b" " * 1_000, key=b"key-%d" % (at % 3)) for at in range(300)
    ]
    for begin in range(0, 300, 10):
        outbox.publish(releases[begin : begin + 10])
    outbox.flush(DEADLINE_S)

    records = world.records(world.verdicts)

    for key in (b"key-0", b"key-1", b"key-2"):
        expected = [one.message.value for one in releases if one.message.key == key]
        assert expected == [record.value for record in records if record.key == key]


def test_acknowledgements_come_without_a_flush(world: World) -> None:
    """
    The broker's answers arrive by themselves.
    """
    outbox = world.outbox()
    partition = Partition(world.uploads, 0)
    acknowledged: list[PositionDone] = []
    outbox.publish([release(world.verdicts, partition, at) for at in range(20)])

    def all_came() -> bool:
        acknowledged.extend(outbox.take_acknowledged())
        return len(acknowledged) == 20

    assert eventually(all_came)
    assert {(partition, at) for at in range(20)} == set(acknowledged)


def test_a_message_that_no_broker_takes_is_told_with_its_position(world: World) -> None:
    """
    Publishing fails loudly, naming the upload whose outcome did not arrive.
    """
    outbox = world.outbox()

    with pytest.raises(PublishFailed, match=rf"{world.uploads}-2 offset 41"):
        outbox.publish([release(world.verdicts, Partition(world.uploads, 2), 41, TOO_LARGE)])


def test_a_transaction_shows_messages_and_offsets_together(world: World, reader: Reader) -> None:
    """
    After a transaction its messages can be read and its offsets are committed.
    """
    outbox = world.outbox("worker-1")
    releases = [release(world.verdicts, Partition(world.uploads, at), 0, b"%d" % at) for at in range(PARTITIONS)]
    offsets = {Partition(world.uploads, at): 1 for at in range(PARTITIONS)}

    assert outbox.transact(releases, offsets, membership_of(reader))
    assert sorted(record.value or b"" for record in world.records(world.verdicts)) == [b"0", b"1", b"2", b"3"]
    assert [world.committed(number) for number in range(PARTITIONS)] == [1] * PARTITIONS


def test_transactions_follow_each_other(world: World, reader: Reader) -> None:
    """
    One after the other, each is seen, in order.
    """
    outbox = world.outbox("worker-1")
    partition = Partition(world.uploads, 0)

    done = [
        outbox.transact(
            [release(world.verdicts, partition, at, b"%d" % at)], {partition: at + 1}, membership_of(reader)
        )
        for at in range(10)
    ]

    assert done == [True] * 10
    assert [record.value for record in world.records(world.verdicts)] == [b"%d" % at for at in range(10)]
    assert world.committed(0) == 10


def test_a_refused_transaction_leaves_nothing(world: World, reader: Reader) -> None:
    """
    With a membership from before a rebalance: False, nothing to be read, nothing committed.
    """
    outbox = world.outbox("worker-1")
    stale = stale_membership_of(world, reader)
    partition = Partition(world.uploads, 0)

    assert not outbox.transact([release(world.verdicts, partition, 0)], {partition: 1}, stale)
    assert world.records(world.verdicts) == []
    assert world.committed(0) is None


def test_what_was_refused_does_not_come_with_the_next(world: World, reader: Reader) -> None:
    """
    After a refusal the next transaction commits its own offsets and messages, and only these.
    """
    outbox = world.outbox("worker-1")
    stale = stale_membership_of(world, reader)
    refused, wanted = Partition(world.uploads, 0), Partition(world.uploads, 1)
    assert not outbox.transact([release(world.verdicts, refused, 0, b"refused")], {refused: 1}, stale)

    assert outbox.transact([release(world.verdicts, wanted, 0, b"wanted")], {wanted: 1}, membership_of(reader))
    assert [record.value for record in world.records(world.verdicts)] == [b"wanted"]
    assert [world.committed(0), world.committed(1)] == [None, 1]


def test_who_left_is_refused(world: World) -> None:
    """
    The membership of a member that is gone commits nothing.
    """
    source = world.source()
    outbox = world.outbox("worker-1")
    membership = source.poll(room=0, wait_s=0.0).membership
    source.close()
    partition = Partition(world.uploads, 0)

    assert not outbox.transact([release(world.verdicts, partition, 0)], {partition: 1}, membership)
    assert world.records(world.verdicts) == []
    assert world.committed(0) is None


def test_a_successor_fences_its_predecessor(world: World, reader: Reader) -> None:
    """
    Whoever takes a transactional id ends the transactions of the one before; nothing of these is seen.
    """
    zombie = world.outbox("worker-1")
    partition = Partition(world.uploads, 0)
    successor = world.outbox("worker-1")

    with pytest.raises(ProducerFenced, match="worker-1"):
        zombie.transact([release(world.verdicts, partition, 0, b"zombie")], {partition: 1}, membership_of(reader))
    assert successor.transact(
        [release(world.verdicts, partition, 0, b"successor")], {partition: 1}, membership_of(reader)
    )
    assert [record.value for record in world.records(world.verdicts)] == [b"successor"]


def test_what_is_too_large_fails_its_transaction(world: World, reader: Reader) -> None:
    """
    One message that no broker takes: the whole transaction is unseen, and the failure names the upload.
    """
    outbox = world.outbox("worker-1")
    small, large = Partition(world.uploads, 0), Partition(world.uploads, 1)
    releases = [release(world.verdicts, small, 0), release(world.verdicts, large, 9, TOO_LARGE)]

    with pytest.raises(PublishFailed, match=rf"{world.uploads}-1 offset 9"):
        outbox.transact(releases, {small: 1, large: 10}, membership_of(reader))
    assert world.records(world.verdicts) == []
    assert [world.committed(0), world.committed(1)] == [None, None]


def test_a_successor_reads_behind_the_transaction(world: World, reader: Reader) -> None:
    """
    The offsets of a transaction are the group's: the next member of the group begins behind them.
    """
    outbox = world.outbox("worker-1")
    partition = Partition(world.uploads, 0)
    world.upload(0, b"next")
    assert reader.until(lambda: len(reader.events) == PARTITIONS + 1)
    assert outbox.transact([release(world.verdicts, partition, 0)], {partition: 1}, membership_of(reader))
    reader.close()

    events = poll_until(world.source(), PARTITIONS)

    assert {b"next", b"upload-1", b"upload-2", b"upload-3"} == {event.value for event in events}
