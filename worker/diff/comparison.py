"""
What differs between two sides, counted in one pass over the joined verdicts.

Reading is done before (``reading.py``); what is too much is decided after (``gates.py``).
"""

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.diff.joining import Pair, Taken
from worker.diff.seen import EventKey, Seen, generator_of, shift

Transition = tuple[str, str]
"""The decision of A, and that of B."""

Numbers = NDArray[np.float64]

MOST_FLIPPED: Final = 10_000
"""How many flipped events, and events of one side only, are named; all are counted."""

NO_GENERATOR: Final = "none named"


@dataclass(frozen=True, slots=True)
class Change:
    """
    An event on which both sides have a verdict, and where these differ.
    """

    event: EventKey
    a: Seen
    b: Seen
    fields: tuple[str, ...]

    @property
    def flip(self) -> Transition | None:
        """
        From which decision to which; None where both decide alike.
        """
        before, after = self.a.compared.decision, self.b.compared.decision
        return None if before == after else (before, after)

    @property
    def shift(self) -> float | None:
        """
        By how much the score grew; None where a side has none.
        """
        before, after = self.a.compared.score, self.b.compared.score
        return None if before is None or after is None else shift(before, after)


@dataclass(slots=True)
class Group:
    """
    How many events of a surface or generator were compared, and which way they flipped.
    """

    compared: int = 0
    transitions: Counter[Transition] = field(default_factory=Counter)

    @property
    def flips(self) -> int:
        """
        How many changed their decision.
        """
        return self.transitions.total()


@dataclass(slots=True)
class Side:
    """
    What was found of one side: how many events, how many more verdicts on the same events, and decided how.

    ``versions`` counts events by the number that their verdict's versions have in ``Comparison.versions``. Of the
    further verdicts, ``repeats`` are on an upload that the same replay had judged already; the first is named.
    """

    name: str
    events: int = 0
    duplicates: int = 0
    repeats: int = 0
    first_repeat: tuple[EventKey, str] | None = None
    decisions: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    alone: int = 0
    listed_alone: list[tuple[EventKey, Seen]] = field(default_factory=list)

    def count(self, event: EventKey, taken: Taken) -> None:
        """
        One event of this side.
        """
        self.events += 1
        self.duplicates += taken.verdicts - 1
        self.repeats += len(taken.repeats)
        if taken.repeats and self.first_repeat is None:
            self.first_repeat = (event, taken.repeats[0])
        self.decisions[taken.seen.compared.decision] += 1
        self.versions[taken.versions] += 1

    def count_alone(self, event: EventKey, taken: Taken) -> None:
        """
        One event that the other side has no verdict on.
        """
        self.alone += 1
        if len(self.listed_alone) < MOST_FLIPPED:
            self.listed_alone.append((event, taken.seen))


@dataclass(slots=True)
class Comparison:
    """
    The whole difference. ``fields`` counts events by the field in which they differ.

    ``scores_a`` and ``scores_b`` have a number for each event that both sides gave a score.
    """

    a: Side
    b: Side
    compared: int = 0
    differing: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    overall: Group = field(default_factory=Group)
    by_surface: dict[str, Group] = field(default_factory=dict)
    by_generator: dict[str, Group] = field(default_factory=dict)
    flipped: list[Change] = field(default_factory=list)
    movers: list[Change] = field(default_factory=list)
    scores_a: Numbers = field(default_factory=lambda: np.empty(0))
    scores_b: Numbers = field(default_factory=lambda: np.empty(0))
    versions: Sequence[bytes] = ()

    @property
    def flips(self) -> int:
        """
        Events on which the two sides decide differently.
        """
        return self.overall.flips

    @property
    def flipped_left_out(self) -> int:
        """
        Flips that are counted and not named.
        """
        return self.flips - len(self.flipped)

    @property
    def shifts(self) -> Numbers:
        """
        By how much each score grew from A to B.
        """
        return np.round(self.scores_b - self.scores_a, 9)


def compare(
    pairs: Iterable[Pair], names: tuple[str, str], *, tolerance: float = 0.0, most_movers: int = 20
) -> Comparison:
    """
    The difference of two sides; numbers that lie within ``tolerance`` of each other count as equal.

    Of the events whose score moved, the ``most_movers`` that moved farthest are kept with their neighbours.
    """
    found = Comparison(Side(names[0]), Side(names[1]))
    scores: tuple[array[float], array[float]] = (array("d"), array("d"))
    movers: list[tuple[float, int, Change]] = []
    for number, pair in enumerate(pairs):
        change = _count(found, pair, tolerance)
        if change is None or change.shift is None:
            continue
        for side, seen in zip(scores, (change.a, change.b), strict=True):
            side.append(seen.compared.score or 0.0)
        if abs(change.shift) > tolerance:
            # Events come in the order of their names, so among equal moves the first names stay.
            ranked = (abs(change.shift), -number, change)
            (heapq.heappush if len(movers) < most_movers else heapq.heappushpop)(movers, ranked)
    found.scores_a, found.scores_b = (np.array(side) for side in scores)
    found.movers = [change for _, _, change in sorted(movers, reverse=True)]
    return found


def _count(found: Comparison, pair: Pair, tolerance: float) -> Change | None:
    for side, taken, other in ((found.a, pair.a, pair.b), (found.b, pair.b, pair.a)):
        if taken is not None:
            side.count(pair.event, taken)
            if other is None:
                side.count_alone(pair.event, taken)
    if pair.a is None or pair.b is None:
        return None
    a, b = pair.a.seen, pair.b.seen
    change = Change(pair.event, a, b, tuple(a.compared.differences(b.compared, tolerance=tolerance)))
    found.compared += 1
    found.differing += bool(change.fields)
    found.fields.update(change.fields)
    flip = change.flip
    groups = (
        found.overall,
        found.by_surface.setdefault(a.surface, Group()),
        found.by_generator.setdefault(generator_of(a, b) or NO_GENERATOR, Group()),
    )
    for group in groups:
        group.compared += 1
        if flip is not None:
            group.transitions[flip] += 1
    if flip is not None and len(found.flipped) < MOST_FLIPPED:
        found.flipped.append(change)
    return change


def ranked(groups: Mapping[str, Group]) -> list[tuple[str, Group]]:
    """
    Groups, those with the most flips first, then the largest, then by name.
    """
    return sorted(groups.items(), key=lambda named: (-named[1].flips, -named[1].compared, named[0]))


def arrow(transition: Transition) -> str:
    """
    A transition as people and JSON read it.
    """
    return " -> ".join(transition)
