"""
The account of a stress run: every upload ends exactly once, in the order of its partition, and nothing else does.

Pure functions of what was stored and what was read; who sends and reads is in ``stress.py``.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic_core import from_json

MOST_NAMED: Final = 5
"""Examples of each fault that are named."""

FaultKind = Literal["missing", "twice", "repeated", "foreign", "out_of_order"]
Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True, slots=True)
class Stored:
    """
    An upload that Kafka has acknowledged, and where in the upload topic it lies.
    """

    event_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class OutcomeRead:
    """
    One message of the verdict or the dead-letter topic that answers an upload.

    ``at`` is where it lies; ``end``: it is how an upload ended, and not a letter beside a failed verdict. ``identity``
    is equal where the same verdict was published again. ``attempt`` is above 1 behind a retry topic. ``timing`` is as
    the verdict tells it.
    """

    topic: str
    at: Place
    event_id: str | None
    answers: Place
    identity: str
    status: str
    end: bool
    attempt: int
    arrived_s: float
    timing: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One kind of what must not be: how often, and some examples in words.
    """

    kind: FaultKind
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """
    What a run amounts to: the end of each upload that has one, by event id, and what is wrong.
    """

    ends: Mapping[str, OutcomeRead]
    faults: tuple[Fault, ...]

    def count(self, kind: FaultKind) -> int:
        """
        How many faults of a kind there are.
        """
        return sum(fault.count for fault in self.faults if fault.kind == kind)


def outcome_of(topic: str, at: Place, value: bytes, arrived_s: float) -> OutcomeRead | None:
    """
    What a message says of an upload; None for one that is neither a verdict nor a dead letter.
    """
    try:
        data = from_json(value)
        if "verdict_id" in data:
            asked = data["input"]
            status, end, identity = data["outcome"]["status"], True, data["verdict_id"]
            event_id, attempt, timing = asked["event_id"], asked.get("attempt", 1), data["timing"]
        else:
            asked, event_id, attempt, timing = data["original"], data["event_id"], 1, {}
            status, end, identity = "dead_letter", data["error"]["stage"] == "parse", "dead letter"
        answers = (int(asked["partition"]), int(asked["offset"]))
    except (ValueError, KeyError, TypeError):
        return None
    return OutcomeRead(topic, at, event_id, answers, identity, status, end, attempt, arrived_s, timing)


def balance(
    stored: Iterable[Stored], outcomes: Sequence[OutcomeRead], *, run: str, unsure: Iterable[str] = ()
) -> Balance:
    """
    Set the outcomes, in the order in which each partition was read, against the uploads of ``run``.

    ``run`` and a dash begin the ids of the run's events; outcomes of other uploads are nobody's concern here. Of
    ``unsure`` it is not known whether Kafka has them: they may be answered or not.
    """
    places = {one.event_id: one.place for one in stored}
    by_place = {place: event_id for event_id, place in places.items()}
    named = set(unsure) | set(places)
    ends: dict[str, list[OutcomeRead]] = defaultdict(list)
    foreign = []
    for outcome in outcomes:
        event_id = outcome.event_id if outcome.event_id in named else by_place.get(outcome.answers)
        if event_id is None:
            if outcome.event_id is not None and outcome.event_id.startswith(f"{run}-"):
                foreign.append(f"{_told(outcome)} answers {outcome.event_id}, which was never sent")
        elif places.get(event_id, outcome.answers) != outcome.answers or outcome.event_id not in {event_id, None}:
            foreign.append(f"{_told(outcome)} answers {outcome.event_id} at {_at(outcome.answers)}, not where it lies")
        elif outcome.end:
            ends[event_id].append(outcome)
    missing = [f"{event_id} at {_at(place)}" for event_id, place in places.items() if event_id not in ends]
    again = [(event_id, found) for event_id, found in ends.items() if len(found) > 1]
    differ = [len({one.identity for one in found}) > 1 for _, found in again]
    firsts = {event_id: found[0] for event_id, found in ends.items()}
    told: dict[FaultKind, list[str]] = {
        "missing": missing,
        "twice": [_again(*one) for one, differs in zip(again, differ, strict=True) if differs],
        "repeated": [_again(*one) for one, differs in zip(again, differ, strict=True) if not differs],
        "foreign": foreign,
        "out_of_order": _out_of_order(firsts),
    }
    return Balance(
        firsts, tuple(Fault(kind, len(all_), tuple(all_[:MOST_NAMED])) for kind, all_ in told.items() if all_)
    )


def _out_of_order(firsts: Mapping[str, OutcomeRead]) -> list[str]:
    """
    Ends that left behind that of a later upload of their partition; those behind a retry topic have left their line.

    Told of each pair of partitions, of uploads and of outcomes: between two partitions Kafka knows no order.
    """
    last: dict[tuple[str, int, int], tuple[str, Place]] = {}
    found = []
    in_line = [(event_id, one) for event_id, one in firsts.items() if one.attempt == 1]
    for event_id, one in sorted(in_line, key=lambda pair: (pair[1].topic, pair[1].at)):
        line = (one.topic, one.at[0], one.answers[0])
        before = last.get(line)
        if before is not None and before[1] > one.answers:
            found.append(f"{event_id} at {_at(one.answers)} was answered after {before[0]} at {_at(before[1])}")
        else:
            last[line] = (event_id, one.answers)
    return found


def _again(event_id: str, found: Sequence[OutcomeRead]) -> str:
    return f"{event_id}: " + ", ".join(_told(one) for one in found)


def _told(outcome: OutcomeRead) -> str:
    return f"{outcome.status} in {outcome.topic} at {_at(outcome.at)}"


def _at(place: Place) -> str:
    return f"{place[0]}@{place[1]}"
