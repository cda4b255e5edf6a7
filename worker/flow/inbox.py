"""
What waits in front of a stage's threads.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from worker.flow.coming import Coming
from worker.ports import Clock, Recorder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WaitWatch:
    """
    Measures how long items wait before a stage.
    """

    stage: str
    clock: Clock
    recorder: Recorder

    def took(self, put_s: float) -> None:
        """
        An item that came at ``put_s`` on the monotonic clock is taken now.
        """
        self.recorder.observe("queue_wait_seconds", self.clock.monotonic_s() - put_s, stage=self.stage)


class Inbox(Generic[T]):
    """
    A queue for ``readers`` threads that ends when it is closed.

    Unbounded on purpose: every item belongs to a slot, and slots are bounded where they are given out. With ``coming``
    an item is counted there from when it is put until its reader asks for the next.
    """

    def __init__(self, *, readers: int = 1, watch: WaitWatch | None = None, coming: Coming | None = None) -> None:
        self._readers = readers
        self._watch = watch
        self._coming = coming
        self._queue: SimpleQueue[tuple[float, T] | None] = SimpleQueue()

    def __len__(self) -> int:
        """
        How many wait, more or less: others put and take meanwhile.
        """
        return self._queue.qsize()

    def put(self, item: T) -> None:
        """
        Add an item; never blocks.
        """
        if self._coming is not None:
            self._coming.more()
        self._queue.put((0.0 if self._watch is None else self._watch.clock.monotonic_s(), item))

    def put_all(self, items: Collection[T]) -> None:
        """
        Add these, in their order; never blocks. All are counted before the first is taken.
        """
        if self._coming is not None:
            self._coming.more(len(items))
        put_s = 0.0 if self._watch is None else self._watch.clock.monotonic_s()
        for item in items:
            self._queue.put((put_s, item))

    def close(self) -> None:
        """
        Let each reader finish what is queued, and then end.
        """
        for _ in range(self._readers):
            self._queue.put(None)

    def __iter__(self) -> Iterator[T]:
        while (entry := self._queue.get()) is not None:
            try:
                yield self._taken(entry)
            finally:
                if self._coming is not None:
                    self._coming.fewer()

    def _taken(self, entry: tuple[float, T]) -> T:
        put_s, item = entry
        if self._watch is not None:
            self._watch.took(put_s)
        return item

    def batches(self, limit: int) -> Iterator[list[T]]:
        """
        What is queued, at most ``limit`` at a time; waits for the first item only, never for a full batch.

        For one reader only.
        """
        for first in self:
            batch = [first]
            ended = False
            while len(batch) < limit:
                try:
                    entry = self._queue.get_nowait()
                except Empty:
                    break
                if entry is None:
                    ended = True
                    break
                batch.append(self._taken(entry))
            yield batch
            if self._coming is not None:
                self._coming.fewer(len(batch) - 1)  # the first is counted where it was waited for
            if ended:
                return


def drained(queue: SimpleQueue[T]) -> list[T]:
    """
    What lies in the queue, in its order, taken out; never blocks.
    """
    found: list[T] = []
    try:
        while True:
            found.append(queue.get_nowait())
    except Empty:
        return found
