"""
What is published of an upload that is to be tried again, and of one that has a dead letter beside its failed verdict.
"""

from dataclasses import replace

from schemas.errors import ErrorCode
from schemas.retry import read_marks, without_marks
from tests.builders import a_judgement, a_raw_event, an_upload, handled, versions
from worker.domain import Origin, Partition
from worker.errors import EventUnreadable
from worker.outcomes import Deferred, Release
from worker.stages.intake import dead_letter_of, read_event
from worker.stages.report import verdict_of_judgement
from worker.stages.serialise import Route, to_messages

ROUTE = Route("verdicts", "letters", "urn:x", retries=("retry-30s", "retry-5m"))
ORIGIN = Origin(Partition("uploads", 3), 17, 1_700_000_000_000, attempts=2, first_failed_at_s=1_700_000_001.5)


def test_the_record_goes_on_as_it_was() -> None:
    """
    Key, value and headers byte for byte, our own behind them; a null header stays one.
    """
    raw = a_raw_event()
    raw = replace(raw, headers=(*raw.headers, ("theirs", None), ("theirs", b"\xff")))
    (message,) = to_messages(Deferred(raw, ORIGIN, ErrorCode.FETCH_TIMEOUT, 1, 1_700_000_300.0), ROUTE)
    marks = read_marks(message.headers)

    assert (message.topic, message.key, message.value) == ("retry-5m", raw.key, raw.value)
    assert without_marks(message.headers) == raw.headers
    assert (marks.topic, marks.partition, marks.offset) == ("uploads", 3, 17)
    assert (marks.attempts, marks.first_failed_at_ms, marks.not_before_ms) == (2, 1_700_000_001_500, 1_700_000_300_000)


def test_a_record_that_comes_back_is_the_upload_that_it_was() -> None:
    """
    Without an envelope it is known by where it lay first, and not by where it lies now.
    """
    raw = replace(a_raw_event(), headers=())
    first = replace(raw, partition=ORIGIN.partition, offset=ORIGIN.offset, timestamp_ms=ORIGIN.timestamp_ms)
    back = replace(raw, partition=Partition("retry-5m", 0), offset=4, timestamp_ms=1, origin=ORIGIN)

    assert read_event(first, max_event_bytes=10_000).identity == read_event(back, max_event_bytes=10_000).identity
    assert back.first_place == first.first_place
    assert back.first_timestamp_ms == first.first_timestamp_ms


def test_a_letter_is_published_behind_its_verdict() -> None:
    """
    Two messages, the verdict first, under one key; the release holds both.
    """
    raw = a_raw_event()
    letter = dead_letter_of(raw, EventUnreadable(ErrorCode.EVENT_INVALID, "any"), worker_version="0", now_s=0.0)
    issued = verdict_of_judgement(an_upload(), a_judgement(), surface="post", handled=handled(), versions=versions())
    messages = to_messages(replace(issued, letter=letter.dead_letter), ROUTE)
    release = Release(raw.partition, raw.offset, messages[0], tuple(messages[1:]))

    assert [message.topic for message in messages] == ["verdicts", "letters"]
    assert {message.key for message in messages} == {issued.key}
    assert release.messages == messages
    assert len(to_messages(issued, ROUTE)) == 1
