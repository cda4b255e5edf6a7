"""
At most so many uploads a second, by giving out less room: nothing sleeps longer than a poll may wait.
"""

from collections.abc import Mapping
from typing import Final

from worker.domain import Partition
from worker.ports import Clock, EventSource, Polled

_BURST_S: Final = 0.1
"""What may be caught up on at once after a pause, in seconds of the rate."""


class Pace:
    """
    A bucket of uploads that fills at ``per_s``; a whole one is there at the start.
    """

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._depth = max(1.0, per_s * _BURST_S)
        self._level = 1.0
        self._filled_s = clock.monotonic_s()

    def room(self) -> int:
        """
        How many uploads may be taken now.
        """
        now_s = self._clock.monotonic_s()
        self._level = min(self._depth, self._level + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        return int(self._level)

    def take(self, count: int) -> None:
        """
        They were taken.
        """
        self._level -= count

    def wait_s(self) -> float:
        """
        How long until the next one may be taken.
        """
        return max(0.0, (1.0 - self._level) / self._per_s)


class PacedSource:
    """
    Implements ``worker.ports.EventSource`` over another one, at a pace.
    """

    def __init__(self, source: EventSource, pace: Pace) -> None:
        self._source = source
        self._pace = pace

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        As many events as the pace allows; while it allows none, only the wait.
        """
        allowed = min(room, self._pace.room())
        if room > 0 and allowed == 0:
            wait_s = min(wait_s, self._pace.wait_s())
        polled = self._source.poll(room=allowed, wait_s=wait_s)
        self._pace.take(len(polled.events))
        return polled

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        As the other does.
        """
        return self._source.commit(offsets)

    @property
    def exhausted(self) -> bool:
        """
        Whether the other is.
        """
        return self._source.exhausted

    def close(self) -> None:
        """
        Close the other.
        """
        self._source.close()
