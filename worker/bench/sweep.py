"""
``touchstone bench sweep``: the whole worker on real servers by size of micro-batch and by size of image.

Each size of micro-batch is a worker of its own, all of them up at once; images of all sizes go through the one whose
size is configured. What encoding and decoding cost alone by these sizes is in ``encode.py`` and ``image_size.py``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Final
from uuid import uuid4

from worker.bench.corpus import KINDS, write_variants
from worker.bench.cpu_time import cores_here
from worker.bench.live import START_PATIENCE_S, Lane, Round
from worker.bench.machine import machine
from worker.bench.measurement import Measured, interleaved
from worker.bench.report import Report
from worker.bench.stand import Stand, opened_stand
from worker.bench.subjects import Subject
from worker.bench.uploads import file_events

Progress = Callable[[str, int, int], None]

OF_BATCHES: Final = "1mp"
"""The size of image with which sizes of micro-batch are compared."""

LEAST_UPLOADS: Final = 48
WARM_UP: Final = 32


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """
    One contender: micro-batches of so many, and images of the kind with this name.
    """

    batch_size: int
    kind: str

    def __str__(self) -> str:
        return f"batches of {self.batch_size}, {self.kind}"


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """
    Sizes of micro-batch, names of sizes of image, and ``uploads`` of one round at 1 MP and below.
    """

    batch_sizes: tuple[int, ...]
    kinds: tuple[str, ...]
    uploads: int
    references: int
    rounds: int

    def points(self, configured: int) -> list[Point]:
        """
        What is measured, where micro-batches of the ``configured`` size are those of all sizes of image.
        """
        batches = [Point(size, OF_BATCHES) for size in self.batch_sizes]
        images = [Point(configured, kind) for kind in self.kinds]
        return list(dict.fromkeys([*batches, *images]))

    def uploads_of(self, kind: str) -> int:
        """
        Uploads of one round: fewer of large images, which take longer.
        """
        return max(LEAST_UPLOADS, round(self.uploads / max(1.0, KINDS[kind].megapixels)))


def run_sweep(plan: SweepPlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    All sizes in turns. Raises ``CannotStart`` and its kinds, and ``WorkerCrashed`` as ``touchstone bench e2e`` does.
    """
    with ExitStack() as stack:
        stand = stack.enter_context(opened_stand("sweep", sets, folder=folder, references=plan.references))
        configured = stand.subject.settings.batch.size
        points = plan.points(configured)
        paths = {kind: _written(plan, kind, stand.root, progress) for kind in {point.kind for point in points}}
        lanes: dict[int, Lane] = {}
        warm = [f"warm/{name}" for name in write_variants(stand.root / "warm", WARM_UP, KINDS[OF_BATCHES])]
        sizes = sorted({point.batch_size for point in points})
        for number, size in enumerate(sizes):
            progress("workers ready", number, len(sizes))
            lanes[size] = _started(size, stand, stack)
            lanes[size].answered(file_events(f"warm-{uuid4().hex[:8]}", warm), patience_s=START_PATIENCE_S)
        # No lane knows what another was given: each has a Redis namespace of its own.
        contenders = {
            str(one): partial(_once, lanes[one.batch_size], iter(paths[one.kind]), plan.uploads_of(one.kind))
            for one in points
        }
        done, turns = count(1), plan.rounds * len(points)
        found = interleaved(contenders, plan.rounds, on_done=lambda *_: progress("measured", next(done), turns))
    return report_of({point: found[str(point)] for point in points}, plan, configured, stand.subject)


def report_of(found: Mapping[Point, Sequence[Round]], plan: SweepPlan, configured: int, subject: Subject) -> Report:
    """
    Rate and CPU time of each size.
    """
    figures = {point: _figures(point, rounds) for point, rounds in found.items()}
    others = [one.took.others for rounds in found.values() for one in rounds]
    summary = {
        "batch_sizes": [
            {"batch_size": size, **_told(figures[Point(size, OF_BATCHES)])} for size in sorted(plan.batch_sizes)
        ],
        "image_sizes": [
            {"image_size": kind, "megapixels": KINDS[kind].megapixels, **_told(figures[Point(configured, kind)])}
            for kind in sorted(plan.kinds, key=lambda kind: KINDS[kind].megapixels)
        ],
        "batch_size": configured,
        "cores": cores_here(),
        **subject.told(),
    }
    all_figures = [one for of_point in figures.values() for one in of_point]
    all_figures.append(Measured.of("cores_used_by_others", "share", others))
    compared = f"sizes of micro-batch with images of {OF_BATCHES}; sizes of image with micro-batches of {configured}"
    notes = [f"{compared}; every byte sequence is new to its worker", *subject.encoder.notes]
    return Report("touchstone bench sweep", summary, all_figures, machine(), notes)


def _figures(point: Point, rounds: Sequence[Round]) -> list[Measured]:
    cores = cores_here()
    return [
        Measured.of(f"{point}: rate", "uploads/s", [one.per_s for one in rounds]),
        Measured.of(f"{point}: cpu", "ms/upload", [one.cpu_s * 1000 for one in rounds]),
        Measured.of(f"{point}: cores idle", "share", [one.idle(cores) for one in rounds]),
    ]


def _told(figures: Sequence[Measured]) -> dict[str, float]:
    rate, cpu, idle = figures
    return {
        "images_per_s": rate.median,
        "lowest_per_s": rate.low,
        "highest_per_s": rate.high,
        "cpu_ms_per_upload": cpu.median,
        "cores_idle": idle.median,
    }


def _written(plan: SweepPlan, kind: str, root: Path, progress: Progress) -> list[str]:
    needed = plan.rounds * plan.uploads_of(kind)
    progress(f"images of {kind}", 0, needed)
    names = write_variants(root / kind, needed, KINDS[kind])
    progress(f"images of {kind}", needed, needed)
    return [f"{kind}/{name}" for name in names]


def _started(batch_size: int, stand: Stand, stack: ExitStack) -> Lane:
    lane, command = stand.lane(f"batches-{batch_size}", [f"batch.size={batch_size}"], alone=False)
    return stack.enter_context(lane.running(command))


def _once(lane: Lane, paths: Iterator[str], uploads: int) -> Round:
    return lane.answered(file_events(f"round-{uuid4().hex[:8]}", islice(paths, uploads)))
