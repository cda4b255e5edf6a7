"""
From the rounds of all lanes to the figures of ``touchstone bench e2e``: rates, ratios, the roofline and the overhead.

Pure: what was measured comes in as numbers. How it is measured is in ``e2e.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Final

from worker.bench.live import Round
from worker.bench.measurement import Measured, Took, ratios
from worker.bench.memory import MEBI, Held, growth_per, held_by, tree_of
from worker.bench.peer import PeerRound
from worker.bench.roofline import overhead_ms, roofline_fraction, roofline_per_s
from worker.bench.stages import IN_ROOFLINE, best_costs, best_device_s, facts_cost_s, with_facts
from worker.bench.targets import Target

ROOFLINE_SHARE: Final = 0.9
MOST_OVERHEAD_MS: Final = 0.5
CACHED_PER_S: Final = 3000.0
TIMES_NAIVE: Final = 4.5
TIMES_NAIVE_BEST: Final = 6.0
"""With the best backend; the former with torch alone."""

TARGET_MODEL: Final = "ViT-B-32"
TARGET_CORES: Final = 2
TARGET_REFERENCES: Final = 10_000
"""What the rates among these targets were set for."""

MEMORY_GROWTH: Final = "memory_growth_mib_per_100k"
MEMORY_NOTE: Final = (
    "memory: of the worker and its decoders after memory_uploads uploads, new and known ones mixed; the growth is that "
    "of private memory from the second round on, null with too few rounds"
)


@dataclass(slots=True)
class Rounds:
    """
    All rounds of one run, by lane, as they come; ``ready`` are the lanes that have answered.

    ``peer`` has rounds where a peer takes part. ``stages``, those of the light lane and those of the cached one are by
    stage, per upload.
    ``light`` is the lane of tiny new pictures and a small encoder, ``cached`` that of bytes that Redis knows,
    ``recent`` that of bytes that the worker itself remembers.
    """

    lanes: dict[str, list[Round]] = field(default_factory=dict)
    peer: list[PeerRound] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    stages: dict[str, list[Took]] = field(default_factory=dict)
    light_stages: dict[str, list[Took]] = field(default_factory=dict)
    cached_stages: dict[str, list[Took]] = field(default_factory=dict)
    memory: list[tuple[int, Held]] = field(default_factory=list)
    """How many uploads the worker had answered, and what it and its decoders held then, after each of its rounds."""

    def look_at_memory(self, uploads: int, pid: int) -> None:
        """
        One more sample, after so many more uploads.
        """
        before = self.memory[-1][0] if self.memory else 0
        self.memory.append((before + uploads, held_by(tree_of(pid))))

    def add(self, lane: str, one: Round) -> None:
        """
        One more round of a lane.
        """
        self.lanes.setdefault(lane, []).append(one)

    def rates(self, lane: str) -> list[float]:
        """
        Uploads per second in each round of a lane.
        """
        return [one.per_s for one in self.lanes[lane]]

    def cpu_s(self, lane: str) -> list[float]:
        """
        CPU seconds of the lane's process per upload, in each round.
        """
        return [one.cpu_s for one in self.lanes[lane]]


def summary_of(
    rounds: Rounds, figures: Sequence[Measured], *, cores: int, on_device: bool = False
) -> dict[str, object]:
    """
    The keys that come first: medians, and the roofline from the best round of every stage.

    ``roofline_fraction`` = images_per_s of whole rounds x (sum of the best measured CPU seconds of fetch, decode,
    encode and search, per upload) / cores: what share of these cores' time went into work that cannot be left out.
    Decoding is without perceptual hash and content credentials, whose cost is ``facts_ms_per_upload``, and encoding in
    the cheapest of the measured batch sizes. ``_by_cpu`` is the same with the CPU time that the worker took in place of
    the clock, which others on the machine hardly change, ``_with_facts`` with all of decoding as configured, and
    ``_steady`` that of the part of a round in which the worker was full. The target is held against the first, in which
    a round is filled and runs dry: uploads wait for that, too.
    ``on_device``: the encoder has a device of its own. The limit is then the slower of that device and the cores with
    the other three stages, and there is no share by CPU time.

    ``overhead_ms_per_upload`` = CPU time of the worker with its decoders per upload, less the four stages as a worker
    runs them, hash and credentials within decoding, measured in the same round. It is taken from the lane of tiny new
    pictures and a small encoder, whose uploads go all the way that any new upload goes, inter-process decoding and
    micro-batches included; beside a large encoder it would drown in that encoder's noise.
    ``overhead_cached_ms_per_upload`` is that of uploads that Redis knows.
    """
    by_name = {one.name: one.median for one in figures}
    costs = best_costs(rounds.stages, on_device=on_device)
    device_s = best_device_s(rounds.stages, on_device=on_device)
    cpu_s = median(rounds.cpu_s("worker"))
    fraction = partial(roofline_fraction, cores=cores, device_s=device_s)
    steady_per_s = by_name.get("steady_images_per_s")
    return {
        "images_per_s": by_name["images_per_s"],
        "naive_images_per_s": by_name.get("naive_images_per_s"),
        "ratio_to_naive": by_name.get("ratio_to_naive"),
        "roofline_fraction": fraction(by_name["images_per_s"], costs),
        "overhead_ms_per_upload": by_name["overhead_ms_per_upload"],
        "cached_per_s": by_name["cached_per_s"],
        "ratio_to_naive_by_cpu": by_name.get("ratio_to_naive_by_cpu"),
        "batched_naive_images_per_s": by_name.get("batched_naive_images_per_s"),
        "ratio_to_batched_naive": by_name.get("ratio_to_batched_naive"),
        "peer_images_per_s": by_name.get("peer_images_per_s"),
        "ratio_to_peer": by_name.get("ratio_to_peer"),
        "ratio_to_peer_by_cpu": by_name.get("ratio_to_peer_by_cpu"),
        "roofline_images_per_s": roofline_per_s(costs, cores, device_s=device_s),
        "roofline_fraction_by_cpu": None if on_device else sum(costs.values()) / cpu_s,
        "roofline_fraction_with_facts": fraction(by_name["images_per_s"], with_facts(rounds.stages, costs)),
        "steady_images_per_s": steady_per_s,
        "roofline_fraction_steady": None if steady_per_s is None else fraction(steady_per_s, costs),
        "cores_idle": by_name["cores_idle"],
        "first_verdict_s": by_name["first_verdict_s"],
        "overhead_cached_ms_per_upload": by_name["overhead_cached_ms_per_upload"],
        "stage_costs_ms": {name: cost_s * 1000 for name, cost_s in costs.items()},
        "facts_ms_per_upload": None if (facts_s := facts_cost_s(rounds.stages)) is None else facts_s * 1000,
        "recent_per_s": by_name["recent_per_s"],
        "cached_from": _cached_from(rounds.lanes["cached"]),
        **memory_told(rounds.memory, rounds=len(rounds.lanes["worker"])),
    }


def memory_told(samples: Sequence[tuple[int, Held]], *, rounds: int) -> dict[str, object]:
    """
    What the worker holds after all, and how fast that grows; None where nothing was looked at, or in too few rounds.

    Growth is of the private memory, from the second round on: in the first, pools and caches fill.
    """
    if not samples:
        return {"memory_mib": None, "memory_private_mib": None, MEMORY_GROWTH: None, "memory_uploads": 0}
    later = samples[len(samples) // rounds :]
    growth = growth_per(100_000, [(at, held.private_bytes / MEBI) for at, held in later])
    uploads, last = samples[-1]
    return {
        "memory_mib": last.resident_bytes / MEBI,
        "memory_private_mib": last.private_bytes / MEBI,
        MEMORY_GROWTH: growth,
        "memory_uploads": uploads,
    }


def targets_of(summary: Mapping[str, Any], *, on_device: bool) -> list[Target]:
    """
    What the end-to-end figures were to be; rates are judged on the machine and the model that they were set for.
    """
    small = summary["cores"] == TARGET_CORES and not on_device
    pictures = None if small and summary["model"] == TARGET_MODEL else f"{TARGET_MODEL} on {TARGET_CORES} CPU cores"
    known = (
        None
        if small and summary["references"] == TARGET_REFERENCES
        else f"a bank of {TARGET_REFERENCES:,} on {TARGET_CORES} CPU cores"
    )
    times = TIMES_NAIVE if summary["backend"] == "torch" else TIMES_NAIVE_BEST
    return [
        Target("ratio_to_naive", times, summary["ratio_to_naive"], given=pictures),
        Target("roofline_fraction", ROOFLINE_SHARE, summary["roofline_fraction"]),
        Target("overhead_ms_per_upload", MOST_OVERHEAD_MS, summary["overhead_ms_per_upload"], at_least=False),
        Target("cached_per_s", CACHED_PER_S, summary["cached_per_s"], given=known),
    ]


def figures_of(rounds: Rounds, *, cores: int, window: int) -> list[Measured]:
    """
    Every figure with its spread over the rounds; ``window`` is how many uploads the worker takes at once.
    """
    rates = {lane: rounds.rates(lane) for lane in rounds.lanes}
    worker = rounds.lanes["worker"]
    figures = [
        Measured.of("images_per_s", "uploads/s", rates["worker"]),
        Measured.of("cores_idle", "share", [one.idle(cores) for one in worker]),
        Measured.of("first_verdict_s", "s", [one.first_s for one in worker]),
    ]
    steady = [per_s for one in worker if (per_s := one.steady_per_s(window)) is not None]
    if steady:
        figures.append(Measured.of("steady_images_per_s", "uploads/s", steady))
    for lane, prefix in (("naive", "naive"), ("batched", "batched_naive")):
        if lane in rates:
            figures += [
                Measured.of(f"{prefix}_images_per_s", "uploads/s", rates[lane]),
                Measured.of(f"ratio_to_{prefix}", "times", ratios(rates["worker"], rates[lane])),
                Measured.of(f"ratio_to_{prefix}_by_cpu", "times", ratios(rounds.cpu_s(lane), rounds.cpu_s("worker"))),
            ]
    if rounds.peer:
        peer_s = [one.cpu_s / one.images for one in rounds.peer]
        figures += [
            Measured.of("peer_images_per_s", "images/s", [one.per_s for one in rounds.peer]),
            Measured.of("ratio_to_peer", "times", ratios(rates["worker"], [one.per_s for one in rounds.peer])),
            Measured.of("ratio_to_peer_by_cpu", "times", ratios(peer_s, rounds.cpu_s("worker"))),
            Measured.of("peer_cpu", "ms/image", [one_s * 1000 for one_s in peer_s]),
        ]
    known = {"fetch": rounds.cached_stages["fetch"], "search": rounds.stages["search"]}
    figures += [
        Measured.of("cached_per_s", "uploads/s", rates["cached"]),
        Measured.of("recent_per_s", "uploads/s", rates["recent"]),
        Measured.of("overhead_ms_per_upload", "ms CPU", _overheads(rounds, "light", rounds.light_stages)),
        Measured.of("overhead_cached_ms_per_upload", "ms CPU", _overheads(rounds, "cached", known)),
    ]
    for lane, found in rounds.lanes.items():
        figures += _costs_of(lane, found)
    for name, took in rounds.stages.items():
        figures.append(Measured.of(f"stage_{name}", "ms CPU", [one.cpu_s * 1000 for one in took]))
    everybody = [one.took.others for found in rounds.lanes.values() for one in found]
    return [*figures, Measured.of("cores_used_by_others", "share", everybody)]


def _overheads(rounds: Rounds, lane: str, stages: Mapping[str, Sequence[Took]]) -> list[float]:
    return [
        overhead_ms(cpu_s, {name: took[number].cpu_s for name, took in stages.items() if name in IN_ROOFLINE})
        for number, cpu_s in enumerate(rounds.cpu_s(lane))
    ]


def _costs_of(lane: str, found: Sequence[Round]) -> list[Measured]:
    def per_upload(seconds: Sequence[float]) -> list[float]:
        return [one_s * 1000 / len(one.answers.made_s) for one_s, one in zip(seconds, found, strict=True)]

    return [
        Measured.of(f"{lane}_cpu", "ms/upload", per_upload([one.took.cpu_s for one in found])),
        Measured.of(f"{lane}_kafka_cpu", "ms/upload", per_upload([one.kafka_cpu_s for one in found])),
        Measured.of(f"{lane}_redis_cpu", "ms/upload", per_upload([one.redis_cpu_s for one in found])),
    ]


def _cached_from(found: Sequence[Round]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for one in found:
        for name, number in one.answers.cache.items():
            counted[name] = counted.get(name, 0) + number
    return counted
