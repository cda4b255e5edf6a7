"""
Reading a topic to its end, when Kafka does not play along. Real topics: ``tests/integration/test_diff.py``.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka import TopicPartition

from worker.adapters import kafka_collection
from worker.adapters.kafka_collection import _records
from worker.errors import WorkerCrashed

HERE = TopicPartition("verdicts", 0)


def a_record(offset: int) -> SimpleNamespace:
    """
    As kafka-python gives it.
    """
    return SimpleNamespace(
        topic=HERE.topic, partition=HERE.partition, offset=offset, key=None, value=b"{}", headers=[], timestamp=-1
    )


class Consumer:
    """
    Gives what it was told to, one answer per poll, then nothing.
    """

    def __init__(self, *answers: list[int] | Exception, position_after: int | None = None) -> None:
        self.answers = list(answers)
        self.at = 0
        self.position_after = position_after

    def poll(self, *, timeout_ms: float, max_records: int) -> Mapping[TopicPartition, list[Any]]:
        """
        The next answer.
        """
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            self.at = self.position_after or self.at
            return {}
        self.at = answer[-1] + 1
        return {HERE: [a_record(offset) for offset in answer]}

    def position(self, partition: TopicPartition) -> int:
        """
        Behind the last record that was given.
        """
        return self.at

    def pause(self, *partitions: TopicPartition) -> None:
        """
        What is paused has nothing to give any more.
        """


def read(consumer: Consumer, end: int) -> list[int]:
    """
    The offsets that were read.
    """
    return [record.offset for record in _records(consumer, {HERE: 0}, {HERE: end}, lambda _done, _of: None)]


def test_records_beyond_the_end_are_left_out() -> None:
    """
    Though they come with the same answer.
    """
    assert [0, 1, 2] == read(Consumer([0, 1, 2, 3, 4]), 3)


def test_offsets_that_hold_no_record_end_the_reading() -> None:
    """
    Behind the last record may lie the marks of transactions: the position tells that the end is reached.
    """
    assert [0, 1] == read(Consumer([0, 1], position_after=5), 5)


def test_a_broker_that_is_away_for_a_moment_is_waited_for() -> None:
    """
    What kafka-python calls retriable costs nothing but time.
    """
    assert [0, 1] == read(Consumer([0], kafka_errors.NodeNotReadyError(), [1]), 2)


def test_what_no_retry_mends_ends_the_reading() -> None:
    """
    With what to do about it.
    """
    with pytest.raises(WorkerCrashed, match="grant this user Read"):
        read(Consumer([0], kafka_errors.TopicAuthorizationFailedError()), 2)


def test_a_silence_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A topic that gives nothing, though its end is not reached, is not waited for without end; the place is told.
    """
    monkeypatch.setattr(kafka_collection, "SILENCE_S", 0.0)
    with pytest.raises(WorkerCrashed, match="before the end of partition 0 at offset 1"):
        read(Consumer([0]), 2)
