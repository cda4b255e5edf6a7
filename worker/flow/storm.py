"""
When dead letters are no longer bad uploads but an outage: how many there are in a row, and which wait to be published.

Belongs to the consumer thread alone. The letters that wait lie in their partitions' lines; nothing is kept here but
numbers. What has a letter is decided in ``worker.stages.letters``.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import ErrorCode
from worker.domain import Partition
from worker.errors import DeadLetterStorm
from worker.flow.lines import Slot
from worker.outcomes import DeadLettered, Outcome, VerdictIssued


@dataclass(frozen=True, slots=True)
class StormLimits:
    """
    How much is too much: so many letters in a row in one partition, or such a share of the last ``window`` outcomes.

    0 switches either off, and without arguments nothing is too much. ``hold_s``: how long a letter waits for a good
    outcome behind it before it is published all the same.
    """

    consecutive: int = 0
    share: float = 0.0
    window: int = 200
    hold_s: float = 2.0

    @property
    def off(self) -> bool:
        """
        Whether there is no limit at all.
        """
        return not self.consecutive and not self.share


NO_LIMITS: Final = StormLimits()
"""Of replays and scans: an operator waits for their end."""


@dataclass(slots=True)
class _Run:
    """
    One partition's letters since its last good outcome; ``waits_since_s`` are those not yet released, by offset.
    """

    counted: int = -1
    offsets: list[int] = field(default_factory=list)
    codes: Counter[ErrorCode] = field(default_factory=Counter)
    waits_since_s: dict[int, float] = field(default_factory=dict)


class StormWatch:
    """
    Holds letters back until the run that they belong to is broken by a good outcome, or has lasted for a while.

    So a worker that is restarted again and again in an outage does not publish a few letters each time. A good outcome
    is an upload that was judged. Failures that nobody can mend, and uploads that are put off, neither count nor end a
    run. Known hole: letters that come more slowly than the limit's number in ``hold_s`` are published one by one until
    the limit is reached, and again after a restart.
    """

    def __init__(self, limits: StormLimits) -> None:
        self._limits = limits
        self._runs: dict[Partition, _Run] = {}
        self._lately: deque[ErrorCode | None] = deque(maxlen=limits.window)
        self._storm: str | None = None

    @property
    def reached(self) -> bool:
        """
        Whether there is a storm; it does not pass.
        """
        return self._storm is not None

    @property
    def withheld(self) -> int:
        """
        How many letters wait to be published.
        """
        return sum(len(run.waits_since_s) for run in self._runs.values())

    def check(self) -> None:
        """
        Raise ``DeadLetterStorm`` if there is one.
        """
        if self._storm is not None:
            raise DeadLetterStorm(self._storm)

    def passing(self, partition: Partition, settled: Iterable[Slot], *, now_s: float) -> int:
        """
        How many of the settled slots at the head of a line may be released; ``now_s`` is monotonic.
        """
        slots = list(settled)
        run = self._runs.setdefault(partition, _Run())
        free = 0
        for at, slot in enumerate(slots):
            if slot.event.offset > run.counted and not self.reached:
                self._count(partition, run, slot, now_s)
            if self.reached:
                break
            if _is_good(slot.outcome):
                free = at + 1
        while not self.reached and free < len(slots) and self._has_waited(run, slots[free], now_s):
            free += 1
        released = {slot.event.offset for slot in slots[:free]}
        run.waits_since_s = {at: since_s for at, since_s in run.waits_since_s.items() if at not in released}
        return free

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        Drop what is known of partitions that were taken away: who has them now counts anew.
        """
        for partition in partitions:
            self._runs.pop(partition, None)

    def _count(self, partition: Partition, run: _Run, slot: Slot, now_s: float) -> None:
        run.counted = slot.event.offset
        code = letter_code(slot.outcome)
        if code is None:
            if _is_good(slot.outcome):
                run.offsets.clear()
                run.codes.clear()
                self._lately.append(None)
            return
        run.offsets.append(slot.event.offset)
        run.codes[code] += 1
        run.waits_since_s[slot.event.offset] = now_s
        self._lately.append(code)
        self._judge(partition, run)

    def _judge(self, partition: Partition, run: _Run) -> None:
        limits = self._limits
        if limits.consecutive and len(run.offsets) >= limits.consecutive:
            found = f"{len(run.offsets)} uploads in a row would be dead letters, the limit is {limits.consecutive}"
            self._storm = self._told(found, run.codes, "storm.consecutive")
            return
        codes = Counter(code for code in self._lately if code is not None)
        if limits.share and len(self._lately) == limits.window and codes.total() > limits.share * limits.window:
            found = (
                f"{codes.total()} of the last {limits.window} outcomes would be dead letters, the limit is a share of "
                f"{limits.share:g}; the last of them in {_name(partition)}"
            )
            self._storm = self._told(found, codes, "storm.share")

    def _told(self, found: str, codes: Counter[ErrorCode], setting: str) -> str:
        (code, times), *_ = codes.most_common(1)
        held = [
            f"{_name(partition)} offsets {_range(list(run.waits_since_s))} ({len(run.waits_since_s)})"
            for partition, run in sorted(self._runs.items())
            if run.waits_since_s
        ]
        return (
            f"{found}; {times} of them {code}. Not published and not committed, to be read again: {', '.join(held)}. "
            "So many at once are an outage, or a change at whoever sends the events, and no bad uploads: mend what "
            f"{code} speaks of and start the worker again. If they are to become dead letters, raise {setting}, or "
            "set it to 0 for once"
        )

    def _has_waited(self, run: _Run, slot: Slot, now_s: float) -> bool:
        since_s = run.waits_since_s.get(slot.event.offset)
        return since_s is None or now_s >= since_s + self._limits.hold_s


def letter_code(outcome: Outcome | None) -> ErrorCode | None:
    """
    The code of the dead letter that an outcome is or has beside it; None where there is none.
    """
    if isinstance(outcome, DeadLettered):
        return outcome.dead_letter.error.code
    if isinstance(outcome, VerdictIssued) and outcome.letter is not None:
        return outcome.letter.error.code
    return None


def _is_good(outcome: Outcome | None) -> bool:
    return isinstance(outcome, VerdictIssued) and outcome.verdict.error is None


def _name(partition: Partition) -> str:
    return f"{partition.topic}-{partition.number}"


def _range(offsets: Sequence[int]) -> str:
    return f"{min(offsets)}" if len(offsets) == 1 else f"{min(offsets)} to {max(offsets)}"
