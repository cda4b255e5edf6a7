"""
``touchstone bench scaling``: one worker, then several in the same group, over few partitions and over many.

Each worker has a core to itself and one thread for encoding, so that a second worker brings a second core and nothing
else. As far as the cores of one machine allow: beyond, ``fleet.py`` computes on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Final
from uuid import uuid4

from worker.adapters.kafka_survey import survey_group
from worker.bench.corpus import KINDS, write_variants
from worker.bench.cpu_time import cores_here
from worker.bench.live import START_PATIENCE_S, Lane, Round
from worker.bench.machine import machine
from worker.bench.measurement import Measured, interleaved
from worker.bench.report import Report
from worker.bench.stand import Stand, opened_stand
from worker.bench.subjects import Subject
from worker.bench.uploads import file_events
from worker.errors import WorkerCrashed

Progress = Callable[[str, int, int], None]

WARM_UP: Final = 16
"""Uploads for each worker of a team before anything is counted."""

_ASK_EVERY_S: Final = 0.5
_ONE_CORE: Final = ("encoder.threads=1", "encoder.instances=1", "decode.threads=1")


@dataclass(frozen=True, slots=True, order=True)
class Team:
    """
    So many workers that share a group, over a topic of so many partitions.
    """

    workers: int
    partitions: int

    def __str__(self) -> str:
        named = f"{self.workers} worker" + "s" * (self.workers > 1)
        return f"{named}, {self.partitions} partition" + "s" * (self.partitions > 1)


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """
    Numbers of workers, each with each number of partitions per worker; a team is given ``uploads`` per worker a round.
    """

    workers: tuple[int, ...]
    partitions_per_worker: tuple[int, ...]
    uploads: int
    references: int
    rounds: int

    def __post_init__(self) -> None:
        for what, numbers in (("workers", self.workers), ("partitions per worker", self.partitions_per_worker)):
            if not numbers or min(numbers) < 1 or len(set(numbers)) != len(numbers):
                raise ValueError(f"{what} are {numbers}, expected different numbers, each at least 1")

    @property
    def teams(self) -> list[Team]:
        """
        All teams, the smallest first.
        """
        return sorted(Team(workers, workers * each) for workers in self.workers for each in self.partitions_per_worker)

    @property
    def most_new(self) -> int:
        """
        New pictures for the largest team; the others are given the same ones, in topics of their own.
        """
        return max(self.workers) * (self.rounds * self.uploads + WARM_UP)


def run_scaling(plan: ScalingPlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    All teams in turns. Raises ``CannotStart`` and its kinds, and ``WorkerCrashed`` as ``touchstone bench e2e`` does.
    """
    stand_of = partial(opened_stand, "scaling", [*_ONE_CORE, *sets], folder=folder, references=plan.references)
    with ExitStack() as stack:
        stand = stack.enter_context(stand_of())
        names = [f"new/{name}" for name in write_variants(stand.root / "new", plan.most_new, KINDS["1mp"])]
        lanes: dict[Team, Lane] = {}
        fresh = {team: iter(names) for team in plan.teams}
        # One team after the other: all at once they would start so slowly that their group loses patience.
        for number, team in enumerate(plan.teams):
            progress("teams ready", number, len(plan.teams))
            lanes[team] = _started(team, stand, stack)
            _until_complete(lanes[team], team.workers)
            paths = islice(fresh[team], WARM_UP * team.workers)
            lanes[team].answered(file_events(f"warm-{uuid4().hex[:8]}", paths), patience_s=START_PATIENCE_S)
        contenders = {
            str(team): partial(_once, lane, fresh[team], plan.uploads * team.workers) for team, lane in lanes.items()
        }
        done, all_turns = count(1), plan.rounds * len(contenders)
        found = interleaved(contenders, plan.rounds, on_done=lambda *_: progress("measured", next(done), all_turns))
    return report_of({team: found[str(team)] for team in plan.teams}, stand.subject)


def report_of(found: Mapping[Team, Sequence[Round]], subject: Subject) -> Report:
    """
    Rates by team, and each beside as many times what a single worker does at its best number of partitions.

    Round by round, so that what slowed down the machine is in both; of the smallest teams where none is of one worker.
    """
    base = _base(found)
    figures: list[Measured] = []
    teams: list[dict[str, object]] = []
    for team, rounds in sorted(found.items()):
        rates = [one.per_s for one in rounds]
        share = [per_s / (team.workers * best) for per_s, best in zip(rates, base, strict=True)]
        cpu_ms = [one.cpu_s * 1000 for one in rounds]
        own = [
            Measured.of(f"{team}: rate", "uploads/s", rates),
            Measured.of(f"{team}: share of linear", "1", share),
            Measured.of(f"{team}: cpu", "ms/upload", cpu_ms),
        ]
        figures += own
        teams.append(
            {
                "workers": team.workers,
                "partitions": team.partitions,
                "images_per_s": own[0].median,
                "share_of_linear": own[1].median,
                "cpu_ms_per_upload": own[2].median,
            }
        )
    others = [one.took.others for rounds in found.values() for one in rounds]
    figures.append(Measured.of("cores_used_by_others", "share", others))
    summary = {"teams": teams, "cores": cores_here(), **subject.told()}
    notes = [
        "each worker has one core to itself and one thread to encode with; Kafka and Redis have what these leave",
        "share of linear: of as many times what one of the fewest workers does at its best in the same round",
        f"{cores_here()} cores show no more than {cores_here()} workers: `touchstone bench simulate` goes on",
    ]
    notes += subject.encoder.notes
    return Report("touchstone bench scaling", summary, figures, machine(), notes)


def _base(found: Mapping[Team, Sequence[Round]]) -> list[float]:
    """
    What one worker of the smallest teams does in each round, the best of them: so that no share is flattered.
    """
    fewest = min(team.workers for team in found)
    each = [[one.per_s / fewest for one in rounds] for team, rounds in found.items() if team.workers == fewest]
    return [max(of_round) for of_round in zip(*each, strict=True)]


def _started(team: Team, stand: Stand, stack: ExitStack) -> Lane:
    """
    The lane of a team, begun and not waited for.
    """
    lane, command = stand.lane(f"team-{team.workers}-of-{team.partitions}", alone=False)
    return stack.enter_context(lane.running(command, partitions=team.partitions, copies=team.workers, pinned=True))


def _until_complete(lane: Lane, workers: int) -> None:
    """
    Wait until all workers of the team are members of its group, and none of them is being given partitions.
    """
    deadline_s = time.monotonic() + START_PATIENCE_S
    while True:
        lane.check()
        group = survey_group(lane.settings.kafka, timeout_s=10)
        if group.members == workers and group.state == "Stable":
            return
        if time.monotonic() > deadline_s:
            raise WorkerCrashed(
                f"{lane.name}: its group has {group.members} members and is {group.state} after {START_PATIENCE_S:.0f} "
                f"s, expected {workers} members and Stable"
            )
        time.sleep(_ASK_EVERY_S)


def _once(lane: Lane, paths: Iterator[str], uploads: int) -> Round:
    return lane.answered(file_events(f"round-{uuid4().hex[:8]}", islice(paths, uploads)))
