"""
A replay from start to end: the live worker's own stages over a fixed range, into a run that can be resumed.

The composition of it; what a run is stands in ``worker/flow/replay_run.py``, what was known before in ``earlier.py``.
"""

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import uuid4

import structlog

from worker.adapters.image_store import build_image_store
from worker.adapters.kafka_range_source import KafkaRangeSource
from worker.adapters.kafka_run import KafkaRun, run_group
from worker.adapters.kafka_topics import topics_of
from worker.adapters.run_file import RunFile
from worker.adapters.system_clock import SystemClock
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.app import running_pipeline
from worker.domain import Partition
from worker.errors import CannotStart, ConfigInvalid
from worker.flow.bank_judge import BankJudge
from worker.flow.delivery import ExactlyOnce
from worker.flow.judging import Judge
from worker.flow.loop import Loop, LoopLimits
from worker.flow.pipeline import Pipeline
from worker.flow.replay_run import RunOutput, RunPlan, RunState
from worker.instruments import open_instruments
from worker.operation.noting import noting_contents
from worker.ports import Clock, Recorder
from worker.replay.bounds import parse_bound
from worker.replay.destination import require_apart
from worker.replay.earlier import memories_of
from worker.replay.order import ReplayOrder, ReplayReport, ReplayWatch
from worker.replay.pace import Pace, PacedSource
from worker.replay.run_outbox import RunOutbox
from worker.replay.untouched import NoStore
from worker.settings.tree import KafkaSettings, Settings
from worker.stages.report import RunVersions
from worker.stages.serialise import Route, source_of
from worker.telemetry.metrics import InMemoryRecorder

IN_FLIGHT: Final = 4096
"""Uploads under way at once: without image bytes they are small, and the stages work in larger batches."""

MESSAGES_AT_ONCE: Final = 1_000
COMMIT_EVERY_S: Final = 5.0

log = structlog.get_logger(__name__)


def replay_uploads(settings: Settings, order: ReplayOrder, watch: ReplayWatch) -> ReplayReport:
    """
    Replay a range, or go on with a run that was begun.

    Raises ``ConfigInvalid`` for an order that contradicts itself or the run it resumes, ``CannotStart`` for what is
    missing, and what ``Loop.run`` raises: the run can be resumed then.
    """
    require_apart(order.destination, order.topic, settings.kafka.topics, promote=order.promote)
    for text, option in ((order.since, "--from"), (order.until, "--to")):
        parse_bound("end" if text is None else text, option)
    recorder = InMemoryRecorder()
    run_id = order.run_id or _new_run_id()
    with ExitStack() as stack:
        output = _output(settings.kafka, order, run_id, recorder)
        stack.callback(output.close)
        found = output.find(order.run_id)
        if found is not None and found.finished:
            raise ConfigInvalid(f"run {run_id} is finished, with {found.totals.replayed} verdicts; leave out --run-id")
        instruments = open_instruments(settings, recorder)
        versions = replace(instruments.versions("replay"), run_id=run_id)
        source = KafkaRangeSource(
            settings.kafka, order.topic, group_id=run_group(settings.kafka, run_id), client_id=f"replay-{run_id}"
        )
        stack.callback(source.close)
        plan = _plan(order, found, source, run_id, _names_of(versions))
        state = output.begin(plan) if found is None else output.resume(found)
        watch.on_run(run_id, found is not None)
        memories = stack.enter_context(
            memories_of(settings, instruments, plan, write_cache=order.write_cache, progress=watch.progress)
        )
        store = build_image_store(settings.fetch) if order.fetch else NoStore()
        stack.callback(store.close)
        pipeline = stack.enter_context(
            running_pipeline(
                settings,
                instruments,
                versions,
                store=store,
                recorder=recorder,
                memories=memories,
                surround=_noted(settings, order, recorder, stack),
            )
        )
        run = _Run(settings, order, state, source, output)
        return run.through(pipeline, watch, recorder, resumed=found is not None)


def _noted(
    settings: Settings, order: ReplayOrder, recorder: Recorder, stack: ExitStack
) -> Callable[[BankJudge], Judge]:
    """
    Around the judge, where the live cache is written to: what is kept there must be found by name to be forgotten.
    """
    if not order.write_cache:
        return lambda judge: judge
    return stack.enter_context(noting_contents(settings, recorder)).around


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


def _output(settings: KafkaSettings, order: ReplayOrder, run_id: str, recorder: Recorder) -> RunOutput:
    name, path = order.destination.topic, order.destination.path
    if path is not None:
        return RunFile(path)
    # One name for both: a replay's dead letters are counted, and never sent.
    topics = settings.topics.model_copy(update={"verdicts": name, "dead_letters": name})
    written = settings.model_copy(update={"topics": topics})
    _ensure_topic(written, like=order.topic)
    return KafkaRun(written, run_id, recorder)


def _ensure_topic(settings: KafkaSettings, *, like: str) -> None:
    """
    The topic to write to exists, else it is made as a verdict topic is, with as many partitions as ``like``.
    """
    with topics_of(settings) as topics:
        found = topics.find([settings.topics.verdicts, like])
        if settings.topics.verdicts in found or like not in found:
            return
        wanted = wanted_topics(
            settings, TopicsFile(), brokers=topics.brokers(), roles=("verdicts",), partitions=found[like].partitions
        )
        topics.apply(plan_topics(wanted, {}))


def _names_of(versions: RunVersions) -> dict[str, str]:
    decisive = versions.decision_versions()
    return {name: str(getattr(decisive, name)) for name in decisive.__slots__} | {"worker": versions.worker}


def _plan(
    order: ReplayOrder, found: RunState | None, source: KafkaRangeSource, run_id: str, versions: dict[str, str]
) -> RunPlan:
    """
    The plan of a new run, its ends fixed now; or that of the run that was found, which this order must not contradict.
    """
    if found is None:
        since, until = order.since or "beginning", order.until or "end"
        stretches = source.stretches(parse_bound(since, "--from"), parse_bound(until, "--to"))
        return RunPlan(run_id, order.topic, str(order.destination), since, until, versions, stretches)
    asked = replace(
        found.plan,
        topic=order.topic,
        out=str(order.destination),
        since=order.since or found.plan.since,
        until=order.until or found.plan.until,
        versions=versions,
    )
    if told := found.plan.differences(asked):
        raise CannotStart(
            f"run {run_id} cannot go on, because its verdicts would not be of one kind: {'; '.join(told)}. Go on with "
            "what it began with, or begin another run"
        )
    return found.plan


@dataclass(frozen=True, slots=True)
class _Run:
    settings: Settings
    order: ReplayOrder
    state: RunState
    source: KafkaRangeSource
    output: RunOutput

    def through(self, pipeline: Pipeline, watch: ReplayWatch, recorder: Recorder, *, resumed: bool) -> ReplayReport:
        """
        Read what is left, to the end or until it is drained.
        """
        clock = SystemClock()
        reached = _Reached(self.state, watch)
        outbox = RunOutbox(self.output, self._route(), self.state.totals, on_written=partial(self._written, reached))
        self.source.read(self.state.left())
        # The model and the bank stay for good; without this each full collection walks over all of them again.
        gc.collect()
        gc.freeze()
        began_s = clock.monotonic_s()
        try:
            loop = self._loop(pipeline, outbox, clock, recorder)
            watch.on_loop(loop)
            report = loop.run()
        finally:
            gc.unfreeze()
        elapsed_s = max(clock.monotonic_s() - began_s, 1e-9)
        finished = self.source.exhausted and report.abandoned == 0
        if finished:
            self.output.finish(outbox.totals)
        log.info("replay.stopped", finished=finished, seconds=round(elapsed_s, 3), released=report.released)
        plan = self.state.plan
        return ReplayReport(
            run_id=plan.run_id,
            topic=plan.topic,
            out=plan.out,
            since=plan.since,
            until=plan.until,
            resumed=resumed,
            finished=finished,
            totals=outbox.totals,
            per_s=(outbox.totals.replayed - self.state.totals.replayed) / elapsed_s,
            positions_left=0 if finished else reached.left,
        )

    def _loop(self, pipeline: Pipeline, outbox: RunOutbox, clock: Clock, recorder: Recorder) -> Loop:
        per_s, flow, kafka = self.order.per_s, self.settings.flow, self.settings.kafka
        source = self.source if per_s is None else PacedSource(self.source, Pace(per_s, clock))
        limits = LoopLimits(max(flow.max_in_flight, IN_FLIGHT), flow.resume_below, flow.drain_timeout_s)
        delivery = ExactlyOnce(source, outbox, interval_s=kafka.transaction_interval_s, max_messages=MESSAGES_AT_ONCE)
        return Loop(
            source, pipeline, delivery, serialise=outbox.serialise, limits=limits, clock=clock, recorder=recorder
        )

    def _route(self) -> Route:
        # The dead letters' name is only to tell them from verdicts: see RunOutbox.
        name = self.order.destination.topic or "replay"
        return Route(name, f"{name} dead letters", source_of(self.settings.service.name))

    def _written(self, reached: "_Reached", offsets: Mapping[Partition, int]) -> None:
        if self.order.destination.path is not None and reached.commit_is_due():
            # The file's state is what counts; this is for whoever watches the group's lag.
            self.source.commit(offsets)
        reached.advance(offsets)


class _Reached:
    """
    How many positions of a run are behind it, told as it grows.
    """

    def __init__(self, state: RunState, watch: ReplayWatch) -> None:
        self._watch = watch
        self._committed_s = time.monotonic()
        self._left = {number: stretch.end - stretch.start for number, stretch in state.left().items()}
        self._ends = {number: stretch.end for number, stretch in state.plan.stretches.items()}
        self._total = sum(stretch.end - stretch.start for stretch in state.plan.stretches.values())
        self.advance({})

    def commit_is_due(self) -> bool:
        """
        Whether the group's offsets were stored so long ago that it is worth a round trip.
        """
        now_s = time.monotonic()
        due = now_s - self._committed_s >= COMMIT_EVERY_S
        if due:
            self._committed_s = now_s
        return due

    @property
    def left(self) -> int:
        """
        Positions that are not behind it.
        """
        return sum(self._left.values())

    def advance(self, offsets: Mapping[Partition, int]) -> None:
        """
        These are the next offsets to read.
        """
        self._left |= {at.number: self._ends[at.number] - offset for at, offset in offsets.items()}
        self._watch.progress("replaying", self._total - self.left, self._total)
