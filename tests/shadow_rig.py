"""
A worker in memory with a candidate in its shadow, and what becomes of the candidate's verdicts.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from schemas.verdict import ImageVerdictV1
from tests.fake_encoder import FakeEncoder
from tests.loop_rig import Tuning, Worker, shipped_policy, small_bank
from tests.loop_seams import PATIENCE_S
from tests.loop_world import World, eventually
from worker.adapters.system_clock import SystemClock
from worker.domain import RawEvent, Sighting
from worker.errors import EventUnreadable
from worker.flow.bank_judge import BankJudge
from worker.flow.shadow import Candidate, Shadow, ShadowingJudge, ShadowLimits
from worker.flow.stage_set import StageSet
from worker.flow.travellers import Failed, Known
from worker.outcomes import Message, Outcome
from worker.stages.report import PolicyIdentity, RunVersions
from worker.stages.serialise import Route, to_message
from worker.telemetry.metrics import InMemoryRecorder

SHADOW_TOPIC = "shadow-verdicts"
RUN_ID = "candidate-7"
SHADOW_ROUTE = Route(verdicts=SHADOW_TOPIC, dead_letters="nowhere", source="urn:touchstone:worker:test", sampled_rate=3)

Done = Callable[[str | None], None]


class InMemoryShadowOutbox:
    """
    Implements ``worker.flow.shadow.ShadowOutbox``: answers at once, unless it is told to hold or to refuse.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.held: deque[Done] = deque()
        self.hold = False
        self.refusal: str | None = None
        self.fault: Exception | None = None
        self.gate: threading.Event | None = None
        self.closed = False

    def publish(self, message: Message, done: Done) -> None:
        """
        Keep the message, and answer as scripted.
        """
        if self.fault is not None:
            raise self.fault
        if self.gate is not None:
            self.gate.wait(PATIENCE_S)
        self.messages.append(message)
        if self.hold:
            self.held.append(done)
        else:
            done(self.refusal)

    def close(self) -> None:
        """
        Remember that it was closed.
        """
        self.closed = True

    def verdicts(self) -> list[ImageVerdictV1]:
        """
        What was published, in order.
        """
        return [ImageVerdictV1.model_validate_json(message.value) for message in self.messages]


class ScriptedJudge:
    """
    A candidate: the judge behind it, and what happens before it is asked.
    """

    def __init__(self, script: Callable[[Sequence[Known]], None] = lambda known: None) -> None:
        self.asked: list[str] = []
        self.seen: list[Known] = []
        self._script = script
        self._judge = a_candidate_judge()

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        What the judge behind it says, if the script lets it.
        """
        self.asked += [one.passenger.upload.data.content_id for one in known]
        self.seen += known
        self._script(known)
        return self._judge.judge(known)

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        Nobody asks a candidate.
        """
        raise AssertionError("the candidate was asked for its grey zone")

    def fail(self, failed: Failed) -> Outcome:
        """
        Nobody tells a candidate.
        """
        raise AssertionError("the candidate was told of a failure")

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        Nobody tells a candidate.
        """
        raise AssertionError("the candidate was told of a dead letter")


class ScriptedHang:
    """
    A script that does not return before ``release`` is called.
    """

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self._go_on = threading.Event()

    def __call__(self, known: Sequence[Known]) -> None:
        """
        Arrive, and hang.
        """
        assert known
        self.arrived.set()
        self._go_on.wait(PATIENCE_S)

    def release(self) -> None:
        """
        Let it go on.
        """
        self._go_on.set()


def a_candidate_judge() -> BankJudge:
    """
    The small bank and the shipped policy, as a candidate.
    """
    policy, bank = shipped_policy(), small_bank()
    versions = RunVersions(
        encoder=FakeEncoder().fingerprint,
        bank=bank.identity,
        policy=PolicyIdentity(policy.id, policy.version, policy.sha256),
        worker="0",
        decoders={},
        mode="shadow",
        run_id=RUN_ID,
    )
    return BankJudge(bank, policy, versions, SystemClock(), InMemoryRecorder())


def a_shadow(
    judge: ScriptedJudge,
    outbox: InMemoryShadowOutbox,
    recorder: InMemoryRecorder,
    limits: ShadowLimits = ShadowLimits(1.0, 1000),  # noqa: B008 - a frozen value
) -> Shadow:
    """
    A shadow around this candidate, not started.
    """
    candidate = Candidate(judge, partial(to_message, route=SHADOW_ROUTE))
    return Shadow(candidate, outbox, limits=limits, recorder=recorder)


class ShadowedWorker(Worker):
    """
    A worker whose live judge has a shadow, which ends with the world unless a test ends it before.
    """

    def __init__(
        self,
        world: World,
        candidate: ScriptedJudge,
        *,
        tuning: Tuning | None = None,
        limits: ShadowLimits = ShadowLimits(1.0, 1000),  # noqa: B008 - a frozen value
    ) -> None:
        self.shadow_outbox = InMemoryShadowOutbox()
        self.shadow_recorder = InMemoryRecorder()
        self.shadow = a_shadow(candidate, self.shadow_outbox, self.shadow_recorder, limits)
        super().__init__(world, tuning)
        self.shadow.start()
        world.closing.callback(self.shadow.close, 0.0)

    def _surrounded(self, stages: StageSet) -> StageSet:
        return replace(stages, judge=ShadowingJudge(stages.judge, self.shadow))

    def told(self, result: str) -> float:
        """
        How many uploads of the shadow came to this.
        """
        return self.shadow_recorder.snapshot().get(f'shadow_total{{result="{result}"}}', 0)

    def until_told(self, result: str, count: float) -> None:
        """
        Return when so many uploads of the shadow have come to this.
        """
        eventually(lambda: self.told(result) >= count)
