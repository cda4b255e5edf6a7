"""
What was taken and is not committed, for whoever watches the worker. Belongs to the consumer thread alone.

It decides nothing: what may be committed is ``ledger.py``, what may be released ``lines.py``.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from worker.domain import Partition, RawEvent


class Backlog:
    """
    Per partition the uploads from taken to committed, oldest first: an offset and when it was received.
    """

    def __init__(self) -> None:
        self._taken: dict[Partition, deque[tuple[int, float]]] = {}

    def take(self, event: RawEvent) -> None:
        """
        An upload was taken; in the order of offsets.
        """
        self._taken.setdefault(event.partition, deque()).append((event.offset, event.received_at_s))

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """
        These offsets are committed, each that of the next event to read.
        """
        for partition, offset in offsets.items():
            taken = self._taken.get(partition)
            while taken and taken[0][0] < offset:
                taken.popleft()

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        These partitions were taken away.
        """
        for partition in partitions:
            self._taken.pop(partition, None)

    def oldest_received_s(self) -> dict[Partition, float | None]:
        """
        When the oldest of each partition was received, in seconds since the epoch; None where all is committed.
        """
        return {partition: taken[0][1] if taken else None for partition, taken in self._taken.items()}
