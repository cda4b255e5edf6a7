"""
When dead letters are no longer bad uploads but an outage: how many there are in a row, and which wait to be published.

Belongs to the consumer thread alone. The letters that wait lie in their partitions' lines; nothing is kept here but
numbers. What has a letter is decided in ``worker.stages.letters``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import UPLOADERS_CHOICE, ErrorCode
from worker.domain import Partition
from worker.errors import DeadLetterStorm
from worker.flow.lines import Slot
from worker.flow.places import Deliveries
from worker.flow.storm_tally import Letter, Tally
from worker.outcomes import DeadLettered, Outcome, VerdictIssued


@dataclass(frozen=True, slots=True)
class StormLimits:
    """
    How much is too much: so many letters in a row, or such a share of ``window`` among the last outcomes.

    0 switches either off, and without arguments nothing is too much. ``hold_s``: how long a letter waits for a good
    outcome after it before it is published all the same.
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

    @property
    def most(self) -> float:
        """
        How many letters there may be among the last outcomes.
        """
        return self.share * self.window


NO_LIMITS: Final = StormLimits()
"""Of replays and scans: an operator waits for their end."""


@dataclass(slots=True)
class _Line:
    """
    How far a partition's line was counted, and which of its letters are not released, by offset.
    """

    counted: int = -1
    waiting: dict[int, Letter] = field(default_factory=dict)


class StormWatch:
    """
    Holds letters back until a good outcome of any partition comes after them, or they have waited for a while.

    So a worker that is restarted again and again in an outage does not publish a few letters each time. A good outcome
    is an upload that was judged. Neither counted nor held back is what says nothing of us: failures that nobody can
    mend, uploads that are put off, ``UPLOADERS_CHOICE``, records that an operator sent again, and hosts that nobody
    here names beyond what ``_speaks`` lets pass. Known hole: letters that come more slowly than the limit's number in
    ``hold_s`` are published one by one until the limit is reached, and again after a restart.
    """

    def __init__(self, limits: StormLimits) -> None:
        self._limits = limits
        self._lines: dict[Partition, _Line] = {}
        self._run = Tally(max(limits.consecutive, 1))
        self._lately = Tally(limits.window)
        self._delivered = Deliveries()
        self._good = 0
        self._storm: tuple[str, Tally, str] | None = None

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
        return sum(len(line.waiting) for line in self._lines.values())

    def check(self) -> None:
        """
        Raise ``DeadLetterStorm`` if there is one; at the end, when it is known what was published after all.
        """
        if self._storm is not None:
            raise DeadLetterStorm(self._told(*self._storm))

    def passing(self, partition: Partition, settled: Iterable[Slot], *, now_s: float) -> int:
        """
        How many of the settled slots at the head of a line may be released; ``now_s`` is monotonic.
        """
        slots = list(settled)
        line = self._lines.setdefault(partition, _Line())
        for slot in slots:
            if self.reached:
                break
            if slot.event.offset > line.counted:
                self._count(partition, line, slot, now_s)
        free = 0
        while free < len(slots) and self._may_go(line, slots[free], now_s):
            letter = line.waiting.pop(slots[free].event.offset, None)
            if letter is not None:
                letter.published = True
            free += 1
        return free

    def forget(self, partitions: Iterable[Partition]) -> None:
        """
        Drop what is known of partitions that were taken away: who has them now counts their letters anew.
        """
        gone = frozenset(partitions)
        for partition in gone:
            self._lines.pop(partition, None)
        for tally in (self._run, self._lately):
            tally.drop(lambda letter: letter.partition in gone and not letter.published)

    def _may_go(self, line: _Line, slot: Slot, now_s: float) -> bool:
        offset = slot.event.offset
        if offset > line.counted:
            return False
        letter = line.waiting.get(offset)
        if letter is None or letter.run < self._good:
            return True
        return not self.reached and now_s >= letter.since_s + self._limits.hold_s

    def _count(self, partition: Partition, line: _Line, slot: Slot, now_s: float) -> None:
        line.counted = slot.event.offset
        code = letter_code(slot.outcome)
        if code is None:
            if _is_good(slot.outcome):
                self._take_good(slot)
            return
        redriven = slot.event.origin is not None and slot.event.origin.redriven
        if redriven or code in UPLOADERS_CHOICE:
            return
        letter = Letter(partition, slot.event.offset, code, slot.place, self._good, now_s)
        in_run, in_share = self._speaks_in_run(letter), self._speaks_in_share(letter)
        if in_run:
            self._run.add(letter)
        if in_share:
            self._lately.add(letter)
        if in_run or in_share:
            line.waiting[letter.offset] = letter
            self._judge()

    def _take_good(self, slot: Slot) -> None:
        self._good += 1
        self._run.clear()
        self._lately.add(None)
        place = slot.place
        if place is None:
            return
        self._delivered.add(place)
        if self._lately.codes()[ErrorCode.FETCH_UNAUTHORIZED]:
            # Our credentials are good there: what they do not open is the choice of whoever named it.
            self._lately.drop(lambda one: one.code is ErrorCode.FETCH_UNAUTHORIZED and one.place == place)

    def _speaks_in_run(self, letter: Letter) -> bool:
        # Who has judged nothing yet knows no host; and is restarted in an outage, as like as not.
        return not self._good or self._speaks(letter, self._run)

    def _speaks_in_share(self, letter: Letter) -> bool:
        if letter.stranger is not None and not self._delivered.of(letter.stranger):
            # Whoever owns a domain has as many hosts as it has names: together they must not be a storm.
            return self._lately.strangers < self._limits.most / 2 and self._speaks(letter, self._lately)
        return self._speaks(letter, self._lately)

    def _speaks(self, letter: Letter, among: Tally) -> bool:
        """
        Whether a letter says something of us: a host that nobody names counts as often as it has delivered, or once.
        """
        host = letter.stranger
        return host is None or among.of_stranger(host) < max(1, self._delivered.of(host))

    def _judge(self) -> None:
        limits, run, lately = self._limits, self._run, self._lately
        if limits.consecutive and run.letters >= limits.consecutive:
            found = f"{run.letters} uploads in a row are dead letters, the limit is {limits.consecutive}"
            self._storm = found, run, "storm.consecutive"
        elif limits.share and lately.letters > limits.most:
            found = (
                f"{lately.letters} of the last {len(lately)} outcomes are dead letters, the limit is {limits.most:g} "
                f"(a share of {limits.share:g} of {limits.window})"
            )
            self._storm = found, lately, "storm.share"

    def _told(self, found: str, tally: Tally, setting: str) -> str:
        (code, times), *_ = tally.codes().most_common(1)
        held = [
            f"{_name(partition)} offsets {_range(list(line.waiting))} ({len(line.waiting)})"
            for partition, line in sorted(self._lines.items())
            if line.waiting
        ]
        return (
            f"{found}; {times} of them {code}. {tally.published} of them were published before this. "
            f"Not published and not committed, to be read again: {', '.join(held) or 'none'}. So many at once are an "
            f"outage, or a change at whoever sends the events, and no bad uploads: mend what {code} speaks of and "
            f"start the worker again. If they are to become dead letters, raise {setting}, or set it to 0 for once"
        )


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
