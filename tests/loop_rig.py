"""
A whole worker over Kafka in memory: loop, pipeline and real stages, with a small encoder and a small bank.

A test steps the loop by hand, or starts it in a thread of its own. What the worker works on is in ``tests.loop_world``,
what can be made to happen to it in ``tests.loop_seams``.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np

from tests.bank_builders import GENERATED, REAL, a_picture, a_stored_bank
from tests.brute_force_bank import BruteForceBank
from tests.builders import MAX_EVENT_BYTES
from tests.conftest import ROOT
from tests.fake_encoder import FakeEncoder, fake_decoder
from tests.fakes_cache import InMemoryCache
from tests.loop_seams import PATIENCE_S, Seams
from tests.loop_watched import watched, watched_serialise
from tests.loop_world import DEAD_LETTERS, RETRIES, VERDICTS, WatchedOutbox, WatchedSource, World
from tests.pictures import ANY_HASH
from worker.adapters.image_places import place_of
from worker.adapters.sighting_codec import SightingScope
from worker.flow.bank_judge import BankJudge
from worker.flow.bell import Bell
from worker.flow.delivery import AtLeastOnce, Delivery, ExactlyOnce
from worker.flow.loop import Loop, LoopLimits, LoopReport
from worker.flow.pipeline import Pipeline
from worker.flow.retrying import NO_RETRIES, Retries
from worker.flow.stage_set import PipelineLimits, StageSet
from worker.flow.storm import NO_LIMITS, StormLimits
from worker.operation.tracing import Tracing
from worker.policy import Policy, load_policy
from worker.ports import EmbeddingCache, EventSource, Outbox
from worker.settings.images import FetchSettings
from worker.spans import UNTRACED, Tracer
from worker.stages.fetch import fetch_upload
from worker.stages.intake import read_event
from worker.stages.report import PolicyIdentity, RunVersions
from worker.stages.serialise import Route, to_messages
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, ViewSpec

ROUTE = Route(verdicts=VERDICTS, dead_letters=DEAD_LETTERS, source="urn:touchstone:worker:test", retries=RETRIES)
MAX_IMAGE_BYTES = 1 << 20
OWN_HOST = "images.ours.example"
NAMING_ONE = FetchSettings(own_hosts=(OWN_HOST,))
KNOWN_REAL, KNOWN_GENERATED = 7_001, 7_101
"""Seeds of the first picture of each label in the bank; eight follow of each."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """
    How one worker is set up; ``interval_s`` is that of commits or of transactions.
    """

    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    fetch_threads: int = 4
    decode_threads: int = 2
    batch_size: int = 4
    batch_deadline_s: float = 0.002
    max_in_flight: int = 64
    resume_below: float = 0.75
    max_bytes: int = 1 << 24
    recent_embeddings: int = 64
    drain_timeout_s: float = PATIENCE_S
    interval_s: float = 0.0
    max_messages: int = 100
    cached: bool = True
    views: ViewSpec = GLOBAL_ONLY
    retries: Retries = NO_RETRIES
    storm: StormLimits = NO_LIMITS
    encode_threads: int = 1
    share_batches: bool = True


@cache
def small_bank() -> BruteForceBank:
    """
    Eight pictures of each label.
    """
    encoder, decoder = FakeEncoder(), fake_decoder()
    features = {
        label: encoder.encode([decoder.decode(a_picture(first + at), ANY_HASH).pixels for at in range(8)])
        for label, first in ((REAL, KNOWN_REAL), (GENERATED, KNOWN_GENERATED))
    }
    return BruteForceBank(a_stored_bank({label: np.asarray(rows) for label, rows in features.items()}))


@cache
def shipped_policy() -> Policy:
    """
    The policy that ships.
    """
    return load_policy(ROOT / "config" / "policy.toml")


class Run:
    """
    A loop running in a thread of its own.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._ended: Future[LoopReport] = Future()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._ended.set_result(self.loop.run())
        except BaseException as fault:  # noqa: BLE001 - it is told to the test
            self._ended.set_exception(fault)

    def report(self) -> LoopReport:
        """
        What the run amounted to, when it has ended well.
        """
        return self._ended.result(PATIENCE_S)

    def fault(self) -> BaseException:
        """
        What broke it.
        """
        fault = self._ended.exception(PATIENCE_S)
        assert fault is not None, "the run ended well"
        return fault

    def drained(self) -> LoopReport:
        """
        What the run amounted to, after it was told to drain.
        """
        self.loop.drain()
        return self.report()


class Worker:
    """
    One worker in a world, its pipeline's threads running; in exactly-once mode ``name`` is its transactional id.
    """

    def __init__(
        self,
        world: World,
        tuning: Tuning | None = None,
        *,
        name: str = "one",
        cache: EmbeddingCache | None = None,
        tracer: Tracer = UNTRACED,
        bell: Bell | None = None,
    ) -> None:
        self.bell = bell
        self.tracing = Tracing(tracer)
        self.tuning = tuning or Tuning()
        self.world = world
        self.seams = Seams()
        self.recorder = InMemoryRecorder()
        self.encoder = FakeEncoder()
        self.source = WatchedSource(world)
        exactly_once = self.tuning.delivery == "exactly_once"
        self.outbox = WatchedOutbox(world, transactional_id=name if exactly_once else None)
        if cache is None and self.tuning.cached:
            scope = SightingScope.of(self.encoder.fingerprint, perceptual_hash=False, views=self.tuning.views)
            cache = InMemoryCache(scope, kept=world.kept)
        stages = self._stages(cache)
        self.pipeline = Pipeline(
            self._surrounded(watched(stages, self.seams)),
            self._pipeline_limits(),
            clock=world.clock,
            recorder=self.recorder,
            tracer=tracer,
            bell=bell,
        )
        self.loop = self._loop()
        self.pipeline.start()
        world.closing.callback(self._close)

    def _stages(self, cache: EmbeddingCache | None) -> StageSet:
        world, policy, bank = self.world, shipped_policy(), small_bank()
        versions = RunVersions(
            encoder=self.encoder.fingerprint,
            bank=bank.identity,
            policy=PolicyIdentity(policy.id, policy.version, policy.sha256),
            worker="0",
            decoders={},
        )
        return StageSet(
            read_event=partial(read_event, max_event_bytes=MAX_EVENT_BYTES),
            fetch=partial(fetch_upload, store=world.shelf, clock=world.clock, max_image_bytes=MAX_IMAGE_BYTES),
            cache=cache,
            decoder=fake_decoder(self.tuning.views),
            encoder=self.encoder,
            judge=BankJudge(bank, policy, versions, world.clock, self.recorder),
            views=self.tuning.views,
            place_of=partial(place_of, settings=NAMING_ONE),
        )

    def _surrounded(self, stages: StageSet) -> StageSet:
        """
        The watched stages, with whatever a worker of another kind puts around them.
        """
        return stages

    def _pipeline_limits(self) -> PipelineLimits:
        tuning = self.tuning
        return PipelineLimits(
            fetch_threads=tuning.fetch_threads,
            decode_threads=tuning.decode_threads,
            batch_size=tuning.batch_size,
            batch_deadline_s=tuning.batch_deadline_s,
            max_bytes=tuning.max_bytes,
            recent_embeddings=tuning.recent_embeddings,
            retries=tuning.retries,
            encode_threads=tuning.encode_threads,
            share_batches=tuning.share_batches,
        )

    def _loop(self) -> Loop:
        tuning, tracing = self.tuning, self.tracing
        source, outbox = tracing.source(self.source), tracing.outbox(self.outbox)
        return Loop(
            source,
            self.pipeline,
            delivery_of(tuning, source, outbox),
            serialise=watched_serialise(partial(to_messages, route=ROUTE), self.seams),
            limits=LoopLimits(tuning.max_in_flight, tuning.resume_below, tuning.drain_timeout_s, tuning.storm),
            clock=self.world.clock,
            recorder=self.recorder,
            tracer=tracing.tracer,
            bell=self.bell,
        )

    def start(self) -> Run:
        """
        Run the loop in a thread of its own.
        """
        return Run(self.loop)

    def step_until(self, condition: Callable[[], bool]) -> None:
        """
        Step the loop by hand until ``condition`` has come true.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_s, "it never came true"
            self.loop.step()

    def finish(self) -> LoopReport:
        """
        Step until all is answered and committed, then drain and leave the group.
        """
        self.step_until(lambda: self.world.all_answered() and self.world.all_committed())
        self.loop.drain()
        report = self.loop.run()
        self.source.close()
        return report

    def vanish(self) -> None:
        """
        Die without a word: nothing is committed, and the group finds out by itself.
        """
        self.world.kafka.outboxes.remove(self.outbox)
        self.world.kafka.group.expel(self.source.member)

    def counted(self, key: str) -> float:
        """
        A metric by the name under which Prometheus would know it.
        """
        return self.recorder.snapshot().get(key, 0)

    def _close(self) -> None:
        self.seams.open_all()
        self.pipeline.close(PATIENCE_S)
        self.tracing.end()


def delivery_of(tuning: Tuning, source: EventSource, outbox: Outbox) -> Delivery:
    """
    The promise that a worker is set up with.
    """
    if tuning.delivery == "exactly_once":
        return ExactlyOnce(source, outbox, interval_s=tuning.interval_s, max_messages=tuning.max_messages)
    return AtLeastOnce(source, outbox, commit_interval_s=tuning.interval_s)
