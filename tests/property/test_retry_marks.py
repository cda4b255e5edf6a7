"""
What a record of a retry topic carries beside the original comes back as it was written, or is refused with a reason.
"""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.retry import (
    HEADERS,
    NULLS,
    REDRIVEN,
    RetryMarks,
    RetryMarksInvalid,
    read_marks,
    with_marks,
    without_marks,
    write_marks,
)

numbers = st.integers(0, 10**15)
marks = st.builds(
    RetryMarks,
    topic=st.text("abcXYZ019._-", min_size=1, max_size=249),
    partition=st.integers(0, 10**6),
    offset=numbers,
    timestamp_ms=st.none() | numbers,
    attempts=st.integers(0, 1000),
    first_failed_at_ms=numbers,
    not_before_ms=numbers,
    redriven=st.booleans(),
)
names = st.text(max_size=20).filter(lambda name: name not in HEADERS)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=40)), max_size=6)


@given(headers, marks)
def test_marks_come_back_and_leave_the_record_as_it_was(
    before: list[tuple[str, bytes | None]], one: RetryMarks
) -> None:
    """
    None of the record's own headers is changed, moved or dropped; marked once more, it is as marked once.

    All values that are written are bytes: not every client can write the null that was there.
    """
    marked = with_marks(before, one)

    assert read_marks(marked) == one
    assert all(value is not None for _, value in marked)
    assert with_marks(marked, one) == marked
    assert list(without_marks(marked)) == before


@given(
    marks,
    st.sampled_from(sorted(HEADERS - {NULLS, REDRIVEN})),
    st.none() | st.sampled_from([b"", b"-1", b"1e3", b"x", b"9" * 30]),
)
def test_what_is_missing_or_no_number_is_refused_by_name(one: RetryMarks, name: str, value: bytes | None) -> None:
    """
    The message says which header, and what was expected.
    """
    spoilt: Sequence[tuple[str, bytes | None]] = [
        (header, value if header == name else text) for header, text in write_marks(one)
    ]

    with pytest.raises(RetryMarksInvalid, match=f"header {name}: found .*, expected"):
        read_marks(spoilt)
