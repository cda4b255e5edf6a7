"""
Whether, where and when an upload is tried again.
"""

from dataclasses import replace

import pytest

from schemas.errors import ErrorClass, ErrorCode, Stage, class_of
from worker.domain import Origin, Partition, RawEvent
from worker.errors import UploadFailed
from worker.flow.retrying import NO_RETRIES, Retries, put_off_bytes
from worker.outcomes import Deferred

NOW_S = 1_000_000.0
UPLOADS, RETRY = Partition("uploads", 3), Partition("retry-1", 0)
RETRIES = Retries(in_process=2, first_wait_s=0.2, longest_wait_s=2.0, delays_s=(30.0, 300.0, 1800.0))
RAW = RawEvent(UPLOADS, 7, b"key", b"{}", (("trace", b"1"),), 5)
TRANSIENT = sorted(code for code in ErrorCode if class_of(code) is ErrorClass.TRANSIENT)


def slow(code: ErrorCode = ErrorCode.FETCH_TIMEOUT, *, asked_s: float | None = None) -> UploadFailed:
    """
    A failure of fetching that time may mend.
    """
    return UploadFailed(code, "no answer", retry_after_s=asked_s)


def again(attempts: int) -> RawEvent:
    """
    The record as it comes from a retry topic after so many failures.
    """
    origin = Origin(UPLOADS, 7, timestamp_ms=5, attempts=attempts, first_failed_at_s=NOW_S - 99)
    return RawEvent(RETRY, 21, b"key", b"{}", (("trace", b"1"),), 9, origin=origin)


def put_off(raw: RawEvent, failure: UploadFailed, *, draw: float = 0.0) -> Deferred:
    """
    What ``RETRIES`` make of it; it must not end here.
    """
    found = RETRIES.put_off(raw, failure, now_s=NOW_S, draw=lambda: draw)
    assert found is not None
    return found


def test_waits_within_the_process_double_and_are_bounded() -> None:
    """
    Each is drawn below a bound that doubles up to the longest.
    """
    patient = Retries(in_process=9, first_wait_s=0.2, longest_wait_s=2.0)
    waits = [patient.wait_s(slow(), tries, lambda: 1.0) for tries in range(6)]

    assert [0.2, 0.4, 0.8, 1.6, 2.0, 2.0] == waits
    assert 0.0 == patient.wait_s(slow(), 0, lambda: 0.0)


def test_a_host_that_asks_for_a_moment_gets_it() -> None:
    """
    Within the longest wait; one that asks for more is left to the retry topics.
    """
    assert 1.5 == RETRIES.wait_s(slow(asked_s=1.5), 0, lambda: 1.0)
    assert RETRIES.wait_s(slow(asked_s=2.5), 0, lambda: 1.0) is None


@pytest.mark.parametrize("code", list(ErrorCode))
def test_only_transient_failures_of_fetching_are_tried_again_at_once(code: ErrorCode) -> None:
    """
    And of them not that a host is left alone, which the next moment does not change.
    """
    expected = code in TRANSIENT and code not in (ErrorCode.FETCH_HOST_DOWN, ErrorCode.ENCODE_OUT_OF_MEMORY)
    waits = RETRIES.wait_s(UploadFailed(code, "so it is"), 0, lambda: 0.5)

    assert expected is (waits is not None)


def test_after_the_last_try_it_is_no_longer_tried() -> None:
    """
    Two tries are two.
    """
    assert [True, True, False] == [RETRIES.wait_s(slow(), tries, lambda: 0.5) is not None for tries in range(3)]


def test_each_attempt_goes_one_topic_further() -> None:
    """
    Attempts are counted where the record first lay, and so is since when it fails.
    """
    first, second, third = put_off(RAW, slow()), put_off(again(1), slow()), put_off(again(2), slow())

    assert [0, 1, 2] == [one.step for one in (first, second, third)]
    assert [NOW_S + 30, NOW_S + 300, NOW_S + 1800] == [one.not_before_s for one in (first, second, third)]
    assert Origin(UPLOADS, 7, timestamp_ms=5, attempts=1, first_failed_at_s=NOW_S) == first.origin
    assert Origin(UPLOADS, 7, timestamp_ms=5, attempts=3, first_failed_at_s=NOW_S - 99) == third.origin
    assert RETRIES.put_off(again(3), slow(), now_s=NOW_S, draw=lambda: 0.0) is None


def test_delays_are_spread() -> None:
    """
    By up to a tenth, so that what failed together does not come back together.
    """
    assert NOW_S + 33 == pytest.approx(put_off(RAW, slow(), draw=1.0).not_before_s)


@pytest.mark.parametrize(
    ("asked_s", "step", "waits_s"), [(20, 0, 30), (30, 0, 30), (31, 1, 300), (1800, 2, 1800), (1e9, 2, 1800)]
)
def test_a_host_that_asks_for_a_long_wait_gets_the_topic_that_waits_so_long(
    asked_s: float, step: int, waits_s: float
) -> None:
    """
    And never more than the last topic's own: whatever a host asks for must not hold up what lies behind.
    """
    found = put_off(RAW, slow(asked_s=asked_s))

    assert (step, NOW_S + waits_s) == (found.step, found.not_before_s)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_exactly_transient_failures_are_put_off(code: ErrorCode) -> None:
    """
    In whatever stage they arise; without retry topics nothing is.
    """
    failure = UploadFailed(code, "so it is", stage=Stage.DECIDE)

    assert (code in TRANSIENT) is (RETRIES.put_off(RAW, failure, now_s=NOW_S, draw=lambda: 0.0) is not None)
    assert NO_RETRIES.put_off(RAW, failure, now_s=NOW_S, draw=lambda: 0.0) is None
    assert NO_RETRIES.wait_s(failure, 0, lambda: 0.0) is None


def test_fewer_topics_than_before_end_what_has_been_through_more() -> None:
    """
    An upload that failed more often than there are topics now, after the settings changed, ends at once.
    """
    fewer = Retries(delays_s=(30.0,))

    assert fewer.put_off(again(2), slow(), now_s=NOW_S, draw=lambda: 0.0) is None


def test_what_does_not_fit_a_retry_topic_ends_here() -> None:
    """
    A record with more headers than planned for: putting it off would end the worker at it, again and again.
    """
    large = replace(RAW, headers=(*RAW.headers, ("x", bytes(70_000)), ("null", None)))
    room = put_off_bytes(large)

    assert replace(RETRIES, most_bytes=room).put_off(large, slow(), now_s=NOW_S, draw=lambda: 0.0) is not None
    assert replace(RETRIES, most_bytes=room - 1).put_off(large, slow(), now_s=NOW_S, draw=lambda: 0.0) is None
    assert replace(RETRIES, most_bytes=room - 1).put_off(RAW, slow(), now_s=NOW_S, draw=lambda: 0.0) is not None
