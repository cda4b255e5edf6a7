"""
What a replay run is: which uploads, under which versions, how far it has come, and what must hold of its output.

Values and one seam. Where runs lie is in ``worker/adapters/run_file.py`` and ``worker/adapters/kafka_run.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol, Self

from pydantic import TypeAdapter, ValidationError

from worker.domain import Partition
from worker.errors import CannotStart
from worker.outcomes import Release


@dataclass(frozen=True, slots=True)
class Bound:
    """
    Where a range begins or ends; ``value`` is an offset, or milliseconds since the epoch, or None.

    As an end, an offset or a time is the first that does not belong.
    """

    kind: Literal["beginning", "end", "offset", "time"]
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    Offsets of one partition: from ``start`` on, below ``end``.
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """
    What was decided at the start of a run, and holds until its end.

    ``since`` and ``until`` are the words of the command line; ``stretches`` are what they came to, by the partition's
    number. ``versions`` are all that the verdicts of the run have in common, by name.
    """

    run_id: str
    topic: str
    out: str
    since: str
    until: str
    versions: Mapping[str, str]
    stretches: Mapping[int, Stretch]

    def differences(self, other: "RunPlan") -> list[str]:
        """
        What an operator must know when a run is to go on as ``other``: one line for each thing that is not the same.
        """
        told = {"topic": (self.topic, other.topic), "out": (self.out, other.out)}
        told |= {"from": (self.since, other.since), "to": (self.until, other.until)}
        names = sorted({*self.versions, *other.versions})
        told |= {name: (self.versions.get(name, "none"), other.versions.get(name, "none")) for name in names}
        return [f"{name}: began with {was}, now {now}" for name, (was, now) in told.items() if was != now]


@dataclass(frozen=True, slots=True)
class RunTotals:
    """
    How many verdicts a run has written, and how they came about; a fetched upload may have failed as well.
    """

    replayed: int = 0
    from_embeddings: int = 0
    fetched: int = 0
    failed: int = 0
    dead_letters: int = 0

    def __add__(self, other: "RunTotals") -> "RunTotals":
        return RunTotals(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class RunState:
    """
    How far a run has come: ``positions`` are the next offsets to read, of the partitions that were begun.
    """

    plan: RunPlan
    positions: Mapping[int, int]
    totals: RunTotals = RunTotals()
    finished: bool = False

    def position(self, number: int) -> int:
        """
        The next offset to read of a partition.
        """
        return max(self.positions.get(number, 0), self.plan.stretches[number].start)

    def left(self) -> dict[int, Stretch]:
        """
        What is still to be read.
        """
        places = ((number, self.position(number), stretch.end) for number, stretch in self.plan.stretches.items())
        return {number: Stretch(at, end) for number, at, end in places if at < end}

    @classmethod
    def new(cls, plan: RunPlan) -> Self:
        """
        Of a run that has not begun.
        """
        return cls(plan, {})


class RunOutput(Protocol):
    """
    Where a run's verdicts go, and where its state is kept beside them. Called by the consumer thread only; all block.
    """

    def find(self, run_id: str | None) -> RunState | None:
        """
        What is there of this run; changes nothing. Raises ``CannotStart`` for what is there and is not this run's.
        """

    def begin(self, plan: RunPlan) -> RunState:
        """
        Keep the plan of a new run.
        """

    def resume(self, found: RunState) -> RunState:
        """
        Take the run over from whoever had it, and undo what was not finished; how far it had really come.
        """

    def write(self, releases: Sequence[Release], offsets: Mapping[Partition, int], totals: RunTotals) -> None:
        """
        The messages, the next offsets to read and the totals, all together or not at all. Raises ``PublishFailed``.
        """

    def finish(self, totals: RunTotals) -> None:
        """
        Keep that the whole range was read.
        """

    def close(self) -> None:
        """
        Release what is held.
        """


PLANS = TypeAdapter(RunPlan)
STATES = TypeAdapter(RunState)
TOTALS = TypeAdapter(RunTotals)


def state_from_json(text: bytes | str, *, where: str) -> RunState:
    """
    A state that was kept as JSON. Raises ``CannotStart`` where it is none.
    """
    try:
        return STATES.validate_json(text)
    except ValidationError as invalid:
        raise CannotStart(
            f"{where} holds no state of a replay run ({invalid.error_count()} faults, the first: "
            f"{invalid.errors()[0]['msg']}). It was damaged or written by another release; replay to another --out"
        ) from None
