"""
Which offsets may be committed. Belongs to the consumer thread alone.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from worker.domain import Partition


class OffsetLedger:
    """
    Released positions, until the broker has acknowledged them and all before them.

    Invariant: ``committable`` never passes an unacknowledged position, nor one that was not released: a line releases
    in order, so what stands in no account here lies behind everything that does.
    """

    def __init__(self) -> None:
        self._released: dict[Partition, deque[int]] = {}
        self._acknowledged: dict[Partition, set[int]] = {}
        self._next: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._outstanding = 0

    @property
    def outstanding(self) -> int:
        """
        How many released positions wait for their acknowledgement.
        """
        return self._outstanding

    def release(self, partition: Partition, offset: int) -> None:
        """
        Enter a position whose outcome is on its way to the broker; per partition in rising order.
        """
        released = self._released.setdefault(partition, deque())
        if released and released[-1] >= offset:
            raise ValueError(f"offset {offset} of {partition} released after {released[-1]}")
        released.append(offset)
        self._outstanding += 1

    def acknowledge(self, partition: Partition, offset: int) -> None:
        """
        Mark a position as acknowledged.

        One that is not in the ledger belongs to a partition that was taken away meanwhile, and is passed over.
        """
        released = self._released.get(partition)
        if released is None:
            return
        acknowledged = self._acknowledged.setdefault(partition, set())
        acknowledged.add(offset)
        while released and released[0] in acknowledged:
            done = released.popleft()
            acknowledged.discard(done)
            self._next[partition] = done + 1
            self._outstanding -= 1

    def committable(self) -> dict[Partition, int]:
        """
        Per partition, the offset of the next event to read, where that has risen since the last commit.
        """
        return {
            partition: offset for partition, offset in self._next.items() if self._committed.get(partition) != offset
        }

    @property
    def committed(self) -> Mapping[Partition, int]:
        """
        Per partition, the offset that the broker has stored last; nothing for one of which it has stored none.
        """
        return self._committed

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """
        Record what the broker has stored.
        """
        self._committed.update(offsets)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        Close the accounts of partitions that were taken away.
        """
        for partition in partitions:
            self._outstanding -= len(self._released.get(partition, ()))
            for account in (self._released, self._acknowledged, self._next, self._committed):
                account.pop(partition, None)
