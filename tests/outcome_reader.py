"""
Outcomes as a platform reads them, through librdkafka: kept as they arrive, and set against what the group commits.

What the platform publishes is in ``platform_side.py``.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.platform_side import DEADLINE_S, SILENT, Cluster, Headers, Position, Published


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    One message of the verdict or the dead-letter topic, and the upload that it answers.
    """

    topic: str
    place: Position
    key: bytes | None
    headers: Headers
    value: bytes
    data: dict[str, Any]
    answers: Position


class OutcomeReader:
    """
    A thread that reads topics from their beginning and keeps all that it finds, in the order of arrival.
    """

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], *, isolation_level: str) -> None:
        self.outcomes: list[Outcome] = []
        self._answered: dict[int, set[int]] = {}
        self._finished: dict[int, int] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"reader-{uuid4()}",
                **SILENT,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": isolation_level,
                # Told at the end of a partition: past the marks of transactions, which are no messages.
                "enable.partition.eof": True,
            }
        )
        self._topics = tuple(topics)
        self._fault: BaseException | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        try:
            self._consumer.assign([at for topic in self._topics for at in self._partitions_of(topic)])
            while not self._closing.is_set():
                messages = self._consumer.consume(500, timeout=0.05)
                with self._changed:
                    for message in messages:
                        self._take(message)
                    self._changed.notify_all()
        except BaseException as fault:  # noqa: BLE001 - it is raised again, on the thread that waits
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
        finally:
            self._consumer.close()

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        give_up_s = time.monotonic() + DEADLINE_S
        while not self._closing.wait(0.02):
            found = self._consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic]
            # Of a topic that was made a moment ago the broker may know the name, and no partition or no leader.
            if found.partitions and found.error is None:
                return [TopicPartition(topic, number, 0) for number in found.partitions]
            assert time.monotonic() < give_up_s, f"{topic}: {found.error}"
        return []

    def _take(self, message: Any) -> None:  # noqa: ANN401 - librdkafka's message
        if (error := message.error()) is None:
            self._keep(message)
            self._next[message.topic(), message.partition()] = message.offset() + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            self._next[message.topic(), message.partition()] = message.offset()
        else:
            # What else it tells, of lost connections and moving leaders, librdkafka mends by itself.
            assert not error.fatal(), error

    def _keep(self, message: Any) -> None:  # noqa: ANN401 - librdkafka's message
        data = json.loads(message.value())
        asked = data.get("input") or data["original"]
        answers = (asked["partition"], asked["offset"])
        self.outcomes.append(
            Outcome(
                topic=message.topic(),
                place=(message.partition(), message.offset()),
                key=message.key(),
                headers=tuple(message.headers() or ()),
                value=message.value(),
                data=data,
                answers=answers,
            )
        )
        answered = self._answered.setdefault(answers[0], set())
        answered.add(answers[1])
        finished = self._finished.get(answers[0], 0)
        while finished in answered:
            answered.discard(finished)
            finished += 1
        self._finished[answers[0]] = finished

    def until(self, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> bool:
        """
        Whether ``condition`` came true, asked whenever something was read, before the deadline.
        """

        def true_or_broken() -> bool:
            if self._fault is not None:
                raise self._fault
            return condition()

        with self._changed:
            return self._changed.wait_for(true_or_broken, deadline_s)

    def until_answered(self, published: Iterable[Published], deadline_s: float = DEADLINE_S) -> bool:
        """
        Whether every one of these uploads had at least one outcome before the deadline.
        """
        wanted = {one.position for one in published}
        return self.until(lambda: wanted <= {one.answers for one in self.outcomes if _is_end(one.data)}, deadline_s)

    def until_read(self, topic: str, ends: Mapping[int, int], deadline_s: float = DEADLINE_S) -> bool:
        """
        Whether all below these offsets was read before the deadline.
        """
        return self.until(
            lambda: all(self._next.get((topic, number), 0) >= end for number, end in ends.items()), deadline_s
        )

    def finished(self) -> dict[int, int]:
        """
        Per partition of the upload topic, the first offset that has no outcome yet.
        """
        with self._changed:
            return dict(self._finished)

    def verdicts(self) -> list[dict[str, Any]]:
        """
        The verdicts so far, as a platform reads them.
        """
        with self._changed:
            return [outcome.data for outcome in self.outcomes if "verdict_id" in outcome.data]

    def verdict_of(self, published: Published) -> dict[str, Any]:
        """
        The first verdict on this upload.
        """
        with self._changed:
            return next(
                outcome.data
                for outcome in self.outcomes
                if outcome.answers == published.position and "verdict_id" in outcome.data
            )


def _is_end(data: dict[str, Any]) -> bool:
    # A letter that stands beside a failed verdict is no end of its own.
    return "verdict_id" in data or data["error"]["stage"] == "parse"


class CommitWatch:
    """
    A thread that asks, over and over, what the group has committed, and whether all below it had its outcome by then.

    ``seen`` has every different answer of the broker; ``passed`` tells where a commit was ahead of an outcome.
    """

    def __init__(self, cluster: Cluster, reader: OutcomeReader, *topics: str) -> None:
        self.seen: list[dict[int, int]] = []
        self.passed: list[str] = []
        self._cluster = cluster
        self._reader = reader
        self._topics = topics
        self._fault: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(DEADLINE_S)
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            while not self._closing.wait(0.02):
                self._look()
        except BaseException as fault:  # noqa: BLE001 - it is raised again, on the thread that watched
            self._fault = fault

    def _look(self) -> None:
        committed = self._cluster.committed()
        # In this order: what had its outcome before the commit lies below the ends that are asked after it.
        if committed in self.seen[-1:]:
            return
        for topic in self._topics:
            ends = self._cluster.ends(topic)
            assert self._reader.until_read(topic, ends), f"the reader did not reach {ends} of {topic}"
        finished = self._reader.finished()
        self.seen.append(committed)
        self.passed += [
            f"partition {number}: committed {offset}, but {finished.get(number, 0)} has no outcome"
            for number, offset in committed.items()
            if offset > finished.get(number, 0)
        ]
