"""
The account of what is published and not yet acknowledged.
"""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.kafka_acknowledgements import Acknowledgements
from worker.domain import Partition
from worker.errors import PublishFailed
from worker.ports import PositionDone

UPLOADS = Partition("uploads", 3)


class HandClock:
    """
    Seconds that go on when told to.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """
        The time.
        """
        return self.now_s


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_each_acknowledgement_is_taken_once(order: list[int], takes: set[int]) -> None:
    """
    Whatever the order of the broker's answers and of our asking, each position comes out exactly once.
    """
    account = Acknowledgements(timeout_s=60)
    tickets = [account.expect(UPLOADS, offset) for offset in range(12)]
    taken: list[PositionDone] = []

    for at, offset in enumerate(order):
        account.settle(tickets[offset])
        if at in takes:
            taken += account.take()
    taken += account.take()

    assert taken == [(UPLOADS, offset) for offset in order]
    assert account.take() == []


def test_a_position_may_be_on_its_way_twice() -> None:
    """
    Published, taken away, read again and published again: both are acknowledged, each for itself.
    """
    account = Acknowledgements(timeout_s=60)
    first, second = account.expect(UPLOADS, 7), account.expect(UPLOADS, 7)
    account.settle(second)
    account.settle(first)

    assert account.take() == [(UPLOADS, 7), (UPLOADS, 7)]


def test_the_first_failure_is_told_from_then_on() -> None:
    """
    Once one outcome has failed nothing more is taken, and the message names the upload and the reason.
    """
    account = Acknowledgements(timeout_s=60)
    good, bad, worse = (account.expect(UPLOADS, offset) for offset in (1, 2, 3))
    account.settle(good)
    account.fail(bad, "disk full")
    account.fail(worse, "also this")

    for _ in range(2):
        with pytest.raises(PublishFailed, match=r"uploads-3 offset 2 was not acknowledged: disk full"):
            account.take()


def test_what_nobody_answers_is_overdue() -> None:
    """
    An outcome that the client forgot is a failure as soon as it is older than any answer may be.
    """
    clock = HandClock()
    account = Acknowledgements(timeout_s=10, monotonic_s=clock)
    account.expect(UPLOADS, 1)
    clock.now_s = 9.9
    assert account.take() == []
    clock.now_s = 10.1

    with pytest.raises(PublishFailed, match=r"uploads-3 offset 1 .* within 10 s"):
        account.take()


def test_waiting_ends_with_the_last_answer() -> None:
    """
    A flush returns as soon as nothing is missing.
    """
    account = Acknowledgements(timeout_s=60)
    tickets = [account.expect(UPLOADS, offset) for offset in range(3)]
    for ticket in tickets[1:]:
        account.settle(ticket)
    answering = threading.Timer(0.05, account.settle, [tickets[0]])
    answering.start()

    account.wait_all(30)

    assert len(account.take()) == 3


def test_waiting_ends_with_a_failure() -> None:
    """
    A flush does not wait out its time when one outcome has failed already.
    """
    account = Acknowledgements(timeout_s=60)
    ticket = account.expect(UPLOADS, 5)
    account.expect(UPLOADS, 6)
    account.fail(ticket, "gone")

    with pytest.raises(PublishFailed, match="offset 5"):
        account.wait_all(30)


def test_waiting_has_an_end() -> None:
    """
    A flush that runs out of time says how many outcomes are missing.
    """
    account = Acknowledgements(timeout_s=60)
    account.expect(UPLOADS, 5)
    account.expect(UPLOADS, 6)

    with pytest.raises(PublishFailed, match=r"2 outcomes .* within 0 s"):
        account.wait_all(0.0)


@given(st.integers(2, 4), st.data())
def test_a_position_with_several_messages_is_done_with_the_last(messages: int, data: st.DataObject) -> None:
    """
    Not before, whatever comes between; and where one of them fails, that is told, once, and the others change nothing.
    """
    account = Acknowledgements(timeout_s=60)
    ticket, other = account.expect(UPLOADS, 7, messages=messages), account.expect(UPLOADS, 8)
    for _ in range(messages - 1):
        account.settle(ticket)
    account.settle(other)
    early = account.take()

    assert early == [(UPLOADS, 8)]
    if data.draw(st.booleans()):
        account.settle(ticket)
        assert account.take() == [(UPLOADS, 7)]
        return
    account.fail(ticket, "no room")
    account.fail(ticket, "no time")
    account.settle(ticket)
    with pytest.raises(PublishFailed, match=r"offset 7 .*no room"):
        account.take()
