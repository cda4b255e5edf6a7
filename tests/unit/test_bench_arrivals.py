"""
What a benchmark counts as arrived: records, and not the markers that transactions leave between them.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from worker.adapters import kafka_arrivals
from worker.adapters.kafka_arrivals import Arrivals, Arrived
from worker.bench import live
from worker.bench.live import Lane, Servers, settings_of
from worker.bench.uploads import file_events
from worker.errors import WorkerCrashed
from worker.settings.tree import KafkaSettings

AT = TopicPartition("verdicts", 0)


class MarkedLog:
    """
    A consumer of one partition as kafka-python's: it goes past markers and never gives them.

    ``kinds`` has a letter for each offset: r is a record, m a marker. It gives no more than three offsets at once.
    """

    def __init__(self, kinds: str = "", **asked: object) -> None:
        self.kinds = kinds
        self.asked = asked
        self.stuck = False
        self._next = 0

    def partitions_for_topic(self, _topic: str) -> set[int]:
        """
        There is one.
        """
        return {0}

    def assign(self, _partitions: Sequence[TopicPartition]) -> None:
        """
        Nothing to do: there is one.
        """
        return

    def seek(self, _at: TopicPartition, offset: int) -> None:
        """
        Go there.
        """
        self._next = offset

    def position(self, _at: TopicPartition) -> int:
        """
        Where the next record is looked for.
        """
        return self._next

    def end_offsets(self, _partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """
        Markers count.
        """
        return {AT: len(self.kinds)}

    def poll(self, **_options: object) -> dict[TopicPartition, list[SimpleNamespace]]:
        """
        The records of the next three offsets.
        """
        if self.stuck:
            return {}
        first, self._next = self._next, min(self._next + 3, len(self.kinds))
        records = [record_at(offset) for offset in range(first, self._next) if self.kinds[offset] == "r"]
        return {AT: records} if records else {}


def record_at(offset: int) -> SimpleNamespace:
    """
    The record of this offset.
    """
    return SimpleNamespace(
        topic=AT.topic, partition=0, offset=offset, timestamp=1_000, key=None, value=b"{}", headers=[]
    )


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MarkedLog:
    """
    The log that the next watch reads, with a record and a marker already in it.
    """
    log = MarkedLog("rm")

    def consumer(**asked: object) -> MarkedLog:
        log.asked = asked
        return log

    monkeypatch.setattr(kafka_arrivals, "KafkaConsumer", consumer)
    monkeypatch.setattr(kafka_arrivals, "read_all_records", lambda _consumer: None)
    return log


@pytest.mark.timeout(20)
def test_markers_are_passed_over_and_nobody_waits_for_them(log: MarkedLog) -> None:
    """
    Transactions end in markers, the last one behind all records: the reader gets to the end without giving any.
    """
    watch = Arrivals(KafkaSettings(), ["verdicts"], client_id="test")
    log.kinds += "rrmmmmrm"
    found = watch.take()
    log.kinds += "mmmm"

    assert [2, 3, 8] == [one.offset for one in found]
    assert 4 == watch.waiting()
    assert [] == watch.take()
    assert 0 == watch.waiting()


def test_what_a_worker_took_back_is_no_outcome(log: MarkedLog) -> None:
    """
    The watch reads as a platform does.
    """
    Arrivals(KafkaSettings(), ["verdicts"], client_id="test")

    assert "read_committed" == log.asked["isolation_level"]


def test_a_kafka_that_gives_nothing_is_told(log: MarkedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Neither a record nor a step past a marker, again and again.
    """
    monkeypatch.setattr(kafka_arrivals, "_MOST_WAITS", 3)
    watch = Arrivals(KafkaSettings(), ["verdicts"], client_id="test")
    log.kinds += "rr"
    log.stuck = True

    with pytest.raises(WorkerCrashed, match="gave nothing"):
        watch.take()


class Transactions:
    """
    A watch of outcomes that come one to a transaction: before each comes its predecessor's marker.
    """

    def __init__(self, *_named: object, **_options: object) -> None:
        self.content_ids: list[str] = []
        self.reads = 0
        self._looks = 0
        self._given = 0
        self._marked = 0

    def waiting(self) -> int:
        """
        With every look one more verdict and one more marker are there.
        """
        self._looks += 1
        made = min(2 * self._looks, 2 * len(self.content_ids))
        return made - self._given - self._marked

    def take(self) -> list[Arrived]:
        """
        The verdicts, without their markers.
        """
        self.reads += 1
        made = min(self._looks, len(self.content_ids))
        names, self._given, self._marked = self.content_ids[self._given : made], made, made
        return [Arrived("verdicts", 0, 0, 1_000, None, json.dumps({"content_id": name}).encode()) for name in names]

    def close(self) -> None:
        """
        Nothing to close.
        """
        return


@contextmanager
def nothing_made(*_named: object, **_options: object) -> Iterator[None]:
    """
    In the place of topics on a server.
    """
    yield


def test_a_round_waits_for_verdicts_and_not_for_markers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    With a marker for each of ten verdicts, ten offsets are five verdicts: the other five are waited for.
    """
    watch = Transactions()
    published: list[Any] = []
    monkeypatch.setattr(live, "create_for_a_while", nothing_made)
    monkeypatch.setattr(live, "Arrivals", lambda *_named, **_options: watch)
    monkeypatch.setattr(live, "publish_uploads", lambda _settings, events: published.extend(events))
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.001)
    events = file_events("round", ["a.jpg"] * 10)
    watch.content_ids = [event.key.decode() for event in events]
    servers = Servers("localhost:9092", "redis://localhost:6379/0")
    lane = Lane("exactly-once", settings_of([]), servers, log_file=tmp_path / "lane.log")
    with lane.running([sys.executable, "-c", "import time; time.sleep(60)"]):
        found = lane.answered(events, patience_s=60.0)

    assert events == published
    assert [1.0] * 10 == found.answers.made_s
    assert 2 <= watch.reads <= 5
