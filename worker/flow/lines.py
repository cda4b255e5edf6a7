"""
The lines in which uploads wait: one per partition, first come, first released.

Belongs to the consumer thread alone; nothing here locks. Outcomes reach it through the pipeline's queue.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile

from worker.domain import Partition, RawEvent
from worker.flow.places import Place
from worker.outcomes import Outcome
from worker.spans import UNTOLD, Span


class Slot:
    """
    One upload's place in its partition's line, from being read to being released.

    ``forgotten`` may be read by any thread: work for a forgotten slot is wasted, but never wrong. ``span`` ends when
    the slot is released or forgotten. ``place`` is where its bytes lie, once its event was read; whoever settles the
    slot has written it before.
    """

    __slots__ = ("event", "forgotten", "outcome", "place", "span")

    def __init__(self, event: RawEvent, span: Span = UNTOLD) -> None:
        self.event = event
        self.span = span
        self.outcome: Outcome | None = None
        self.place: Place | None = None
        self.forgotten = False

    def __repr__(self) -> str:
        state = "forgotten" if self.forgotten else "open" if self.outcome is None else "settled"
        return f"Slot({self.event.partition.topic}-{self.event.partition.number}@{self.event.offset} {state})"


Passing = Callable[[Partition, Iterable[Slot]], int]
"""How many of the settled slots at the head of a partition's line may be released."""


def _is_settled(slot: Slot) -> bool:
    return slot.outcome is not None


class Lines:
    """
    All lines of one worker.

    Invariant (order): what ``release`` returns is, for each partition, in the order of ``take``, without gaps.
    Invariant (conservation): each slot taken is released exactly once, or forgotten.
    """

    def __init__(self) -> None:
        self._lines: dict[Partition, deque[Slot]] = {}
        self._ready: dict[Partition, None] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """
        How many slots are taken and neither released nor forgotten.
        """
        return self._waiting

    @property
    def oldest_received_s(self) -> float | None:
        """
        When the longest-waiting upload was received, in seconds since the epoch.
        """
        heads = [line[0].event.received_at_s for line in self._lines.values() if line]
        return min(heads, default=None)

    def take(self, event: RawEvent, span: Span = UNTOLD) -> Slot:
        """
        A slot at the end of the event's line.
        """
        slot = Slot(event, span)
        self._lines.setdefault(event.partition, deque()).append(slot)
        self._waiting += 1
        return slot

    def settle(self, slot: Slot, outcome: Outcome) -> None:
        """
        Record how an upload ended. A forgotten slot stays forgotten; a second outcome is a programming error.
        """
        if slot.forgotten:
            return
        if slot.outcome is not None:
            raise ValueError(f"{slot!r} has an outcome already")
        slot.outcome = outcome
        self._ready[slot.event.partition] = None

    def release(self, limit: int, passing: Passing | None = None) -> list[Slot]:
        """
        The settled slots at the heads of their lines, at most ``limit``, and of each no more than ``passing``.
        """
        released: list[Slot] = []
        for partition in list(self._ready):
            line = self._lines[partition]
            settled = takewhile(_is_settled, line)
            free = len(line) if passing is None else passing(partition, settled)
            for _ in range(free):
                if not line or line[0].outcome is None or len(released) >= limit:
                    break
                released.append(line.popleft())
            if not line or line[0].outcome is None:
                del self._ready[partition]
        self._waiting -= len(released)
        return released

    def forget(self, partitions: Iterable[Partition]) -> int:
        """
        Drop the lines of partitions that were taken away; how many slots were dropped.

        Nothing is lost: none of them was committed, so the partition's next owner reads them.
        """
        dropped = 0
        for partition in partitions:
            self._ready.pop(partition, None)
            for slot in self._lines.pop(partition, ()):
                slot.forgotten = True
                slot.span.finish("forgotten")
                dropped += 1
        self._waiting -= dropped
        return dropped

    def forget_all(self) -> int:
        """
        Drop every line, at the end of a run; how many slots were dropped.
        """
        return self.forget(list(self._lines))
