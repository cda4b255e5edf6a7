"""
``touchstone bench latency``: how soon verdicts come while uploads arrive at shares of what a worker can do.

A real worker on real servers. Capacity is what it answers of uploads that lie there all at once; then they arrive at
random, in an open loop, at a share of it. Rounds of all loads take turns.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from worker.bench.arrivals import arrival_times
from worker.bench.latencies import Latencies
from worker.bench.measurement import Measured
from worker.bench.stress import Platform, StressFailed, StressPlan, StressRun, run_stress
from worker.bench.stress_result import Limits, StressResult, result_of
from worker.bench.stress_uploads import file_uploads, new_run
from worker.bench.targets import Target
from worker.bench.uploads import rate_of
from worker.errors import WorkerCrashed

SETTLE_S: Final = 0.5
TARGET_LOAD: Final = 0.5
TARGET_NOTE: Final = (
    "p99_of_target: against batch.deadline_ms and twice the encoding of a full micro-batch (target_p99_ms); "
    "p99_of_target_mean_batch: against the deadline and twice that of the mean micro-batch at that load"
)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """
    How much is measured: uploads of each burst and of each load, rounds, and shares of the capacity.

    With ``capacity_per_s`` no capacity is sought; bursts are still sent, for the time that a full micro-batch takes.
    """

    uploads: int = 300
    burst: int = 192
    rounds: int = 3
    loads: tuple[float, ...] = (0.5, 0.9)
    capacity_per_s: float | None = None
    patience_s: float = 60.0

    @property
    def runs(self) -> int:
        """
        Bursts and loads of all rounds.
        """
        return self.rounds * (1 + len(self.loads))


@dataclass(frozen=True, slots=True)
class AtLoad:
    """
    One round at one share of the capacity; ``batch_size`` and ``encode_ms`` are means over its micro-batches.

    ``in_worker`` are the latencies from the poll that brought an upload to the making of its verdict: what is above it
    in the result is Kafka's, and the wait of verdicts for others in their lines.
    """

    result: StressResult
    in_worker: Latencies
    batch_size: float
    encode_ms: float


@dataclass(slots=True)
class LatencyRounds:
    """
    What was found: capacities and times of full micro-batches by round, and the rounds of each load.
    """

    capacities: list[float] = field(default_factory=list)
    full_batch_ms: list[float] = field(default_factory=list)
    at_load: dict[float, list[AtLoad]] = field(default_factory=dict)


class LatencyBench:
    """
    Measures the worker behind ``platform``, whose file root is ``root``; ``pictures`` are JPEGs, which take turns.

    ``batch_size`` is the worker's. Every run is checked as by ``touchstone stress``: raises ``WorkerCrashed`` where an
    upload is not answered exactly once and in order, and ``StressFailed`` where uploads could not be sent in time.
    """

    def __init__(
        self, plan: LatencyPlan, platform: Platform, *, root: Path, pictures: Sequence[bytes], batch_size: int
    ) -> None:
        self._plan = plan
        self._platform = platform
        self._root = root
        self._pictures = pictures
        self._batch_size = batch_size

    def measured(self, progress: Progress) -> LatencyRounds:
        """
        All rounds; ``progress`` is told of each run.
        """
        plan, found, done = self._plan, LatencyRounds(), 0
        for number in range(plan.rounds):
            burst = self._run([0.0] * plan.burst)[0]
            made_s = [outcome.arrived_s for outcome in burst.outcomes]
            found.capacities.append(rate_of(made_s, began_s=burst.began_s))
            found.full_batch_ms.append(full_batch_ms(timings_of(burst), self._batch_size))
            progress("measured", done := done + 1, plan.runs)
            capacity = plan.capacity_per_s or found.capacities[-1]
            for load in plan.loads:
                times = arrival_times("poisson", rate=load * capacity, count=plan.uploads, seed=number)
                run, result = self._run(times)
                found.at_load.setdefault(load, []).append(_at_load(run, result))
                progress("measured", done := done + 1, plan.runs)
        return found

    def _run(self, times: Sequence[float]) -> tuple[StressRun, StressResult]:
        run = new_run()
        with tempfile.TemporaryDirectory(prefix=f"{run}-", dir=self._root) as folder:
            event_of = file_uploads(run, self._pictures, range(len(times)), Path(folder))
            plan = StressPlan(run, times, event_of, patience_s=self._plan.patience_s, settle_s=SETTLE_S)
            happened = run_stress(plan, self._platform)
        result = result_of(plan, happened, Limits())
        if result.broken:
            raise WorkerCrashed(f"no latency is told of such a run: {'; '.join(result.broken)}")
        if result.unfit:
            raise StressFailed(f"{'; '.join(result.unfit)}: ask for a lower --load, or leave the machine alone")
        return happened, result


def _at_load(run: StressRun, result: StressResult) -> AtLoad:
    timings = timings_of(run)
    in_worker = Latencies.of(float(one["total_ms"]) / 1000 for one in timings)
    return AtLoad(result, in_worker, mean_batch_size(timings), mean_encode_ms(timings))


def timings_of(run: StressRun) -> list[Mapping[str, Any]]:
    """
    What the verdicts of a run tell of their times.
    """
    return [outcome.timing for outcome in run.outcomes if outcome.end]


def full_batch_ms(timings: Sequence[Mapping[str, Any]], batch_size: int) -> float:
    """
    The encoder's milliseconds for a full micro-batch, the median over uploads; of the largest where none was full.

    Raises ``ValueError`` where nothing was encoded.
    """
    encoded = [one for one in timings if one.get("encode_ms") is not None and one.get("batch_size") is not None]
    if not encoded:
        raise ValueError("nothing was encoded in this run: every upload was known already")
    largest = max(min(int(one["batch_size"]), batch_size) for one in encoded)
    return median(float(one["encode_ms"]) for one in encoded if int(one["batch_size"]) >= largest)


def mean_batch_size(timings: Sequence[Mapping[str, Any]]) -> float:
    """
    Over micro-batches, not over uploads: a batch of ten is told by ten verdicts.
    """
    sizes = [int(one["batch_size"]) for one in timings if one.get("batch_size") is not None]
    return len(sizes) / sum(1 / size for size in sizes) if sizes else 0.0


def mean_encode_ms(timings: Sequence[Mapping[str, Any]]) -> float:
    """
    The encoder's milliseconds for a micro-batch, over micro-batches and not over uploads.

    Raises ``ValueError`` where nothing was encoded.
    """
    encoded = [
        (float(one["encode_ms"]), int(one["batch_size"]))
        for one in timings
        if one.get("encode_ms") is not None and one.get("batch_size") is not None
    ]
    if not encoded:
        raise ValueError("nothing was encoded in this run: every upload was known already")
    return sum(took_ms / size for took_ms, size in encoded) / sum(1 / size for _, size in encoded)


def target_ms(deadline_ms: float, encode_ms: float) -> float:
    """
    What the slowest of a hundred may take at half of the capacity: the deadline, and two micro-batches' encoding.

    Of full ones, as the target is told; or of those that there were at that load, which are smaller, and so is that.
    """
    return deadline_ms + 2 * encode_ms


def figures_of(rounds: LatencyRounds, deadline_ms: float) -> list[Measured]:
    """
    Every figure with its median and spread over the rounds.
    """
    figures = [
        Measured.of("capacity", "uploads/s", rounds.capacities),
        Measured.of("encode, full micro-batch", "ms", rounds.full_batch_ms),
    ]
    for load, found in rounds.at_load.items():
        at = f"at {load:.0%}"
        figures += [
            Measured.of(f"{name[:-3]} {at}", "ms", [getattr(one.result.latency, name) for one in found])
            for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")
        ]
        figures += [
            Measured.of(f"{name[:-3]} in the worker {at}", "ms", [getattr(one.in_worker, name) for one in found])
            for name in ("p50_ms", "p99_ms")
        ]
        figures += [
            Measured.of(f"micro-batch {at}", "uploads", [one.batch_size for one in found]),
            Measured.of(f"encode, mean micro-batch {at}", "ms", [one.encode_ms for one in found]),
            Measured.of(f"p99 of target {at}, full micro-batch", "ratio", quotients(rounds, load, deadline_ms)),
            Measured.of(f"p99 of target {at}, mean micro-batch", "ratio", mean_quotients(found, deadline_ms)),
        ]
    return figures


def quotients(rounds: LatencyRounds, load: float, deadline_ms: float) -> list[float]:
    """
    Each round's p99 over its target of full micro-batches; 1 or less is as asked.
    """
    return [
        (one.result.latency.p99_ms or 0.0) / target_ms(deadline_ms, full_ms)
        for one, full_ms in zip(rounds.at_load[load], rounds.full_batch_ms, strict=True)
    ]


def targets_of(rounds: LatencyRounds, deadline_ms: float) -> list[Target]:
    """
    The p99 at half of the capacity, as a share of what it may be; not measured where that load was not asked for.
    """
    measured = median(quotients(rounds, TARGET_LOAD, deadline_ms)) if TARGET_LOAD in rounds.at_load else None
    return [Target(f"p99_of_target at {TARGET_LOAD:.0%} load", 1.0, measured, at_least=False)]


def mean_quotients(found: Sequence[AtLoad], deadline_ms: float) -> list[float]:
    """
    Each round's p99 over what two of its own mean micro-batches and the deadline take: the stricter measure.
    """
    return [(one.result.latency.p99_ms or 0.0) / target_ms(deadline_ms, one.encode_ms) for one in found]


def summary_of(rounds: LatencyRounds, *, deadline_ms: float, batch_size: int) -> dict[str, object]:
    """
    The keys that come first in the object.
    """
    full_ms = median(rounds.full_batch_ms)
    loads = {
        f"{load:g}": {
            "p50_ms": _median(found, "p50_ms"),
            "p90_ms": _median(found, "p90_ms"),
            "p99_ms": _median(found, "p99_ms"),
            "max_ms": _median(found, "max_ms"),
            "batch_size": round(median(one.batch_size for one in found), 2),
            "encode_ms": round(median(one.encode_ms for one in found), 2),
            "p99_of_target": round(median(quotients(rounds, load, deadline_ms)), 4),
            "p99_of_target_mean_batch": round(median(mean_quotients(found, deadline_ms)), 4),
        }
        for load, found in rounds.at_load.items()
    }
    return {
        "capacity_per_s": round(median(rounds.capacities), 2),
        "batch_size": batch_size,
        "deadline_ms": deadline_ms,
        "encode_batch_ms": round(full_ms, 2),
        "target_p99_ms": round(target_ms(deadline_ms, full_ms), 2),
        "loads": loads,
    }


def _median(found: Sequence[AtLoad], name: str) -> float:
    found_ms: list[float] = [getattr(one.result.latency, name) for one in found]
    return round(median(found_ms), 2)
