"""
An outbox that hands each outcome to a function: what ``touchstone scan`` writes to instead of a topic.
"""

from collections.abc import Callable, Mapping, Sequence

from worker.domain import Partition
from worker.errors import PublishFailed
from worker.outcomes import Message, Release
from worker.ports import GroupMembership, PositionDone


class LineOutbox:
    """
    Implements ``worker.ports.Outbox``: a message is acknowledged when ``write`` has returned.
    """

    def __init__(self, write: Callable[[Message], None]) -> None:
        self._write = write
        self._acknowledged: list[PositionDone] = []

    def publish(self, releases: Sequence[Release]) -> None:
        """
        Write the messages, in order.
        """
        for release in releases:
            for message in release.messages:
                self._write(message)
            self._acknowledged.append((release.partition, release.offset))

    def take_acknowledged(self) -> Sequence[PositionDone]:
        """
        The positions written since the last call.
        """
        acknowledged, self._acknowledged = self._acknowledged, []
        return acknowledged

    def transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], membership: GroupMembership
    ) -> bool:
        """
        Refused: files and lines know no transactions.
        """
        raise PublishFailed("a scan has no transactions; use delivery at_least_once")

    def flush(self, timeout_s: float) -> None:
        """
        Nothing waits.
        """

    def close(self) -> None:
        """
        Nothing is held.
        """
