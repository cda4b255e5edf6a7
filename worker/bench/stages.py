"""
What each stage costs per upload: the product's own functions, one after the other, on the same uploads.

Which functions these are stands here; what they are called with is prepared in ``stage_inputs.py``, and the stages that
talk to servers are in ``stage_servers.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from worker.adapters.system_clock import SystemClock
from worker.bench.measurement import Measured, Took, interleaved, took_here
from worker.bench.stage_inputs import StageInputs
from worker.domain import BankIdentity, Embedding, Neighbourhood
from worker.flow.bank_judge import BankJudge
from worker.settings.tree import Settings
from worker.stages.fetch import fetch_upload
from worker.stages.intake import read_event
from worker.stages.match import find_neighbours
from worker.stages.preprocess import framed, resized
from worker.stages.serialise import Route, source_of, to_messages
from worker.telemetry.metrics import InMemoryRecorder

IN_ROOFLINE: Final = ("fetch", "decode", "encode", "search")
"""The work that no worker can leave out; fetching includes the hash, decoding the resize to the encoder's input."""


@dataclass(frozen=True, slots=True)
class Stage:
    """
    One stage: ``work`` handles ``uploads`` uploads each time that it is called.
    """

    name: str
    uploads: int
    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _FoundAlready:
    """
    A bank that was asked before: what is left of judging is deciding.
    """

    identity: BankIdentity
    found: Sequence[Neighbourhood]

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:  # noqa: ARG002 - the port's
        """
        The neighbourhoods that are known.
        """
        return self.found


def stages_of(inputs: StageInputs, settings: Settings) -> list[Stage]:
    """
    The stages that need no server, in the order of the way.
    """
    instruments, count = inputs.instruments, len(inputs.events)
    fetch = partial(fetch_upload, clock=SystemClock(), max_image_bytes=settings.fetch.max_image_bytes)
    parse = partial(read_event, max_event_bytes=settings.kafka.max_event_bytes)
    spec = instruments.encoder.fingerprint.preprocess
    embeddings = [sighting.embedding for sighting in inputs.sightings]
    bank, new_judge = instruments.bank, _judge_of(inputs)
    route = Route(
        verdicts=settings.kafka.topics.verdicts,
        dead_letters=settings.kafka.topics.dead_letters,
        source=source_of(settings.service.name),
    )
    return [
        Stage("parse", count, lambda: [parse(raw) for raw in inputs.events]),
        Stage("fetch", count, lambda: [fetch(upload, inputs.store) for upload in inputs.uploads]),
        Stage("hash", count, lambda: [fetch(one.upload, inputs.held) for one in inputs.fetched]),
        Stage("decode", count, lambda: [inputs.decode(one) for one in inputs.fetched]),
        Stage("preprocess", count, lambda: [framed(resized(one, spec), spec) for one in inputs.images]),
        Stage("encode", count, lambda: [instruments.encoder.encode(chunk) for chunk in inputs.batches]),
        Stage("search", count, lambda: find_neighbours(bank, embeddings, k=instruments.policy.rule.k)),
        Stage("decide", count, lambda: new_judge().judge(inputs.known)),
        Stage("serialise", count, lambda: [to_messages(one, route) for one in inputs.outcomes]),
    ]


def measured_stages(
    stages: Sequence[Stage], rounds: int, *, on_done: Callable[[str, int], None] = lambda *_: None
) -> dict[str, list[Took]]:
    """
    What each stage takes per upload, round by round, after one call of each that is not counted.
    """
    for stage in stages:
        stage.work()
    contenders = {stage.name: partial(_once, stage) for stage in stages}
    return interleaved(contenders, rounds, on_done=on_done)


def figures_of(found: Mapping[str, Sequence[Took]]) -> list[Measured]:
    """
    CPU and wall-clock milliseconds per upload of every stage.
    """
    figures = []
    for name, rounds in found.items():
        figures.append(Measured.of(f"{name}_cpu", "ms/upload", [one.cpu_s * 1000 for one in rounds]))
        figures.append(Measured.of(f"{name}_wall", "ms/upload", [one.wall_s * 1000 for one in rounds]))
    return figures


def best_costs(found: Mapping[str, Sequence[Took]], *, on_device: bool = False) -> dict[str, float]:
    """
    The CPU seconds per upload of the best round of every stage that the roofline is made of.

    ``on_device``: the encoder has a device of its own, and is none of them.
    """
    return {name: min(one.cpu_s for one in found[name]) for name in IN_ROOFLINE if not (on_device and name == "encode")}


def best_device_s(found: Mapping[str, Sequence[Took]], *, on_device: bool) -> float | None:
    """
    What an encoder with a device of its own took for an upload in its best round, by the clock; None without one.
    """
    return min(one.wall_s for one in found["encode"]) if on_device else None


def _once(stage: Stage) -> Took:
    return took_here(stage.work).per(stage.uploads)


def _judge_of(inputs: StageInputs) -> Callable[[], BankJudge]:
    """
    Makes a judge that has judged nothing yet: one that has would only look up what it said of these.
    """
    instruments = inputs.instruments
    bank = _FoundAlready(instruments.bank.identity, inputs.neighbourhoods)
    versions, clock, recorder = instruments.versions("live"), SystemClock(), InMemoryRecorder()
    return lambda: BankJudge(bank, instruments.policy, versions, clock, recorder, fitted=instruments.fitted)
