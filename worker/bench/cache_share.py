"""
``touchstone bench cache``: what a share of known bytes among the uploads brings.

Known and new uploads are pictures of the same size, mixed evenly, so that nothing but the share differs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

from worker.adapters.kafka_platform import PublishedEvent
from worker.bench.cached import again_and_again, remember_all, write_contents
from worker.bench.corpus import KINDS, write_variants
from worker.bench.cpu_time import cores_here
from worker.bench.live import START_PATIENCE_S, Lane, Round
from worker.bench.machine import machine
from worker.bench.measurement import Measured, interleaved, ratios
from worker.bench.report import Report
from worker.bench.stand import opened_stand
from worker.bench.subjects import Subject
from worker.bench.uploads import file_events

Progress = Callable[[str, int, int], None]

_FROM_REDIS: Final = "flow.recent_embeddings=64"
"""Else a worker would know them by itself from the second round on, and no longer ask Redis for any."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """
    Shares of known bytes, 0 to below 1, of which the first is what the others are compared with.

    ``new_uploads`` new pictures are in each round, whatever the share: the rounds grow with it, as their time does not.
    """

    shares: tuple[float, ...]
    new_uploads: int
    references: int
    rounds: int

    def __post_init__(self) -> None:
        if not self.shares or not all(0 <= share < 1 for share in self.shares):
            raise ValueError(f"the shares are {self.shares}, expected shares from 0 to below 1")

    def uploads(self, share: float) -> int:
        """
        All uploads of one round.
        """
        return round(self.new_uploads / (1 - share))

    @property
    def most_new(self) -> int:
        """
        How many new pictures all rounds and the warm-up may take: of a share that comes to no whole number, one more.
        """
        return (self.rounds * len(self.shares) + 1) * (self.new_uploads + 1)


def run_cache_share(plan: CachePlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    All shares in turns through one worker. Raises as ``touchstone bench e2e`` does.
    """
    rounds = plan.rounds * len(plan.shares)
    stand_of = partial(opened_stand, "cache", [_FROM_REDIS, *sets], folder=folder, references=plan.references)
    with ExitStack() as stack:
        stand = stack.enter_context(stand_of())
        root, subject = stand.root, stand.subject
        new = iter([f"new/{name}" for name in write_variants(root / "new", plan.most_new, KINDS["1mp"])])
        contents = write_contents(root, max(plan.uploads(share) for share in plan.shares), KINDS["1mp"])
        remember_all(contents, subject, like=subject.inputs([contents[0].path]).sightings[0])
        known = again_and_again(contents)
        lane, command = stand.lane("worker")
        stack.enter_context(lane.running(command))
        lane.answered(mixed(new, known, plan.new_uploads, 0.0), patience_s=START_PATIENCE_S)
        contenders = {
            f"{share:g}": partial(_once, lane, new, known, plan.uploads(share), share) for share in plan.shares
        }
        done = count(1)
        found = interleaved(contenders, plan.rounds, on_done=lambda *_: progress("measured", next(done), rounds))
    return report_of(found, subject)


def mixed(new: Iterator[str], known: Iterator[str], uploads: int, share: float) -> list[PublishedEvent]:
    """
    So many uploads, of which this share is of known bytes, spread evenly over all.
    """
    paths = []
    for number in range(uploads):
        is_known = int((number + 1) * share) > int(number * share)
        paths.append(next(known if is_known else new))
    return file_events(f"mixed-{uuid4().hex[:8]}", paths)


def report_of(found: dict[str, list[Round]], subject: Subject) -> Report:
    """
    Rates by share, and each as a multiple of the first.
    """
    rates = {share: [one.per_s for one in rounds] for share, rounds in found.items()}
    first = next(iter(rates))
    figures: list[Measured] = []
    gains: dict[str, float] = {}
    for share, per_s in rates.items():
        gain = Measured.of(f"known {share}: rate over that at {first}", "times", ratios(per_s, rates[first]))
        cpu_ms = [one.cpu_s * 1000 for one in found[share]]
        figures += [
            Measured.of(f"known {share}: rate", "uploads/s", per_s),
            gain,
            Measured.of(f"known {share}: cpu", "ms/upload", cpu_ms),
        ]
        gains[share] = gain.median
    everybody = [one.took.others for rounds in found.values() for one in rounds]
    figures.append(Measured.of("cores_used_by_others", "share", everybody))
    summary = {
        "shares": [float(share) for share in rates],
        "images_per_s": {share: Measured.of("", "", per_s).median for share, per_s in rates.items()},
        "gain": gains,
        "found": {share: _found(rounds) for share, rounds in found.items()},
        "cores": cores_here(),
        **subject.told(),
    }
    notes = ["known and new pictures are of 1 MP alike; were known ones free, a share h would bring 1 / (1 - h)"]
    notes += subject.encoder.notes
    return Report("touchstone bench cache", summary, figures, machine(), notes)


def _found(rounds: Sequence[Round]) -> dict[str, int]:
    """
    How often the cache said what, over all rounds.
    """
    return dict(sum((Counter(one.answers.cache) for one in rounds), Counter[str]()))


def _once(lane: Lane, new: Iterator[str], known: Iterator[str], uploads: int, share: float) -> Round:
    return lane.answered(mixed(new, known, uploads, share))
