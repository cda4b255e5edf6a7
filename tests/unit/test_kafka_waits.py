"""
Retry topics in the source of events: nothing is handed on before it may be, and nothing is lost or held up by waiting.

Around a stand-in of kafka-python's consumer, on a clock that is moved by hand.
"""

from collections.abc import Sequence

import pytest
from kafka import TopicPartition

from schemas.errors import ErrorCode
from schemas.retry import NOT_BEFORE, RetryMarks, write_marks
from tests.kafka_reader import Counts
from tests.stand_in_consumer import ONE, UPLOADS, ZERO, Record, StandIn, record
from worker.adapters import kafka_source
from worker.adapters.kafka_source import KafkaEventSource
from worker.adapters.kafka_waits import LEAST_WAIT_S, LONGEST_AHEAD_S, MOST_WAIT_S, RetryWaits
from worker.domain import Origin, Partition, RawEvent
from worker.errors import EventUnreadable
from worker.settings.tree import KafkaSettings
from worker.stages.intake import read_event

RETRIES = ("again-1", "again-2")
SOON, LATE = TopicPartition("again-1", 0), TopicPartition("again-2", 3)
NOW_S = 1_790_000_000.0


class HandClock:
    """
    Implements ``worker.ports.Clock``: time stands still until ``pass_s``.
    """

    def __init__(self) -> None:
        self.passed_s = 0.0

    def pass_s(self, seconds: float) -> None:
        """
        Move on.
        """
        self.passed_s += seconds

    def monotonic_s(self) -> float:
        """
        Since the start.
        """
        return self.passed_s

    def wall_s(self) -> float:
        """
        Since the epoch.
        """
        return NOW_S + self.passed_s


@pytest.fixture
def clock() -> HandClock:
    """
    One that is moved by hand.
    """
    return HandClock()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, clock: HandClock) -> KafkaEventSource:
    """
    A source that owns two partitions of uploads and one of each retry topic.
    """
    monkeypatch.setattr(kafka_source, "KafkaConsumer", StandIn)
    monkeypatch.setattr(kafka_source, "require_topics", lambda *_, **__: None)
    waits = RetryWaits(RETRIES, clock, delays_s=(30.0, 300.0))
    source = KafkaEventSource(KafkaSettings(), Counts(), client_id="test", retries=waits)
    stand_in = stand_in_of(source)
    stand_in.assigned |= {SOON, LATE}
    assert stand_in.listener is not None
    stand_in.listener.on_partitions_assigned(stand_in.assigned)
    return source


def stand_in_of(source: KafkaEventSource) -> StandIn:
    """
    The consumer within.
    """
    consumer: StandIn = source._consumer
    return consumer


def put_off(partition: TopicPartition, offset: int, in_s: float) -> Record:
    """
    A record that may be tried in so many seconds from the start.
    """
    not_before_ms = round((NOW_S + in_s) * 1000)
    marks = RetryMarks(UPLOADS, 7, 40 + offset, 123, 1, 1_789_000_000_500, not_before_ms)
    return record(partition, offset, headers=[("h", b"1"), *write_marks(marks)])


def offsets(events: Sequence[RawEvent]) -> list[tuple[str, int]]:
    """
    Where they were read.
    """
    return [(event.partition.topic, event.offset) for event in events]


def test_uploads_and_all_retry_topics_are_subscribed(source: KafkaEventSource) -> None:
    """
    As one member of one group.
    """
    assert stand_in_of(source).topics == [UPLOADS, *RETRIES]


def test_what_is_due_comes_as_the_upload_it_was(source: KafkaEventSource) -> None:
    """
    With its own headers, and where it lay first; committed is where it was read now.
    """
    stand_in_of(source).on_poll = [{SOON: [put_off(SOON, 2, in_s=-0.001)]}]

    [event] = source.poll(room=5, wait_s=0.0).events

    assert event.headers == (("h", b"1"),)
    assert event.origin == Origin(Partition(UPLOADS, 7), 42, 123, 1, 1_789_000_000.5)
    assert event.first_place == (Partition(UPLOADS, 7), 42)
    assert (event.partition, event.offset, event.fault) == (Partition("again-1", 0), 2, None)


def test_nothing_comes_before_its_time(source: KafkaEventSource, clock: HandClock) -> None:
    """
    The partition is put back to the first record that is not due and waits there; the others go on.
    """
    stand_in = stand_in_of(source)
    waiting = [put_off(SOON, 4, in_s=-1), put_off(SOON, 5, in_s=10), put_off(SOON, 6, in_s=-1)]
    stand_in.on_poll = [{SOON: waiting, ZERO: [record(ZERO, 1)]}]
    first = source.poll(room=9, wait_s=0.0).events
    clock.pass_s(9.9)
    stand_in.on_poll = [{ONE: [record(ONE, 8)]}]
    second = source.poll(room=9, wait_s=0.0).events
    halted = set(stand_in.halted)
    clock.pass_s(0.1)
    stand_in.on_poll = [{SOON: waiting[1:]}]
    third = source.poll(room=9, wait_s=0.0).events

    assert sorted(offsets(first)) == [("again-1", 4), (UPLOADS, 1)]
    assert (stand_in.sought, halted) == ({SOON: 5}, {SOON})
    assert offsets(second) == [(UPLOADS, 8)]
    assert offsets(third) == [("again-1", 5), ("again-1", 6)]
    assert stand_in.halted == set()


def test_room_does_not_wake_who_waits(source: KafkaEventSource, clock: HandClock) -> None:
    """
    Without room all are paused; with room again, all but those whose next record is not due.
    """
    stand_in = stand_in_of(source)
    stand_in.on_poll = [{LATE: [put_off(LATE, 0, in_s=20)]}]
    source.poll(room=5, wait_s=0.0)
    source.poll(room=0, wait_s=0.0)
    without_room = set(stand_in.halted)
    source.poll(room=5, wait_s=0.0)
    with_room = set(stand_in.halted)
    source.poll(room=0, wait_s=0.0)
    clock.pass_s(20)
    source.poll(room=5, wait_s=0.0)

    assert without_room == stand_in.assigned
    assert with_room == {LATE}
    assert stand_in.halted == set()


def test_what_comes_back_is_looked_at_afresh(source: KafkaEventSource) -> None:
    """
    A partition that went and came back begins at what is committed, which may be due: the old wait is forgotten.
    """
    stand_in = stand_in_of(source)
    assert stand_in.listener is not None
    stand_in.on_poll = [{SOON: [put_off(SOON, 5, in_s=1000)]}]
    source.poll(room=5, wait_s=0.0)
    stand_in.listener.on_partitions_revoked({SOON})
    stand_in.assigned.discard(SOON)
    revoked = source.poll(room=5, wait_s=0.0).revoked
    # kafka-python keeps nothing of a partition that went: it comes back unpaused.
    stand_in.halted.discard(SOON)
    stand_in.assigned.add(SOON)
    stand_in.listener.on_partitions_assigned({SOON})
    stand_in.on_poll = [{SOON: [put_off(SOON, 3, in_s=0), put_off(SOON, 5, in_s=1000)]}]
    events = source.poll(room=5, wait_s=0.0).events

    assert Partition("again-1", 0) in revoked
    assert offsets(events) == [("again-1", 3)]
    assert (stand_in.sought, stand_in.halted) == ({SOON: 5}, {SOON})


@pytest.mark.parametrize(("ahead_s", "looked_at_s"), [(0.001, LEAST_WAIT_S), (10.0, 10.0), (250.0, MOST_WAIT_S)])
def test_a_wait_has_bounds(clock: HandClock, ahead_s: float, looked_at_s: float) -> None:
    """
    Long enough that not every poll fetches anew, short enough that the clock and the lag are looked at.
    """
    waits = RetryWaits(RETRIES, clock, delays_s=(30.0, 300.0))

    assert list(waits.due(LATE, [put_off(LATE, 0, in_s=ahead_s)])) == []
    clock.pass_s(looked_at_s - 0.0001)
    assert waits.waiting() == {LATE}
    clock.pass_s(0.0002)
    assert waits.waiting() == set()


def test_a_time_that_no_worker_writes_stops_no_partition(clock: HandClock) -> None:
    """
    What asks to wait much longer than the longest delay is tried at once.
    """
    waits = RetryWaits(RETRIES, clock, delays_s=(30.0, 300.0))
    forged = [put_off(SOON, 0, in_s=300 + LONGEST_AHEAD_S + 1), put_off(SOON, 1, in_s=0)]

    assert list(waits.due(SOON, forged)) == forged
    assert waits.waiting() == set()


def test_who_says_not_which_upload_it_is_becomes_a_dead_letter(source: KafkaEventSource) -> None:
    """
    At once and with all its headers; what is wrong with them is the letter's detail.
    """
    headers = [header for header in put_off(SOON, 0, in_s=99).headers if header[0] != NOT_BEFORE]
    stand_in_of(source).on_poll = [{SOON: [record(SOON, 0, headers=headers)]}]

    [event] = source.poll(room=5, wait_s=0.0).events
    with pytest.raises(EventUnreadable, match=r"again-1.*touchstone-not-before-ms") as told:
        read_event(event, max_event_bytes=1_000)

    assert told.value.code is ErrorCode.EVENT_INVALID
    assert (event.headers, event.origin) == (tuple(headers), None)


def test_uploads_are_not_believed_to_be_retries(source: KafkaEventSource) -> None:
    """
    Whatever headers an uploader writes: it is a new upload, lies where it lies, and waits for nothing.
    """
    stand_in_of(source).on_poll = [{ZERO: [put_off(ZERO, 3, in_s=60)]}]

    [event] = source.poll(room=5, wait_s=0.0).events

    assert (event.origin, event.fault, event.first_place) == (None, None, (Partition(UPLOADS, 0), 3))
    assert NOT_BEFORE in dict(event.headers)
