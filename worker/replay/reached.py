"""
How far a replay's run has come, told to whoever looks on as it grows.
"""

from collections.abc import Mapping
from typing import Final

from worker.domain import Partition
from worker.flow.replay_run import RunState
from worker.ports import Clock
from worker.replay.order import Progress

COMMIT_EVERY_S: Final = 5.0


class Reached:
    """
    How many positions of a run are behind it; ``progress`` is told at once, and again whenever it grows.
    """

    def __init__(self, state: RunState, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self._committed_s = clock.monotonic_s()
        self._left = {number: stretch.end - stretch.start for number, stretch in state.left().items()}
        self._ends = {number: stretch.end for number, stretch in state.plan.stretches.items()}
        self._total = sum(stretch.end - stretch.start for stretch in state.plan.stretches.values())
        self.advance({})

    def commit_is_due(self) -> bool:
        """
        Whether the group's offsets were stored so long ago that it is worth a round trip.
        """
        now_s = self._clock.monotonic_s()
        due = now_s - self._committed_s >= COMMIT_EVERY_S
        if due:
            self._committed_s = now_s
        return due

    @property
    def left(self) -> int:
        """
        Positions that are not behind it.
        """
        return sum(self._left.values())

    def advance(self, offsets: Mapping[Partition, int]) -> None:
        """
        These are the next offsets to read.
        """
        self._left |= {at.number: self._ends[at.number] - offset for at, offset in offsets.items()}
        self._progress("replaying", self._total - self.left, self._total)

    def end(self) -> None:
        """
        All is behind it: after the last upload there may be marks of transactions.
        """
        self._left.clear()
        self.advance({})
