"""
When the breaker opens, probes and closes.
"""

import pytest

from tests.fake_outcomes import ManualClock
from worker.adapters.circuit_breaker import CircuitBreaker

OPEN_S = 10.0


@pytest.fixture
def clock() -> ManualClock:
    """
    A clock that stands still.
    """
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    """
    Opens after three failures.
    """
    return CircuitBreaker(clock, failures=3, open_s=OPEN_S)


def fail(breaker: CircuitBreaker, times: int) -> None:
    """
    So many failures in a row.
    """
    for _ in range(times):
        breaker.failed()


def test_closed_until_enough_failures_in_a_row(breaker: CircuitBreaker) -> None:
    """
    Two failures are borne, the third opens it.
    """
    fail(breaker, 2)
    before = breaker.allows()
    fail(breaker, 1)

    assert before
    assert not breaker.allows()


def test_a_success_between_failures_counts_anew(breaker: CircuitBreaker) -> None:
    """
    Only failures in a row open it.
    """
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)

    assert breaker.allows()


def test_one_probe_after_the_pause(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """
    When the pause is over one caller is let through, and the others wait for the next pause.
    """
    fail(breaker, 3)
    clock.now_s = OPEN_S - 0.001
    early = breaker.allows()
    clock.now_s = OPEN_S
    probes = [breaker.allows() for _ in range(3)]

    assert not early
    assert probes == [True, False, False]


def test_a_probe_that_succeeds_closes_it(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """
    After a good answer everybody may ask, and it takes as many failures as ever to open it again.
    """
    fail(breaker, 3)
    clock.now_s = OPEN_S
    breaker.allows()
    breaker.succeeded()
    fail(breaker, 2)

    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_a_probe_that_fails_opens_it_again(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """
    One failure of the probe costs a whole pause, counted from the failure.
    """
    fail(breaker, 3)
    clock.now_s = OPEN_S
    breaker.allows()
    clock.now_s = OPEN_S + 1
    breaker.failed()
    clock.now_s = 2 * OPEN_S
    early = breaker.allows()
    clock.now_s = 2 * OPEN_S + 1

    assert not early
    assert breaker.allows()


def test_a_probe_that_says_nothing_blocks_nobody(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """
    If the probe never tells how it went, another is sent after another pause.
    """
    fail(breaker, 3)
    clock.now_s = OPEN_S
    breaker.allows()
    clock.now_s = 2 * OPEN_S

    assert breaker.allows()


def test_it_tells_when_it_opens_and_closes(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """
    Only the failure that opens it and the success that closes it say so, however many others there are.
    """
    opened = [breaker.failed() for _ in range(5)]
    clock.now_s += OPEN_S
    breaker.allows()
    opened_again = breaker.failed()
    closed = [breaker.succeeded() for _ in range(2)]

    assert [False, False, True, False, False] == opened
    assert not opened_again
    assert [True, False] == closed


def test_it_tells_how_long_it_stays_open(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """
    Seconds until the next probe, and none while it is closed or a probe is due.
    """
    closed_s = breaker.probe_in_s()
    fail(breaker, 3)
    clock.now_s += 4
    open_s = breaker.probe_in_s()
    clock.now_s += OPEN_S

    assert (0.0, OPEN_S - 4, 0.0) == (closed_s, open_s, breaker.probe_in_s())
