"""
When dead letters are no longer bad uploads but an outage: how many there are in a row, and which wait to be published.

Belongs to the consumer thread alone. The letters that wait lie in their partitions' lines; nothing is kept here but
numbers. What has a letter is decided in ``worker.stages.letters``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import UPLOADERS_CHOICE, ErrorClass, ErrorCode, Stage, class_of, stage_of
from worker.domain import Partition
from worker.errors import DeadLetterStorm
from worker.flow.lines import Slot
from worker.flow.places import Deliveries, Place, Refusals
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

_OF_DECODERS: Final = frozenset({ErrorCode.DECODE_CRASHED, ErrorCode.DECODE_TIMEOUT})
"""What an uploader may choose, and what a decoder that never works says of every image."""


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
    is an upload that was judged. Not counted is what says nothing of us: failures that nobody can mend, uploads that
    are put off, ``UPLOADERS_CHOICE``, records that an operator sent again, and what others bring about by naming a
    place, beyond what ``_speaks`` lets pass. Who has judged nothing yet knows no place, and is restarted in an outage,
    as like as not: it counts every place in a run, and decoders that fail, and waits for ``hold_s`` before it takes
    them for a storm, lest good uploads lie behind. Known hole: letters that come more slowly than the limit's number
    in ``hold_s`` are published one by one until the limit is reached, and again after a restart.
    """

    def __init__(self, limits: StormLimits) -> None:
        self._limits = limits
        self._lines: dict[Partition, _Line] = {}
        self._run = Tally(max(limits.consecutive, 1))
        self._lately = Tally(limits.window)
        self._delivered = Deliveries()
        self._refusals = Refusals()
        self._good = 0
        self._first_s: float | None = None
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
        if not self.reached:
            self._judge(now_s)
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
        chosen = code in UPLOADERS_CHOICE
        if redriven or (chosen and (self._good or code not in _OF_DECODERS)):
            return
        doubtful = self._doubtful(code, slot.place)
        letter = Letter(partition, slot.event.offset, code, slot.place, self._good, now_s, doubtful)
        in_run = not self._good or self._speaks(letter, self._run, self._limits.consecutive)
        in_share = not chosen and self._speaks(letter, self._lately, self._limits.most)
        if in_run:
            self._run.add(letter)
        if in_share:
            self._lately.add(letter)
        # A refused key waits in any case: it may have been changed, and the next outcomes tell.
        if in_run or in_share or code is ErrorCode.FETCH_UNAUTHORIZED:
            line.waiting[letter.offset] = letter
            self._first_s = now_s if self._first_s is None else self._first_s
            self._judge(now_s)

    def _doubtful(self, code: ErrorCode, place: Place | None) -> Place | None:
        """
        The place, where whoever named it may have brought a failure about alone.

        It is a host that nobody here names and that did not answer, or led to one that refused us; or one that has let
        us in, as long as it does not refuse us too often in a row.
        """
        if place is None or stage_of(code) is not Stage.FETCH:
            return None
        if code is ErrorCode.FETCH_UNAUTHORIZED:
            self._refusals.refused(place)
            times = self._refusals.in_a_row(place)
            if times is not None:
                return place if times <= (self._limits.consecutive or self._limits.window) else None
        elif class_of(code) is not ErrorClass.TRANSIENT:
            return None
        return None if place.ours else place

    def _take_good(self, slot: Slot) -> None:
        self._good += 1
        self._run.clear()
        self._lately.add(None)
        place = slot.place
        if place is None:
            return
        self._delivered.add(place)
        self._refusals.delivered(place)
        if self._lately.codes()[ErrorCode.FETCH_UNAUTHORIZED]:
            # Our credentials are good there: what they do not open is the choice of whoever named it.
            self._lately.drop(lambda one: one.code is ErrorCode.FETCH_UNAUTHORIZED and one.place == place)

    def _speaks(self, letter: Letter, among: Tally, most: float) -> bool:
        """
        Whether a letter says something of us, among others of which ``most`` are a storm.

        A host that nobody names counts as often as it has delivered, or once; a place that lets us in and refuses this
        image, once.
        """
        place = letter.doubtful
        if place is None:
            return True
        known = 0 if letter.code is ErrorCode.FETCH_UNAUTHORIZED else self._delivered.of(place)
        if not known and among.doubtful + 1 > most / 2:
            # Whoever owns a domain has as many hosts as it has names: together they must not be a storm.
            return False
        return among.doubtful_of(place) < max(1, known)

    def _judge(self, now_s: float) -> None:
        limits, run, lately = self._limits, self._run, self._lately
        if limits.consecutive and run.letters >= limits.consecutive and self._is_sure(now_s):
            found = f"{run.letters} uploads in a row are dead letters, the limit is {limits.consecutive}"
            self._storm = found, run, "storm.consecutive"
        elif limits.share and lately.letters > limits.most:
            found = (
                f"{lately.letters} of the last {len(lately)} outcomes are dead letters, the limit is {limits.most:g} "
                f"(a share of {limits.share:g} of {limits.window})"
            )
            self._storm = found, lately, "storm.share"

    def _is_sure(self, now_s: float) -> bool:
        """
        Whether a run is not for the most part what its uploaders may have chosen; or no good upload came for a while.
        """
        chosen = self._run.doubtful + sum(self._run.codes()[code] for code in _OF_DECODERS)
        waited = self._first_s is not None and now_s >= self._first_s + self._limits.hold_s
        return self._good > 0 or chosen <= self._limits.consecutive / 2 or waited

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
