"""
A stress run: uploads sent at their times whatever the workers do, outcomes read meanwhile, and what it all comes to.

The transport is a ``Platform``; which uploads are sent is in ``stress_uploads.py``, and the account of them in
``conservation.py``. Whoever starts the workers is not asked: they may run anywhere.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from worker.adapters.kafka_platform import PublishedEvent
from worker.adapters.kafka_stress import Acknowledged, ReadRecord
from worker.bench.conservation import OutcomeRead, Place, Stored, outcome_of
from worker.bench.stress_uploads import EventOf, event_id_of
from worker.errors import CannotStart, TouchstoneError
from worker.flow.crew import Crew

LEAD_S: Final = 0.1
"""From the start of the threads to the first upload."""

READ_WAIT_S: Final = 0.05
JOIN_S: Final = 5.0
"""How long the sender is waited for when a run is over; it may be held by a Kafka that has gone."""


class StressFailed(TouchstoneError):
    """
    The stress itself did not do what was asked of it, and its figures say nothing of the workers.
    """


class Platform(Protocol):
    """
    What a run needs of Kafka. ``send`` is called by one thread, everything else by another.
    """

    def members(self) -> int | None:
        """
        How many workers there are; None where that is not known.
        """

    def send(self, number: int, event: PublishedEvent) -> None:
        """
        Hand an event over to be sent; does not wait for Kafka.
        """

    def take_acknowledged(self) -> Sequence[Acknowledged]:
        """
        What became of sent events since the last call; never blocks.
        """

    def read(self, wait_s: float) -> Sequence[ReadRecord]:
        """
        Outcomes that have arrived; waits ``wait_s`` at most.
        """


@dataclass(frozen=True, slots=True)
class StressPlan:
    """
    What is to be sent when, in seconds from the beginning, and for how long nothing may be heard of it.

    For ``settle_s`` outcomes are read on after the last one was there: a second one would come about then.
    """

    run: str
    times: Sequence[float]
    event_of: EventOf = field(repr=False)
    patience_s: float = 60.0
    settle_s: float = 1.0


@dataclass(slots=True)
class StressRun:
    """
    What happened: ``sent_s`` are the seconds from the beginning at which each upload was really handed over.

    ``refused`` has the uploads that Kafka did not take, by their number, and why; ``unsure`` those of which it has not
    said anything. Times of outcomes are of the same clock as ``began_s``. ``ended`` has the stored uploads that have an
    end of their own; ``placed`` and ``answered`` are the two sides of that, by place: ids stored, ids that ends name.
    """

    began_s: float
    sent_s: list[float] = field(default_factory=list)
    stored: dict[int, Stored] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    outcomes: list[OutcomeRead] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    placed: dict[Place, str] = field(default_factory=dict, repr=False)
    answered: dict[Place, set[str | None]] = field(default_factory=dict, repr=False)

    def unsure(self, run: str) -> list[str]:
        """
        The ids of the uploads of which it is not known whether Kafka has them.
        """
        return [event_id_of(run, number) for number in range(len(self.sent_s)) if number not in self.stored]


def run_stress(
    plan: StressPlan, platform: Platform, *, progress: Callable[[int, int], None] = lambda *_: None
) -> StressRun:
    """
    Send, read, and return when every upload has its end, or nothing was heard for ``patience_s``.

    Raises ``CannotStart`` where there is no worker, or none answers anything; ``progress`` is told how many uploads
    have their end, of how many.
    """
    if platform.members() == 0:
        raise CannotStart(
            "no worker is in the group kafka.group_id: nobody would answer. Start one with the same settings "
            "(`touchstone run`), or name the group of those that run (--set kafka.group_id=...)"
        )
    crew = Crew()
    stop = threading.Event()
    run = StressRun(time.monotonic() + LEAD_S)
    crew.start("stress-send", lambda: _send_all(plan, platform, run, stop))
    try:
        _watch(plan, platform, run, crew, progress)
    finally:
        stop.set()
        crew.join(JOIN_S)
    return run


def _send_all(plan: StressPlan, platform: Platform, run: StressRun, stop: threading.Event) -> None:
    """
    Each at its time, or at once where that has passed: an upload that is late makes no other one late.
    """
    for number, at_s in enumerate(plan.times):
        event = plan.event_of(number)  # made while there is time
        wait_s = run.began_s + at_s - time.monotonic()
        if wait_s > 0 and stop.wait(wait_s):
            return
        run.sent_s.append(time.monotonic() - run.began_s)
        platform.send(number, event)


def _watch(
    plan: StressPlan, platform: Platform, run: StressRun, crew: Crew, progress: Callable[[int, int], None]
) -> None:
    wanted = len(plan.times)
    heard_s = run.began_s
    settled_s: float | None = None
    while True:
        crew.check()
        before = len(run.ended)
        _take(plan, platform, run)
        progress(len(run.ended), wanted)
        now_s = time.monotonic()
        if len(run.ended) > before or len(run.ended) >= len(run.sent_s) - len(run.refused):
            heard_s = now_s
        if len(run.stored) + len(run.refused) >= wanted and len(run.ended) >= len(run.stored):
            settled_s = settled_s or now_s + plan.settle_s
            if now_s >= settled_s:
                return
        elif now_s - heard_s >= plan.patience_s:
            if not run.ended:
                raise CannotStart(_silence(plan, run, platform.members()))
            return


def _take(plan: StressPlan, platform: Platform, run: StressRun) -> None:
    news: list[Place] = []
    for record in platform.read(READ_WAIT_S):
        outcome = outcome_of(record.topic, record.at, record.value, record.arrived_s)
        if outcome is None:
            continue
        run.outcomes.append(outcome)
        if outcome.end and (outcome.event_id is None or outcome.event_id.startswith(f"{plan.run}-")):
            run.answered.setdefault(outcome.answers, set()).add(outcome.event_id)
            news.append(outcome.answers)
    for told in platform.take_acknowledged():
        if told.place is None:
            run.refused[told.number] = told.refusal
        else:
            event_id = event_id_of(plan.run, told.number)
            run.stored[told.number] = Stored(event_id, told.place)
            run.placed[told.place] = event_id
            news.append(told.place)
    # As ``balance`` sees it: an outcome of no upload that was sent, or of another place, is nobody's end. What Kafka
    # has stored may be answered before we hear that it was.
    for place in news:
        stored_id = run.placed.get(place)
        if stored_id is not None and not run.answered.get(place, set()).isdisjoint({stored_id, None}):
            run.ended.add(stored_id)


def _silence(plan: StressPlan, run: StressRun, members: int | None) -> str:
    if not run.stored:
        return (
            f"Kafka has acknowledged none of {len(run.sent_s)} uploads within {plan.patience_s:g} s; look at its logs"
        )
    found = f"no outcome of any upload within {plan.patience_s:g} s, though Kafka took {len(run.stored)} of them"
    workers = "" if members is None else f" {members} workers are in the group."
    return (
        f"{found}.{workers} Look at the workers' logs and `touchstone doctor`: do they read kafka.topics.uploads and "
        "write kafka.topics.verdicts of these settings? A longer backlog than that needs a longer --patience-s"
    )
