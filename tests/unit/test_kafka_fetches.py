"""
When a poll of kafka-python's consumer has something to give.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import CompletedFetch, Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.future import Future

from tests.hostile_batches import batch_bytes
from worker.adapters.kafka_fetches import LOOK_EVERY_S, SOON_S, FetchWatch
from worker.errors import CannotStart
from worker.flow.bell import Bell


class Desk:
    """
    A consumer's fetches, a clock, and the watch over both.
    """

    def __init__(self) -> None:
        self.fetcher = SimpleNamespace(
            _fetch_futures=[], _completed_fetches=[], _next_partition_records=None, _paused_partition_records={}
        )
        self.bell = Bell()
        self.now_s = 100.0
        self.held = {0, 1}
        self.paused: set[int] = set()
        consumer = SimpleNamespace(_fetcher=self.fetcher, assignment=lambda: self.held, paused=lambda: self.paused)
        self.watch = FetchWatch(consumer, self.bell, monotonic_s=lambda: self.now_s)

    def polled(self, *, taking: bool = True) -> None:
        """
        A poll, from its beginning to its end.
        """
        self.watch.polling()
        self.watch.polled(taking=taking)

    def rang(self) -> bool:
        """
        Whether it rang since the last time.
        """
        return self.bell.wait(0.0)


def test_the_first_poll_is_due_at_once() -> None:
    """
    Before anything was asked nobody knows what there is.
    """
    assert Desk().watch.due


def test_after_a_poll_the_next_is_due_when_its_fetch_is_answered() -> None:
    """
    The answer rings, once; that it was heard of before the poll does not make the one after it due.
    """
    desk = Desk()
    fetch = Future()
    desk.fetcher._fetch_futures = [fetch]
    desk.polled()
    before = (desk.watch.due, desk.rang())
    fetch.success("records")
    after = (desk.watch.due, desk.rang())
    desk.polled()

    assert ((False, False), (True, True), False) == (before, after, desk.watch.due)


def test_an_answer_that_came_within_the_poll_is_not_missed() -> None:
    """
    It was fetched after the poll had looked, and is there already when the poll ends.
    """
    desk = Desk()
    desk.watch.polling()
    desk.fetcher._fetch_futures = [Future().success("records")]
    desk.watch.polled(taking=True)

    assert (True, True) == (desk.watch.due, desk.rang())


def test_a_fetch_that_failed_is_left_to_the_next_look() -> None:
    """
    A broker that is away is not asked again and again without a pause.
    """
    desk = Desk()
    fetch = Future()
    desk.fetcher._fetch_futures = [fetch]
    desk.polled()
    fetch.failure(ConnectionError("away"))
    at_once = (desk.watch.due, desk.rang(), desk.watch.left_s)
    desk.now_s += LOOK_EVERY_S

    assert (False, False, LOOK_EVERY_S) == at_once
    assert (True, 0.0) == (desk.watch.due, desk.watch.left_s)


def test_what_should_be_fetched_and_is_not_is_soon_looked_after() -> None:
    """
    Behind a rebalance, or while a broker is away; not where nothing is to be fetched.
    """
    desk = Desk()
    left_s = []
    for held, paused, taking in (
        ({0, 1}, {0}, True),
        ({0, 1}, {0, 1}, True),
        (set[int](), set[int](), True),
        ({0}, set[int](), False),
    ):
        desk.held, desk.paused = held, paused
        desk.polled(taking=taking)
        left_s.append(round(desk.watch.left_s, 9))

    assert [SOON_S, LOOK_EVERY_S, LOOK_EVERY_S, LOOK_EVERY_S] == left_s


@pytest.mark.parametrize("kept", ["_completed_fetches", "_next_partition_records"])
def test_what_was_fetched_and_not_taken_makes_the_next_poll_due(kept: str) -> None:
    """
    Unless nothing is to be taken at present: then it keeps.
    """
    desk = Desk()
    setattr(desk.fetcher, kept, ["records"])
    desk.polled(taking=False)
    without_room = desk.watch.due
    desk.polled(taking=True)

    assert (False, True) == (without_room, desk.watch.due)


UPLOADS, RETRY, LATER_RETRY = (TopicPartition(topic, 0) for topic in ("uploads", "retry-1", "retry-2"))


class RealDesk:
    """
    kafka-python's own fetcher and subscriptions, without a broker, and the watch over both.
    """

    def __init__(self) -> None:
        self.subscriptions: Any = SubscriptionState()
        self.fetcher: Any = Fetcher(SimpleNamespace(_manager=SimpleNamespace(_net=None)), self.subscriptions)
        self.subscriptions.assign_from_user([UPLOADS, RETRY, LATER_RETRY])
        for partition in (UPLOADS, RETRY, LATER_RETRY):
            self.subscriptions.seek(partition, 0)
        consumer = SimpleNamespace(
            _fetcher=self.fetcher,
            assignment=self.subscriptions.assigned_partitions,
            paused=self.subscriptions.paused_partitions,
        )
        self.watch = FetchWatch(consumer, Bell(), monotonic_s=lambda: 0.0)

    def answered(self, partition: TopicPartition, count: int) -> None:
        """
        A fetch brought so many records of a partition, from its beginning on.
        """
        data = SimpleNamespace(
            error_code=0,
            high_watermark=count,
            diverging_epoch=None,
            records=batch_bytes([(b"key", b"value", [])] * count),
            aborted_transactions=None,
            preferred_read_replica=-1,
        )
        self.fetcher._completed_fetches.append(CompletedFetch(partition, 0, 12, data, None))

    def polled(self, room: int) -> dict[TopicPartition, int]:
        """
        A poll, from its beginning to its end: how many records it gave of which partitions.
        """
        self.watch.polling()
        records, _ = self.fetcher.fetched_records(room)
        self.watch.polled(taking=True)
        return {partition: len(taken) for partition, taken in records.items()}

    def put_off(self, partition: TopicPartition) -> None:
        """
        None of its records may be tried yet: as the source of events does it.
        """
        self.subscriptions.seek(partition, 0)
        self.subscriptions.pause(partition)


def test_a_partition_that_was_paused_with_records_in_hand_is_fetched_again() -> None:
    """
    Two partitions wait, each with records that a poll had no room for; meanwhile uploads are read to their end.
    """
    desk = RealDesk()
    given = []
    for partition in (RETRY, LATER_RETRY):
        desk.answered(partition, 3)
        given.append(desk.polled(2))
        desk.put_off(partition)
    desk.answered(UPLOADS, 2)
    given.append(desk.polled(5))
    waiting = (set(desk.fetcher._paused_partition_records), desk.watch.due)
    for partition in (RETRY, LATER_RETRY):
        desk.subscriptions.resume(partition)
    given.append(desk.polled(5))
    soon = desk.watch.due
    given.append(desk.polled(5))

    assert [{RETRY: 2}, {LATER_RETRY: 2}, {UPLOADS: 2}, {}, {}] == given
    assert ({RETRY, LATER_RETRY}, False) == waiting
    assert (True, False) == (soon, desk.watch.due)
    assert {UPLOADS, RETRY, LATER_RETRY} == set(desk.fetcher._fetchable_partitions())


def test_where_to_read_from_is_waited_for_too() -> None:
    """
    Before that is known nothing is fetched.
    """
    desk = Desk()
    desk.fetcher._reset_task = Future()
    desk.polled()
    desk.fetcher._reset_task.success(None)

    assert (True, True) == (desk.watch.due, desk.rang())


def test_another_kafka_python_is_refused() -> None:
    """
    One that keeps its fetches elsewhere would be polled twice a second and no more.
    """
    with pytest.raises(CannotStart, match=r"3\.0\.12"):
        FetchWatch(SimpleNamespace(_fetcher=SimpleNamespace()), Bell())
