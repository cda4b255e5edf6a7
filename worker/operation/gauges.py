"""
The gauges of a running worker, read off its parts at the moment of a scrape.

Pure: nothing is asked that could block the worker or wait for anybody else.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from schemas import SCHEMA_VERSION
from worker import __version__
from worker.domain import Partition
from worker.flow.progress import LoopProgress, PipelineLoad
from worker.operation.bank_in_use import BankInUse
from worker.operation.bank_status import BankStatus
from worker.ports import Standing
from worker.telemetry.drift import Drift
from worker.telemetry.prometheus import Reading


class WatchedLoop(Protocol):
    """
    What is read off the loop.
    """

    def progress(self) -> LoopProgress:
        """
        How things stood after its last step.
        """


class WatchedPipeline(Protocol):
    """
    What is read off the pipeline.
    """

    def load(self) -> PipelineLoad:
        """
        What waits and what is held.
        """


@dataclass(frozen=True, slots=True)
class Watched:
    """
    The parts of a worker that runs; ``standing`` is that of its source.

    ``unacknowledged_s``: for how many seconds the oldest published outcome has waited for its acknowledgement.
    """

    loop: WatchedLoop
    pipeline: WatchedPipeline
    standing: Callable[[], Standing]
    unacknowledged_s: Callable[[], float] = float


def build_readings(*, group: str) -> Iterator[Reading]:
    """
    Which program this is, and the consumer group that it works for.
    """
    yield Reading("build_info", 1, {"group": group, "version": __version__, "schema": SCHEMA_VERSION})


def worker_readings(watched: Watched, *, now_s: float) -> Iterator[Reading]:
    """
    How the flow stands at ``now_s``, in seconds since the epoch.
    """
    progress, load, standing = watched.loop.progress(), watched.pipeline.load(), watched.standing()
    yield Reading("paused", float(progress.paused))
    yield Reading("draining", float(progress.draining))
    yield Reading("in_flight", progress.in_flight)
    yield Reading("in_flight_bytes", load.held_bytes)
    yield Reading("dead_letters_withheld", progress.withheld)
    yield Reading("encoder_utilisation", load.encoder_share)
    for stage, waiting in load.waiting.items():
        yield Reading("queue_depth", waiting, {"stage": stage})
    for partition, lag in standing.lag.items():
        if lag is not None:
            yield Reading("consumer_lag", lag, _names(partition))
    for partition in sorted({*standing.lag, *progress.oldest_received_s}):
        received_s = progress.oldest_received_s.get(partition)
        age_s = 0.0 if received_s is None else max(0.0, now_s - received_s)
        yield Reading("oldest_uncommitted_seconds", age_s, _names(partition))


def bank_readings(bank: BankInUse, drift: Iterable[Drift], *, group: str, now_s: float) -> Iterator[Reading]:
    """
    Which bank judges for a group, how old it is, and how far the uploads are from its calibration.
    """
    identity = bank.identity
    names = {"bank": identity.id, "version": identity.version, "manifest": identity.manifest_sha256}
    yield Reading("bank_info", 1, {"group": group, **names})
    if identity.made_s is not None:
        yield Reading("bank_age_seconds", max(0.0, now_s - identity.made_s))
    for quantile, score in bank.score_quantiles:
        yield Reading("calibration_score_quantile", score, {"quantile": f"{quantile:g}"})
    for one in drift:
        yield Reading("drift_samples", one.samples, {"of": one.of})
        if one.ks is not None:
            yield Reading("drift_ks", one.ks, {"of": one.of})


def release_readings(status: BankStatus | None, *, group: str) -> Iterator[Reading]:
    """
    Whether what was announced is refused, or cannot be looked up; never so without releases to follow, as ``None``.
    """
    refused = status is not None and status.last_refusal is not None
    yield Reading("bank_refused", float(refused), {"group": group})


def _names(partition: Partition) -> dict[str, str]:
    return {"topic": partition.topic, "partition": str(partition.number)}
