"""
A replay from start to end: the live worker's own stages over a fixed range, into a run that can be resumed.

The composition of it; what a run is stands in ``worker/flow/replay_run.py``, what was known before in ``earlier.py``.
"""

import gc
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
from worker.adapters.kafka_run import KafkaRun
from worker.adapters.kafka_run_state import run_group
from worker.adapters.kafka_topics import topics_of
from worker.adapters.run_file import RunFile
from worker.adapters.system_clock import SystemClock
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.app import running_pipeline
from worker.decoding.process_decoder import close_decoder
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
from worker.replay.bounds import parse_bound, require_forward
from worker.replay.destination import require_apart
from worker.replay.earlier import memories_of
from worker.replay.order import ReplayOrder, ReplayReport, ReplayWatch, in_flight_limit
from worker.replay.pace import Pace, PacedSource
from worker.replay.reached import Reached
from worker.replay.run_outbox import RunOutbox
from worker.replay.untouched import NoStore
from worker.settings.tree import KafkaSettings, Settings
from worker.stages.report import RunVersions
from worker.stages.serialise import Route, source_of
from worker.telemetry.metrics import InMemoryRecorder

MESSAGES_AT_ONCE: Final = 1_000

log = structlog.get_logger(__name__)


def replay_uploads(settings: Settings, order: ReplayOrder, watch: ReplayWatch) -> ReplayReport:
    """
    Replay a range, or go on with a run that was begun.

    Raises ``ConfigInvalid`` for an order that contradicts itself or the run it resumes, ``CannotStart`` for what is
    missing, and what ``Loop.run`` raises: the run can be resumed then.
    """
    require_apart(order.destination, order.topic, settings.kafka.topics, promote=order.promote)
    require_forward(order.since, order.until)
    recorder = InMemoryRecorder()
    run_id = order.run_id or _new_run_id()
    with ExitStack() as stack:
        output = _output(settings.kafka, order, run_id, recorder)
        stack.callback(output.close)
        found = output.find(order.run_id)
        if found is not None and found.finished:
            raise ConfigInvalid(f"run {run_id} is finished, with {found.totals.replayed} verdicts; leave out --run-id")
        instruments = open_instruments(settings, recorder)
        stack.callback(close_decoder, instruments.decoder)
        versions = replace(instruments.versions("replay"), run_id=run_id)
        lag_group = _lag_group(settings.kafka, order, run_id)
        source = KafkaRangeSource(settings.kafka, order.topic, group_id=lag_group, client_id=f"replay-{run_id}")
        stack.callback(source.close)
        plan = _plan(order, found, source, run_id, _names_of(versions))
        if _is_empty(plan):
            advice = "the run ends at once; give other --from and --to, or another --topic, if uploads were meant"
            log.warning("replay.empty_range", topic=plan.topic, since=plan.since, until=plan.until, advice=advice)
        # Now that nothing refuses the run: until here nothing was made or written.
        _ensure_output(settings.kafka, order)
        state = output.begin(plan) if found is None else output.resume(found)
        watch.on_run(run_id, found is not None)
        memories = stack.enter_context(
            memories_of(settings, instruments, plan, write_cache=order.write_cache, progress=watch.progress)
        )
        # Nothing can be put off here, and nobody else waits for the threads: a busy host is waited for.
        patient = settings.fetch.model_copy(update={"host_wait_s": settings.fetch.total_timeout_s})
        store = build_image_store(patient, recorder) if order.fetch else NoStore()
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
    return KafkaRun(_writing_to(settings, name), run_id, recorder, SystemClock())


def _writing_to(settings: KafkaSettings, name: str | None) -> KafkaSettings:
    # One name for both: a replay's dead letters are counted, and never sent.
    topics = settings.topics.model_copy(update={"verdicts": name, "dead_letters": name})
    return settings.model_copy(update={"topics": topics})


def _lag_group(settings: KafkaSettings, order: ReplayOrder, run_id: str) -> str:
    """
    The group that shows how far the reading is. A file's is not the one in which a topic's run of that name is kept.
    """
    return f"{run_group(settings, run_id)}{'' if order.destination.path is None else '.file'}"


def _ensure_output(settings: KafkaSettings, order: ReplayOrder) -> None:
    """
    A topic to write to exists, else it is made as a verdict topic is, with as many partitions as what is replayed.
    """
    name, like = order.destination.topic, order.topic
    if name is None:
        return
    settings = _writing_to(settings, name)
    with topics_of(settings) as topics:
        found = topics.find([name, like])
        if name in found or like not in found:
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


def _is_empty(plan: RunPlan) -> bool:
    return all(stretch.start >= stretch.end for stretch in plan.stretches.values())


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
        reached = Reached(self.state, watch.progress, clock)
        written = partial(self._written, reached)
        outbox = RunOutbox(self.output, self._route(), self.state.totals, on_written=written, failures=watch.failures)
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
            reached.end()
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
            positions_left=reached.left,
            failures_by_code=watch.failures.by_code,
            empty_range=_is_empty(plan),
        )

    def _loop(self, pipeline: Pipeline, outbox: RunOutbox, clock: Clock, recorder: Recorder) -> Loop:
        per_s, flow, kafka = self.order.per_s, self.settings.flow, self.settings.kafka
        source = self.source if per_s is None else PacedSource(self.source, Pace(per_s, clock))
        in_flight = in_flight_limit(flow.max_in_flight, fetch=self.order.fetch)
        limits = LoopLimits(in_flight, flow.resume_below, flow.drain_timeout_s)
        # What waits to be written is under way as well: at half of the limit the stages still have something to do.
        at_once = max(1, min(MESSAGES_AT_ONCE, in_flight // 2))
        delivery = ExactlyOnce(source, outbox, interval_s=kafka.transaction_interval_s, max_messages=at_once)
        return Loop(
            source, pipeline, delivery, serialise=outbox.serialise, limits=limits, clock=clock, recorder=recorder
        )

    def _route(self) -> Route:
        # The dead letters' name is only to tell them from verdicts: see RunOutbox.
        name = self.order.destination.topic or "replay"
        return Route(name, f"{name} dead letters", source_of(self.settings.service.name))

    def _written(self, reached: Reached, offsets: Mapping[Partition, int]) -> None:
        if self.order.destination.path is not None and reached.commit_is_due():
            # The file's state is what counts; this is for whoever watches the group's lag.
            self.source.commit(offsets)
        reached.advance(offsets)
