"""
Where a consumer stands in its partitions: what it holds, and how far behind the end it is.

Looked up on the consumer's own thread from what kafka-python knows already, without asking the broker; told to any
thread. Polling and committing: ``kafka_source.py``.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import TopicPartition
from kafka.structs import MemberState

from worker.domain import Partition
from worker.ports import Standing

LOOK_EVERY_S: Final = 1.0


class LagWatch:
    """
    The latest standing of one consumer; ``look`` belongs to the consumer's thread.
    """

    def __init__(self, *, every_s: float = LOOK_EVERY_S, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._monotonic_s = monotonic_s
        self._looked_s = float("-inf")
        self._standing = Standing(joined=False)

    @property
    def standing(self) -> Standing:
        """
        As it was looked up last.
        """
        return self._standing

    def look(self, consumer: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        """
        Look again, if that is due.
        """
        now_s = self._monotonic_s()
        if now_s - self._looked_s < self._every_s:
            return
        self._looked_s = now_s
        joined = consumer.group_metadata().state == MemberState.STABLE
        lag = {Partition(held.topic, held.partition): _lag(consumer, held) for held in sorted(consumer.assignment())}
        self._standing = Standing(joined=joined, lag=lag)


def _lag(consumer: Any, partition: TopicPartition) -> int | None:  # noqa: ANN401 - kafka-python is untyped
    """
    Offsets from the next record to be taken to the end; None before the broker has answered the first fetch.

    The end is the one that came with the last fetch: of a partition that is paused it is as old as the pause.
    """
    try:
        end = consumer.highwater(partition)
    except kafka_errors.KafkaError:
        # It was taken away between the question and the answer.
        return None
    position = _next_offset(consumer, partition)
    return None if end is None or position is None else max(0, end - position)


def _next_offset(consumer: Any, partition: TopicPartition) -> int | None:  # noqa: ANN401 - kafka-python is untyped
    """
    The offset of the next record to be taken, if it is known.

    kafka-python's ``position`` may ask the broker and wait for it, which a worker must not for the sake of a metric;
    without these attributes a version keeps it elsewhere, and the lag is unknown.
    """
    assignment = getattr(getattr(consumer, "_subscription", None), "assignment", None) or {}
    position = getattr(assignment.get(partition), "position", None)
    offset: int | None = getattr(position, "offset", None)
    return offset
