"""
A thread that polls a source of events, and a recorder that remembers.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Self, TypeVar

from worker.domain import Partition, RawEvent
from worker.metric_names import MetricName
from worker.ports import EventSource, GroupMembership

DEADLINE_S: Final = 60.0
Returned = TypeVar("Returned")


class Counts:
    """
    A recorder that remembers, for any thread: ``total("commits_total", result="ok")``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: list[tuple[MetricName, float, dict[str, str]]] = []

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        """
        Add to a counter.
        """
        with self._lock:
            self._counted.append((name, amount, labels))

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """
        Record one measured value.
        """
        self.count(name, value, **labels)

    def total(self, name: MetricName, **labels: str) -> float:
        """
        The sum counted under a name with just these labels.
        """
        with self._lock:
            return sum(amount for counted, amount, found in self._counted if (counted, found) == (name, labels))


class Reader:
    """
    A thread that owns a source and polls it until closed, as the worker's loop does.

    It collects ``events`` and ``revoked`` in the order of arrival and keeps the last ``membership``. A revoked
    partition's events stay in ``events``.
    """

    def __init__(self, source: EventSource, *, room: int = 100, wait_s: float = 0.02, elsewhere_s: float = 0.0) -> None:
        self.room = room
        self.events: list[RawEvent] = []
        self.revoked: list[Partition] = []
        self.membership: GroupMembership | None = None
        self.polls = 0
        self._source = source
        self._wait_s = wait_s
        self._elsewhere_s = elsewhere_s
        self._changed = threading.Condition()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            while not self._calls.empty():
                self._calls.get()()
            self._closing.wait(self._elsewhere_s)
            polled = self._source.poll(room=self.room, wait_s=self._wait_s)
            with self._changed:
                self.polls += 1
                self.revoked += sorted(polled.revoked)
                self.events += polled.events
                self.membership = polled.membership
                self._changed.notify_all()
        self._source.close()

    def call(self, function: Callable[[EventSource], Returned]) -> Returned:
        """
        What ``function`` makes of the source, on the thread that owns it, between two polls.
        """
        answer: Future[Returned] = Future()

        def run() -> None:
            try:
                answer.set_result(function(self._source))
            except BaseException as error:  # noqa: BLE001 - it is raised again, on the thread that asked
                answer.set_exception(error)

        self._calls.put(run)
        return answer.result(DEADLINE_S)

    def until(self, condition: Callable[[], bool], *, deadline_s: float = DEADLINE_S) -> bool:
        """
        Whether ``condition`` came true after some poll before the deadline.
        """
        with self._changed:
            return self._changed.wait_for(condition, deadline_s)

    def after(self, polls: int) -> None:
        """
        Return when so many more polls are done.
        """
        with self._changed:
            target = self.polls + polls
            assert self._changed.wait_for(lambda: self.polls >= target, DEADLINE_S)

    def values(self) -> list[bytes | None]:
        """
        The values of the events so far.
        """
        with self._changed:
            return [event.value for event in self.events]

    def close(self) -> None:
        """
        The source is closed by its own thread.
        """
        self._closing.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
