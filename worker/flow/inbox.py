"""
What waits in front of a stage's threads.
"""

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """
    A queue for ``readers`` threads that ends when it is closed.

    Unbounded on purpose: every item belongs to a slot, and slots are bounded where they are given out.
    """

    def __init__(self, *, readers: int = 1) -> None:
        self._readers = readers
        self._queue: SimpleQueue[T | None] = SimpleQueue()

    def put(self, item: T) -> None:
        """
        Add an item; never blocks.
        """
        self._queue.put(item)

    def close(self) -> None:
        """
        Let each reader finish what is queued, and then end.
        """
        for _ in range(self._readers):
            self._queue.put(None)

    def __iter__(self) -> Iterator[T]:
        while (item := self._queue.get()) is not None:
            yield item

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
                    item = self._queue.get_nowait()
                except Empty:
                    break
                if item is None:
                    ended = True
                    break
                batch.append(item)
            yield batch
            if ended:
                return
