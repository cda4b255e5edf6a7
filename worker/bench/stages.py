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
from worker.decoders import open_decoder_of, resizer_of
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
"""
The stages that the roofline is made of; fetching includes the hash, decoding the resize to the encoder's input.

As a worker runs them, decoding also finds the perceptual hash and reads content credentials, which a worker could leave
out: the roofline takes it without them (``decode_bare``).
"""

SMALLER_BATCHES: Final = (8, 16, 32)
"""
Encoding is also measured in batches of these sizes, where ``batch.size`` is larger: the full one need not be cheapest.
"""

_INSTEAD: Final[Mapping[str, Sequence[str]]] = {
    "decode": ("decode_bare",),
    "encode": tuple(f"encode_{size}" for size in SMALLER_BATCHES),
}
"""Which other stages do the same needed work: the cheapest of them all is in the roofline."""


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
    resizer = resizer_of(spec)
    embeddings = [sighting.embedding for sighting in inputs.sightings]
    bank, new_judge = instruments.bank, _judge_of(inputs)
    bare_only = settings.decode.model_copy(update={"perceptual_hash": False, "credentials": False})
    bare = open_decoder_of(settings.model_copy(update={"decode": bare_only}), spec, instruments.views)
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
        Stage("decode_bare", count, lambda: [bare.decode(one.data, one.content_hash) for one in inputs.fetched]),
        Stage("preprocess", count, lambda: [framed(resized(one, spec, None, resizer), spec) for one in inputs.images]),
        Stage("encode", count, lambda: [instruments.encoder.encode(chunk) for chunk in inputs.batches]),
        *_encoding_in_smaller_batches(inputs, settings.batch.size),
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
    The CPU seconds per upload of the best round of every stage that the roofline is made of, in the cheapest way.

    That is decoding without hash and credentials, and encoding in the batch size that costs least, where these were
    measured. ``on_device``: the encoder has a device of its own, and is none of them.
    """
    return {
        name: min(one.cpu_s for one in _all_ways(found, name))
        for name in IN_ROOFLINE
        if not (on_device and name == "encode")
    }


def with_facts(found: Mapping[str, Sequence[Took]], costs: Mapping[str, float]) -> dict[str, float]:
    """
    These best costs, but with all of decoding as the worker is configured, perceptual hash and credentials included.
    """
    return {**costs, "decode": min(one.cpu_s for one in found["decode"])}


def facts_cost_s(found: Mapping[str, Sequence[Took]]) -> float | None:
    """
    What perceptual hash and content credentials add to decoding an upload, best round to best round; None unmeasured.
    """
    if "decode_bare" not in found:
        return None
    full_s, bare_s = (min(one.cpu_s for one in found[name]) for name in ("decode", "decode_bare"))
    return full_s - bare_s


def best_device_s(found: Mapping[str, Sequence[Took]], *, on_device: bool) -> float | None:
    """
    What an encoder with a device of its own took for an upload in its best round, by the clock; None without one.
    """
    return min(one.wall_s for one in _all_ways(found, "encode")) if on_device else None


def takes_part(name: str) -> bool:
    """
    Whether the roofline looks at a stage of this name.
    """
    return name in IN_ROOFLINE or any(name in others for others in _INSTEAD.values())


def _all_ways(found: Mapping[str, Sequence[Took]], name: str) -> list[Took]:
    """
    The rounds of a stage, and of those that do its needed work in another way.
    """
    return [*found[name], *(one for other in _INSTEAD.get(name, ()) for one in found.get(other, ()))]


def _encoding_in_smaller_batches(inputs: StageInputs, batch_size: int) -> list[Stage]:
    views = [view for batch in inputs.batches for view in batch]
    encode, count = inputs.instruments.encoder.encode, len(inputs.events)

    def work(size: int) -> None:
        for start in range(0, len(views), size):
            encode(views[start : start + size])

    return [Stage(f"encode_{size}", count, partial(work, size)) for size in SMALLER_BATCHES if size < batch_size]


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
