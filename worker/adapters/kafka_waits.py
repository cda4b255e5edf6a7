"""
Records of retry topics: which upload each is, and for how long a partition waits until its next one may be tried.

Nothing here touches a consumer; ``kafka_source.py`` pauses, seeks back and resumes as it is told here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from kafka import TopicPartition

from schemas.retry import RetryMarks, RetryMarksInvalid, read_marks, without_marks
from worker.domain import Origin, Partition, RawEvent
from worker.ports import Clock

LEAST_WAIT_S: Final = 0.5
"""
A partition waits so long at least: what was fetched beyond the record that is not due is thrown away and fetched again.
"""

MOST_WAIT_S: Final = 30.0
"""
Then the partition is looked at again, whatever its next record says: the wall clock may have been set, and how far
behind we are is known as of the last fetch only.
"""

LONGEST_AHEAD_S: Final = 24 * 3600.0
"""
So much longer than the longest delay a record may ask to wait; one that asks for more is tried at once.

No worker writes that, and its partition would stand still for as long.
"""


class RetryWaits:
    """
    The retry topics of one consumer, and which of their partitions wait. For the consumer's own thread.
    """

    def __init__(self, topics: Sequence[str], clock: Clock, *, delays_s: Sequence[float] = ()) -> None:
        self.topics = tuple(topics)
        self._clock = clock
        self._most_ahead_s = max(delays_s, default=0.0) + LONGEST_AHEAD_S
        self._until_s: dict[TopicPartition, float] = {}

    def waiting(self) -> set[TopicPartition]:
        """
        The partitions of which nothing is to be fetched now.
        """
        now_s = self._clock.monotonic_s()
        self._until_s = {at: until_s for at, until_s in self._until_s.items() if until_s > now_s}
        return set(self._until_s)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        These are no longer ours; if they come back, they are looked at afresh.
        """
        for gone in partitions:
            self._until_s.pop(TopicPartition(gone.topic, gone.number), None)

    def due(self, partition: TopicPartition, records: Sequence[Any]) -> Sequence[Any]:
        """
        The first of kafka-python's ``records`` that may be handed on now; from the next one on the partition waits.
        """
        if partition.topic not in self.topics:
            return records
        now_s = self._clock.wall_s()
        for at, record in enumerate(records):
            ahead_s = _not_before_s(record) - now_s
            if 0 < ahead_s <= self._most_ahead_s:
                wait_s = min(max(ahead_s, LEAST_WAIT_S), MOST_WAIT_S)
                self._until_s[partition] = self._clock.monotonic_s() + wait_s
                return records[:at]
        return records

    def told(self, raw: RawEvent) -> RawEvent:
        """
        A record of a retry topic as the upload that it is, with the headers it had first; any other as it is.

        One that does not say which upload it is keeps all its headers, and has a ``fault``.
        """
        if raw.partition.topic not in self.topics:
            return raw
        try:
            marks = read_marks(raw.headers)
        except RetryMarksInvalid as invalid:
            if raw.fault is not None:
                return raw
            return replace(raw, fault=f"a record of retry topic {raw.partition.topic} must say where it lay: {invalid}")
        return replace(raw, headers=without_marks(raw.headers), origin=origin_of(marks))


def origin_of(marks: RetryMarks) -> Origin:
    """
    Where a record lay first, and what became of it so far.
    """
    return Origin(
        Partition(marks.topic, marks.partition),
        marks.offset,
        timestamp_ms=marks.timestamp_ms,
        attempts=marks.attempts,
        first_failed_at_s=marks.first_failed_at_ms / 1000,
        redriven=marks.redriven,
    )


def _not_before_s(record: Any) -> float:  # noqa: ANN401 - kafka-python is untyped
    try:
        return read_marks(record.headers).not_before_ms / 1000
    except RetryMarksInvalid:
        # It becomes a dead letter, for which nobody has to wait.
        return 0.0
