"""
Outcomes to Kafka, and offsets behind them. Belongs to the consumer thread alone.

The order is the same in both promises, and nowhere else in the code: published, acknowledged, committed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from worker.domain import Partition
from worker.flow.ledger import OffsetLedger
from worker.outcomes import Release
from worker.ports import EventSource, GroupMembership, Outbox


class Delivery(Protocol):
    """
    What is promised about outcomes and offsets.
    """

    @property
    def unsettled(self) -> int:
        """
        How many accepted releases are not yet acknowledged.
        """

    @property
    def committed(self) -> Mapping[Partition, int]:
        """
        Per partition, the offset of the next event to read, as it was stored last; to be read at once.
        """

    @property
    def due_s(self) -> float:
        """
        When ``advance`` has something to do at the latest, on the monotonic clock; infinite where only others know.
        """

    def accept(self, releases: Sequence[Release], now_s: float) -> None:
        """
        Take over released outcomes, in the order of their partitions.
        """

    def advance(self, now_s: float, membership: GroupMembership) -> None:
        """
        Do what is due: publish, take acknowledgements, commit.

        ``membership`` came with the poll whose revocations were forgotten last; see ``Polled``.
        """

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        Drop what belongs to partitions that were taken away.
        """

    def finish(self, now_s: float, membership: GroupMembership, timeout_s: float) -> None:
        """
        Publish, acknowledge and commit all that was accepted.
        """


class AtLeastOnce:
    """
    Publish at once, commit behind the acknowledgements, at most every ``commit_interval_s``.

    After a crash or a rebalance events are judged again; their verdicts have the same ids.
    """

    def __init__(self, source: EventSource, outbox: Outbox, *, commit_interval_s: float) -> None:
        self._source = source
        self._outbox = outbox
        self._commit_interval_s = commit_interval_s
        self._ledger = OffsetLedger()
        self._last_commit_s = float("-inf")
        self._uncommitted = False

    @property
    def unsettled(self) -> int:
        """
        How many published outcomes wait for their acknowledgement.
        """
        return self._ledger.outstanding

    @property
    def committed(self) -> Mapping[Partition, int]:
        """
        What was committed behind the acknowledgements.
        """
        return self._ledger.committed

    @property
    def due_s(self) -> float:
        """
        When the interval has passed, if there is something to commit.
        """
        return self._last_commit_s + self._commit_interval_s if self._uncommitted else float("inf")

    def accept(self, releases: Sequence[Release], now_s: float) -> None:  # noqa: ARG002 - the port's signature
        """
        Enter the positions, then publish: an acknowledgement may come before ``publish`` returns.
        """
        for release in releases:
            self._ledger.release(release.partition, release.offset)
        self._outbox.publish(releases)

    def advance(self, now_s: float, membership: GroupMembership) -> None:  # noqa: ARG002 - the port's signature
        """
        Take acknowledgements; commit if the interval has passed.
        """
        for partition, offset in self._outbox.take_acknowledged():
            self._ledger.acknowledge(partition, offset)
            self._uncommitted = True
        if now_s - self._last_commit_s >= self._commit_interval_s:
            self._commit(now_s)

    def _commit(self, now_s: float) -> None:
        offsets = self._ledger.committable()
        if not offsets:
            self._uncommitted = False  # what is acknowledged lies behind what is not yet
            return
        self._last_commit_s = now_s
        if self._source.commit(offsets):
            self._ledger.commit(offsets)
            self._uncommitted = False

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        Close the accounts; what was published of them stays published, under ids that its next owner repeats.
        """
        self._ledger.forget(partitions)

    def finish(self, now_s: float, membership: GroupMembership, timeout_s: float) -> None:
        """
        Flush, take the last acknowledgements, commit.
        """
        self._outbox.flush(timeout_s)
        self.advance(now_s, membership)
        self._commit(now_s)


class ExactlyOnce:
    """
    One transaction per batch: outcomes and offsets become visible together or not at all.

    Fetches, encodings and cache writes may still happen twice; only what a read_committed reader sees is exactly once.
    """

    def __init__(self, source: EventSource, outbox: Outbox, *, interval_s: float, max_messages: int) -> None:
        self._source = source
        self._outbox = outbox
        self._interval_s = interval_s
        self._max_messages = max_messages
        self._pending: list[Release] = []
        self._committed: dict[Partition, int] = {}
        self._due_s = 0.0

    @property
    def unsettled(self) -> int:
        """
        How many releases wait for their transaction.
        """
        return len(self._pending)

    @property
    def committed(self) -> Mapping[Partition, int]:
        """
        What was committed in transactions.
        """
        return self._committed

    @property
    def due_s(self) -> float:
        """
        When the interval of what is pending has passed.
        """
        return self._due_s if self._pending else float("inf")

    def accept(self, releases: Sequence[Release], now_s: float) -> None:
        """
        Keep for the next transaction.
        """
        if releases and not self._pending:
            self._due_s = now_s + self._interval_s
        self._pending.extend(releases)

    def advance(self, now_s: float, membership: GroupMembership) -> None:
        """
        Run a transaction if one is due: its interval has passed, or it is full.
        """
        if self._pending and (now_s >= self._due_s or len(self._pending) >= self._max_messages):
            self._transact(now_s, membership)

    def _transact(self, now_s: float, membership: GroupMembership) -> bool:
        batch = self._pending[: self._max_messages]
        offsets = {release.partition: release.offset + 1 for release in batch}
        if self._outbox.transact(batch, offsets, membership):
            del self._pending[: len(batch)]
            self._committed |= offsets
            if len(self._pending) >= self._max_messages:
                self._due_s = now_s  # the next one is full already
            return True
        # Refused: the group is rebalancing. What we keep is sent again under the next membership; what we lose is
        # forgotten first, because the loop takes revocations before it comes back here.
        self._due_s = now_s + self._interval_s
        return False

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        Drop the releases of partitions that were taken away: no reader has seen them.
        """
        gone = frozenset(partitions)
        self._committed = {partition: at for partition, at in self._committed.items() if partition not in gone}
        self._pending = [release for release in self._pending if release.partition not in gone]

    def finish(self, now_s: float, membership: GroupMembership, timeout_s: float) -> None:  # noqa: ARG002 - the port's
        """
        Run transactions until nothing is pending or the group refuses; what it refuses is read again by the next owner.
        """
        while self._pending and self._transact(now_s, membership):
            pass
