"""
When a peer sends too slowly or too much, counted without any network.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.fetch_limits import FetchLimits, Spending, TooMuch, TooSlow, current, fetch_limits, within_limit

PACE = FetchLimits(total_s=60, min_bytes_per_s=100, slow_after_s=2, wire_bytes=10_000)


def spending() -> Spending:
    """
    100 bytes a second, looked at every two seconds.
    """
    return Spending(PACE, deadline_s=0)


def test_waiting_for_the_first_byte_is_not_slowness() -> None:
    """
    How long an answer may take to begin is said by the read time-out.
    """
    spent = spending()
    spent.received(1, 30)
    spent.received(1, 1.9)

    with pytest.raises(TooSlow):
        spent.received(1, 0.1)


def test_pace_is_measured_again_and_again() -> None:
    """
    A fast start earns no slow end.
    """
    spent = spending()
    spent.received(5000, 0)
    spent.received(1, 2)
    spent.received(100, 1)

    with pytest.raises(TooSlow, match=r"199 bytes in 2\.0 s"):
        spent.received(99, 1)


def test_the_pace_itself_is_enough() -> None:
    """
    Exactly as fast as it must be is not too slow.
    """
    spent = spending()
    spent.received(1, 0)
    for _ in range(20):
        spent.received(100, 1)

    assert [] == spent.connected


def test_each_answer_is_measured_by_itself() -> None:
    """
    Another request begins anew, in pace and in bytes.
    """
    spent = spending()
    for _ in range(3):
        spent.next_answer()
        spent.received(9000, 5)
        spent.received(1, 1.9)

    with pytest.raises(TooMuch):
        spent.received(1000, 0)


def test_a_pace_of_nothing_is_no_limit() -> None:
    """
    Zero bytes per second switches it off.
    """
    spent = Spending(FetchLimits(total_s=60, min_bytes_per_s=0, slow_after_s=2), deadline_s=0)
    for _ in range(10):
        spent.received(0, 100)

    assert [] == spent.connected


@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1)), min_size=2, max_size=50))
def test_who_keeps_the_pace_in_every_read_is_never_too_slow(reads: list[tuple[int, float]]) -> None:
    """
    However the bytes are cut into reads.
    """
    spent = Spending(FetchLimits(total_s=60, min_bytes_per_s=100, slow_after_s=0.5), deadline_s=0)
    for count, _ in reads:
        spent.received(count, count / 100 * 0.999)

    assert [] == spent.connected


def test_limits_are_of_one_thread_and_one_block() -> None:
    """
    Outside there are none, and an inner block has its own.
    """
    with fetch_limits(FetchLimits(total_s=50)) as outer:
        with fetch_limits(FetchLimits(total_s=5)):
            inner_s = within_limit(None)
        outer_s = within_limit(None)
        same = current() is outer
        cut_s = within_limit(0.5)

    assert same
    assert inner_s is not None
    assert outer_s is not None
    assert 4 < inner_s <= 5 < outer_s <= 50
    assert 0.5 == cut_s
    assert within_limit(7.0) == 7.0


def test_nothing_is_read_when_the_time_is_over() -> None:
    """
    A limit that has passed is an error and not a wait of no length.
    """
    with fetch_limits(FetchLimits(total_s=0)), pytest.raises(TimeoutError):
        within_limit(1.0)
