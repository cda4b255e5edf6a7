"""
What a server's ``Retry-After`` is taken for.
"""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_outcomes import NOON
from worker.adapters.retry_after import LONGEST_S, retry_after_s

NOW_S = NOON.timestamp()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("3600", LONGEST_S),
        ("3601", LONGEST_S),
        ("9" * 400, LONGEST_S),
        (format_datetime(NOON.astimezone(UTC) + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOON.astimezone(UTC) - timedelta(days=9), usegmt=True), 0.0),
        (format_datetime(NOON.astimezone(UTC) + timedelta(days=9), usegmt=True), LONGEST_S),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("\u0661\u0662", None),
        ("Fri, 99 Foo 2026 12:00:00 GMT", None),
        ("Sat, 31 Feb 2026 00:00:00 GMT", None),
    ],
)
def test_seconds_and_dates_are_read(header: str | None, expected: float | None) -> None:
    """
    Whole seconds or a date, never less than none and never more than an hour; anything else says nothing.
    """
    found = retry_after_s(header, now_s=NOW_S)

    assert expected == found


@given(st.text(max_size=80))
def test_nothing_that_is_sent_breaks_it(header: str) -> None:
    """
    Any text is a bounded wait or none.
    """
    found = retry_after_s(header, now_s=NOW_S)

    assert found is None or 0 <= found <= LONGEST_S


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds the zone
def test_any_date_is_a_bounded_wait(then: datetime) -> None:
    """
    Long past and far future alike.
    """
    found = retry_after_s(format_datetime(then, usegmt=True), now_s=NOW_S)

    assert found is not None
    assert 0 <= found <= LONGEST_S
