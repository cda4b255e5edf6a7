"""
The one thread that owns the consumer: polls, gives out slots, releases outcomes, commits behind them.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from schemas.verdict import ImageVerdictV1
from worker.domain import Partition
from worker.flow.accounting import measure_verdict
from worker.flow.backlog import Backlog
from worker.flow.bell import Bell
from worker.flow.delivery import Delivery
from worker.flow.lines import Lines, Slot
from worker.flow.progress import LoopProgress
from worker.flow.storm import NO_LIMITS, StormLimits, StormWatch
from worker.flow.upload_spans import received, released, trace_id_of
from worker.outcomes import DeadLettered, Deferred, Message, Outcome, Release
from worker.ports import Clock, EventSource, Recorder
from worker.spans import UNTRACED, Tracer
from worker.telemetry.log import log_batch_released, log_dead_letter, log_upload_failed

log = structlog.get_logger(__name__)

BUSY_WAIT_S = 0.005
"""How long a poll without a bell may wait after a turn in which something happened, while outcomes are under way."""

LONGEST_BUSY_WAIT_S = 0.02
"""To which that grows while nothing happens: an outcome waits at most so long for its release, and each poll costs."""

IDLE_WAIT_S = 0.1
"""
How long a poll may wait while nothing is under way, or where the bell rings for all that is: how late a thread's death
is seen, and what only time brings about.
"""

FINISH_SHARE = 0.2
"""How much of the drain's time is kept back for the last acknowledgements and commits."""


class Flow(Protocol):
    """
    What the loop needs of the pipeline.
    """

    def submit(self, slots: Sequence[Slot]) -> None:
        """
        Start uploads on their way; never blocks.
        """

    def take_settled(self) -> Sequence[tuple[Slot, Outcome]]:
        """
        The outcomes that have arrived since the last call, in the order of their arrival; never blocks.
        """

    @property
    def has_room(self) -> bool:
        """
        False while so many bytes are held that no more should be taken.
        """

    def check(self) -> None:
        """
        Raise if one of the pipeline's threads has died.
        """

    def close(self, timeout_s: float) -> None:
        """
        Stop the threads.
        """


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """
    How much may be under way, how long a drain may last, and how many dead letters are too many.
    """

    max_in_flight: int
    resume_below: float
    drain_timeout_s: float
    storm: StormLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class LoopReport:
    """
    What a run amounted to. ``abandoned`` uploads were under way when the drain's time was up: they are read again.

    ``letters``: how many of the failed verdicts had a dead letter beside them.
    """

    consumed: int
    released: int
    abandoned: int
    by_status: Counter[str]
    letters: int = 0


class Loop:
    """
    Runs until drained, exhausted or broken; see ``step`` for all that happens.

    With ``bell`` the source's polls end when it rings, and flow and outbox ring it for each outcome and each
    acknowledgement; without one the loop looks after them every few milliseconds.
    """

    def __init__(
        self,
        source: EventSource,
        flow: Flow,
        delivery: Delivery,
        *,
        serialise: Callable[[Outcome], Sequence[Message]],
        limits: LoopLimits,
        clock: Clock,
        recorder: Recorder,
        tracer: Tracer = UNTRACED,
        on_verdict: Callable[[ImageVerdictV1], None] | None = None,
        bell: Bell | None = None,
    ) -> None:
        self._bell = bell
        self._source = source
        self._flow = flow
        self._delivery = delivery
        self._serialise = serialise
        self._limits = limits
        self._clock = clock
        self._recorder = recorder
        self._tracer = tracer
        self._on_verdict = on_verdict
        self._backlog = Backlog()
        self._progress = LoopProgress(clock.monotonic_s())
        self._lines = Lines()
        self._storm = StormWatch(limits.storm)
        self._draining = threading.Event()
        self._give_up_s: float | None = None
        self._paused = False
        self._busy_wait_s = BUSY_WAIT_S
        self._consumed = 0
        self._released: Counter[str] = Counter()
        self._letters = 0

    def drain(self) -> None:
        """
        Take nothing new, finish what is under way, commit, leave. Safe in a signal handler; returns at once.
        """
        self._draining.set()
        if self._bell is not None:
            self._bell.ring()

    def run(self) -> LoopReport:
        """
        Step until there is nothing left to do.

        Raises what broke: a thread that died, a broker that is lost, an outcome that was not acknowledged, a storm of
        dead letters. Nothing unfinished is committed then, and of a storm nothing is published.
        """
        try:
            self._run_down()
            report = self._finish()
            self._storm.check()
            return report
        finally:
            # Nothing that is still under way can be published any more: no thread need go on with it.
            self._lines.forget_all()

    def _run_down(self) -> None:
        while True:
            self.step()
            if self._done() or self._storm.reached:
                return
            if self._draining.is_set():
                now_s = self._clock.monotonic_s()
                if self._give_up_s is None:
                    self._give_up_s = now_s + self._limits.drain_timeout_s
                    log.info("worker.draining", in_flight=self.in_flight, timeout_s=self._limits.drain_timeout_s)
                if now_s >= self._give_up_s - self._finish_s:
                    return

    def _done(self) -> bool:
        return (self._draining.is_set() or self._source.exhausted) and self.in_flight == 0

    @property
    def in_flight(self) -> int:
        """
        Uploads that are taken and whose outcomes are not acknowledged.
        """
        return self._lines.waiting + self._delivery.unsettled

    def progress(self) -> LoopProgress:
        """
        How things stood after the last step. Any thread may ask; it costs the loop nothing.
        """
        return self._progress

    def step(self) -> None:
        """
        Take what there is room for, release what is ready, commit what is acknowledged.
        """
        self._flow.check()
        polled = self._source.poll(room=self._room(), wait_s=self._wait_s())
        # Forgotten before the new events are admitted: they may be of a partition that went and came back.
        self._forget(polled.revoked)
        for event in polled.events:
            self._backlog.take(event)
        self._consumed += len(polled.events)
        if polled.events:
            self._flow.submit([self._lines.take(event, received(self._tracer, event)) for event in polled.events])
            self._recorder.count("events_consumed_total", len(polled.events))
        settled = self._flow.take_settled()
        for slot, outcome in settled:
            self._lines.settle(slot, outcome)
        longer_s = min(2 * self._busy_wait_s, LONGEST_BUSY_WAIT_S)
        self._busy_wait_s = BUSY_WAIT_S if polled.events or settled else longer_s
        self._release()
        self._delivery.advance(self._clock.monotonic_s(), polled.membership)
        self._backlog.commit(self._delivery.committed)
        self._tell()

    def _wait_s(self) -> float:
        if not self.in_flight:
            return IDLE_WAIT_S
        if self._bell is None:
            return self._busy_wait_s
        return min(IDLE_WAIT_S, max(0.0, self._delivery.due_s - self._clock.monotonic_s()))

    def _tell(self) -> None:
        self._progress = LoopProgress(
            turned_s=self._clock.monotonic_s(),
            consumed=self._consumed,
            in_flight=self.in_flight,
            paused=self._paused,
            draining=self._draining.is_set(),
            oldest_received_s=self._backlog.oldest_received_s(),
            withheld=self._storm.withheld,
            storm=self._storm.reached,
        )

    def _room(self) -> int:
        if self._draining.is_set() or self._storm.reached:
            return 0
        room = self._limits.max_in_flight - self.in_flight
        has_room = self._flow.has_room
        if self._paused:
            self._paused = not has_room or self.in_flight > self._limits.max_in_flight * self._limits.resume_below
        elif room <= 0 or not has_room:
            self._paused = True
            self._recorder.count("pauses_total")
        return 0 if self._paused else room

    def _forget(self, revoked: frozenset[Partition]) -> None:
        if not revoked:
            return
        forgotten = self._lines.forget(revoked)
        self._delivery.forget(revoked)
        self._backlog.forget(revoked)
        self._storm.forget(revoked)
        self._recorder.count("uploads_forgotten_total", forgotten)
        names = sorted(f"{partition.topic}-{partition.number}" for partition in revoked)
        log.info("partitions.revoked", partitions=names, forgotten=forgotten)

    def _release(self) -> None:
        watch = None
        if not self._limits.storm.off:
            watch = partial(self._storm.passing, now_s=self._clock.monotonic_s())
        slots = self._lines.release(self._limits.max_in_flight, watch)
        if not slots:
            return
        releases = []
        outcomes = []
        for slot in slots:
            outcome = slot.outcome
            assert outcome is not None  # noqa: S101 - Lines.release returns settled slots only
            outcomes.append(outcome)
            message, *beside = released(slot, outcome, self._serialise(outcome))
            releases.append(Release(slot.event.partition, slot.event.offset, message, tuple(beside)))
            self._account(outcome, message)
        self._delivery.accept(releases, self._clock.monotonic_s())
        log_batch_released(releases, outcomes, now_s=self._clock.wall_s(), in_flight=self.in_flight)

    def _account(self, outcome: Outcome, message: Message) -> None:
        if isinstance(outcome, Deferred):
            self._released["deferred"] += 1
            self._recorder.count("retries_total", where="topic", code=outcome.code)
            return
        if isinstance(outcome, DeadLettered):
            self._released["dead_letters"] += 1
            self._recorder.count("dead_letters_total", code=outcome.dead_letter.error.code)
            log_dead_letter(outcome, trace_id_of(message))
            return
        verdict = outcome.verdict
        self._released[verdict.outcome.status] += 1
        self._recorder.count("verdicts_total", status=verdict.outcome.status)
        measure_verdict(self._recorder, verdict, now_s=self._clock.wall_s())
        if self._on_verdict is not None:
            self._on_verdict(verdict)
        if outcome.letter is not None:
            self._letters += 1
            self._recorder.count("dead_letters_total", code=outcome.letter.error.code)
        if verdict.error is not None:
            self._recorder.count("failures_total", stage=verdict.error.stage, code=verdict.error.code)
            log_upload_failed(outcome, trace_id_of(message))

    @property
    def finish_left_s(self) -> float:
        """
        How long what comes after the run may take: what is left of the drain's time, at most the share kept back.
        """
        if self._give_up_s is None:
            return self._finish_s
        return min(self._finish_s, max(0.0, self._give_up_s - self._clock.monotonic_s()))

    @property
    def _finish_s(self) -> float:
        return self._limits.drain_timeout_s * FINISH_SHARE

    def _finish(self) -> LoopReport:
        polled = self._source.poll(room=0, wait_s=0.0)
        self._forget(polled.revoked)
        self._delivery.finish(self._clock.monotonic_s(), polled.membership, self._finish_s)
        # What is finished is safe now; a thread that died in the last moment is told all the same.
        self._flow.check()
        return LoopReport(self._consumed, self._released.total(), self.in_flight, self._released, self._letters)
