"""
What every source of upload events promises, in memory and on a real Kafka.
"""

from tests.kafka_reader import Reader
from tests.kafka_worlds import PARTITIONS, World, poll_until
from worker.domain import Partition


def test_events_arrive_whole_and_in_order(world: World) -> None:
    """
    A new group reads from the beginning; key, value, headers and time stamp are those of the record.
    """
    headers = (("ce_id", b"1"), ("ce_id", b"2"), ("empty", b""))
    world.upload(1, b"first", key=b"post-1", headers=headers, at_ms=1_700_000_000_000)
    world.upload(1, None, key=b"post-2", at_ms=1_700_000_000_001)

    events = poll_until(world.source(), 2)

    partition = Partition(world.uploads, 1)
    assert [(partition, 0), (partition, 1)] == [(event.partition, event.offset) for event in events]
    assert [(b"post-1", b"first"), (b"post-2", None)] == [(event.key, event.value) for event in events]
    assert [headers, ()] == [event.headers for event in events]
    assert [1_700_000_000_000, 1_700_000_000_001] == [event.timestamp_ms for event in events]


def test_never_more_than_there_is_room_for(world: World) -> None:
    """
    Each poll takes at most ``room``; what was left comes with later polls, in order.
    """
    for number in range(2):
        for at in range(10):
            world.upload(number, b"%d-%d" % (number, at))
    source = world.source()

    polled = [source.poll(room=3, wait_s=0.05).events]
    while sum(map(len, polled)) < 20 and len(polled) < 200:
        polled.append(source.poll(room=3, wait_s=0.05).events)

    assert max(map(len, polled)) == 3
    for number in range(2):
        values = [event.value for events in polled for event in events if event.partition.number == number]
        assert [b"%d-%d" % (number, at) for at in range(10)] == values


def test_no_room_takes_nothing_and_loses_nothing(world: World) -> None:
    """
    Without room nothing is taken, however long; when there is room again everything comes, each once.
    """
    values = [b"%d" % at for at in range(20)]
    for at, value in enumerate(values):
        world.upload(at % PARTITIONS, value)
    source = world.source()
    first = poll_until(source, 5, room=5)
    nothing = [event for _ in range(10) for event in source.poll(room=0, wait_s=0.05).events]
    world.upload(0, b"while paused")
    nothing += source.poll(room=0, wait_s=0.05).events

    rest = poll_until(source, 16)

    assert nothing == []
    assert sorted([*values, b"while paused"]) == sorted(event.value or b"" for event in [*first, *rest])


def test_no_room_from_the_start(world: World) -> None:
    """
    A member without room joins, takes nothing, and begins at the beginning when there is room.
    """
    world.upload(2, b"waits")
    source = world.source()
    nothing = [event for _ in range(8) for event in source.poll(room=0, wait_s=0.1).events]

    events = poll_until(source, 1)

    assert nothing == []
    assert [b"waits"] == [event.value for event in events]


def test_a_successor_resumes_behind_the_commit(world: World) -> None:
    """
    What is committed is not read again; what is not committed is.
    """
    for at in range(4):
        world.upload(0, b"%d" % at)
    source = world.source()
    poll_until(source, 4)

    assert source.commit({Partition(world.uploads, 0): 3})
    source.close()

    assert world.committed(0) == 3
    assert [b"3"] == [event.value for event in poll_until(world.source(), 1)]


def test_a_commit_for_a_partition_of_nobody_is_refused(world: World) -> None:
    """
    Only what is assigned is committed; the rest makes the answer False.
    """
    world.upload(0, b"x")
    source = world.source()
    poll_until(source, 1)

    assert not source.commit({Partition(world.uploads, PARTITIONS): 7, Partition(world.uploads, 0): 1})
    assert world.committed(0) == 1


def test_a_second_member_gets_what_the_first_lets_go(world: World) -> None:
    """
    The first is told of just the partitions that the second then reads; in those that it keeps it reads on.
    """
    for number in range(PARTITIONS):
        world.upload(number, b"first-%d" % number)
    with Reader(world.source()) as one:
        assert one.until(lambda: len(one.events) == PARTITIONS)
        with Reader(world.source()) as two:
            assert two.until(lambda: len(two.events) == PARTITIONS // 2)
            moved = {event.partition for event in two.events}
            for number in range(PARTITIONS):
                world.upload(number, b"second-%d" % number)
            kept = {Partition(world.uploads, number) for number in range(PARTITIONS)} - moved
            assert one.until(lambda: len(one.events) == PARTITIONS + len(kept))
            assert two.until(lambda: len(two.events) == 2 * len(moved))

            assert sorted(moved) == one.revoked
            assert two.revoked == []
            assert sorted(b"second-%d" % partition.number for partition in kept) == sorted(
                event.value or b"" for event in one.events[PARTITIONS:]
            )


def test_what_was_let_go_can_no_longer_be_committed(world: World) -> None:
    """
    A commit of a partition that went to another member is False and stores nothing.
    """
    for number in range(PARTITIONS):
        world.upload(number, b"x")
    with Reader(world.source()) as one:
        assert one.until(lambda: len(one.events) == PARTITIONS)
        with Reader(world.source()) as two:
            assert two.until(lambda: len(two.events) == PARTITIONS // 2)
            moved = two.events[0].partition

            assert not one.call(lambda source: source.commit({moved: 1}))
            assert world.committed(moved.number) is None


def test_who_leaves_gives_everything_back(world: World) -> None:
    """
    After a close the others have all partitions, and read them from what was committed.
    """
    with Reader(world.source()) as one:
        one.after(2)
        with Reader(world.source()) as two:
            assert one.until(lambda: len(one.revoked) == PARTITIONS // 2)
            assert two.until(lambda: two.membership is not None)
        for number in range(PARTITIONS):
            world.upload(number, b"%d" % number)

        assert one.until(lambda: len(one.events) == PARTITIONS)
        assert {b"%d" % number for number in range(PARTITIONS)} == set(one.values())
