"""
The two promises of delivery, each alone with Kafka in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.fakes_kafka import InMemoryEventSource, InMemoryKafka, InMemoryOutbox
from worker.domain import Partition
from worker.errors import ProducerFenced, PublishFailed
from worker.flow.delivery import AtLeastOnce, Delivery, ExactlyOnce
from worker.outcomes import Message, Release
from worker.ports import GroupMembership

P0, P1 = Partition("uploads", 0), Partition("uploads", 1)


@dataclass(frozen=True, slots=True)
class Desk:
    """
    A Kafka with a member that owns both partitions, and its producer.
    """

    kafka: InMemoryKafka
    source: InMemoryEventSource
    outbox: InMemoryOutbox
    membership: GroupMembership

    def at_least_once(self, *, commit_interval_s: float = 0.0) -> AtLeastOnce:
        """
        The promise at least once.
        """
        return AtLeastOnce(self.source, self.outbox, commit_interval_s=commit_interval_s)

    def exactly_once(self, *, interval_s: float = 0.0, max_messages: int = 10) -> ExactlyOnce:
        """
        The promise exactly once.
        """
        return ExactlyOnce(self.source, self.outbox, interval_s=interval_s, max_messages=max_messages)

    def values(self) -> list[bytes | None]:
        """
        What a read_committed reader finds.
        """
        return [record.value for record in self.kafka.records("verdicts")]


@pytest.fixture
def desk() -> Desk:
    """
    Everything at the beginning.
    """
    kafka = InMemoryKafka({"uploads": 2, "verdicts": 1})
    source = InMemoryEventSource(kafka)
    membership = source.poll(room=0, wait_s=0).membership
    return Desk(kafka, source, InMemoryOutbox(kafka, transactional_id="id"), membership)


def releases(partition: Partition, *offsets: int) -> Sequence[Release]:
    """
    Outcomes of these positions; the value says which.
    """
    return [
        Release(partition, offset, Message("verdicts", b"key", b"%d/%d" % (partition.number, offset), (), 0))
        for offset in offsets
    ]


def test_at_least_once_publishes_at_once_and_commits_behind(desk: Desk) -> None:
    """
    Outcomes are published when they are accepted; the offset of the next event is committed once they are acknowledged.
    """
    delivery = desk.at_least_once()
    delivery.accept([*releases(P0, 0, 1), *releases(P1, 0)], now_s=0.0)

    assert [b"0/0", b"0/1", b"1/0"] == desk.values()
    assert ({}, 3) == (desk.kafka.committed, delivery.unsettled)
    delivery.advance(0.0, desk.membership)
    assert ({P0: 2, P1: 1}, 0) == (desk.kafka.committed, delivery.unsettled)


def test_at_least_once_commits_no_more_often_than_its_interval(desk: Desk) -> None:
    """
    The first commit is at once; the next one when the interval has passed, with all that came meanwhile.
    """
    delivery = desk.at_least_once(commit_interval_s=1.0)
    found = []
    for offset, now_s in enumerate([10.0, 10.5, 10.99, 11.0, 11.5]):
        delivery.accept(releases(P0, offset), now_s)
        delivery.advance(now_s, desk.membership)
        found.append(desk.kafka.committed[P0])

    assert [1, 1, 1, 4, 4] == found


def test_at_least_once_tries_a_refused_commit_again(desk: Desk) -> None:
    """
    A refusal costs an interval and nothing else.
    """
    delivery = desk.at_least_once(commit_interval_s=1.0)
    desk.kafka.faults.commits_refused = 1
    delivery.accept(releases(P0, 0), now_s=0.0)
    delivery.advance(0.0, desk.membership)
    delivery.advance(0.5, desk.membership)

    assert desk.kafka.committed == {}
    delivery.advance(1.0, desk.membership)
    assert {P0: 1} == desk.kafka.committed


def test_at_least_once_is_due_when_there_is_something_to_commit(desk: Desk) -> None:
    """
    An acknowledgement makes it due an interval after the last commit; what lies behind a missing one makes nothing due.
    """
    delivery = desk.at_least_once(commit_interval_s=1.0)
    due_s = [delivery.due_s]
    for offset, now_s in enumerate([10.0, 10.4]):
        delivery.accept(releases(P0, offset), now_s)
        delivery.advance(now_s, desk.membership)
        due_s.append(delivery.due_s)
    delivery.advance(11.0, desk.membership)
    due_s.append(delivery.due_s)

    never = float("inf")
    assert [never, never, 11.0, never] == due_s


def test_at_least_once_is_not_due_for_what_cannot_be_committed_yet(desk: Desk) -> None:
    """
    Where only a later outcome is acknowledged there is nothing to commit, and nobody is kept awake by it.
    """
    delivery = desk.at_least_once()
    delivery._ledger.release(P0, 0)
    delivery.accept(releases(P0, 1), now_s=0.0)
    delivery.advance(0.0, desk.membership)

    assert ({}, float("inf")) == (desk.kafka.committed, delivery.due_s)


def test_at_least_once_forgets_what_was_taken_away(desk: Desk) -> None:
    """
    What a lost partition still had to be acknowledged is no longer waited for, and never committed.
    """
    delivery = desk.at_least_once()
    desk.kafka.faults.acknowledgements_held = True
    delivery.accept([*releases(P0, 0), *releases(P1, 0, 1)], now_s=0.0)
    delivery.forget([P1])

    assert 1 == delivery.unsettled
    desk.kafka.release_acknowledgements()
    delivery.advance(0.0, desk.membership)
    assert {P0: 1} == desk.kafka.committed
    assert 0 == delivery.unsettled


def test_at_least_once_finishes_whatever_the_interval(desk: Desk) -> None:
    """
    At the end everything that was accepted is acknowledged and committed.
    """
    delivery = desk.at_least_once(commit_interval_s=3600.0)
    delivery.accept(releases(P0, 0), now_s=0.0)
    delivery.advance(0.0, desk.membership)
    delivery.accept(releases(P0, 1, 2), now_s=1.0)
    delivery.finish(1.0, desk.membership, timeout_s=1.0)

    assert {P0: 3} == desk.kafka.committed


@pytest.mark.parametrize("how", ["advance", "finish"])
def test_at_least_once_fails_when_an_outcome_is_not_acknowledged(desk: Desk, how: str) -> None:
    """
    Whether it is found on the way or at the end: the fault is raised, and its offset is not committed.
    """
    delivery = desk.at_least_once()
    delivery.accept(releases(P0, 0), now_s=0.0)
    delivery.advance(0.0, desk.membership)
    desk.kafka.faults.acknowledgements_failed = 1
    delivery.accept(releases(P0, 1, 2), now_s=0.0)

    with pytest.raises(PublishFailed):
        _proceed(delivery, how, desk.membership)
    assert {P0: 1} == desk.kafka.committed


def _proceed(delivery: Delivery, how: str, membership: GroupMembership) -> None:
    if how == "advance":
        delivery.advance(0.0, membership)
    else:
        delivery.finish(0.0, membership, timeout_s=0.0)


def test_exactly_once_waits_for_its_interval(desk: Desk) -> None:
    """
    The interval begins with the first outcome of a transaction; until it is over nothing is visible or committed.
    """
    delivery = desk.exactly_once(interval_s=0.2)
    delivery.accept(releases(P0, 0), now_s=5.0)
    delivery.accept([*releases(P0, 1), *releases(P1, 7)], now_s=5.15)
    delivery.advance(5.19, desk.membership)

    assert ([], {}, 3) == (desk.values(), desk.kafka.committed, delivery.unsettled)
    delivery.advance(5.2, desk.membership)
    assert ([b"0/0", b"0/1", b"1/7"], {P0: 2, P1: 8}, 0) == (desk.values(), desk.kafka.committed, delivery.unsettled)


def test_exactly_once_does_not_wait_when_it_is_full(desk: Desk) -> None:
    """
    A full transaction goes at once, with the offsets of its own outcomes only; the rest follows by its own time.
    """
    delivery = desk.exactly_once(interval_s=60.0, max_messages=2)
    delivery.accept(releases(P0, 0, 1, 2), now_s=0.0)
    delivery.advance(0.0, desk.membership)

    assert ([b"0/0", b"0/1"], {P0: 2}, 1) == (desk.values(), desk.kafka.committed, delivery.unsettled)
    delivery.advance(59.0, desk.membership)
    assert {P0: 2} == desk.kafka.committed
    delivery.advance(60.0, desk.membership)
    assert {P0: 3} == desk.kafka.committed


def test_exactly_once_keeps_what_was_refused(desk: Desk) -> None:
    """
    A refused transaction is tried again an interval later, in the same order, and seen once.
    """
    delivery = desk.exactly_once(interval_s=1.0)
    desk.kafka.faults.transactions_refused = 1
    delivery.accept(releases(P0, 0, 1), now_s=0.0)
    delivery.advance(1.0, desk.membership)
    delivery.advance(1.5, desk.membership)

    assert ([], {}, 2) == (desk.values(), desk.kafka.committed, delivery.unsettled)
    delivery.advance(2.0, desk.membership)
    assert ([b"0/0", b"0/1"], {P0: 2}) == (desk.values(), desk.kafka.committed)


def test_exactly_once_never_sends_what_was_taken_away(desk: Desk) -> None:
    """
    Pending outcomes of a lost partition are dropped; those of the others are sent.
    """
    delivery = desk.exactly_once()
    delivery.accept([*releases(P0, 0), *releases(P1, 0), *releases(P0, 1)], now_s=0.0)
    delivery.forget([P1])

    assert 2 == delivery.unsettled
    delivery.advance(0.0, desk.membership)
    assert ([b"0/0", b"0/1"], {P0: 2}) == (desk.values(), desk.kafka.committed)


def test_exactly_once_is_refused_under_a_stale_membership(desk: Desk) -> None:
    """
    After a rebalance that this worker has not yet seen, nothing of it is taken.
    """
    delivery = desk.exactly_once()
    delivery.accept(releases(P0, 0), now_s=0.0)
    desk.kafka.group.rebalance()
    delivery.advance(0.0, desk.membership)

    assert ([], 1) == (desk.values(), delivery.unsettled)


def test_exactly_once_finishes_in_as_many_transactions_as_it_takes(desk: Desk) -> None:
    """
    At the end nothing waits for an interval.
    """
    delivery = desk.exactly_once(interval_s=3600.0, max_messages=2)
    delivery.accept(releases(P0, 0, 1, 2, 3, 4), now_s=0.0)
    delivery.finish(0.0, desk.membership, timeout_s=1.0)

    assert ({P0: 5}, 0) == (desk.kafka.committed, delivery.unsettled)


def test_exactly_once_leaves_at_the_end_what_the_group_refuses(desk: Desk) -> None:
    """
    The end is not waited for a group that rebalances: what it refuses stays uncommitted for the next owner.
    """
    delivery = desk.exactly_once(max_messages=2)
    delivery.accept(releases(P0, 0, 1, 2), now_s=0.0)
    desk.kafka.faults.transactions_refused = 1
    delivery.finish(0.0, desk.membership, timeout_s=1.0)

    assert ([], {}, 3) == (desk.values(), desk.kafka.committed, delivery.unsettled)


def test_exactly_once_ends_when_it_is_fenced(desk: Desk) -> None:
    """
    Somebody else has the transactional id: going on could publish twice.
    """
    delivery = desk.exactly_once()
    delivery.accept(releases(P0, 0), now_s=0.0)
    desk.kafka.fence("id")

    with pytest.raises(ProducerFenced):
        delivery.advance(0.0, desk.membership)
    assert ([], {}) == (desk.values(), desk.kafka.committed)


def test_exactly_once_is_due_when_its_transaction_is(desk: Desk) -> None:
    """
    An interval after the first outcome, at once where the next transaction is full already, and never without outcomes.
    """
    delivery = desk.exactly_once(interval_s=1.0, max_messages=2)
    due_s = [delivery.due_s]
    delivery.accept(releases(P0, 0), now_s=10.0)
    due_s.append(delivery.due_s)
    delivery.accept(releases(P0, 1, 2, 3), now_s=10.5)
    for now_s in (10.5, 10.6):
        delivery.advance(now_s, desk.membership)
        due_s.append(delivery.due_s)

    never = float("inf")
    assert [never, 11.0, 10.5, never] == due_s
