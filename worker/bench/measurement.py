"""
How a benchmark measures: rounds of all contenders in turn, CPU time beside the wall clock, medians with their spread.

Numbers only. What is measured is in the file of each benchmark, what CPU other processes took in ``cpu_time``.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Self, TypeVar

from worker.bench.cpu_time import cores_here, cpu_s_of_machine, cpu_s_of_trees, own_cpu_s, process_cpu_s

T = TypeVar("T")

ROUND_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """
    One figure over several rounds: its median, and the lowest and the highest round beside it.
    """

    name: str
    unit: str
    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, name: str, unit: str, values: Iterable[float]) -> Self:
        """
        The figure of these rounds. Raises ``ValueError`` without any: a median of nothing is no measurement.
        """
        found = sorted(values)
        if not found:
            raise ValueError(f"{name}: found no round, expected at least one")
        return cls(name, unit, median(found), found[0], found[-1], len(found))

    @property
    def spread(self) -> float:
        """
        How far the rounds lie apart, as a share of the median; 0 for a single round.
        """
        return (self.high - self.low) / self.median if self.median else 0.0

    def as_object(self) -> dict[str, object]:
        """
        For JSON.
        """
        plain = asdict(self) | {"spread": self.spread}
        return {
            name: round(value, ROUND_DIGITS) if isinstance(value, float) else value for name, value in plain.items()
        }


@dataclass(frozen=True, slots=True)
class Took:
    """
    What one piece of work took: by the clock, and CPU seconds of the processes that did it.

    ``others`` is the share of all cores that anybody else used meanwhile, 0 to 1: where it is high the wall clock says
    little, and CPU time still something.
    """

    wall_s: float
    cpu_s: float
    others: float

    def per(self, uploads: int) -> Self:
        """
        The same for one of so many.
        """
        return type(self)(self.wall_s / uploads, self.cpu_s / uploads, self.others)


@dataclass(frozen=True, slots=True)
class Reading:
    """
    The clocks at one moment; two of them make a ``Took``.

    ``cpu_s`` is that of the processes that are measured, ``ours_s`` that of all that are the benchmark's.
    """

    wall_s: float
    cpu_s: float
    machine_s: float
    ours_s: float

    @classmethod
    def now(cls, pids: Sequence[int] | None = None, *, beside: Sequence[int] = ()) -> Self:
        """
        Of the trees of these processes; of this process and its children where none are named.

        ``beside`` are processes that are the benchmark's as well, such as a server's. Most of all of them are children
        of this one: each counts once.
        """
        if pids is None and not beside:
            own_s = own_cpu_s()
            return cls(time.perf_counter(), own_s, cpu_s_of_machine(), own_s)
        cpu_s = own_cpu_s() if pids is None else cpu_s_of_trees(pids)
        ours_s = cpu_s_of_trees([os.getpid(), *(pids or ()), *beside])
        return cls(time.perf_counter(), cpu_s, cpu_s_of_machine(), ours_s)

    @classmethod
    def here(cls) -> Self:
        """
        Of this process alone: servers and lanes are its children, and are busy a little even while they wait.
        """
        return cls(time.perf_counter(), process_cpu_s(), cpu_s_of_machine(), own_cpu_s())

    def until(self, later: "Reading") -> Took:
        """
        What lies between the two.
        """
        wall_s = later.wall_s - self.wall_s
        cpu_s = later.cpu_s - self.cpu_s
        others_s = max(0.0, later.machine_s - self.machine_s - (later.ours_s - self.ours_s))
        room_s = wall_s * cores_here()
        return Took(wall_s, cpu_s, min(1.0, others_s / room_s) if room_s > 0 else 0.0)


def took(action: Callable[[], object], pids: Sequence[int] | None = None) -> Took:
    """
    What ``action`` takes: in this process and its children, or in the trees of the processes that are named.
    """
    before = Reading.now(pids)
    action()
    return before.until(Reading.now(pids))


def took_here(action: Callable[[], object]) -> Took:
    """
    What ``action`` takes in this process, its children left out.
    """
    before = Reading.here()
    action()
    return before.until(Reading.here())


def interleaved(
    contenders: Mapping[str, Callable[[], T]], rounds: int, *, on_done: Callable[[str, int], None] = lambda *_: None
) -> dict[str, list[T]]:
    """
    Every contender once in each round, each round begun by another one, so that what drifts favours nobody.

    ``on_done`` is told the contender and the number of the round. Returns each contender's results in order of rounds.
    """
    names = list(contenders)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(contenders[name]())
            on_done(name, number)
    return results


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """
    Ours over theirs, round by round: what slowed down the whole machine in one round is in both.
    """
    return [one / other for one, other in zip(ours, theirs, strict=True)]
