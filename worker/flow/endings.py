"""
How uploads end in the pipeline: judged, failed or put off; and where the loop finds their outcomes.

What a failed verdict says is the judge's; whether an upload is tried again is in ``retrying.py``.
"""

import random
from collections.abc import Iterable, Sequence
from queue import SimpleQueue

from worker.errors import EventUnreadable
from worker.flow.bell import Bell
from worker.flow.inbox import drained
from worker.flow.judging import Judge
from worker.flow.lines import Slot
from worker.flow.retrying import Draw, Retries
from worker.flow.travellers import Failed
from worker.outcomes import Outcome
from worker.ports import Clock

CHANCE: Draw = random.Random().random  # noqa: S311 - it spreads retries, and keeps no secret
"""What waits are drawn from."""


class Endings:
    """
    The outcomes of one pipeline, from all of its threads to the loop's, which hears of them by ``bell``.
    """

    def __init__(self, judge: Judge, retries: Retries, clock: Clock, *, bell: Bell | None = None) -> None:
        self._bell = Bell() if bell is None else bell
        self._judge = judge
        self._retries = retries
        self._clock = clock
        self._settled: SimpleQueue[tuple[Slot, Outcome]] = SimpleQueue()

    def settle(self, slot: Slot, outcome: Outcome) -> None:
        """
        An upload has ended; never blocks.
        """
        self.settle_all([(slot, outcome)])

    def settle_all(self, ended: Iterable[tuple[Slot, Outcome]]) -> None:
        """
        These have ended, together: the loop is woken once. Never blocks.
        """
        for one in ended:
            self._settled.put(one)
        self._bell.ring()

    def fail(self, failed: Failed) -> None:
        """
        An upload cannot be judged: it is put off where time may mend it, and ends with a failed verdict otherwise.
        """
        raw, failure = failed.upload.raw, failed.failure
        put_off = self._retries.put_off(raw, failure, now_s=self._clock.wall_s(), draw=CHANCE)
        self.settle(failed.slot, self._judge.fail(failed) if put_off is None else put_off)

    def bury(self, slot: Slot, unreadable: EventUnreadable) -> None:
        """
        A record is no upload event.
        """
        self.settle(slot, self._judge.dead_letter(slot.event, unreadable))

    def take(self) -> Sequence[tuple[Slot, Outcome]]:
        """
        The outcomes that have arrived since the last call; never blocks.
        """
        return drained(self._settled)
