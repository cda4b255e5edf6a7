"""
``touchstone bench scaling``: one worker, then several in the same group, as far as the cores of one machine allow.

Each worker has a core to itself and one thread for encoding, so that a second worker brings a second core and nothing
else. Beyond the machine, ``fleet.py`` computes on.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
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
from worker.bench.encoders import bench_encoder
from worker.bench.live import (
    START_PATIENCE_S,
    Lane,
    Round,
    Servers,
    bench_servers,
    lane_sets,
    settings_of,
    worker_command,
)
from worker.bench.machine import machine
from worker.bench.measurement import Measured, interleaved, ratios
from worker.bench.report import Report
from worker.bench.subjects import Subject, opened_subject
from worker.bench.uploads import file_events
from worker.errors import WorkerCrashed

Progress = Callable[[str, int, int], None]

WARM_UP: Final = 16
"""Uploads for each worker of a team before anything is counted."""

_ASK_EVERY_S: Final = 0.5
_ONE_CORE: Final = ("encoder.threads=1", "encoder.instances=1", "decode.threads=1")


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """
    Teams of so many workers each, all over so many partitions; each is given ``uploads`` per worker in a round.
    """

    teams: tuple[int, ...]
    partitions: int
    uploads: int
    references: int
    rounds: int

    def __post_init__(self) -> None:
        if not self.teams or min(self.teams) < 1 or len(set(self.teams)) != len(self.teams):
            raise ValueError(f"the teams are {self.teams}, expected different numbers of workers, each at least 1")
        if self.partitions < max(self.teams):
            raise ValueError(
                f"{self.partitions} partitions for {max(self.teams)} workers: some would have none; expected at least "
                "one partition for each worker"
            )


def run_scaling(plan: ScalingPlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    All teams in turns. Raises ``CannotStart`` and its kinds, and ``WorkerCrashed`` as ``touchstone bench e2e`` does.
    """
    root = folder / "pictures"
    root.mkdir(parents=True, exist_ok=True)
    most = max(plan.teams) * ((plan.rounds * plan.uploads) + WARM_UP)
    names = write_variants(root / "new", most, KINDS["1mp"])
    with ExitStack() as stack:
        servers = stack.enter_context(bench_servers(os.environ))
        subject = _subject(plan, [f'fetch.file_root="{root}"', *_ONE_CORE, *sets], servers, folder)
        stack.callback(subject.store.close)
        lanes: dict[int, Lane] = {}
        for team in plan.teams:
            lane, command = _team(team, subject, servers, folder)
            running = lane.running(command, partitions=plan.partitions, copies=team, pinned=True)
            lanes[team] = stack.enter_context(running)
        fresh = {team: iter([f"new/{name}" for name in names]) for team in plan.teams}
        for number, (team, lane) in enumerate(lanes.items()):
            progress("teams ready", number, len(lanes))
            _until_complete(lane, team)
            paths = islice(fresh[team], WARM_UP * team)
            lane.answered(file_events(f"warm-{uuid4().hex[:8]}", paths), patience_s=START_PATIENCE_S)
        contenders = {str(team): partial(_once, lane, fresh[team], plan.uploads * team) for team, lane in lanes.items()}
        done, all_turns = count(1), plan.rounds * len(contenders)
        found = interleaved(contenders, plan.rounds, on_done=lambda *_: progress("measured", next(done), all_turns))
    return report_of({int(name): rounds for name, rounds in found.items()}, plan, subject)


def report_of(found: dict[int, list[Round]], plan: ScalingPlan, subject: Subject) -> Report:
    """
    Rates by team, and each beside as many times what the smallest team's worker does.
    """
    rates = {team: [one.per_s for one in rounds] for team, rounds in found.items()}
    smallest = min(rates)
    figures: list[Measured] = []
    linear: dict[str, float] = {}
    for team, per_s in sorted(rates.items()):
        named = f"{team} worker" + "s" * (team > 1)
        share = [ratio * smallest / team for ratio in ratios(per_s, rates[smallest])]
        cpu_ms = [one.cpu_s * 1000 for one in found[team]]
        figures += [
            Measured.of(f"{named}: rate", "uploads/s", per_s),
            Measured.of(f"{named}: share of linear", "1", share),
            Measured.of(f"{named}: cpu", "ms/upload", cpu_ms),
        ]
        linear[str(team)] = figures[-2].median
    figures.append(
        Measured.of("cores_used_by_others", "share", [one.took.others for rounds in found.values() for one in rounds])
    )
    summary = {
        "workers": sorted(rates),
        "images_per_s": {str(team): Measured.of("", "", per_s).median for team, per_s in sorted(rates.items())},
        "share_of_linear": linear,
        "partitions": plan.partitions,
        "cores": cores_here(),
        **subject.told(),
    }
    notes = [
        "each worker has one core to itself and one thread to encode with; Kafka and Redis have what these leave",
        f"{cores_here()} cores show no more than {cores_here()} workers: `touchstone bench simulate` goes on",
    ]
    notes += subject.encoder.notes
    return Report("touchstone bench scaling", summary, figures, machine(), notes)


def _subject(plan: ScalingPlan, sets: Sequence[str], servers: Servers, folder: Path) -> Subject:
    named = lane_sets("subject", "scaling", servers, [f'encoder.export_dir="{folder / "exports"}"', *sets])
    encoder = bench_encoder(settings_of(named).encoder, folder / "encoders")
    return opened_subject(named, encoder, references=plan.references, folder=folder / "banks")


def _team(team: int, subject: Subject, servers: Servers, folder: Path) -> tuple[Lane, list[str]]:
    """
    The lane of so many workers, and the command line of each.
    """
    named = [*subject.sets, *lane_sets(uuid4().hex[:8], f"team-{team}", servers)]
    lane = Lane(f"team of {team}", settings_of(named), servers, log_file=folder / f"team-{team}.log")
    return lane, worker_command(named)


def _until_complete(lane: Lane, team: int) -> None:
    """
    Wait until all workers of the team are members of its group, and none of them is being given partitions.
    """
    deadline_s = time.monotonic() + START_PATIENCE_S
    while True:
        lane.check()
        group = survey_group(lane.settings.kafka, timeout_s=10)
        if group.members == team and group.state == "Stable":
            return
        if time.monotonic() > deadline_s:
            raise WorkerCrashed(
                f"{lane.name}: its group has {group.members} members and is {group.state} after {START_PATIENCE_S:.0f} "
                f"s, expected {team} members and Stable"
            )
        time.sleep(_ASK_EVERY_S)


def _once(lane: Lane, paths: Iterator[str], uploads: int) -> Round:
    return lane.answered(file_events(f"round-{uuid4().hex[:8]}", islice(paths, uploads)))
